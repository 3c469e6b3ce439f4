from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from executor.model import Limits, Outcome, RunKey, RunRequest, Work
from tests.executor.running import Pool, activation, key, runs, script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executor.model import RunResult

WALL_SECONDS = 0.2
# The deadline, the kill, and a worker that was started ahead.
PROMISE_SECONDS = WALL_SECONDS + 1.0

RULE = b"""
async function main(event) {
  if (event === "loop") for (;;);
  if (event === "abort") return "ab".repeat(2 ** 27).split("");
  if (event === "late") { await null; for (;;); }
  Device.setDeviceStatus("target-device-name", "state", "ON");
  await Device.commitDevice("target-device-name");
}"""
GOOD = b"function main() { console.log('fine') }"


def outcomes(results: Sequence[RunResult]) -> list[Outcome]:
    return [result.outcome for result in results]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("for (;;);", id="an endless loop"),
        pytest.param("const again = () => Promise.resolve().then(again); again();", id="endless microtasks"),
        pytest.param("Array.prototype.includes.call({ length: 2 ** 53 - 1 }, 1)", id="native code that V8 cannot stop"),
        pytest.param("/^(a+)+$/.test('a'.repeat(50) + 'b')", id="a catastrophic regular expression"),
        pytest.param("new Uint32Array(2e7).map(() => Math.random() * 1e9).toSorted((a, b) => a - b)", id="a giant sort"),
        pytest.param("let n = 3n; for (;;) n *= n;", id="growing BigInts"),
        pytest.param("const p = new Proxy({}, { get: () => { for (;;); } }); throw p;", id="a loop while the error is described"),
        pytest.param("return { then() { for (;;); } }", id="a loop in a thenable"),
        pytest.param("console.log({ toJSON() { for (;;); } })", id="a loop while printing"),
    ],
)  # fmt: skip
def test_a_run_that_does_not_end_is_killed_at_its_deadline(
    runner: asyncio.Runner, pool: Pool, body: str
) -> None:
    async def timed() -> tuple[list[RunResult], float]:
        await pool.run(GOOD, activation())
        started = asyncio.get_running_loop().time()
        source = f"function main() {{ {body} }}".encode()
        results = await pool.run(source, activation())
        return results, asyncio.get_running_loop().time() - started

    [result], took = runner.run(timed())
    # BigInts may reach V8's own limit first, and a sort the cap on memory.
    assert result.outcome in {Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.FAILED}
    if result.outcome is Outcome.TIMED_OUT:
        assert result.message == "it did not finish within 200 ms"
    assert took < PROMISE_SECONDS
    assert outcomes(runner.run(pool.run(GOOD, activation()))) == [Outcome.SUCCEEDED]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("const a = []; for (;;) a.push(new Array(1000).fill(1));", id="heap"),
        pytest.param("return 'ab'.repeat(2 ** 27).split('');", id="one allocation over the limit"),
        pytest.param("const a = []; for (;;) a.push(new Uint8Array(1e7).fill(1));", id="array buffers"),
        pytest.param("return new Array(2 ** 32 - 1).fill(1);", id="a sparse array filled"),
        pytest.param("let s = 'ab'; for (;;) { s += s; s.charCodeAt(0) }", id="a string too long"),
        pytest.param("const a = []; for (;;) a.push(new Intl.NumberFormat('de', { style: 'currency', currency: 'EUR' }));", id="Intl objects"),
    ],
)  # fmt: skip
def test_a_memory_bomb_hurts_only_itself(runner: asyncio.Runner, pool: Pool, body: str) -> None:
    limits = Limits(wall_time_ms=2_000, output_bytes=100, writes=1)
    source = f"function main() {{ {body} }}".encode()
    [result] = runner.run(pool.run(source, activation(), limits=limits))
    # V8 refuses some with a RangeError, and some only fill memory slowly.
    assert result.outcome in {Outcome.OUT_OF_MEMORY, Outcome.FAILED, Outcome.TIMED_OUT}
    if result.outcome is Outcome.FAILED:
        assert result.message.startswith("RangeError")
    assert outcomes(runner.run(pool.run(GOOD, activation()))) == [Outcome.SUCCEEDED]


@pytest.mark.parametrize("count", [1, 2, 40, 300])
@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        ("loop", Outcome.TIMED_OUT),
        ("late", Outcome.TIMED_OUT),
        ("abort", Outcome.OUT_OF_MEMORY),
    ],
)
def test_only_the_guilty_run_of_a_batch_is_blamed(
    runner: asyncio.Runner, pool: Pool, event: str, outcome: Outcome, count: int
) -> None:
    guilty = count // 2
    events = [activation(event=event if i == guilty else i) for i in range(count)]
    # A name of its own, so that no earlier case has made the script suspect.
    limits = Limits(wall_time_ms=5_000 if event == "abort" else 200, output_bytes=1_000, writes=16)
    results = runner.run(pool.run(RULE, *events, name=f"{event}-{count}", limits=limits))
    assert outcomes(results) == [
        outcome if i == guilty else Outcome.SUCCEEDED for i in range(count)
    ]
    assert [len(result.writes) for result in results] == [
        0 if i == guilty else 1 for i in range(count)
    ]


