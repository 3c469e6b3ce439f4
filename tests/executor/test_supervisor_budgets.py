"""What a run may use, held to by real workers."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from executor.model import Limits, Outcome
from tests.executor.running import Pool, activation, key, runs

if TYPE_CHECKING:
    from executor.model import RunResult

LOOP = b"function main() { for (;;); }"


def ended(runner: asyncio.Runner, pool: Pool, body: str, limits: Limits, name: str) -> RunResult:
    source = f"async function main() {{ {body} }}".encode()
    [result] = runner.run(pool.run(source, activation(), limits=limits, name=name))
    return result


def test_processor_time_has_a_limit_of_its_own(runner: asyncio.Runner, pool: Pool) -> None:
    limits = Limits(wall_time_ms=10_000, cpu_time_ms=150)
    result = ended(runner, pool, "for (;;);", limits, "cpu")
    assert (result.outcome, result.message) == (
        Outcome.TIMED_OUT,
        "it used more than 150 ms of processor time",
    )
    assert 150_000 <= result.duration_us < 5_000_000


def test_a_run_that_timed_out_says_how_long_it_took(runner: asyncio.Runner, pool: Pool) -> None:
    result = ended(runner, pool, "for (;;);", Limits(wall_time_ms=200), "wall")
    assert (result.outcome, result.message) == (
        Outcome.TIMED_OUT,
        "it did not finish within 200 ms",
    )
    assert 200_000 <= result.duration_us < 2_000_000


@pytest.mark.parametrize(
    ("heap_mib", "outcome", "message"),
    [
        (8, Outcome.OUT_OF_MEMORY, "it used more than 8 MiB of memory"),
        (128, Outcome.SUCCEEDED, ""),
    ],
)
def test_memory_is_that_of_the_script(
    runner: asyncio.Runner, pool: Pool, heap_mib: int, outcome: Outcome, message: str
) -> None:
    body = "const a = []; for (let i = 0; i < 8e4; i += 1) a.push(new Array(100).fill(i)); return a"
    limits = Limits(wall_time_ms=10_000, cpu_time_ms=10_000, heap_bytes=heap_mib << 20)
    result = ended(runner, pool, body, limits, f"heap-{heap_mib}")
    assert (result.outcome, result.message) == (outcome, message)


def test_garbage_is_no_memory(runner: asyncio.Runner, pool: Pool) -> None:
    # A gigabyte in all, a few MB at a time.
    body = "for (let i = 0; i < 1e5; i += 1) { const a = new Array(1250).fill(i); a[0] = a.length }"
    limits = Limits(wall_time_ms=10_000, cpu_time_ms=10_000, heap_bytes=32 << 20)
    assert ended(runner, pool, body, limits, "garbage").outcome is Outcome.SUCCEEDED


def test_a_run_that_hoards_buffers_is_found_among_others(
    runner: asyncio.Runner, pool: Pool
) -> None:
    source = b"""async function main(event) {
      const held = [];
      if (event === "hoard") for (;;) held.push(new Uint8Array(1e6).fill(1));
      await null;
      held.push(new Uint8Array(1e6));
    }"""
    events = [activation(event="hoard" if i == 3 else "") for i in range(8)]
    limits = Limits(wall_time_ms=10_000, cpu_time_ms=10_000)
    results = runner.run(pool.run(source, *events, limits=limits, name="hoard"))
    assert [result.outcome for result in results] == [
        Outcome.OUT_OF_MEMORY if i == 3 else Outcome.SUCCEEDED for i in range(8)
    ]


def test_a_script_whose_runs_all_have_to_be_ended_pauses_and_says_until_when(
    runner: asyncio.Runner, pool: Pool
) -> None:
    async def seven() -> list[RunResult]:
        requests = runs(*[activation()] * 7)
        pool.submit(LOOP, requests, name="loop", limits=Limits(wall_time_ms=100))
        answers = await pool.answers(*(key(1 + i) for i in range(7)))
        pool.results.clear()
        return answers

    results = runner.run(seven())
    assert [result.outcome for result in results] == [
        *[Outcome.TIMED_OUT] * 3,
        *[Outcome.CRASH_LOOP] * 4,
    ]
    assert re.fullmatch(
        r"not run: its last 3 runs were ended, the last because it did not finish within 100 ms; "
        r"it is tried again after \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
        results[-1].message,
    )


def test_a_pause_is_for_one_script_of_the_namespace(runner: asyncio.Runner, pool: Pool) -> None:
    good = runner.run(pool.run(b"function main() {}", activation(), name="good"))
    looped = runner.run(pool.run(LOOP, activation(), name="loop", limits=Limits(wall_time_ms=100)))
    assert [r.outcome for r in (*good, *looped)] == [Outcome.SUCCEEDED, Outcome.CRASH_LOOP]
