from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.model import Outcome
from tests.executor.running import Script, activation

pytestmark = pytest.mark.usefixtures("v8")


def run(runner: asyncio.Runner, source: str, *activations: bytes) -> list[Any]:
    async def script() -> list[Any]:
        return Script(source).run(*activations)

    return runner.run(script())


def printed(completions: list[Any]) -> list[list[str]]:
    return [[text for _, text in logs] for _, _, logs, *_ in completions]


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("module state", "count += 1; console.log(count)"),
        ("an object of the module", "table.hits = (table.hits ?? 0) + 1; console.log(table.hits)"),
        ("a property of main", "main.hits = (main.hits ?? 0) + 1; console.log(main.hits)"),
        ("globalThis", "globalThis.hits = (globalThis.hits ?? 0) + 1; console.log(globalThis.hits)"),
        ("the Device object", "Device.hits = (Device.hits ?? 0) + 1; console.log(Device.hits)"),
        ("the run's Date", "Date.hits = (Date.hits ?? 0) + 1; console.log(Date.hits)"),
        ("the run's Math", "Math.hits = (Math.hits ?? 0) + 1; console.log(Math.hits)"),
        ("the parsed activation", "event.hits += 1; console.log(event.hits)"),
        ("RegExp statics", "console.log(typeof RegExp.$1, typeof RegExp.lastMatch, RegExp.input); /(s.*)/.exec('secret')"),
    ],
)  # fmt: skip
def test_no_run_sees_another_run_through(runner: asyncio.Runner, name: str, attack: str) -> None:
    source = f"""let count = 0; const table = {{}};
    function main(event) {{ {attack} }}"""
    first, second, third = printed(run(runner, source, *[activation(event={"hits": 0})] * 3))
    assert first == second == third != []


@pytest.mark.parametrize(
    "attack",
    [
        "Object.prototype.polluted = 1",
        "Array.prototype.push = () => 0",
        "Array.prototype[0] = 'x'",
        "Promise.prototype.then = () => {}",
        "JSON.stringify = () => 'mine'",
        "Object.defineProperty(Object.prototype, 'x', { value: 1 })",
        "Object.setPrototypeOf(Array.prototype, {})",
        "Object.prototype.toString = () => 'mine'",
        "Object.prototype.__defineGetter__('x', () => 1)",
        "Reflect.getPrototypeOf(async function () {}).hits = 1",
        "Reflect.getPrototypeOf(function* () {}).hits = 1",
        "Reflect.getPrototypeOf([].values()).next = 1",
        "Reflect.getPrototypeOf('a'.matchAll(/a/g)).next = 1",
        "Reflect.getPrototypeOf(globalThis).hits = 1",
        "Reflect.getPrototypeOf(Date).now = 1",
        "new Date().constructor.now = 1",
        "Error.prepareStackTrace = () => 'mine'",
        "Error.stackTraceLimit = 0",
        "Symbol.hits = 1",
        "Intl.DateTimeFormat.prototype.hits = 1",
        "Object.getOwnPropertyDescriptor(new Error(), 'stack').get.hits = 1",
        "Device.listReadableDevices.constructor.prototype.hits = 1",
        "Deno.env.x = 1",
        "navigator.userAgent = 'mine'",
        "try { Device.setDeviceStatus('no', 'p', 1) } catch (e) { e.constructor.prototype.hits = 1 }",
        "__TimerManager.hits = 1",
        "delete Object.prototype.toString",
    ],
)  # fmt: skip
def test_what_runs_share_cannot_be_changed_by(runner: asyncio.Runner, attack: str) -> None:
    [[outcome, message, _, _]] = run(runner, f"function main() {{ {attack} }}")
    assert (outcome, message.split(":")[0]) == (Outcome.FAILED, "TypeError")


def test_everything_that_two_runs_could_share_is_frozen(runner: asyncio.Runner) -> None:
    source = """function main(event) {
      const own = new Set([Device, Deno, console, Date, Math, performance, globalThis, main, event]);
      const e = new Error(), captured = {}; Error.captureStackTrace(captured);
      const samples = [e, captured, [], new Map(), new Set(), /a/, () => {}, async () => {}, function* () {}, async function* () {},
        [].values(), new Map().keys(), new Set().keys(), ''[Symbol.iterator](), ''.matchAll(/a/g), Promise.resolve(), 1n, Symbol.iterator,
        new Proxy({}, {}), new Date(), new Uint8Array(1), new DataView(new ArrayBuffer(1)), [].values().map(x => x), Iterator.from({ next() {} }),
        Reflect.getPrototypeOf((function* () {})()), Reflect.getPrototypeOf((async function* () {})()), new Intl.Segmenter().segment('a'), new Intl.NumberFormat(), class {}];
      try { Device.getDeviceStatus('no', 'p') } catch (denied) { samples.push(denied) }
      // A sample is the run's own; what it inherits, and what its accessors are, is shared.
      const seen = new Set(own), queue = [], open = [];
      const visit = (value, path) => {
        if ((typeof value === 'object' && value !== null || typeof value === 'function') && !seen.has(value)) {
          seen.add(value); queue.push([value, path]);
        }
      };
      for (const [i, s] of samples.entries()) {
        visit(Reflect.getPrototypeOf(Object(s)), `sample ${i}`);
        for (const key of ['stack', 'callee'])
          for (const f of Object.values(Object.getOwnPropertyDescriptor(Object(s), key) ?? {})) visit(f, `sample ${i} ${key}`);
      }
      visit(Reflect.getPrototypeOf(globalThis), 'global'); visit(Reflect.getPrototypeOf(Date), 'Date'); visit(Reflect.getPrototypeOf(Math), 'Math');
      while (queue.length) {
        const [value, path] = queue.pop();
        if (!Object.isFrozen(value)) open.push(path);
        visit(Reflect.getPrototypeOf(value), `${path}.__proto__`);
        for (const key of Reflect.ownKeys(value))
          for (const [kind, part] of Object.entries(Object.getOwnPropertyDescriptor(value, key)))
            visit(part, `${path}.${String(key)}${kind === 'value' ? '' : ` ${kind}`}`);
      }
      console.log(seen.size > 700, JSON.stringify(open));
    }"""
    assert printed(run(runner, source)) == [["true []"]]


