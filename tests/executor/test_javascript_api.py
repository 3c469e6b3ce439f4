from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from executor import ops
from executor.model import LogLevel, Outcome
from tests.executor.running import Script, activation

if TYPE_CHECKING:
    import asyncio

pytestmark = pytest.mark.usefixtures("v8")

GOOD = Outcome.SUCCEEDED


def run(runner: asyncio.Runner, source: str, *activations: bytes, **limits: int) -> list[Any]:
    async def script() -> list[Any]:
        return Script(source).run(*activations, **limits)

    return runner.run(script())


def test_the_rule_of_the_first_design_reads_stages_and_commits(runner: asyncio.Runner) -> None:
    source = """
    async function main() {
      const threshold = Number(Deno.env["threshold-value"]);
      const [sensor] = Device.listReadableDevices();
      if (Device.getDeviceStatus(sensor, "temperature") < threshold) {
        const [target] = Device.listWritableDevices();
        Device.setDeviceStatus(target, "state", "ON");
        await Device.commitDevice(target);
      }
      return "discarded";
    }"""
    assert run(runner, source) == [
        [GOOD, "", [], [["target-device-name", "state", "ON", 0, False]]]
    ]


def test_a_script_sees_exactly_the_ops_of_the_table(runner: asyncio.Runner) -> None:
    source = """function main() {
      for (const [name, object] of Object.entries({ Device, State, console }))
        for (const key of Object.keys(object)) console.log(`${name}.${key}`);
    }"""
    [[_, _, logs, _]] = run(runner, source)
    assert {text for _, text in logs} == {f"{op.global_name}.{op.name}" for op in ops.SURFACE}


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        pytest.param("Device.getDeviceStatus('temp-sensor-name', 'temperature')", "25.5", id="number"),
        pytest.param("Device.getDeviceStatus('temp-sensor-name', 'on')", "true", id="boolean"),
        pytest.param("Device.getDeviceStatus('temp-sensor-name', 'nothing')", "undefined", id="unknown property"),
        pytest.param("Device.getDeviceStatus('temp-sensor-name', 'toString')", "undefined", id="nothing is inherited"),
        pytest.param("Device.listReadableDevices()", '["temp-sensor-name"]', id="readable aliases"),
        pytest.param("Device.listWritableDevices()", '["target-device-name"]', id="writable aliases"),
        pytest.param("Deno.env['threshold-value']", "400", id="env by key"),
        pytest.param("Deno.env.get('threshold-value')", "400", id="env by get"),
        pytest.param("Deno.env.nothing", "undefined", id="env without the key"),
        pytest.param("Deno.env.constructor", "undefined", id="env inherits nothing"),
        pytest.param("Object.isFrozen(Deno.env)", "true", id="env is frozen"),
        pytest.param("Date.now()", "1700000000000", id="clock of the activation"),
        pytest.param("new Date().getTime() - Date.now()", "0", id="time stands still"),
        pytest.param("Date()", "Tue Nov 14 2023 22:13:20 GMT+0000 (Coordinated Universal Time)", id="Date as a function"),
        pytest.param("new Date(5).getTime() + Date.UTC(1970, 0, 1)", "5", id="dates of other moments"),
        pytest.param("new Date() instanceof Date", "true", id="dates are Dates"),
        pytest.param("performance.now()", "0", id="performance.now"),
        pytest.param("typeof globalThis.Device.listReadableDevices", "function", id="ops are on globalThis too"),
    ],
)  # fmt: skip
def test_expression_of_the_api(runner: asyncio.Runner, expression: str, shown: str) -> None:
    [[outcome, message, logs, _]] = run(runner, f"function main() {{ console.log({expression}) }}")
    assert (outcome, message, logs) == (GOOD, "", [[LogLevel.INFO, shown]])


def test_main_gets_the_event_of_the_activation(runner: asyncio.Runner) -> None:
    source = "function main(event) { console.log(event.payload.n + 1) }"
    event = {"payload": {"n": 41}}
    assert run(runner, source, activation(event=event))[0][2] == [[LogLevel.INFO, "42"]]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        pytest.param("Device.getDeviceStatus('other', 'x')", "Denied: device other is not readable for this script", id="read of an alias not granted"),
        pytest.param("Device.setDeviceStatus('temp-sensor-name', 'x', 1)", "Denied: device temp-sensor-name is not writable for this script", id="write of a readable alias"),
        pytest.param("await Device.commitDevice('other')", "Denied: device other is not writable for this script", id="commit of an alias not granted"),
        pytest.param("for (let i = 0; i < 17; i++) Device.setDeviceStatus('target-device-name', 'p', i)", "Denied: a run may stage at most 16 writes", id="more writes than allowed"),
    ],
)  # fmt: skip
def test_what_is_not_granted_is_denied(
    runner: asyncio.Runner, statement: str, message: str
) -> None:
    [[outcome, told, _, writes]] = run(runner, f"async function main() {{\n{statement}\n}}")
    assert (outcome, told.partition(" (rule.js:2")[0], writes) == (Outcome.DENIED, message, [])


