"""Code as people write it keeps working on hardened intrinsics."""

from __future__ import annotations

import asyncio

import pytest

from executor.model import Outcome
from tests.executor.running import Script

pytestmark = pytest.mark.usefixtures("v8")

SCRIPTS = [
    pytest.param("""
        class NotFound extends Error {
          constructor(message) { super(message); this.name = "NotFound"; this.message += "!"; }
          toString() { return `${this.name}/${this.message}`; }
        }
        function main() {
          const e = new NotFound("x");
          console.log(String(e), e instanceof NotFound, e instanceof Error, e.stack.includes("rule.js:7:"));
        }""", "NotFound/x! true true true", id="an Error subclass that sets its name"),
    pytest.param("""
        function Point(x) { this.x = x; }
        Point.prototype.toString = function () { return `P${this.x}`; };
        Point.prototype.constructor = Point;
        Point.prototype.valueOf = function () { return this.x; };
        function main() { const p = new Point(2); console.log(`${p}`, p + 1, p.constructor === Point); }""",
        "P2 3 true", id="prototypes assigned to, as before classes"),
    pytest.param("""
        function Old(message) { this.message = message; this.name = "Old"; }
        Old.prototype = Object.create(Error.prototype);
        Old.prototype.constructor = Old;
        function main() { const e = new Old("m"); console.log(e.name, e.message, e instanceof Error, e.constructor === Old); }""",
        "Old m true true", id="an Error made by hand"),
    pytest.param("""
        function main() {
          const o = {};
          o.toString = () => "mine"; o.hasOwnProperty = 1; o.constructor = 2; o.valueOf = () => 3;
          console.log(`${o}`, o.hasOwnProperty, o.constructor, Object.keys(o).length, {}.toString());
        }""", "mine 1 2 4 [object Object]", id="names of Object.prototype as keys"),
    pytest.param("""
        const counter = (() => { let n = 0; return { next: () => ++n }; })();
        async function main() {
          const results = await Promise.all([1, 2, 3].map(async (n) => { await null; return n * counter.next(); }));
          const settled = await Promise.allSettled([Promise.reject(new Error("no")), 1]);
          console.log(results, settled.map((s) => s.status));
        }""", '[1,4,9] ["rejected","fulfilled"]', id="async and Promise combinators"),
    pytest.param("""
        class Base { #secret = 1; static made = 0; constructor() { Base.made++; } get secret() { return this.#secret; } }
        class Derived extends Base { get secret() { return super.secret + 1; } *[Symbol.iterator]() { yield* [this.secret, Base.made]; } }
        function main() { console.log([...new Derived()]); }""", "[2,1]", id="classes, private fields, generators"),
    pytest.param("""
        class Stack extends Array { peek() { return this[this.length - 1]; } }
        class Late extends Promise {}
        class Table extends Map { get(key) { return super.get(key) ?? 0; } }
        async function main() {
          const s = new Stack(); s.push(1, 2); s.name = "s";
          const t = new Table([["a", 1]]);
          console.log(s.peek(), s.map((x) => x * 2) instanceof Stack, t.get("a") + t.get("b"), await Late.resolve(4));
        }""", "2 true 1 4", id="subclasses of intrinsics"),
    pytest.param("""
        (function (root, factory) {
          if (typeof exports === "object") module.exports = factory(); else root.Lib = factory();
        })(typeof self !== "undefined" ? self : globalThis, function () {
          var Lib = {}; Lib.add = function (a, b) { return a + b; }; return Lib;
        });
        function main() { console.log(globalThis.Lib.add(1, 2)); }""", "3", id="a small library in a wrapper"),
    pytest.param("""
        const bus = { handlers: {}, on(n, f) { (this.handlers[n] ||= []).push(f); }, emit(n, ...a) { for (const f of this.handlers[n] ?? []) f(...a); } };
        function main() { const out = []; bus.on("x", (v) => out.push(v)); bus.emit("x", 1); bus.emit("y"); console.log(out); }""",
        "[1]", id="an event emitter"),
    pytest.param(r"""
        function main() {
          const m = /(?<n>\d+)-(\w+)/u.exec("12-ab");
          console.log(m.groups.n, m[2], "a-b".replace(/-(.)/g, (_, c) => c.toUpperCase()), [..."x1y2".matchAll(/\d/g)].map(String));
        }""", '12 ab aB ["1","2"]', id="regular expressions"),
    pytest.param("""
        function main() {
          const d = new Date(2024, 1, 29, 12); d.setDate(d.getDate() + 1);
          class Day extends Date { iso() { return this.toISOString().slice(0, 10); } }
          console.log(d.toISOString(), new Day(d).iso(), Date.parse("2024-01-01T00:00:00Z"), new Day() instanceof Date);
        }""", "2024-03-01T12:00:00.000Z 2024-03-01 1704067200000 true", id="date arithmetic and a subclass of Date"),
    pytest.param("""
        const { max, round, PI } = Math; const { log } = console; const { setDeviceStatus } = Device;
        function main() { setDeviceStatus("target-device-name", "p", 1); Device.commitDevice("target-device-name"); log(max(1, round(PI)), Math.abs(-2)); }""",
        "3 2", id="functions taken off their objects"),
    pytest.param("""
        const Device = null; let console_ = console; var Date = 5; function Math() { return 6; }
        function main() { console_.log(Device, Date, Math()); }""", "null 5 6", id="globals shadowed by the script"),
    pytest.param("""
        const cache = new WeakMap(), id = Symbol("id");
        function main() {
          const o = { [id]: 1, __proto__: { inherited: 2 } }; cache.set(o, 3);
          const p = new Proxy(o, { get: (t, k, r) => Reflect.get(t, k, r) ?? "none" });
          const copy = { ...o, ...JSON.parse('{"a":{"b":[1,2,{"c":null}]}}') };
          console.log(p.inherited, p.x, cache.get(o), copy.a?.b?.[2]?.c ?? "nil", Object.groupBy([1, 2, 3], (n) => (n % 2 ? "odd" : "even")).odd);
        }""", "2 none 3 nil [1,3]", id="proxies, weak maps, spread, optional chaining"),
    pytest.param("""
        function tag(strings, ...values) { return strings.raw.join("|") + values.join(","); }
        label: for (const i of [1, 2]) { for (const j of [1, 2]) { if (j === 2) continue label; } }
        function main() { console.log(tag`a${1}b${2}c`, 2n ** 64n, 0.1 + 0.2, parseInt("12px", 10), isNaN("x"), [3, 1, 2].toSorted()); }
        // a comment on the last line""", "a|b|c1,2 18446744073709551616 0.30000000000000004 12 true [1,2,3]", id="syntax of all sorts"),
    pytest.param("""
        main = undefined; var main = function () { queueMicrotask(() => console.log("task")); };""",
        "task", id="main as a variable, and queueMicrotask"),
    pytest.param("const main = class { constructor() {} };\n", None, id="a main that is no function says so itself"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "shown"), SCRIPTS)
def test_ordinary_code_works(runner: asyncio.Runner, source: str, shown: str | None) -> None:
    async def script() -> object:
        return Script(source).run()

    [[outcome, message, logs, _]] = runner.run(script())  # type: ignore[misc]
    if shown is None:
        assert outcome == Outcome.FAILED
        assert message.startswith("TypeError: Class constructor main")
    else:
        assert (outcome, message, [text for _, text in logs]) == (Outcome.SUCCEEDED, "", [shown])
