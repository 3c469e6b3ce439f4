"""Bad scripts of every engine, each through a supervisor and real workers, beside neighbours.

The answer is one of the outcomes that the case names, and never a hang. While a case runs, another
script of its namespace and one of another namespace go on: each of their runs succeeds, which it
only can within its own deadline. An engine is added by adding its sources to `CASES`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import wasmtime
from wasmtime import wat2wasm

from executor.model import Limits, Outcome, RunRequest, ScriptType
from tests.executor.running import Pool, activation, key, runs

if TYPE_CHECKING:
    from executor.model import RunResult

JS, WASM = ScriptType.JS, ScriptType.WASM
SUCCEEDED, FAILED, DENIED = Outcome.SUCCEEDED, Outcome.FAILED, Outcome.DENIED
TIMED_OUT, OUT_OF_MEMORY = Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY
OUTPUT_TOO_LARGE, LOAD_FAILED = Outcome.OUTPUT_TOO_LARGE, Outcome.LOAD_FAILED

LIMITS = Limits(wall_time_ms=400, output_bytes=1_000, writes=16)
# For what ends by itself, however busy the machine is.
PATIENT = replace(LIMITS, wall_time_ms=10_000, cpu_time_ms=10_000)
# The two cores of a small machine are the script's, the neighbours' and the tests'.
NEIGHBOUR_LIMITS = Limits(wall_time_ms=5_000)
NEIGHBOUR = b"""async function main() {
  Device.setDeviceStatus("target-device-name", "state", "ON");
  await Device.commitDevice("target-device-name");
}"""
NEIGHBOUR_RUNS = 5


@dataclass(frozen=True)
class Case:
    """A bad script: what it is called, its source, and how it may end."""

    engine: ScriptType
    name: str
    source: bytes
    ends: frozenset[Outcome]


def js(name: str, body: str, *ends: Outcome) -> Case:
    return Case(JS, name, f"async function main() {{ {body} }}".encode(), frozenset(ends))


def file(name: str, source: str | bytes, *ends: Outcome) -> Case:
    text = source if isinstance(source, bytes) else source.encode()
    return Case(JS, name, text, frozenset(ends))


def wat(name: str, text: str, *ends: Outcome) -> Case:
    return Case(WASM, name, bytes(wat2wasm(text)), frozenset(ends))


def raw(name: str, module: bytes, *ends: Outcome) -> Case:
    return Case(WASM, name, module, frozenset(ends))


MAIN = '(func (export "main"))'
MODULE = bytes(wat2wasm(f"(module {MAIN})"))
PRECOMPILED = bytes(wasmtime.Module(wasmtime.Engine(), MODULE).serialize())

CASES = (
    # What never ends.
    js("an endless loop", "for (;;);", TIMED_OUT),
    js("endless microtasks", "for (;;) await null", TIMED_OUT),
    js("endless promises", "const again = () => Promise.resolve().then(again); again()", TIMED_OUT),
    js("native code that cannot be stopped", "[].includes.call({ length: 2 ** 53 - 1 }, 1)", TIMED_OUT),
    js("a catastrophic regular expression", "/^(a+)+$/.test('a'.repeat(50) + 'b')", TIMED_OUT),
    js("a giant sort", "new Uint32Array(1e7).map(() => Math.random() * 1e9).toSorted((a, b) => a - b)", TIMED_OUT, OUT_OF_MEMORY),
    js("a proxy that loops", "throw new Proxy({}, { get() { for (;;); } })", TIMED_OUT),
    js("a thenable that loops", "return { then() { for (;;); } }", TIMED_OUT),
    js("growing BigInts", "let n = 3n; for (;;) n *= n", TIMED_OUT, FAILED, OUT_OF_MEMORY),
    js("endless timers", "const again = () => setTimeout(again, 0); again(); await new Promise(() => {})", TIMED_OUT, FAILED),
    file("a loop at the top level", "for (;;); function main() {}", TIMED_OUT),
    wat("an endless loop", '(module (func (export "main") (loop (br 0))))', TIMED_OUT),
    wat("an endless loop before main", f"(module (func $f (loop (br 0))) (start $f) {MAIN})", TIMED_OUT),
    wat("filling memory for ever", '(module (memory 256) (func (export "main") (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 16777216)) (br 0))))', TIMED_OUT),
    wat("endless recursion", '(module (func $f (export "main") (call $f)))', FAILED),
    # What wants too much memory.
    js("a heap", "const a = []; for (;;) a.push(new Array(1000).fill(1))", OUT_OF_MEMORY),
    js("array buffers", "const a = []; for (;;) a.push(new Uint8Array(1e7).fill(1))", OUT_OF_MEMORY),
    js("one array buffer", "new ArrayBuffer(2 ** 32)", OUT_OF_MEMORY, FAILED),
    js("WebAssembly memory", "new WebAssembly.Memory({ initial: 60000 })", FAILED),
    js("Intl objects", "const a = []; for (;;) a.push(new Intl.NumberFormat('de', { style: 'currency', currency: 'EUR' }))", OUT_OF_MEMORY, TIMED_OUT),
    js("a string without end", "let s = 'ab'; for (;;) { s += s; s.charCodeAt(0) }", OUT_OF_MEMORY, FAILED),
    js("an array of characters", "'ab'.repeat(2 ** 27).split('')", OUT_OF_MEMORY),
    js("a full sparse array", "new Array(2 ** 32 - 1).fill(1)", OUT_OF_MEMORY, TIMED_OUT),
    js("a Map without end", "const m = new Map(); for (let i = 0; ; i += 1) m.set(i, [i])", OUT_OF_MEMORY, FAILED, TIMED_OUT),
    js("closures that hold buffers", "const a = []; for (;;) { const b = new Uint8Array(1e6); a.push(() => b) }", OUT_OF_MEMORY),
    js("stack", "const dive = (n) => dive(n + 1) + 1; dive(0)", FAILED),
    wat("memory without end", '(module (memory 1) (func (export "main") (loop (br_if 0 (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable))', OUT_OF_MEMORY, FAILED),
    wat("a memory of 4 GiB", f"(module (memory 65536) {MAIN})", OUT_OF_MEMORY, LOAD_FAILED, FAILED),
    wat("a huge table", f"(module (table 100000000 funcref) {MAIN})", OUT_OF_MEMORY, LOAD_FAILED, FAILED),
    # What comes back.
    js("a BigInt returned", "return 1n", SUCCEEDED),
    js("a lone surrogate returned", "return '\\ud800'", SUCCEEDED),
    js("an invalid date returned", "return new Date(NaN)", SUCCEEDED),
    js("a circle returned", "const a = {}; a.a = a; return a", SUCCEEDED),
    js("a function returned", "return main", SUCCEEDED),
    js("a symbol returned", "return Symbol('s')", SUCCEEDED),
    js("256 MB returned", "return 'x'.repeat(2 ** 28)", SUCCEEDED, OUT_OF_MEMORY),
    js("5,000 levels returned", "let a = []; for (let i = 0; i < 5000; i += 1) a = [a]; return a", SUCCEEDED),
    js("all of that printed", "const c = {}; c.c = c; let d = []; for (let i = 0; i < 5000; i += 1) d = [d]; console.log(1n, '\\ud800', new Date(NaN), c, undefined, main, Symbol('s'), d)", SUCCEEDED, OUTPUT_TOO_LARGE),
    js("a flood printed", "for (;;) console.log('x'.repeat(1000))", OUTPUT_TOO_LARGE),
    js("one line of 64 MB printed", "console.log('x'.repeat(2 ** 26))", OUTPUT_TOO_LARGE, OUT_OF_MEMORY),
    # What is thrown.
    js("null thrown", "throw null", FAILED),
    js("undefined thrown", "throw undefined", FAILED),
    js("a symbol thrown", "throw Symbol('s')", FAILED),
    js("a proxy thrown", "throw new Proxy({}, { get() { throw 1 } })", FAILED),
    js("an object whose toString throws", "throw { toString() { throw 1 }, get message() { throw 2 } }", FAILED),
    js("an error with traps", "const e = new Error('x'); Object.defineProperty(e, 'stack', { get() { throw e } }); throw e", FAILED),
    js("an error of 100 MB", "throw new Error('x'.repeat(1e8))", FAILED, OUT_OF_MEMORY),
    wat("a trap", '(module (func (export "main") unreachable))', FAILED),
    wat("a division by zero", '(module (func (export "main") (drop (i32.div_u (i32.const 1) (i32.const 0)))))', FAILED),
    # Promises.
    js("a promise that never settles", "await new Promise(() => {})", FAILED),
    js("a rejection that nobody handles", "Promise.reject(new Error('x'))", FAILED, SUCCEEDED),
    js("20,000 calls at once", "await Promise.all(Array.from({ length: 20000 }, () => Device.commitDevice('target-device-name')))", SUCCEEDED),
    js("20,000 refusals at once", "await Promise.allSettled(Array.from({ length: 20000 }, () => Device.commitDevice('no')))", SUCCEEDED),
    # Reaching out of its place.
    js("a polluted prototype", "Object.prototype.polluted = 1", FAILED),
    js("JSON replaced", "JSON.stringify = () => 'mine'", FAILED),
    js("then replaced", "Promise.prototype.then = () => {}", FAILED),
    js("the constructor of constructors", "main.constructor.constructor('return this')()", FAILED),
    js("eval", "eval('1')", FAILED),
    js("new Function", "new Function('return 1')", FAILED),
    js("an import", "await import('node:fs')", FAILED, LOAD_FAILED),
    js("files", "Deno.readTextFileSync('/etc/passwd')", FAILED),
    js("processes", "process.exit(1)", FAILED),
    # What does not parse, or hardly.
    file("a syntax error", "function main( {", LOAD_FAILED),
    file("no main", "const a = 1", LOAD_FAILED),
    file("nothing", "", LOAD_FAILED),
    file("bytes that are no text", b"\xff\xfe\x00", LOAD_FAILED),
    file("text that ends our wrapper", "}; }); (function () { return function () { function main() {}", LOAD_FAILED),
    file("a line of 10 MB", "function main() { return [" + "1," * 5_000_000 + "1] }", SUCCEEDED, OUT_OF_MEMORY, TIMED_OUT),
    file("10,000 brackets", "function main() { return " + "(" * 10_000 + "1" + ")" * 10_000 + " }", SUCCEEDED, LOAD_FAILED, FAILED),
    file("a line separator in a string", 'function main() { return "\u2028\u2029" }', SUCCEEDED),
    raw("garbage", b"function main() {}", LOAD_FAILED),
    raw("nothing", b"", LOAD_FAILED),
    raw("a truncated module", MODULE[:-3], LOAD_FAILED),
    raw("a precompiled artefact", PRECOMPILED, LOAD_FAILED),
    wat("no main", "(module)", LOAD_FAILED),
    wat("memory64", f"(module (memory i64 1) {MAIN})", LOAD_FAILED),
    wat("shared memory", f"(module (memory 1 2 shared) {MAIN})", LOAD_FAILED),
    wat("an unknown import", f'(module (import "env" "system" (func)) {MAIN})', LOAD_FAILED),
    # Writes that are not granted, or are no values.
    js("a device that is not granted", "Device.setDeviceStatus('another', 'p', 1)", DENIED),
    js("reading a device that is not granted", "Device.getDeviceStatus('another', 'p')", DENIED),
    js("committing a device that is not granted", "await Device.commitDevice('another')", DENIED),
    js("too many writes", "for (let i = 0; i < 17; i += 1) Device.setDeviceStatus('target-device-name', 'p' + i, i)", DENIED),
    js("NaN as a value", "Device.setDeviceStatus('target-device-name', 'p', NaN)", FAILED),
    js("an object as a value", "Device.setDeviceStatus('target-device-name', 'p', {})", FAILED),
    js("a value of 1 MB", "Device.setDeviceStatus('target-device-name', 'p', 'x'.repeat(1e6))", FAILED),
    js("a property that is no name", "Device.setDeviceStatus('target-device-name', '', 1)", FAILED),
    js("a state of 1 MB", "State.set('k', 'x'.repeat(1e6))", DENIED),
    js("a fetch that is not granted", "await fetch('http://169.254.169.254/')", DENIED, FAILED),
)  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.engine.name}: {case.name}") for case in CASES]
)
def test_neighbours_go_on_beside(runner: asyncio.Runner, pool: Pool, case: Case) -> None:
    async def neighbour(namespace: str, first: int) -> list[RunResult]:
        done = []
        for number in range(first, first + NEIGHBOUR_RUNS):
            request = runs(activation(), first=number)
            about = {"namespace": namespace, "name": "neighbour", "limits": NEIGHBOUR_LIMITS}
            pool.submit(NEIGHBOUR, request, **about)
            done += await pool.answers(request[0].key)
        return done

    async def beside() -> tuple[RunResult, list[RunResult]]:
        limits = LIMITS if TIMED_OUT in case.ends else PATIENT
        about = {"name": case.name, "type": case.engine, "limits": limits, "file": "bad"}
        pool.submit(case.source, [RunRequest(key(1), activation())], namespace="bad", **about)
        near, far, [bad] = await asyncio.gather(
            neighbour("bad", 100), neighbour("other", 200), pool.answers(key(1))
        )
        pool.results.clear()
        return bad, near + far

    bad, neighbours = runner.run(beside())
    assert bad.outcome in case.ends, bad
    assert bad.outcome is SUCCEEDED or bad.message
    assert len(bad.message) < 1_500
    assert "/executor/" not in bad.message
    assert bad.outcome is SUCCEEDED or bad.writes == ()
    assert [result.outcome for result in neighbours] == [SUCCEEDED] * 2 * NEIGHBOUR_RUNS


def test_every_engine_of_this_executor_has_cases() -> None:
    from executor.engines import ENGINES  # noqa: PLC0415 - what is asked about

    assert {case.engine for case in CASES} == set(ENGINES)
