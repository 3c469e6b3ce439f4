"""`State`: what a script remembers from run to run, seen from inside the isolate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from executor.model import LogLevel, Outcome
from tests.executor.running import Script, activation

if TYPE_CHECKING:
    from collections.abc import Iterator

INFO = LogLevel.INFO


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as it:
        yield it


def completions(
    runner: asyncio.Runner, source: str, *states: Any, **limits: int
) -> list[list[Any]]:
    async def run() -> list[list[Any]]:
        given = [activation(**({} if s is None else {"state": s})) for s in states or (None,)]
        return Script(source).completions(*given, **limits)

    return runner.run(run())


def test_what_is_set_is_there_at_once_and_in_the_completion(runner: asyncio.Runner) -> None:
    source = """async function main() {
      State.set("count", (State.get("count") ?? 0) + 1);
      await null;
      console.log(State.get("count"), State.keys());
    }"""
    assert completions(runner, source, None, {"count": 41, "other": [1, {"a": None}]}) == [
        [1, "", [[INFO, '1 ["count"]']], [], {"count": 1}, []],
        [1, "", [[INFO, '42 ["count","other"]']], [], {"count": 42, "other": [1, {"a": None}]}, []],
    ]


def test_a_run_that_does_not_use_it_says_nothing_of_it(runner: asyncio.Runner) -> None:
    assert completions(runner, "function main() {}", {"a": 1}) == [[1, "", [], [], None, []]]


def test_a_run_that_only_looks_gives_it_back_as_it_was(runner: asyncio.Runner) -> None:
    given = {"a": 1.5, "__proto__": {"b": ["é😀"]}, "7": None, "": 0}
    del given[""]
    [[_, _, _, _, state, _]] = completions(runner, "function main() { State.get('x') }", given)
    assert state == given


def test_keys_can_be_deleted_and_names_of_object_prototype_are_ordinary(
    runner: asyncio.Runner,
) -> None:
    source = """function main() {
      console.log(State.get("toString"), State.delete("a"), State.delete("a"), State.get("a"));
      State.set("__proto__", 1); State.set("constructor", { toString: 2 });
    }"""
    assert completions(runner, source, {"a": 1}) == [
        [1, "", [[INFO, "undefined true false undefined"]], [], {"__proto__": 1, "constructor": {"toString": 2}}, []]
    ]  # fmt: skip


def test_values_are_copies_so_that_only_set_changes_anything(runner: asyncio.Runner) -> None:
    source = """function main() {
      const list = [1]; State.set("list", list); list.push(2);
      const read = State.get("list"); read.push(3);
      console.log(State.get("list"));
    }"""
    assert completions(runner, source)[0][2:5:2] == [[[INFO, "[1]"]], {"list": [1]}]


def test_runs_of_one_batch_do_not_see_each_other(runner: asyncio.Runner) -> None:
    source = """let own = 0;
    function main() { own += 1; State.set("n", (State.get("n") ?? 0) + own); }"""
    assert [c[4] for c in completions(runner, source, None, None, {"n": 5})] == [
        {"n": 1},
        {"n": 1},
        {"n": 6},
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        pytest.param("undefined", "must be what JSON can express, not undefined", id="undefined"),
        pytest.param("() => 1", "must be what JSON can express, not function", id="a function"),
        pytest.param("Symbol()", "must be what JSON can express, not symbol", id="a symbol"),
        pytest.param("1n", "must be what JSON can express", id="a BigInt"),
        pytest.param("(() => { const o = {}; o.o = o; return o })()", "must be what JSON can express", id="a circle"),
        pytest.param("({ toJSON() { throw 1 } })", "must be what JSON can express", id="a throwing toJSON"),
        pytest.param("'\\ud800'", "has text that is not well-formed", id="half a character"),
        pytest.param("({ ['\\udfff']: 1 })", "has text that is not well-formed", id="half a character in a key"),
        pytest.param("(() => { let o = []; for (let i = 0; i < 64; i++) o = [o]; return o })()", "nested more than 64 deep", id="a tower"),
        pytest.param("(() => { let o = []; for (let i = 0; i < 1e5; i++) o = [o]; return o })()", "nested more than 64 deep", id="a high tower"),
    ],
)  # fmt: skip
def test_what_json_cannot_carry_is_refused(runner: asyncio.Runner, value: str, told: str) -> None:
    source = f"function main() {{ State.set('a', 1); State.set('k', {value}) }}"
    [[outcome, message, *_]] = completions(runner, source)
    assert (outcome, told in message) == (Outcome.FAILED, True), message


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("'\\\\ud800'", id="a backslash and letters"),
        pytest.param("'😀'", id="a whole pair"),
        pytest.param("'[[[[' .repeat(50) + '\"\\\\\"'", id="brackets and quotes in text"),
        pytest.param("[NaN, -0, new Date(0), undefined]", id="what JSON writes otherwise"),
    ],
)
def test_what_only_looks_bad_is_kept(runner: asyncio.Runner, value: str) -> None:
    source = f"""function main() {{
      State.set("k", {value});
      console.log(JSON.stringify(State.get("k")) === JSON.stringify({value}));
    }}"""
    [[outcome, _, logs, *_]] = completions(runner, source)
    assert (outcome, logs) == (Outcome.SUCCEEDED, [[INFO, "true"]])


@pytest.mark.parametrize("name", ["''", "5", "undefined", "null", "{}", "'x'.repeat(257)"])
def test_a_key_is_a_short_string(runner: asyncio.Runner, name: str) -> None:
    for call in (f"get({name})", f"set({name}, 1)", f"delete({name})"):
        [[outcome, message, *_]] = completions(runner, f"function main() {{ State.{call} }}")
        assert (outcome, "a state key is a string of 1 to 256 characters" in message) == (
            Outcome.FAILED,
            True,
        )


def test_more_than_the_limit_is_denied_and_what_was_there_stays(runner: asyncio.Runner) -> None:
    source = """function main(event) {
      State.set("a", "x".repeat(event ?? 50));
      try { State.set("b", "y".repeat(100)) } catch (error) { console.log(error.name) }
      State.delete("a");
      State.set("b", "é".repeat(40));
    }"""
    [[outcome, message, logs, _, state, _]] = completions(runner, source, state=100)
    assert (outcome, message, logs, state) == (
        Outcome.SUCCEEDED,
        "",
        [[INFO, "Denied"]],
        {"b": "é" * 40},
    )


def test_the_limit_says_its_name(runner: asyncio.Runner) -> None:
    source = "function main() { State.set('key', 'x'.repeat(100)) }"
    [[outcome, message, *_]] = completions(runner, source, state=100)
    assert (outcome, message) == (
        Outcome.DENIED,
        (
            "Denied: the state would be 111 bytes; at most 100 are kept, as spec.limits.state says "
            "(rule.js:1:25)"
        ),
    )


def test_a_failed_run_says_that_it_used_the_state(runner: asyncio.Runner) -> None:
    source = "function main() { State.set('a', 1); throw new Error('x') }"
    [[outcome, _, _, _, state, _]] = completions(runner, source, {"b": 2})
    assert (outcome, state) == (Outcome.FAILED, {"a": 1, "b": 2})


def test_what_is_left_of_a_run_cannot_change_it(runner: asyncio.Runner) -> None:
    source = """let before;
    function main(event) {
      const mine = State;
      globalThis.later = () => mine.set("a", 1);
      State.set("a", 0);
    }"""
    assert completions(runner, source)[0][4] == {"a": 0}