def test_a_denial_that_the_script_catches_is_its_own_business(runner: asyncio.Runner) -> None:
    source = """function main() {
      try { Device.getDeviceStatus("other", "x") } catch (e) { console.log(e.name, e instanceof Error) }
    }"""
    assert run(runner, source) == [[GOOD, "", [[LogLevel.INFO, "Denied true"]], []]]


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "null", "undefined", "1n", "{}", "[]", "Symbol()", "() => 1", "'x'.repeat(20000)"],
)  # fmt: skip
def test_a_value_no_device_can_have_is_refused_when_it_is_set(
    runner: asyncio.Runner, value: str
) -> None:
    source = f"function main() {{ Device.setDeviceStatus('target-device-name', 'p', {value}) }}"
    [[outcome, message, _, writes]] = run(runner, source)
    assert (outcome, "a device value" in message, writes) == (Outcome.FAILED, True, [])


@pytest.mark.parametrize(
    ("value", "sent"),
    [("1e21", 1e21), ("-0.5", -0.5), ("true", True), ("'\\ud800x'", "\ufffdx"), ("''", "")],
)
def test_values_arrive_as_they_were_set(runner: asyncio.Runner, value: str, sent: object) -> None:
    source = f"""async function main() {{
      Device.setDeviceStatus('target-device-name', 'p', {value});
      await Device.commitDevice('target-device-name', 0, {{ force: true }});
    }}"""
    assert run(runner, source)[0][3] == [["target-device-name", "p", sent, 0, True]]


def test_what_was_set_but_not_committed_is_dropped_with_a_warning(runner: asyncio.Runner) -> None:
    source = "function main() { Device.setDeviceStatus('target-device-name', 'p', 1) }"
    warning = "target-device-name.p was set but not committed, so it was dropped; call Device.commitDevice"
    assert run(runner, source) == [[GOOD, "", [[LogLevel.WARN, warning]], []]]


def test_a_failed_commit_that_nobody_awaits_fails_the_run(runner: asyncio.Runner) -> None:
    source = "function main() { Device.commitDevice('other') }"
    told = "device other is not writable for this script"
    message = f"unhandled rejection: Denied: {told} (rule.js:1:26)"
    warning = [LogLevel.WARN, f"commitDevice: {told}"]
    assert run(runner, source) == [[Outcome.DENIED, message, [warning], []]]


def test_a_failed_run_writes_nothing(runner: asyncio.Runner) -> None:
    source = """async function main() {
      Device.setDeviceStatus('target-device-name', 'p', 1);
      await Device.commitDevice('target-device-name');
      throw new Error("after the commit");
    }"""
    assert run(runner, source) == [
        [Outcome.FAILED, "Error: after the commit (rule.js:4:13)", [], []]
    ]


def test_console_keeps_levels_and_shows_any_value(runner: asyncio.Runner) -> None:
    source = """function main() {
      const ring = {}; ring.ring = ring;
      console.debug(1, "a", null, undefined); console.info([1, { b: 2 }]); console.warn(new TypeError("t"));
      console.error(ring, 5n, Symbol("s"), () => 1); console.log();
    }"""
    assert run(runner, source)[0][2] == [
        [LogLevel.DEBUG, "1 a null undefined"],
        [LogLevel.INFO, '[1,{"b":2}]'],
        [LogLevel.WARN, "TypeError: t"],
        [LogLevel.ERROR, "[object that JSON cannot express] 5 Symbol(s) [Function]"],
        [LogLevel.INFO, ""],
    ]


def test_no_more_lines_are_kept_than_anybody_reads(runner: asyncio.Runner) -> None:
    source = "function main() { for (let i = 0; i < 5000; i += 1) console.log('') }"
    [[outcome, _, logs, _]] = run(runner, source, output=100_000)
    assert (outcome, len(logs), logs[-1]) == (
        *(GOOD, ops.LOG_LINES + 1),
        [LogLevel.WARN, "output over 4096 lines was dropped"],
    )


def test_output_over_the_limit_is_cut_at_a_character_and_says_so(runner: asyncio.Runner) -> None:
    source = "function main() { console.log('é€😀'.repeat(5)); console.log('later') }"
    assert run(runner, source, output=14) == [
        [
            GOOD,
            "",
            [[LogLevel.INFO, "é€😀é€"], [LogLevel.WARN, "output over 14 bytes was dropped"]],
            [],
        ]
    ]


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("for (;;) console.log('x')", id="many lines"),
        pytest.param("for (;;) console.log('')", id="many empty lines"),
        pytest.param("console.log('x'.repeat(2 ** 24))", id="one huge line"),
        pytest.param("for (let i = 0; i < 1e4; i++) try { console.log('x') } catch {}", id="the error is swallowed"),
    ],
)  # fmt: skip
def test_a_flood_of_output_ends_the_run(runner: asyncio.Runner, statement: str) -> None:
    [[outcome, message, logs, _]] = run(runner, f"function main() {{ {statement} }}", output=100)
    assert (outcome, message) == (
        Outcome.OUTPUT_TOO_LARGE,
        "the script printed more than 1600 bytes",
    )
    assert sum(len(text) for _, text in logs) < 200
