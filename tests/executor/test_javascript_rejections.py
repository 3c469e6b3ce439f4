"""A promise that is rejected and that nobody handles fails the run; nothing else changes by that."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from executor.engines.errors import ScriptRefused
from executor.engines.js import watching
from executor.engines.js.isolate import Isolate
from executor.engines.js.watching import WATCHED_CHARACTERS, Watcher
from executor.model import Outcome
from tests.executor.packing import engine, run, zipped
from tests.executor.running import activation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.executor.running import Pool

pytestmark = pytest.mark.usefixtures("v8")

GOOD = [Outcome.SUCCEEDED, "", [], []]
# Line 1 of what follows it; `fail` throws at column 30.
FAIL = "async function fail() { throw new Error('boom') }\n"
BOOM = "unhandled rejection: Error: boom (rule.js:1:31)"


def result(source: str | bytes, *given: bytes, file: str = "rule.js") -> list[Any]:
    """The one completion of a script, or that of the first run of several."""

    async def scene() -> list[Any]:
        made = engine()
        made.open("rule", source.encode() if isinstance(source, str) else source, file)
        return run(made, *given)[0]

    return asyncio.run(scene())


def shown(source: str) -> list[str]:
    outcome, message, logs, _ = result(source)
    assert (outcome, message) == (Outcome.SUCCEEDED, "")
    return [text for _, text in logs]


@pytest.mark.parametrize(
    "dropped",
    [
        pytest.param("fail();", id="a call"),
        pytest.param("void fail();", id="void, which hides it from linters"),
        pytest.param("const nothing = void fail();", id="void whose undefined is kept"),
        pytest.param("!fail();", id="an operator that makes a truth of it"),
        pytest.param("1 && fail();", id="and"),
        pytest.param("0 || fail();", id="or"),
        pytest.param("null ?? fail();", id="nullish"),
        pytest.param("1 ? fail() : 0;", id="a conditional"),
        pytest.param("0, fail();", id="the last of a sequence"),
        pytest.param("const kept = (fail(), 1);", id="the first of a sequence that is kept"),
        pytest.param("fail().then(() => 1);", id="then without a handler of rejections"),
        pytest.param("fail().finally(() => {});", id="finally"),
        pytest.param("Promise.all([fail()]);", id="Promise.all"),
        pytest.param("Promise.resolve().then(fail);", id="a rejection in then"),
        pytest.param("new Promise((_, reject) => { fail().catch(reject) });", id="new Promise"),
        pytest.param("const o = { fail }; o?.fail();", id="an optional chain"),
        pytest.param("fail``;", id="a template"),
        pytest.param("(async () => { await fail() })();", id="a function called where it stands"),
        pytest.param("async () => 1\n;(fail)();", id="behind an arrow function"),
        pytest.param("let a = 1\nfail()\na = 2", id="without semicolons"),
        pytest.param("for (fail(); false; ) ;", id="the first part of a for"),
        pytest.param("for (let i = 0; i < 1; i += 1, fail()) ;", id="the last part of a for"),
        pytest.param("if (1) fail(); else fail();", id="a branch without braces"),
        pytest.param("label: fail();", id="behind a label"),
        pytest.param("do fail(); while (false) fail()", id="the body of a do"),
        pytest.param("class A { static { fail(); } }", id="a static block of a class"),
        pytest.param("class A { field = (fail(), 1) } const a = new A();", id="a field of a class"),
        pytest.param("const [x] = [...(function* () { fail(); yield 1 })()];", id="a generator"),
        pytest.param("[1].forEach(async (x) => { await fail() });", id="an async callback of forEach"),
        pytest.param("[1].forEach(() => fail());", id="a short callback of forEach"),
        pytest.param("[1].forEach(fail);", id="a named callback of forEach"),
        pytest.param("new Set([1]).forEach(async function () { await fail() });", id="forEach of a Set"),
        pytest.param("const t = new EventTarget(); t.addEventListener('x', async () => { await fail() }); t.dispatchEvent(new Event('x'));", id="an async listener"),
        pytest.param("queueMicrotask(fail);", id="a microtask"),
        pytest.param("setTimeout(fail); await new Promise((done) => { setTimeout(done, 5) });", id="a timer"),
        pytest.param("const i = setInterval(() => { clearInterval(i); return fail() }, 1); await new Promise((done) => setTimeout(done, 5));", id="an interval"),
        pytest.param("const p = fail(); const f = () => p; f();", id="a kept one that is dropped too"),
        pytest.param("fail(); await new Promise(() => {});", id="beside a promise that never settles"),
        pytest.param("class P extends Promise {} P.reject(await fail().catch((error) => error));", id="of a class of promises"),
        pytest.param("const p = fail();", id="kept in a variable"),
        pytest.param("let p; p = fail();", id="kept by an assignment"),
        pytest.param("const o = {}; o.p = fail();", id="kept in a property"),
        pytest.param("const o = { p: fail() };", id="kept in an object"),
        pytest.param("const list = [fail(), 1];", id="kept in an array"),
        pytest.param("const list = []; list.push(fail());", id="given to a method that keeps it"),
        pytest.param("if (fail()) ;", id="tested"),
        pytest.param("const text = `${fail()}`;", id="put into a text"),
        pytest.param("const p = 1 && fail();", id="kept behind an and"),
        pytest.param("const p = 0 ? 1 : fail();", id="kept from a branch"),
        pytest.param("const p = fail().then(() => 1);", id="kept behind then"),
        pytest.param("const p = fail(); p.finally(() => {}); ", id="kept and only waited for"),
        pytest.param("const p = new Promise((_, no) => { fail().catch(no) });", id="a kept new Promise"),
        pytest.param("const p = Promise.all([fail()]);", id="a kept Promise.all"),
        pytest.param("const p = (async () => { await fail() })();", id="kept from a function where it stands"),
        pytest.param("const o = { fail }; const p = o?.fail();", id="kept from an optional chain"),
        pytest.param("const save = () => fail(); const p = save();", id="kept from a function that passes it on"),
        pytest.param("function save() { if (1) return fail(); } const p = save();", id="kept from a function with return"),
        pytest.param("class A { async save() { await fail() } } const p = new A().save();", id="kept from a method"),
        pytest.param("class A { #save = async () => { await fail() }; go() { this.p = this.#save(); } } new A().go();", id="kept from a private field"),
        pytest.param("const by = { async save() { await fail() } }; const p = by['sa' + 've']();", id="kept from a method with a computed name"),
        pytest.param("[1].map(async () => { await fail() });", id="an async callback of map"),
        pytest.param("const list = [1].map(async () => { await fail() });", id="an async callback of map that is kept"),
        pytest.param("const list = [1].map((x) => fail(x));", id="a short callback of map"),
        pytest.param("const list = [1].map((x) => { return fail(x) });", id="a callback of map with return"),
        pytest.param("const list = [1].map(fail);", id="a named callback of map"),
        pytest.param("const list = [1].filter(async () => { await fail() });", id="an async callback of filter"),
        pytest.param("await new Promise(async (done) => { done(); await fail() });", id="an async function given to new Promise"),
        pytest.param("const later = (f) => { f(); }; later(async () => { await fail() });", id="an async callback of the script's own"),
        pytest.param("const p = fail(); await new Promise((done) => setTimeout(done, 5)); if (!p) await p;", id="kept and awaited on another way"),
        pytest.param("const f = fail; const p = f();", id="kept from a function under another name"),
        pytest.param("const go = (f) => { const p = f(); }; go(fail);", id="kept from a parameter"),
        pytest.param("const go = (f) => f(); const p = go(fail);", id="kept from a function that calls its parameter"),
        pytest.param("const o = { async save() { await fail() } }; const { save: f } = o; const p = f();", id="kept from a method that was taken out"),
        pytest.param("const [f] = [fail]; const p = f();", id="kept from an item"),
        pytest.param("const make = () => async () => { await fail() }; const f = make(); const p = f();", id="kept from a function that was made"),
        pytest.param("const f = fail.bind(null); const p = f();", id="kept from a bound function"),
        pytest.param("const [f] = Object.values({ async save() { await fail() } }); const p = f();", id="kept from a listed method"),
        pytest.param("const { reject } = Promise; const p = reject.call(Promise, await fail().catch((error) => error));", id="kept from a method of Promise that was taken out"),
        pytest.param("const P = Promise; const p = new P((_, no) => { fail().catch(no) });", id="kept from Promise under another name"),
        pytest.param("const f = (0, fail); [1].filter(f);", id="given to filter under another name"),
        pytest.param("const go = (f) => new Promise(f); go(fail);", id="given to new Promise under another name"),
        pytest.param("const t = new EventTarget(); t.addEventListener('x', fail); t.dispatchEvent(new Event('x'));", id="a named listener"),
        pytest.param("const o = { get p() { return fail() } }; const { p } = o;", id="kept from a getter"),
        pytest.param("function* g() { yield fail() } for (const p of g()) ;", id="yielded by a generator that nobody awaits"),
        pytest.param("async function* g() { await fail() } const p = g().next();", id="kept from an async generator"),
        pytest.param("for await (const p of [1, fail()]) break;", id="behind the end of for await"),
        pytest.param("fail().x;", id="asked for what it does not have"),
        pytest.param("const p = fail``;", id="kept from a template"),
    ],
)  # fmt: skip
def test_a_promise_that_is_dropped_or_forgotten_and_rejected_fails_the_run(dropped: str) -> None:
    source = f"{FAIL}async function main() {{\n{dropped}\n}}"
    assert result(source) == [Outcome.FAILED, BOOM, [], []]


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param("fail().catch(() => {});", id="catch"),
        pytest.param("fail().then(null, () => {});", id="then with two handlers"),
        pytest.param("Promise.allSettled([fail()]);", id="allSettled"),
        pytest.param("try { await fail() } catch {}", id="awaited"),
        pytest.param("const p = fail(); const f = () => p; f(); try { await f() } catch {}", id="started early, awaited later"),
        pytest.param("const p = fail(); const f = () => p; f(); try { await (0, p) } catch {}", id="awaited in a sequence"),
        pytest.param("const p = fail(); const f = () => p; f(); await 1; p.catch(() => {});", id="handled late"),
        pytest.param("const p = fail(); const f = () => p; f(); await Promise.race([p]).catch(() => {});", id="handled by Promise.race"),
        pytest.param("const p = fail(); const f = () => p; f(); const g = async () => p; await g().catch(() => {});", id="returned by an async function"),
        pytest.param("const p = fail(); const f = () => p; f(); async function* g() { yield p } try { for await (const x of g()) ; } catch {}", id="yielded by an async generator"),
        pytest.param("const all = { forEach(f) { this.p = f() } }; all.forEach(async () => { await fail() }); try { await all.p } catch {}", id="a forEach that keeps what its callback gives"),
        pytest.param("class P extends Promise { constructor(f) { super(f); } } try { await new P((_, no) => no(1)) } catch {}", id="super in a class of promises"),
        pytest.param("new Promise(() => {});", id="one that stays pending"),
        pytest.param("({ then(yes, no) { no(new Error('boom')) } }).x;", id="a thenable that nobody calls"),
        pytest.param("const p = fail(); try { await p } catch {}", id="kept and awaited"),
        pytest.param("const list = [fail(), fail()]; await Promise.allSettled(list);", id="kept in an array and settled"),
        pytest.param("const list = [1].map(async () => { await fail() }); await Promise.all(list).catch(() => {});", id="a kept map, and all of it handled"),
        pytest.param("await Promise.all([1].map(async () => { await fail() })).catch(() => {});", id="a map in Promise.all"),
        pytest.param("const list = []; list.push(fail()); for (const p of list) { try { await p } catch {} }", id="awaited one after the other"),
        pytest.param("try { for await (const x of [fail()]) ; } catch {}", id="for await over an array"),
        pytest.param("const all = new Set([fail()]); try { for await (const x of all) ; } catch {}", id="for await over a set"),
        pytest.param("function* g() { yield fail() } try { for await (const x of g()) ; } catch {}", id="for await over a generator"),
        pytest.param("async function* g() { yield* [fail()] } try { for await (const x of g()) ; } catch {}", id="yielded one by one by an async generator"),
        pytest.param("try { await Array.fromAsync([fail()]) } catch {}", id="Array.fromAsync"),
        pytest.param("try { for await (const x of (1, [fail()])) ; } catch {}", id="for await over the last of a sequence"),
        pytest.param("const o = { p: fail() }; const { p } = o; await p.catch(() => {});", id="kept in an object, handled by another name"),
        pytest.param("const late = new Promise((_, no) => { setTimeout(no, 5) }); await Promise.race([late, 1]); await new Promise((done) => setTimeout(done, 9));", id="the loser of a race"),
        pytest.param("const p = fail(); const q = (async () => p)(); await q.catch(() => {});", id="kept, and returned by an async function"),
        pytest.param("const p = fail(); const q = new Promise((yes) => yes(p)); await q.catch(() => {});", id="kept, and what another is resolved with"),
        pytest.param("const save = () => fail(); await save().catch(() => {});", id="passed on and handled"),
        pytest.param("const { promise, reject } = Promise.withResolvers(); reject(1); try { await promise } catch {}", id="one that is settled by hand"),
        pytest.param("const f = fail; try { await f() } catch {}", id="under another name and awaited"),
        pytest.param("const it = { [Symbol.asyncIterator]() { return this }, next() { const p = fail(); return p } }; try { for await (const x of it) ; } catch {}", id="for await over an iterator of the script's own"),
        pytest.param("const t = new EventTarget(); t.addEventListener('x', fail); t.removeEventListener('x', fail); t.dispatchEvent(new Event('x'));", id="a named listener that was removed"),
        pytest.param("const all = { map(f) { this.p = f() } }; all.map(async () => { await fail() }); try { await all.p } catch {}", id="a map that keeps what its callback gives"),
    ],
)  # fmt: skip
def test_a_promise_that_is_handled_fails_nothing(kept: str) -> None:
    assert result(f"{FAIL}async function main() {{\n{kept}\n}}") == GOOD


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        pytest.param("  Promise.reject(5);", "rejected with 5 (rule.js:2:3)", id="a number"),
        pytest.param(" Promise.reject('x');", 'rejected with "x" (rule.js:2:2)', id="a string"),
        pytest.param("1; Promise.reject();", "rejected with undefined (rule.js:2:4)", id="nothing"),
        pytest.param("Promise.reject({});", "rejected with an object that is not an Error (rule.js:2:1)", id="an object"),
        pytest.param("Promise.reject(new Proxy({}, { get() { throw 1 } }));", "rejected with something that cannot be described (rule.js:2:1)", id="a trap"),
        pytest.param("g(); g(); Promise.resolve(g(g())).then(() => null.x); function g() {}", "TypeError: Cannot read properties of null (reading 'x') (rule.js:2:51)", id="behind others in its line"),
        pytest.param("queueMicrotask(() => Promise.reject(1));", "rejected with 1 (rule.js:2:22)", id="from a callback of the host"),
    ],
)  # fmt: skip
def test_the_message_says_what_it_was_and_where(statement: str, message: str) -> None:
    source = f"async function main() {{\n{statement}\n}}"
    assert result(source) == [Outcome.FAILED, f"unhandled rejection: {message}", [], []]


def test_the_place_is_that_of_the_source_map() -> None:
    files = {
        "main.js": "import { save } from './save.js';\n\nexport async function main() {\n  save(1); save();\n}",
        "save.js": "export async function save(x) {\n  if (!x) throw new Error('nothing to save');\n}",
    }
    told = result(
        zipped({"scriptops.json": json.dumps({"entry": "main.js"})} | files), file="rule/1.zip"
    )
    assert told[:2] == [
        Outcome.FAILED,
        "unhandled rejection: Error: nothing to save (rule/1.zip/save.js:2:17)",
    ]


def test_what_was_committed_is_dropped_and_what_was_printed_stays() -> None:
    alias = "target-device-name"
    source = f"""{FAIL}async function main() {{
        Device.setDeviceStatus("{alias}", "on", true);
        await Device.commitDevice("{alias}");
        console.log("saving");
        fail();
    }}"""
    assert result(source) == [Outcome.FAILED, BOOM, [[2, "saving"]], []]


def test_a_worker_in_its_sandbox_sees_it_too(runner: asyncio.Runner, pool: Pool) -> None:
    source = f"{FAIL}async function main() {{ fail() }}".encode()
    [done] = runner.run(pool.run(source, activation()))
    assert (done.outcome, done.message) == (Outcome.FAILED, BOOM.replace("rule.js", "rule/1.0.js"))


def test_what_main_throws_comes_first() -> None:
    outcome, message, _, _ = result(
        f"{FAIL}async function main() {{ fail(); await 1; throw new Error('main') }}"
    )
    assert (outcome, message) == (Outcome.FAILED, "Error: main (rule.js:2:48)")


def test_only_the_run_that_dropped_it_has_failed() -> None:
    source = f"{FAIL}async function main(bad) {{ if (bad) fail(); await 1; }}"

    async def scene() -> list[Any]:
        made = engine()
        made.open("rule", source.encode(), "rule.js")
        return run(made, *(activation(event=bad) for bad in (False, True, False)))

    assert asyncio.run(scene()) == [GOOD, [Outcome.FAILED, BOOM, [], []], GOOD]


def test_a_run_that_waits_for_a_reply_is_judged_when_it_has_it() -> None:
    source = f"{FAIL}async function main() {{ fail(); await fetch('http://a/') }}"
    assert result(source)[0] == Outcome.WAITING


# What follows: a script cannot see that it is watched.


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        pytest.param("function g() { f(); void f(); [1].forEach(async (x) => { await (1, f()) }); }\nconsole.log(g);console.log(String(g) + g.toString());", ["[Function]", "function g() { f(); void f(); [1].forEach(async (x) => { await (1, f()) }); }" * 2], id="the text of a function"),
        pytest.param("const seen = []; ({ forEach(...given) { seen.push(...given) } }).forEach(async (a, b = 1) => {}); const [g] = seen; console.log(g.name === '', g.length, Object.hasOwn(g, 'prototype'), g instanceof (async () => {}).constructor, String(g), seen.length);", ["true 1 false true async (a, b = 1) => {} 1"], id="a callback"),
        pytest.param("console.log(arguments.length, main.length, Object.keys(globalThis).filter((name) => name.includes('ops')).length); f();", ["1 0 0"], id="arguments and globals"),
        pytest.param("const { then } = Promise.prototype; console.log(then.name, then.length, String(then), Object.keys(Promise.prototype).length, 'prototype' in then); f();", ["then 2 function then() { [native code] } 0 false"], id="then"),
        pytest.param("const { toString } = Function.prototype; console.log(toString.name, toString.length, String(toString), Object.keys(Function.prototype).length); f();", ["toString 0 function toString() { [native code] } 0"], id="toString"),
        pytest.param("let made = 0; class P extends Promise { constructor(f) { super(f); made += 1 } } const p = P.resolve(1); const g = () => p; g(); console.log(made, Object.hasOwn(p, 'constructor'));", ["1 false"], id="a class of promises is not made anew"),
        pytest.param("const p = Promise.resolve(1); Object.defineProperty(p, 'constructor', { get() { console.log('seen'); return Promise } }); const g = () => p; g(); console.log(1);", ["1"], id="an accessor of constructor"),
        pytest.param("const p = Object.create(Promise.prototype); const g = () => p; g(); console.log(Reflect.ownKeys(p).length);", ["0"], id="what only looks like a promise"),
        pytest.param("const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); const g = () => proxy; g(); console.log(1);", ["1"], id="a revoked proxy"),
        pytest.param("class P extends Promise {} const p = Object.freeze(P.resolve(1)); const g = () => p; g(); console.log(1);", ["1"], id="a frozen promise"),
        pytest.param("const g = new Proxy(() => f(), { getOwnPropertyDescriptor() { throw 1 } }); [1].forEach(g); console.log(1);", ["1"], id="a proxy as callback"),
        pytest.param("const log = []; const t = (x) => log.push(x); Promise.resolve().then(() => t(1)).then(() => t(3)).then(() => t(5)); Promise.resolve().then(() => t(2)).then(() => t(4)).then(() => t(6)); await f(); await f(); await f(); await f(); console.log(log);", ["[1,2,3,4,5,6]"], id="the order of microtasks"),
        pytest.param("const o = { a: { b: 1 } }; delete o?.a?.b; typeof nowhere; delete o.a; console.log(o);", ["{}"], id="delete and typeof"),
        pytest.param("let o; o?.a.b.c(); console.log(1);", ["1"], id="a chain that ends early"),
        pytest.param("const x = { async *g() { const y = yield 1; console.log(y) } }; const g = x.g(); await g.next(); await g.next(2);", ["2"], id="a generator"),
        pytest.param("function g() { 'use strict'; return this } console.log(g() === undefined); f();", ["true"], id="a directive"),
        pytest.param("class A { constructor() { this.a = 1 } } class B extends A { constructor() { super(); new.target; } } console.log(new B());", ['{"a":1}'], id="super"),
        pytest.param("const a = 1\n/* c */ f() // d\nf()\nconst b = `${f()}`\nconsole.log(a)", ["1"], id="comments and lines"),
        pytest.param("const seen = []; for (const k of ['x', 'y']) { (seen.push(k), f()) } console.log(seen.join());", ["x,y"], id="a loop"),
        pytest.param("const s = new Error().stack.split('\\n').length; console.log(s > 1); f();", ["true"], id="a stack"),
        pytest.param("const o = null; const p = o?.f().x.f(); const q = o?.f(o.f()); console.log(p, q);", ["undefined undefined"], id="a kept chain that ends early"),
        pytest.param("const a = { async f() { return this === a } }; const p = a.f(); console.log(await p, await a['f'](), await a?.f());", ["true true true"], id="a kept call has its this"),
        pytest.param("class A { async f() { return 1 } } class B extends A { async f() { const p = super.f(); return await p } } console.log(await new B().f());", ["1"], id="a kept call of super"),
        pytest.param("const p = (f)(), q = (0, f)(), r = new (Promise)((yes) => yes(1)); console.log(await p, await q, await r);", ["undefined undefined 1"], id="parentheses"),
        pytest.param("const it = { async *[Symbol.asyncIterator]() { yield* [1, 2] } }; const r = []; for await (const x of it) { r.push(x); if (x === 2) break } for await (const x of new Map([[1, 2]]).values()) r.push(x); for await (const x of 'ab') r.push(x); console.log(r.join());", ["1,2,2,a,b"], id="for await over iterators"),
        pytest.param("const log = []; const it = { [Symbol.iterator]() { return { next(...v) { log.push('next' + v.length); return { done: false, value: 1 } }, return() { log.push('return'); return {} } } } }; for await (const x of it) break; console.log(log.join());", ["next0,return"], id="for await that ends early"),
        pytest.param("async function* g() { try { yield* (function* () { try { const x = yield 1; console.log(x) } catch (error) { console.log('thrown', error); yield 3 } })() } finally { console.log('end') } } const i = g(); await i.next(); console.log((await i.throw(7)).value); await i.return();", ["thrown 7", "3", "end"], id="a generator that another goes on"),
        pytest.param("const h = async () => 1; const own = (g) => g; console.log(own(h) === h, [h].includes(h));", ["true true"], id="a function that is given and given back"),
    ],
)  # fmt: skip
def test_nothing_shows_that_a_script_is_watched(body: str, lines: Sequence[str]) -> None:
    source = f"async function f() {{}}\nasync function main() {{ await 1; f();\n{body}\n}}"
    assert shown(source) == list(lines)


@pytest.mark.parametrize("escaped", ["$ops_d", "\\u0024ops_d", "\\u{24}ops_d"])
def test_a_script_that_says_our_name_is_not_watched_and_finds_nothing(escaped: str) -> None:
    source = f"{FAIL}async function main() {{ fail(); console.log(typeof {escaped}) }}"
    assert shown(source) == ["undefined"]


def test_a_place_in_a_watched_line_is_the_authors() -> None:
    source = (
        f"{FAIL}async function main() {{ Promise.resolve(); await 1; Promise.resolve(); null.x }}"
    )
    assert result(source)[1] == (
        "TypeError: Cannot read properties of null (reading 'x') (rule.js:2:77)"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "nope();", "o.n.x();", "o.x();", "o.f(o.n.y);", "new o.f();", "o.g();", "id(o.g());", "o.n`x`;",
        "a, nope();", "void nope();", "o.n.x?.y.z.q();", "await o.n.x();", "await id(o.g());", "id(...5);",
        "id(1), id(2), o.g(), id(3);", "[1].forEach((x) => nope(x));", "for (nope();;) ;", "1n + id(1);",
        "(() => { throw new Error('q') })();", "new (class { #p = o.n.x; })();", "JSON.parse('{');",
        "await Promise.all([id(1), Promise.reject(new Error('r'))]);", "const {x} = await id(null);",
    ],
)  # fmt: skip
def test_a_watched_script_fails_where_the_authors_does(statement: str) -> None:
    source = f"""const o = {{ n: null, f() {{}}, g() {{ throw new Error('g') }} }}; const id = (x) => x;
      async function main() {{ id(1); await 1; id(2);\n {statement} }}"""

    async def scene() -> list[list[Any]]:
        loop = asyncio.get_running_loop()
        found = []
        for text, watch in (watched_by(Watcher(loop), source), (source, "")):
            isolate = Isolate(loop)
            isolate.compile(text, "rule.js", watched=watch)
            head = '"writes":1,"output":1000,"fetches":0,"state":2,"count":1'
            batch = f'{{{head},"activations":[{activation().decode()}]}}'
            found.append(json.loads(isolate.run(batch)))
            isolate.close()
        return found

    changed, written = asyncio.run(scene())
    assert written[0][0] == Outcome.FAILED
    assert changed == written


def watched_by(watcher: Watcher, source: str) -> tuple[str, str]:
    text, watch = watcher.watched(source)
    watcher.close()
    assert watch
    return text, watch


def test_a_syntax_error_is_told_as_ever() -> None:
    with pytest.raises(ScriptRefused) as refused:
        result("async function main() { f();\n  f( }")
    assert str(refused.value) == "SyntaxError: Unexpected token '}' (rule.js:2:6)"


# And what is watched at all.


def watched(source: str) -> tuple[str, str]:
    async def scene() -> tuple[str, str]:
        return Watcher(asyncio.get_running_loop()).watched(source)

    return asyncio.run(scene())


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("function main() { f(); g() }", id="no word of promises"),
        pytest.param("async function main() { await f() }", id="nothing dropped"),
        pytest.param("async function main() { const x = g(Math.max(1, 2)); const y = o.h(x)[0]; await f(y) }", id="kept values that no promise is known of"),
        pytest.param("async function main() { const [a, b] = await Promise.all([fetch('a'), fetch('b')]); const t = await a.text(); const u = (await b.json()).x }", id="promises that are awaited where they stand"),
        pytest.param("const save = () => fetch('a'); async function main() { await save(); return save() }", id="promises that are passed on"),
        pytest.param("async function main() { console.log(1); Device.setDeviceStatus('a', 'b', 1); await Device.commitDevice('a') }", id="only what the host answers at once"),
        pytest.param("async function main() { f( }", id="no script"),
        pytest.param("export async function main() { f() }", id="a module, before it is linked"),
        pytest.param("async function main() { f() }\n//" + "x" * WATCHED_CHARACTERS, id="too long"),
    ],
)  # fmt: skip
def test_what_drops_no_promise_runs_as_it_was_written(source: str) -> None:
    assert watched(source) == (source, "")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        pytest.param("const Device = f; async () => {}; Device.setDeviceStatus()", "const Device = f; async () => {}; $ops_d(Device.setDeviceStatus(),0,$ops_d)", id="another Device"),
        pytest.param("async () => { f(); await g() }", "async () => { $ops_d(f(),0,$ops_d); await $ops_a(g(),$ops_a) }", id="a call and an await"),
        pytest.param("async () => { setTimeout.x; await g() }", "async () => { setTimeout.x; await $ops_a(g(),$ops_a) }", id="timers"),
        pytest.param("async function f() {} const p = f(g(), f())", "async function f() {} const p = $ops_d(f(g(), $ops_d(f(),1,$ops_d)),0,$ops_d)", id="kept calls"),
        pytest.param("f(async () => {}); g(async () => {}).then(async () => {})", "$ops_d(f($ops_c(async () => {},$ops_c)),0,$ops_d); $ops_d(g($ops_c(async () => {},$ops_c)).then(async () => {}),2,$ops_d)", id="callbacks"),
        pytest.param("x.map(async () => {}); const p = x?.map(async () => {}), q = Promise.all(x.map(async () => {}))", "$ops_m(x.map(async () => {}),0,$ops_m); const p = x?.map($ops_c(async () => {},$ops_c)), q = $ops_d(Promise.all(x.map(async () => {})),2,$ops_d)", id="maps"),
        pytest.param("async () => { f(); for await (const x of y) ; }", "async () => { $ops_d(f(),0,$ops_d); for await (const x of $ops_i(y,$ops_i)) ; }", id="for await"),
        pytest.param("async function f() {} const g = f, n = h(1), o = g(x.trim()); function h() { return(0, k)() }", "async function f() {} const g = f, n = h(1), o = $ops_d(g(x.trim()),0,$ops_d); function h() { return/*$ops_*/$ops_d((0, k)(),1,$ops_d) }", id="a function under another name"),
        pytest.param("async () => { await (f(), g()) }", "async () => { await ($ops_s(($ops_d(f(),1,$ops_d), g()),$ops_s)) }", id="a sequence"),
    ],
)  # fmt: skip
def test_what_is_put_into_a_script(source: str, text: str) -> None:
    assert watched(source)[0] == text


PUT_IN = re.compile(
    r"(?:/\*\$ops_\*/)?\$ops_(?:[acdim]\(|s\(\()|,\$ops_[aci]\)|\),\$ops_s\)|,\d+,\$ops_[dm]\)"
)


@pytest.mark.parametrize("name", ["linker/trace.js", "web/web.js", "web/src/body.js", "time.js"])
def test_what_is_put_into_a_big_script_can_be_taken_out_of_it(name: str) -> None:
    source = "// async\n" + (Path(watching.__file__).parent / name).read_text("utf-8")
    text, watch = watched(source)
    assert (PUT_IN.sub("", text), bool(watch)) == (source, not name.startswith("web/src"))


def test_lines_stay_where_they_are() -> None:
    source = "async () => {\r\nf()\n\u2028g();\u2029 h() }\r"
    ends = re.compile("\r\n|[\n\r\u2028\u2029]")
    assert [len(ends.split(text)) for text in (source, watched(source)[0])] == [6, 6]
