"""The part of WASI that toolchains need, and that none of it reaches the machine."""

from __future__ import annotations

from typing import Any

import pytest

from executor.model import LogLevel, Outcome
from tests.executor.guests import TYPES, complete, wasm
from tests.executor.running import activation

SIGNATURES = {
    "fd_write": "iiii",
    "fd_read": "iiii",
    "fd_close": "i",
    "fd_seek": "ilii",
    "fd_fdstat_get": "ii",
    "fd_prestat_get": "ii",
    "environ_sizes_get": "ii",
    "environ_get": "ii",
    "args_sizes_get": "ii",
    "clock_time_get": "ili",
    "clock_res_get": "ii",
    "random_get": "ii",
    "poll_oneoff": "iiii",
    "path_open": "iiiiillii",
    "sched_yield": "",
}


def command(body: str, *, data: str = "", **facts: Any) -> list[Any]:
    """A module as toolchains make them: `_start`, and a result by leaving it or by proc_exit."""
    declared = "".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name}'
        f" (param {' '.join(TYPES[kind] for kind in kinds)}) (result i32)))"
        for name, kinds in SIGNATURES.items()
    )
    module = wasm(f"""(module {declared}
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (data (i32.const 64) "{data}")
        (func (export "_start") {body}))""")
    [completion] = complete(module, activation(**facts))
    return completion


def exiting(code: str, **facts: Any) -> str:
    completion = command(f"(call $exit {code})", **facts)
    assert completion[0] in {Outcome.FAILED, Outcome.SUCCEEDED}
    return str(completion[1])


def write(fd: int, length: int) -> str:
    return f"""(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const {length}))
        (drop (call $fd_write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8)))"""


def test_what_is_printed_becomes_lines_of_the_log() -> None:
    body = write(1, 9) + write(2, 3) + write(1, 2)
    assert command(body, data="one\\0atwo\\0at") == [
        *(Outcome.SUCCEEDED, ""),
        [
            *([LogLevel.INFO, "one"], [LogLevel.INFO, "two"]),
            *([LogLevel.INFO, "ton"], [LogLevel.ERROR, "one"]),
        ],
        *([], None, []),
    ]


def test_exit_0_is_success_and_any_other_code_fails_with_what_was_printed_before() -> None:
    assert command(write(1, 3) + "(call $exit (i32.const 0))", data="end")[:3] == [
        *(Outcome.SUCCEEDED, "", [[LogLevel.INFO, "end"]]),
    ]
    assert command("(call $exit (i32.const 7))")[:2] == [Outcome.FAILED, "it exited with code 7"]


def test_a_flood_of_unfinished_lines_ends_the_run() -> None:
    completion = command(f"(loop {write(1, 900)} (br 0))")
    assert completion[0] == Outcome.OUTPUT_TOO_LARGE


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        pytest.param(
            "(call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))",
            58,
            id="waiting",
        ),
        pytest.param(
            "(call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 0)"
            " (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 0))",
            *(76,),
            id="a file",
        ),
        pytest.param("(call $fd_prestat_get (i32.const 3) (i32.const 0))", 8, id="a folder"),
        pytest.param(
            "(call $fd_write (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 8))",
            8,
            id="a descriptor",
        ),
        pytest.param(
            "(call $fd_read (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))",
            8,
            id="reading an output",
        ),
        pytest.param(
            "(call $random_get (i32.const 64) (i32.const 65537))", 28, id="much randomness"
        ),
        pytest.param(
            "(call $clock_time_get (i32.const 9) (i64.const 0) (i32.const 0))", 28, id="a clock"
        ),
    ],
)
def test_what_there_is_not_is_answered_with_an_error(call: str, errno: int) -> None:
    assert exiting(call) == f"it exited with code {errno}"


def test_input_is_at_its_end() -> None:
    body = """(i32.store (i32.const 8) (i32.const 99))
        (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8)))
        (call $exit (i32.load (i32.const 8)))"""
    assert command(body)[:2] == [Outcome.SUCCEEDED, ""]


def test_the_clock_stands_at_the_time_of_the_run_and_the_steady_one_at_0() -> None:
    body = """
        (drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 0)))
        (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 8)))
        (call $exit (i32.or (i64.ne (i64.load (i32.const 0)) (i64.const 1700000000000000000))
                            (i64.ne (i64.load (i32.const 8)) (i64.const 0))))"""
    assert command(body)[0] == Outcome.SUCCEEDED


def test_the_environment_is_the_scripts_and_nothing_else() -> None:
    body = (
        "(drop (call $environ_sizes_get (i32.const 32) (i32.const 36)))"
        "(drop (call $environ_get (i32.const 16) (i32.const 64)))"
        f"{write(1, 16)} (call $exit (i32.mul (i32.load (i32.const 32)) (i32.load (i32.const 36))))"
    )
    assert command(body, env={"a": "1", "target": "20.5"})[:3] == [
        *(Outcome.FAILED, "it exited with code 32", [[LogLevel.INFO, "a=1\0target=20.5\0"]]),
    ]


def test_randomness_is_the_runs() -> None:
    body = "(drop (call $random_get (i32.const 64) (i32.const 5))) (call $exit (i32.load8_u (i32.const 68)))"
    assert exiting("(i32.const 0)") == ""
    assert command(body)[1] == command(body)[1] != command(body, seed=8)[1]
