"""What bad modules come to: a typed answer, in time, and the next run is none the worse."""

from __future__ import annotations

import gzip
import time
from typing import TYPE_CHECKING

import pytest
import wasmtime

from executor.engines.errors import ScriptRefused
from executor.engines.wasm.module import MODULE_BYTES
from executor.engines.wasm.native import plain
from executor.model import Limits, Outcome, ScriptType
from tests.executor.guests import complete, engine, guest, wasm
from tests.executor.packing import zipped
from tests.executor.running import PATIENCE_SECONDS, Pool, activation

if TYPE_CHECKING:
    import asyncio

GOOD = wasm('(module (func (export "main")))')
EMPTY_MAIN = '(func (export "main"))'
LIMITS = Limits(wall_time_ms=200, output_bytes=1_000, writes=16, heap_bytes=16 << 20)


def precompiled() -> bytes:
    return bytes(wasmtime.Module(wasmtime.Engine(), GOOD).serialize())


REFUSED = [
    pytest.param(b"", "it is not WebAssembly: it does not begin with \\0asm", id="nothing"),
    pytest.param(
        b"function main() {}", "it is not WebAssembly: it does not begin with \\0asm", id="garbage"
    ),
    pytest.param(
        b'(module (func (export "main")))',
        "it is not WebAssembly: it does not begin with \\0asm",
        id="the text format",
    ),
    pytest.param(
        b"\0asm\x02\0\0\0", "it is WebAssembly of a version that is not known here", id="a version"
    ),
    pytest.param(GOOD[:-3], "it is not a valid module: ", id="truncated"),
    pytest.param(
        precompiled(),
        "it is compiled for a machine already; publish the .wasm it came from",
        id="a precompiled artefact",
    ),
    pytest.param(
        wasm("(module)"),
        "it has no main: export a function `main` that takes nothing",
        id="no main",
    ),
    pytest.param(
        wasm('(module (func (export "main") (param f64)))'),
        "its main must take nothing, or argc and argv, and return nothing or an i32",
        id="a main that wants to be given something",
    ),
    pytest.param(
        wasm('(module (global (export "main") i32 (i32.const 0)))'),
        "it has no main: export a function `main` that takes nothing",
        id="a main that is no function",
    ),
    pytest.param(
        wasm(f'(module (import "env" "system" (func)) {EMPTY_MAIN})'),
        "it imports env.system, which scripts are not given",
        id="an unknown import",
    ),
    pytest.param(
        wasm(f'(module (import "wasi_snapshot_preview1" "sock_send" (func)) {EMPTY_MAIN})'),
        "it imports wasi_snapshot_preview1.sock_send, which scripts are not given",
        id="a socket of WASI",
    ),
    pytest.param(
        wasm(f'(module (import "scriptops_v1" "now" (func (result i32))) {EMPTY_MAIN})'),
        "it imports scriptops_v1.now as () -> (i32), not () -> (f64)",
        id="an import of another type",
    ),
    pytest.param(
        wasm(f'(module (import "env" "memory" (memory 1)) {EMPTY_MAIN})'),
        "it imports env.memory, which is no function; export it instead",
        id="an imported memory",
    ),
    pytest.param(
        wasm(f'(module (import "scriptops_v1" "now" (func (result f64))) {EMPTY_MAIN})'),
        "it imports functions but exports no memory; export it as `memory`",
        id="no exported memory",
    ),
    pytest.param(
        wasm(f"(module (memory i64 1) {EMPTY_MAIN})"), "it is not a valid module: ", id="memory64"
    ),
    pytest.param(
        wasm(f"(module (memory 1 2 shared) {EMPTY_MAIN})"),
        "it is not a valid module: ",
        id="shared memory and threads",
    ),
    pytest.param(
        wasm(f"(module (memory 1) (memory 1) {EMPTY_MAIN})"),
        "it is not a valid module: ",
        id="two memories",
    ),
    pytest.param(
        wasm(f"(module (type (struct (field i32))) {EMPTY_MAIN})"),
        "it is not a valid module: ",
        id="garbage-collected types",
    ),
    pytest.param(
        b"\0asm\x01\0\0\0" + bytes(MODULE_BYTES),
        f"a module of {MODULE_BYTES + 8} bytes; at most {MODULE_BYTES} are compiled",
        id="too large",
    ),
]


@pytest.mark.parametrize(("module", "why"), REFUSED)
def test_what_cannot_be_a_script_is_refused_when_it_is_loaded(module: bytes, why: str) -> None:
    with pytest.raises(ScriptRefused) as refusal:
        engine().check(module, "bad.wasm")
    told = str(refusal.value)
    assert (told.startswith(why), told.endswith(" (bad.wasm)"), "\n" in told) == (True, True, False)


