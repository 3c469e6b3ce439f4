"""Random programs that make promises and lose, keep or handle them, and how Node judges each.

A program is the body of an async function. All that it throws or rejects with is `boom`, and it
never throws itself: whether it fails is whether a rejection is left that nobody has handled.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

# Functions that a program starts with: `good` ones resolve, `bad` ones reject, `late` ones later.
_HEAD: Final = """\
const tick = () => new Promise((done) => { setTimeout(done, 1) });
const own = (x) => x; const kept = [];
function go(f) { f(); } const pass = (f) => f(); const again = (f) => go(() => f());
async function settled(f) { try { await f(); } catch {} }
const later = (f) => async () => { await f() };
function* each(...fs) { for (const f of fs) yield f(); }
async function* stream(...fs) { for (const f of fs) yield f; }
const counted = (p) => ({ n: 0, [Symbol.asyncIterator]() { return this }, next() { this.n += 1; const q = p(); return this.n > 1 ? { done: true } : q.then(() => ({ value: 1, done: false })) } });
"""

_MAKERS: Final = (
    "async function {f}() {{ {body} }}",
    "const {f} = async () => {{ {body} }};",
    "let {f}; {f} = async function () {{ {body} }};",
    "const {f} = () => (async () => {{ {body} }})();",
    "function {f}() {{ const p = (async () => {{ {body} }})(); return p; }}",
    "function {f}() {{ return new Promise((yes, no) => {{ {settle} }}); }}",
    "const {f} = () => Promise.resolve().then(async () => {{ {body} }});",
    "const o{f} = {{ async m() {{ {body} }} }}; const {f} = o{f}.m;",
    "const {{ m: {f} }} = {{ async m() {{ {body} }} }};",
    "class C{f} {{ async m() {{ {body} }} }} const {f} = new C{f}().m;",
    "class C{f} {{ static async m() {{ {body} }} }} const {f} = C{f}.m;",
    "class C{f} {{ async #m() {{ {body} }} get f() {{ return this.#m }} }} const {f} = new C{f}().f;",
    "class C{f} {{ m = async () => {{ {body} }}; }} const {{ m: {f} }} = new C{f}();",
    "const make{f} = () => async () => {{ {body} }}; const {f} = make{f}();",
    "const [{f}] = [async () => {{ {body} }}];",
    "const {f} = new Map([[1, async () => {{ {body} }}]]).get(1);",
    "const [{f}] = Object.values({{ async m() {{ {body} }} }});",
    "const {f} = (({{ m = async () => {{ {body} }} }}) => m)({{}});",
    "const {f} = (async () => {{ {body} }}).bind(null);",
    "const get{f} = {{ get p() {{ return (async () => {{ {body} }})() }} }}; const {f} = () => get{f}.p;",
    "async function* g{f}() {{ {body} }} const {f} = () => g{f}().next();",
    "const {{ reject: r{f}, resolve: s{f} }} = Promise; const {f} = () => {static};",
    "const P{f} = Promise; const {f} = () => new P{f}((yes, no) => {{ {settle} }});",
    "class P{f} extends Promise {{}} const {f} = () => new P{f}((yes, no) => {{ {settle} }});",
    "const t{f} = Promise.prototype.then; const {f} = () => t{f}.call(Promise.resolve(), async () => {{ {body} }});",
)
_BODIES: Final = {
    "good": ("return 1;", "await tick(); return 1;", "try { throw boom } catch {}"),
    "bad": ("throw boom;", "await 1; throw boom;", "await tick(); throw boom;"),
}

# Values that are the function `f`, or do what it does.
_NAMES: Final = (
    "{f}", "{f}", "own({f})", "(1 ? {f} : 0)", "[{f}][0]", "[{f}].at(0)", "{{ {f} }}.{f}",
    "{{ m: {f} }}.m", "{{ m: {f} }}['m']", "(0, {f})", "({f} ?? 0)", "{f}.bind(null)", "later({f})",
    "(() => {f}())", "(() => {{ return {f}() }})", "(async () => {{ await {f}() }})",
    "(() => {{ const p = {f}(); return p }})", "((f = {f}) => f)()", "[...[{f}]].pop()",
)  # fmt: skip
# Calls of a function whose value is its promise.
_CALLS: Final = (
    "{v}()", "{v}()", "{v}.call(null)", "{v}.apply(null, [])", "Reflect.apply({v}, null, [])",
    "pass({v})", "{v}?.()", "[{v}].map((f) => f())[0]", "[1].map({v})[0]",
    "Promise.resolve().then({v})", "{v}().finally(() => {{}})", "Promise.all([{v}()])",
    "(async () => {{ return {v}() }})()", "(async () => {{ await {v}() }})()", "own({v}())",
    "[{v}()][0]", "{{ p: {v}() }}.p", "each({v}).next().value", "[...each({v})][0]",
    "stream({v}()).next()", "(() => {v}())()", "new Promise((yes) => yes({v}()))",
)  # fmt: skip
# What is done with the promise `p`, an expression; last those where nothing is left.
_USES: Final = (
    "{p};", "void {p};", "const {n} = {p};", "kept.push({p});", "const {n} = {{ p: {p} }};",
    "own({p});", "if ({p}) ;", "`${{{p}}}`;", "const {n} = [{p}];", "{p}.then(() => 1);",
    "(() => {p})();", "const {n} = () => {p}; {n}();", "go(async () => {p});", "for (const {n} of [{p}]) ;",
    "1 && {p};", "const {n} = 0 || {p};", "{p}.catch(() => {{ throw boom }});", "({p}).x;",
    "Promise.race([{p}, 1]);", "const {{ {n} = {p} }} = {{}};", "({p}, 1);", "switch ({p}) {{}}",
    "try {{ await {p} }} catch {{}}", "{p}.catch(() => {{}});", "{p}.then(null, () => {{}});",
    "const {n} = {p}; await 1; await {n}.catch(() => {{}});", "await Promise.allSettled([{p}]);",
    "const {n} = [{p}, {p}]; for (const p of {n}) try {{ await p }} catch {{}}",
    "const {n} = {p}; try {{ await tick(); await {n} }} catch {{}}", "await own({p}).catch(() => {{}});",
    "try {{ for await (const x of [{p}]) ; }} catch {{}}", "await settled(() => {p});",
    "try {{ for await (const x of new Set([{p}])) ; }} catch {{}}", "await (async () => {p})().catch(own);",
    "try {{ for await (const x of stream({p})) ; }} catch {{}}", "await own({p}).then(own, own);",
    "kept.push({p}); for (const p of kept) try {{ await p }} catch {{}}",
)  # fmt: skip
# What else calls a function `v`, and drops or keeps its promise, or looks at it.
_PASSES: Final = (
    "go({v});", "again({v});", "[1].forEach({v});", "[1].map({v});", "const {n} = [1, 2].filter({v});",
    "queueMicrotask({v});", "setTimeout({v}, 0);", "new Promise({v});", "[{v}].forEach((f) => f());",
    "for (const f of [{v}, {v}]) f();", "go(later({v}));", "Array.from([1], {v});",
    "for (const p of each({v})) ;", "const {n} = {v}; const q{n} = {n}();", "const {n} = [{v}]; {n}[0]();",
    "await settled({v});", "await settled(later({v}));", "await Promise.allSettled([{v}, {v}].map((f) => f()));",
    "try {{ for await (const x of each({v})) ; }} catch {{}}", "await pass({v}).catch(own);",
    "try {{ for await (const x of counted({v})) ; }} catch {{}}", "await Promise.all([1].map({v})).catch(own);",
    "for (const f of [{v}, {v}]) try {{ await f() }} catch {{}}",
    "try {{ await (async function* () {{ yield* each({v}) }})().next() }} catch {{}}",
)  # fmt: skip


def program(random: Random) -> str:
    """One that is not likely to have more than one rejection left."""
    makers = []
    names = {"good": list[str](), "bad": list[str]()}
    for number in range(random.randint(1, 4)):
        kind = random.choice(("good", "bad"))
        name = f"f{number}"
        names[kind].append(name)
        settle = random.choice(("{}", "setTimeout(() => {{ {} }}, 1)")).format(
            "yes(1)" if kind == "good" else "no(boom)"
        )
        static = f"{'s' if kind == 'good' else 'r'}{name}.call(Promise, boom)"
        makers.append(
            random.choice(_MAKERS).format(
                f=name, body=random.choice(_BODIES[kind]), settle=settle, static=static
            )
        )
    # Of those that leave nothing, more: half of all programs are to be good ones.
    uses = []
    for number in range(random.randint(1, 3)):
        name = random.choice(names[random.choice([kind for kind in names if names[kind]])])
        value = random.choice(_NAMES).format(f=name)
        if value.startswith("{"):
            value = f"({value})"
        if random.random() < 0.35:
            uses.append(random.choice(_PASSES).format(v=value, n=f"n{number}"))
            continue
        promise = random.choice(_CALLS).format(v=value)
        use = random.choice(_USES[-16:] if random.random() < 0.7 else _USES)
        uses.append(
            use.format(p=promise if not promise.startswith("{") else f"({promise})", n=f"n{number}")
        )
    return _HEAD + "\n".join([*makers, *uses, "await tick(); await tick(); await tick();"])


_JUDGE: Final = """
const programs = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const left = new Map();
process.on("unhandledRejection", (reason, promise) => { left.set(promise, reason); });
process.on("rejectionHandled", (promise) => { left.delete(promise); });
const AsyncFunction = (async () => {}).constructor;
const judged = programs.map(async (text, n) => {
  const boom = { n };
  try { await new AsyncFunction("boom", `"use strict";${text}`)(boom); } catch (error) { return String(error.stack ?? "main"); }
  return "";
});
Promise.all(judged).then((threw) => setTimeout(() => {
  const failed = new Set([...left.values()].map((reason) => reason?.n));
  console.log(JSON.stringify(threw.map((text, n) => text || (failed.has(n) ? "left" : ""))));
}, 50));
"""


def judged_by_node(programs: Sequence[str]) -> list[str]:
    """For each program "left" when a rejection is left, "" when none is, else what it threw."""
    done = subprocess.run(
        ["node", "--eval", _JUDGE],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found