@pytest.mark.parametrize(
    "name",
    ["WeakRef", "FinalizationRegistry", "SharedArrayBuffer", "Atomics", "WebAssembly", "Temporal",
     "__timer_manager", "__TimerManager", "engine", "config", "harden",
     "hostEval", "process", "require"],
)  # fmt: skip
def test_a_script_cannot_name(runner: asyncio.Runner, name: str) -> None:
    source = f"function main() {{ console.log(typeof {name}, typeof globalThis.{name}) }}"
    assert printed(run(runner, source)) == [["undefined undefined"]]


@pytest.mark.parametrize(
    "attempt",
    [
        "eval('1')",
        "(0, eval)('1')",
        "globalThis.eval('1')",
        "new Function('return 1')",
        "Function('return 1')()",
        "main.constructor.constructor('return globalThis')()",
        "(async () => {}).constructor('return 1')",
        "(function* () {}).constructor('yield 1')",
        "(async function* () {}).constructor('yield 1')",
        "Reflect.construct(Function, ['return 1'])",
        "Device.getDeviceStatus.constructor('return 1')()",
        "Object.getPrototypeOf(Object.getPrototypeOf(async () => {})).constructor('return 1')",
        "Reflect.construct(Object, ['return 1'], Function) && new (class extends Function {})('return 1')",
    ],
)
def test_code_cannot_be_made_from_strings_by(runner: asyncio.Runner, attempt: str) -> None:
    [[outcome, message, _, _]] = run(runner, f"function main() {{ return {attempt} }}")
    assert (
        outcome,
        message.startswith("EvalError: "),
        "cannot be made from strings" in message,
    ) == (
        Outcome.FAILED,
        True,
        True,
    )


def test_import_is_refused(runner: asyncio.Runner) -> None:
    [[outcome, _, _, _]] = run(runner, "async function main() { await import('x') }")
    assert outcome == Outcome.FAILED


def test_what_a_run_left_behind_cannot_act_for_a_later_one(runner: asyncio.Runner) -> None:
    # The first crossing of the second batch runs nothing that the first batch has left.
    source = """function main(event) {
      if (event.first) {
        (async () => { for (;;) { await waiting; console.log("left behind") } })();
        return;
      }
      console.log("second");
    }
    const waiting = new Promise(() => {});"""

    async def two_batches() -> list[Any]:
        script = Script(source)
        batch = '{"writes":1,"output":100,"count":1,"activations":[%s]}'
        first = script.isolate.run(batch % activation(event={"first": True}).decode())
        second = script.isolate.run(batch % activation(event={"first": False}).decode())
        script.isolate.close()
        return [*json.loads(first), *json.loads(second)]

    assert printed(runner.run(two_batches())) == [[], ["second"]]


def test_work_that_main_did_not_await_still_counts_if_it_can_end(runner: asyncio.Runner) -> None:
    source = """function main() { work() }
    async function work() {
      await null; await null;
      Device.setDeviceStatus("target-device-name", "p", 1);
      await Device.commitDevice("target-device-name");
    }"""
    assert run(runner, source)[0][3] == [["target-device-name", "p", 1, 0, False]]


def test_each_run_of_a_batch_has_its_own_clock_and_randomness_even_after_awaits(
    runner: asyncio.Runner,
) -> None:
    source = """async function main() {
      const first = Math.random();
      await null;
      console.log(Date.now(), new Date().getTime(), first === Math.random(), Math.random() < 1);
    }"""
    completions = run(runner, source, *[activation(now=now, seed=now) for now in (1, 2, 3)])
    assert printed(completions) == [[f"{n} {n} false true"] for n in (1, 2, 3)]


PROBE = """
let s = 0;
async function main(event) {
  for (let i = 0; i < 3; i += 1) { await null; s += Math.random(); }
  console.log(s, Date.now(), new Date(), [..."zyx"].sort(), JSON.stringify(event), new Error("e").stack);
  console.log(new Date(0).toLocaleString(), (1234.5).toLocaleString(), Intl.DateTimeFormat().resolvedOptions().timeZone);
  console.log(Object.keys(globalThis), Object.getOwnPropertyNames(Object.getPrototypeOf(globalThis)).length);
  Device.setDeviceStatus("target-device-name", "p", s);
  await Device.commitDevice("target-device-name", 2);
  if (event !== null && typeof event === "object") throw new Error(JSON.stringify(event));
}"""

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    event=JSON_VALUES,
    now=st.integers(0, 2**42),
    seed=st.integers(0, 2**32 - 1),
    company=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_the_same_activation_gives_the_same_completion_byte_for_byte(
    runner: asyncio.Runner, event: object, now: int, seed: int, company: int
) -> None:
    facts = activation(event=event, now=now, seed=seed)
    others = [activation(seed=seed + 1 + i) for i in range(company)]
    [alone] = run(runner, PROBE, facts)
    among = run(runner, PROBE, *others, facts)
    assert json.dumps(alone) == json.dumps(among[-1])