BODY_OF_MAIN = '(module (func $main (export "main") {}))'


def test_a_package_is_unpacked_before_it_is_judged() -> None:
    engine().check(gzip.compress(GOOD), "rule/1.gz")
    engine().check(zipped({"main.wasm": GOOD}), "rule/1.zip")
    with pytest.raises(ScriptRefused, match=r"main\.wasm"):
        engine().check(zipped({"other.wasm": GOOD}), "rule/1.zip")


ENDINGS = [
    pytest.param(
        BODY_OF_MAIN.format("(loop (br 0))"),
        *(Outcome.TIMED_OUT, "it did not finish within 200 ms"),
        id="an endless loop",
    ),
    pytest.param(
        '(module (func $first (loop (br 0))) (start $first) (func (export "main")))',
        *(Outcome.TIMED_OUT, "it did not finish within 200 ms"),
        id="an endless loop before main",
    ),
    pytest.param(
        '(module (func $first unreachable) (start $first) (func (export "main")))',
        *(Outcome.FAILED, "unreachable in first"),
        id="a trap before main",
    ),
    pytest.param(
        BODY_OF_MAIN.format("(call $main)"),
        *(Outcome.FAILED, "stack overflow in main, called from main, called from main"),
        id="endless recursion",
    ),
    pytest.param(
        "(module (func $average (result i32) (i32.div_u (i32.const 1) (i32.const 0)))"
        ' (func $main (export "main") (drop (call $average))))',
        *(Outcome.FAILED, "integer division by zero in average, called from main"),
        id="a trap names the functions",
    ),
    pytest.param(
        '(module (memory 1) (func (export "main") (drop (i32.load (i32.const 65536)))))',
        *(Outcome.FAILED, "memory out of bounds in function 0"),
        id="a trap in a module without names",
    ),
    pytest.param(
        '(module (table 1 funcref) (type $t (func)) (func $f (export "main")'
        " (call_indirect (type $t) (i32.const 0))))",
        *(Outcome.FAILED, "indirect call to null in f"),
        id="a call of nothing",
    ),
    pytest.param(
        '(module (memory 65536) (func (export "main")))',
        *(Outcome.OUT_OF_MEMORY, "it starts with more memory than the 16 MiB of spec.limits.heap"),
        id="four gigabytes from the start",
    ),
    pytest.param(
        '(module (memory (export "memory") 1) (func $grow (export "main")'
        " (loop (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable)) (br 0))))",
        *(Outcome.OUT_OF_MEMORY, "unreachable in grow, with 15 of 16 MiB in use"),
        id="an allocator that gives up",
    ),
    pytest.param(
        '(module (table 10000000 funcref) (func (export "main")))',
        *(Outcome.OUT_OF_MEMORY, "table minimum size of 10000000 elements exceeds table limits"),
        id="a huge table",
    ),
    pytest.param(
        "(module (table 1 1 funcref) (table 1 1 funcref) (table 1 1 funcref) (table 1 1 funcref)"
        ' (table 1 1 funcref) (func (export "main")))',
        *(Outcome.OUT_OF_MEMORY, "resource limit exceeded: table count too high at 5"),
        id="many tables",
    ),
    pytest.param(
        '(module (memory 256) (func (export "main") (loop'
        " (memory.fill (i32.const 0) (i32.const 1) (i32.const 16777216)) (br 0))))",
        *(Outcome.TIMED_OUT, "it did not finish within 200 ms"),
        id="memory filled for ever",
    ),
    pytest.param(
        '(module (func (export "main") (result i32) (i32.const 3)))',
        *(Outcome.FAILED, "main returned 3"),
        id="a code that nobody knows",
    ),
]


