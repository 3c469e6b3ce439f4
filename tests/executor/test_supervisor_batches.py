"""Runs of several Scripts of a namespace in one batch: cheaper, and nobody suffers for another."""

from __future__ import annotations

import asyncio
import json

import pytest

from executor.model import Isolation, Limits, Outcome, RunResult
from executor.supervisor.ledger import OVERRUN, SLICE_US, Ledger
from executor.supervisor.opened import ISOLATE_BYTES, OPEN_BYTES, SOURCE_FACTOR, Opened
from tests.executor.packing import engine, run
from tests.executor.running import Pool, activation, key, runs, script

LOOP = b"function main(event) { while (event === 'now'); }"
HOARD = (
    b"function main(event) {"
    b"  const all = []; while (event === 'now') all.push(new Uint8Array(1e7).fill(1)); }"
)


def good(number: int) -> bytes:
    return b"function main() { console.log('rule %d') }" % number


async def answered(*sources: bytes, **about: object) -> tuple[list[RunResult], int]:
    """The result of a run of each, asked for at once, and in how many lots they came.

    All have come through before.
    """
    pool = Pool(workers=1)
    await pool.supervisor.start()
    for source in sources:
        await pool.run(source, activation(), **about)
    for number, source in enumerate(sources, 1):
        pool.submit(source, runs(activation(event="now"), first=number), **about)
    results = await pool.answers(*(key(number) for number in range(1, len(sources) + 1)))
    lots = len(set(pool.at.values()))
    await pool.supervisor.close()
    return results, lots


def told(results: list[RunResult]) -> list[tuple[Outcome, list[str]]]:
    return [(result.outcome, [line.text for line in result.logs]) for result in results]


def fine(*numbers: int) -> list[tuple[Outcome, list[str]]]:
    return [(Outcome.SUCCEEDED, [f"rule {number}"]) for number in numbers]


def test_runs_of_several_scripts_share_a_batch() -> None:
    results, lots = asyncio.run(answered(*(good(number) for number in range(40))))
    assert told(results) == fine(*range(40))
    assert lots < 10


def test_strict_scripts_and_those_with_other_limits_share_none() -> None:
    async def lots() -> int:
        pool = Pool(workers=1)
        await pool.supervisor.start()
        alike: list[dict[str, object]] = [{"limits": Limits(writes=n)} for n in (1, 2, 3)]
        facts = [*alike, *([{"isolation": Isolation.STRICT}] * 2)]
        for number, about in enumerate(facts):
            await pool.run(good(number), activation(), **about)
        for number, about in enumerate(facts):
            pool.submit(good(number), runs(activation(), first=number), **about)
        results = await pool.answers(*(key(number) for number in range(len(facts))))
        assert told(results) == fine(0, 1, 2, 3, 4)
        await pool.supervisor.close()
        return len(set(pool.at.values()))

    assert asyncio.run(lots()) == 5


@pytest.mark.parametrize(
    ("bad", "outcome"),
    [
        pytest.param(LOOP, Outcome.TIMED_OUT, id="one that does not end"),
        pytest.param(HOARD, Outcome.OUT_OF_MEMORY, id="one that takes all memory"),
    ],
)
def test_a_bad_script_takes_none_of_its_batch_along(bad: bytes, outcome: Outcome) -> None:
    sources = [*(good(number) for number in range(6)), bad, *(good(n) for n in range(6, 12))]
    limits = Limits(wall_time_ms=1_000 if bad is HOARD else 200)
    results, _ = asyncio.run(answered(*sources, limits=limits))
    of_bad = results.pop(6)
    assert told(results) == fine(*range(12))
    assert of_bad.outcome is outcome


