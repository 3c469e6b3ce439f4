"""Components: the world of scriptops.wit does what the imports of core modules do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from executor.engines.errors import ScriptRefused
from executor.model import LogLevel, Outcome, ScriptType
from tests.executor.guests import complete, engine, wasm
from tests.executor.running import activation
from tests.support import toolchains

if TYPE_CHECKING:
    import asyncio

    from tests.executor.running import Pool

SOURCE = Path(__file__).with_name("component.c")
# `main: func() -> result<_, string>` by hand: its result lies at 8, and is good when that is 0.
CORE = (
    '(module (memory (export "memory") {pages}) (func $main (export "main") (result i32) {body}))'
)


@pytest.fixture(scope="module")
def rule(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("component")
    try:
        return toolchains.make_component(folder, toolchains.compile_c(folder, SOURCE.read_text()))
    except toolchains.ToolMissingError as missing:
        pytest.fail(str(missing), pytrace=False)


def component(folder: Path, body: str, *, pages: int = 1) -> bytes:
    try:
        return toolchains.make_component(folder, wasm(CORE.format(pages=pages, body=body)))
    except toolchains.ToolMissingError as missing:
        pytest.fail(str(missing), pytrace=False)


def measured(temperature: object, **facts: Any) -> bytes:
    read = {"thermometer": {} if temperature is None else {"temperature": temperature}}
    return activation(**({"read": read, "write": ["heater"], "env": {}} | facts))


def test_a_component_reads_stages_commits_logs_and_remembers(rule: bytes) -> None:
    first, second = complete(
        rule, measured(17, event={"a": 1}), measured(20.5, state={"ran": "once"})
    )
    heats = ["heater", "power", True, 0, True]
    assert first == [
        *(Outcome.SUCCEEDED, "", [[LogLevel.INFO, '{"a":1}']], [heats], {"ran": "once"}, []),
    ]
    stops = ["heater", "power", False, 0, True]
    assert second[3:5] == [[stops], {"ran": "again"}]


@pytest.mark.parametrize("value", [None, True, "warm"])
def test_a_reading_has_the_type_that_was_reported(rule: bytes, value: object) -> None:
    [completion] = complete(rule, measured(value))
    assert completion[:2] + completion[3:4] == [Outcome.SUCCEEDED, "", []]


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"write": []}, "device heater is not writable for this script"),
        ({"read": {}}, "device thermometer is not readable for this script"),
        (
            {"env": {"request": '{"url":"https://a.example"}'}},
            "this script may not fetch; its manifest grants it places with spec.network.allow",
        ),
    ],
)
def test_an_error_of_an_op_that_main_gives_back_is_the_outcome(
    rule: bytes, facts: dict[str, Any], why: str
) -> None:
    [completion] = complete(rule, measured(17, **facts), fetches=0)
    assert (completion[:2], completion[3:]) == ([Outcome.DENIED, why], [[], None, []])


def test_a_component_waits_for_a_reply_and_is_run_again_with_it(rule: bytes) -> None:
    request = {"url": "https://a.example"}
    env = {"request": json.dumps(request)}
    [waiting] = complete(rule, measured(17, env=env))
    assert (waiting[0], waiting[5]) == (Outcome.WAITING, [{**request, "op": "fetch", "n": 0}])
    reply = {"n": 0, "ok": True}
    [done] = complete(rule, measured(17, env=env, replies=[reply]))
    assert (done[0], done[2][1]) == (Outcome.SUCCEEDED, [LogLevel.WARN, '{"n":0,"ok":true}'])


def test_a_component_waits_for_its_commit_and_has_an_error_where_less_was_reached(
    rule: bytes,
) -> None:
    env = {"waits": "yes"}
    [waiting] = complete(rule, measured(17, env=env))
    write = ["heater", "power", True, 2, True]
    commit = {"op": "commit", "alias": "heater", "qos": 2, "writes": [write], "ms": 0, "n": 0}
    assert (waiting[0], waiting[5]) == (Outcome.WAITING, [commit])
    reply = {"n": 0, "op": "commit", "ok": True, "ms": 3}
    reached, missed = complete(
        rule,
        measured(17, env=env, replies=[reply | {"reached": 2}]),
        measured(17, env=env, replies=[reply | {"reached": 1}]),
    )
    assert (reached[0], reached[3]) == (Outcome.SUCCEEDED, [[*write, True]])
    assert missed[:2] == [Outcome.FAILED, "NotConverged: heater reached 1 of 2"]


@pytest.mark.parametrize(
    ("body", "pages", "outcome", "message"),
    [
        pytest.param("(i32.const 8)", 1, Outcome.SUCCEEDED, "", id="nothing"),
        pytest.param(
            "(loop (br 0)) (i32.const 8)",
            *(1, Outcome.TIMED_OUT, "it did not finish within 100 ms"),
            id="a loop",
        ),
        pytest.param(
            "unreachable",
            *(1, Outcome.FAILED, "wasm `unreachable` instruction executed in main"),
            id="a trap",
        ),
        pytest.param(
            "(i32.const 8)",
            *(100, Outcome.OUT_OF_MEMORY),
            "it starts with more memory than the 4 MiB of spec.limits.heap",
            id="much memory",
        ),
        pytest.param(
            "(i32.store8 (i32.const 8) (i32.const 1)) (i32.store (i32.const 16) (i32.const 5))"
            " (i32.store (i32.const 12) (i32.const 20)) (i32.store (i32.const 20) (i32.const 0x7a7a7a7a))"
            " (i32.store8 (i32.const 24) (i32.const 0x7a)) (i32.const 8)",
            *(1, Outcome.FAILED, "zzzzz"),
            id="an error of its own",
        ),
    ],
)
def test_a_component_ends_as_a_module_would(
    tmp_path: Path, body: str, pages: int, outcome: Outcome, message: str
) -> None:
    [completion] = complete(component(tmp_path, body, pages=pages), wall=100)
    assert completion == [outcome, message, [], [], None, []]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(component)", "it has no main: export `main: func() -> result<_, string>`"),
        (
            '(component (import "wasi:cli/environment@0.2.0" (instance)))',
            "it imports wasi:cli/environment@0.2.0, which scripts are not given",
        ),
        (
            """(component (import "scriptops:rule/run@1.0.0"
                (instance (export "now" (func (result u64))))))""",
            "it imports scriptops:rule/run@1.0.0.now as ()->u64",
        ),
        (
            """(component (import "scriptops:rule/run@1.0.0"
                (instance (export "sleep" (func (param "ms" u64))))))""",
            "it imports scriptops:rule/run@1.0.0.sleep as (u64)",
        ),
        ('(component (import "f" (func)))', "it imports f, which scripts are not given"),
    ],
)
def test_a_component_outside_of_the_world_does_not_load(text: str, why: str) -> None:
    with pytest.raises(ScriptRefused) as refusal:
        engine().check(wasm(text), "bad.wasm")
    assert str(refusal.value) == f"{why} (bad.wasm)"


def test_a_truncated_component_does_not_load(rule: bytes) -> None:
    with pytest.raises(ScriptRefused, match="it is not a valid component: "):
        engine().check(rule[:-9], "bad.wasm")


def test_a_component_runs_inside_the_sandbox(
    runner: asyncio.Runner, pool: Pool, rule: bytes
) -> None:
    [result] = runner.run(pool.run(rule, measured(17), type=ScriptType.WASM))
    assert (result.outcome, result.message, len(result.writes)) == (Outcome.SUCCEEDED, "", 1)