@pytest.mark.parametrize(("text", "outcome", "message"), ENDINGS)
def test_a_guest_that_misbehaves_ends_typed_and_the_next_run_is_well(
    runner: asyncio.Runner, pool: Pool, text: str, outcome: Outcome, message: str
) -> None:
    about = {"type": ScriptType.WASM, "limits": LIMITS, "file": "bad/1.wasm"}
    started = time.monotonic()
    [result] = runner.run(pool.run(wasm(text), activation(), **about))
    assert (result.outcome, result.message) == (outcome, message)
    [after] = runner.run(pool.run(GOOD, activation(), **about))
    assert after.outcome is Outcome.SUCCEEDED
    assert time.monotonic() - started < PATIENCE_SECONDS


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "(call $log (i32.const 2) (i32.const 65530) (i32.const 7))", id="over the end"
        ),
        pytest.param("(call $log (i32.const 2) (i32.const -1) (i32.const 1))", id="far away"),
        pytest.param("(call $log (i32.const 2) (i32.const 65536) (i32.const 1))", id="behind it"),
        pytest.param(
            "(call $env (i32.const 0) (i32.const 1) (i32.const 65536) (i32.const 9))", id="a buffer"
        ),
        pytest.param(
            "(call $env (i32.const 0) (i32.const 1) (i32.const -2) (i32.const -1))",
            id="a buffer that wraps",
        ),
    ],
)
def test_an_address_outside_of_memory_fails_the_run(text: str) -> None:
    module = guest("log", "env", data="a", body=text)
    [completion] = complete(module, activation(env={"a": "bcd"}))
    assert completion[:2] == [Outcome.FAILED, "it gave an address outside of its memory"]


def test_memory_that_has_grown_can_be_given() -> None:
    body = """(drop (memory.grow (i32.const 2)))
        (call $log (i32.const 2) (i32.const 65530) (i32.const 12))"""
    assert complete(guest("log", data="", body=body)) == [
        [Outcome.SUCCEEDED, "", [[2, "\0" * 12]], [], None, []]
    ]


def test_runs_share_no_memory_no_global_and_no_table() -> None:
    module = wasm("""(module
        (memory (export "memory") 1) (global $g (mut i32) (i32.const 0))
        (func (export "main") (result i32)
            (global.set $g (i32.add (global.get $g) (i32.const 1)))
            (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 10)))
            (i32.add (global.get $g) (i32.load (i32.const 8)))))""")
    messages = [completion[1] for completion in complete(module, *[activation()] * 3)]
    assert messages == ["main returned 11"] * 3


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('(module (func (export "main") (loop (br 0))))', id="in main"),
        pytest.param(
            '(module (func $f (loop (br 0))) (start $f) (func (export "main")))', id="before main"
        ),
    ],
)
def test_a_loop_is_stopped_by_the_engine_itself_so_that_its_worker_lives(text: str) -> None:
    started = time.monotonic()
    [completion] = complete(wasm(text), wall=100)
    assert completion[:2] == [Outcome.TIMED_OUT, "it did not finish within 100 ms"]
    assert 0.1 <= time.monotonic() - started < PATIENCE_SECONDS


def test_a_loop_in_one_run_takes_nothing_from_the_others_of_its_batch(
    runner: asyncio.Runner, pool: Pool
) -> None:
    module = wasm("""(module
        (import "scriptops_v1" "event" (func $event (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "main")
            (if (i32.eq (call $event (i32.const 0) (i32.const 9)) (i32.const 4))
                (then (loop (br 0))))))""")
    given = [activation(event=event) for event in (1, True, 2)]
    about = {"type": ScriptType.WASM, "limits": LIMITS}
    results = runner.run(pool.run(module, *given, **about))
    assert [result.outcome for result in results] == [
        *(Outcome.SUCCEEDED, Outcome.TIMED_OUT, Outcome.SUCCEEDED),
    ]


def test_with_fuel_a_run_ends_at_the_same_instruction_everywhere() -> None:
    module = guest(
        *("random", "device_set_number", "device_commit", "log"),
        data=".",
        body="(loop (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1))) (br 0)) (i32.const 0)",
    )
    first, second = (complete(module, fuel=500) for _ in range(2))
    assert first == second
    [completion] = first
    assert completion[:2] == [Outcome.TIMED_OUT, "it used up its fuel of 500"]
    assert completion[2]


def test_an_operator_can_have_every_run_burn_fuel(runner: asyncio.Runner) -> None:
    async def outcome() -> tuple[Outcome, str]:
        pool = Pool(wasm_fuel=10_000)
        await pool.supervisor.start()
        try:
            loop = wasm('(module (func (export "main") (loop (br 0))))')
            [result] = await pool.run(loop, activation(), type=ScriptType.WASM)
        finally:
            await pool.supervisor.close()
        return result.outcome, result.message

    assert runner.run(outcome()) == (Outcome.TIMED_OUT, "it used up its fuel of 10000")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("_ZN10thermostat7average17h0123456789abcdefE", "thermostat::average"),
        ("_ZN3foo", "_ZN3foo"),
        ("_ZN99xE", "x"),
        ("main", "main"),
    ],
)
def test_names_of_rust_are_told_as_they_were_written(name: str, told: str) -> None:
    assert plain(name) == told