def test_a_batch_with_a_loop_is_found_after_one_deadline_not_after_their_sum(
    runner: asyncio.Runner, pool: Pool
) -> None:
    async def timed() -> float:
        for _ in range(3):
            await pool.run(RULE, *[activation()] * 50, name="summed")
        started = asyncio.get_running_loop().time()
        pool.submit(RULE, runs(activation(event="loop"), *[activation()] * 200), name="summed")
        await pool.answers(key(2))
        took = asyncio.get_running_loop().time() - started
        await pool.answers(*(key(1 + i) for i in range(201)))
        pool.results.clear()
        return took

    # Once for the batch, once for the guilty run alone, and new workers: their sum would be 40 s.
    assert runner.run(timed()) < 201 * WALL_SECONDS / 4


def test_a_poison_script_does_not_hold_up_other_scripts_of_its_namespace(
    runner: asyncio.Runner, pool: Pool
) -> None:
    async def wait_of_the_others() -> list[float]:
        loop = asyncio.get_running_loop()
        poison = [activation(event="loop")] * 10
        pool.submit(RULE, runs(*poison, first=1_000), name="poison")
        waits = []
        for i in range(4):
            started = loop.time()
            pool.submit(GOOD, runs(activation(), first=i + 1), name="other")
            await pool.answers(key(i + 1))
            waits.append(loop.time() - started)
        pool.supervisor.abandon()
        return waits

    assert max(runner.run(wait_of_the_others())) < PROMISE_SECONDS


def test_another_namespace_does_not_notice_a_poison_script(
    runner: asyncio.Runner, pool: Pool
) -> None:
    async def waits() -> list[float]:
        loop = asyncio.get_running_loop()
        await pool.run(GOOD, activation(), namespace="neighbour")
        poison = [activation(event="loop")] * 20
        pool.submit(RULE, runs(*poison, first=2_000), name="poison", namespace="poisoned")
        measured = []
        for i in range(20):
            started = loop.time()
            pool.submit(GOOD, runs(activation(), first=i + 1), namespace="neighbour")
            await pool.answers(key(i + 1))
            measured.append(loop.time() - started)
        pool.supervisor.abandon()
        pool.results.clear()
        return measured

    assert sorted(runner.run(waits()))[10] < WALL_SECONDS / 2


def test_a_loop_at_the_top_level_fails_the_load(runner: asyncio.Runner, pool: Pool) -> None:
    source = b"for (;;); function main() {}"

    async def load() -> RunResult:
        pool.supervisor.submit(Work(script(source), load=key(9)), source)
        [result] = await pool.answers(key(9))
        pool.results.clear()
        return result

    result = runner.run(load())
    assert (result.outcome, result.message, result.load) == (
        Outcome.LOAD_FAILED,
        "loading the script: it did not finish within 200 ms",
        True,
    )


def test_an_unreadable_activation_is_found_and_the_rest_of_the_batch_runs(
    runner: asyncio.Runner, pool: Pool
) -> None:
    bad = [b"{", b"\xff\xfe", b"{},{}", b"[1]"]
    mixed = [activation(), *bad, activation()]
    results = runner.run(pool.run(GOOD, *mixed, name="unreadable"))
    assert outcomes(results) == [
        Outcome.SUCCEEDED,
        *[Outcome.UNAVAILABLE] * len(bad),
        Outcome.SUCCEEDED,
    ]


def test_memory_is_capped_from_outside() -> None:
    async def bomb() -> list[RunResult]:
        pool = Pool(workers=1, memory_bytes=160 * 1024 * 1024)
        await pool.supervisor.start()
        limits = Limits(wall_time_ms=10_000, heap_bytes=1 << 30)
        body = b"function main() { const a = []; for (;;) a.push(new Uint8Array(1e5).fill(1)) }"
        results = await pool.run(body, activation(), limits=limits)
        results += await pool.run(GOOD, activation())
        await pool.supervisor.close()
        return results

    bombed, after = asyncio.run(bomb())
    assert (bombed.outcome, bombed.message, after.outcome) == (
        Outcome.OUT_OF_MEMORY,
        "it used more memory than a worker may have",
        Outcome.SUCCEEDED,
    )


def test_keys_come_back_as_they_were(runner: asyncio.Runner, pool: Pool) -> None:
    strange = RunKey("\u2028'\"", 3, 2**63)

    async def run() -> RunResult:
        pool.submit(GOOD, [RunRequest(strange, activation())])
        return (await pool.answers(strange))[0]

    assert runner.run(run()).key == strange