@pytest.mark.parametrize(
    ("leave", "find"),
    [
        pytest.param("globalThis.left = 1", "typeof left", id="a global"),
        pytest.param("self.Date.left = 1", "typeof Date.left", id="a property of a global"),
        pytest.param("try { [].__proto__.left = 1 } catch {}", "typeof [].left", id="a prototype"),
        pytest.param("(function () { this.left = 1 }).call(globalThis)", "typeof left", id="this"),
        pytest.param("Device.left = console.left = 1", "typeof Device.left", id="an op"),
        pytest.param("Deno.env.left = 1", "typeof Deno.env.left", id="the environment"),
    ],
)
def test_scripts_of_one_isolate_do_not_see_each_other(leave: str, find: str) -> None:
    async def scene() -> list[object]:
        made = engine()
        made.open("a", f"function main() {{ try {{ {leave} }} catch {{}} }}".encode(), "a.js")
        made.open("b", f"function main() {{ console.log({find}) }}".encode(), "b.js")
        of = [("a", 1), ("b", 1), ("a", 1), ("b", 1)]
        facts = activation().decode()
        limits = {"writes": 1, "output": 100, "fetches": 0, "state": 100, "count": 4, "of": of}
        batch = f'{json.dumps(limits)[:-1]},"activations":[{",".join([facts] * 4)}]}}'
        return [completion[2] for completion in json.loads(made.run(of, batch.encode()))]

    assert asyncio.run(scene()) == [[], [[2, "undefined"]]] * 2


def test_a_script_that_is_closed_is_gone_and_the_others_stay() -> None:
    async def scene() -> list[list[object]]:
        made = engine()
        made.open("a", good(1), "a.js")
        made.open("b", good(2), "b.js")
        made.close("a")
        return run(made, script="b")

    assert asyncio.run(scene()) == [[1, "", [[2, "rule 2"]], []]]


# ---- how much goes together


def test_a_script_goes_with_others_when_it_has_come_through_alone() -> None:
    ledger, one = Ledger(), script(b"")
    assert ledger.riders(one, 0.0, SLICE_US) == 0
    ledger.took(one, run_us=1_000)
    assert ledger.riders(one, 0.0, SLICE_US) == SLICE_US // 1_000
    assert ledger.riders(one, 0.0, 5_000) == 5


def test_what_ran_together_is_believed_to_be_as_slow_as_it_can_have_been() -> None:
    ledger, one = Ledger(), script(b"")
    ledger.took_together(one, runs=2, total_us=1_000, share_us=10)
    assert ledger.batch_size(one, 0.0) == SLICE_US // 500


def test_a_batch_that_took_far_too_long_is_not_made_again() -> None:
    ledger, one = Ledger(), script(b"")
    ledger.took_together(one, runs=2, total_us=OVERRUN * SLICE_US + 1, share_us=10)
    assert ledger.riders(one, 0.0, SLICE_US) == 0
    ledger.took(one, run_us=100)
    assert ledger.riders(one, 0.0, SLICE_US) > 0


def test_suspects_and_scripts_that_pause_go_with_nobody() -> None:
    ledger, suspect, paused = Ledger(), script(b"1"), script(b"2")
    ledger.took(suspect, run_us=100)
    ledger.took(paused, run_us=100)
    ledger.suspect(suspect, 0.0)
    for _ in range(3):
        ledger.strike(paused, "it loops", 0.0)
    assert [ledger.riders(one, 1.0, SLICE_US) for one in (suspect, paused)] == [0, 0]


def test_the_least_recently_used_scripts_make_room() -> None:
    opened = Opened()
    large = script(b"")
    source = bytes(OPEN_BYTES // SOURCE_FACTOR // 3)
    assert [opened.add(name, large, source) for name in ("a", "b")] == [[], []]
    assert opened.use("a")
    assert opened.add("c", large, source) == ["b"]
    assert [opened.use(name) for name in ("a", "b", "c")] == [True, False, True]


def test_no_more_strict_scripts_are_open_than_there_are_threads_for() -> None:
    opened, strict = Opened(), script(b"", isolation=Isolation.STRICT)
    dropped = [opened.add(str(number), strict, b"") for number in range(65)]
    assert OPEN_BYTES // ISOLATE_BYTES == 64
    assert dropped == [[]] * 64 + [["0"]]
