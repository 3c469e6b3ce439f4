"""Runs of one simple rule through supervisor and worker, beside the same rule in Deno Workers.

Ours: `Supervisor` and its worker process together on one core, every run isolated; activations are
parsed, limits held, deadlines set, completions judged. The reference: a Deno program on the same
core in turn with ours, whose Worker does the same rule: it reads one property of the message and
answers with one write. A warm Worker keeps its globals from message to message and so isolates
nothing; what isolates as ours does is a fresh one per run.

The warm one is asked in two ways. Message by message, each after the answer to the one before, on
all cores, by the clock: the figure that is told of Workers. And with as many messages under way, as
objects or as text, as give it its best rate on one core.

All other rates are per second of processor time of all processes involved; the best of `ROUNDS` in
turn counts on either side. The latency of a run alone is the median of each round, and the best
round counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from deno import find_deno_bin

from executor.model import Limits, Outcome, RunKey, RunRequest, ScriptRef, ScriptType, Work
from executor.supervisor.pool import Supervisor
from tests.bench.children import running
from tests.bench.cluster import row
from tests.bench.rule import ACTIVATION, DIGEST, SOURCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executor.model import RunResult
    from tests.bench.children import Child

ROUNDS = 5
RUNS = 50_000
SUBMITTED = 500
AHEAD = 4
SINGLES = 300
MESSAGES = 20_000
WINDOWS = (1, 16, 256, 4_096)
FRESH = 30
DENO = [find_deno_bin(), "run", "--quiet", str(Path(__file__).with_name("denoworkers.js"))]

WORK = Work(
    ScriptRef(
        namespace="bench",
        name="rule",
        digest=DIGEST,
        type=ScriptType.JS,
        file="rule.js",
        limits=Limits(),
    ),
    tuple(RunRequest(RunKey(f"{i:08x}", 1, 1), ACTIVATION) for i in range(SUBMITTED)),
)
ONE = Work(WORK.script, WORK.runs[:1])


class Pool:
    """A supervisor and a count of what it owes."""

    def __init__(self) -> None:
        self.supervisor = Supervisor(self._deliver, workers=1)
        self._owed = 0
        self._news = asyncio.Event()

    def _deliver(self, results: Sequence[RunResult]) -> None:
        written = sum([len(r.writes) for r in results if r.outcome is Outcome.SUCCEEDED])
        assert written == len(results)
        self._owed -= len(results)
        self._news.set()

    async def _until_owed(self, at_most: int) -> None:
        while self._owed > at_most:
            self._news.clear()
            await self._news.wait()

    async def many(self, count: int) -> None:
        for _ in range(count // SUBMITTED):
            self._owed += SUBMITTED
            self.supervisor.submit(WORK, SOURCE)
            await self._until_owed(AHEAD * SUBMITTED)
        await self._until_owed(0)

    async def singles(self, count: int) -> list[float]:
        took = []
        for _ in range(count):
            began = time.perf_counter()
            self._owed += 1
            self.supervisor.submit(ONE, SOURCE)
            await self._until_owed(0)
            took.append(time.perf_counter() - began)
        return took


async def serve() -> None:
    pool = Pool()
    await pool.supervisor.start()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        match json.loads(line):
            case {"do": "many", "count": count}:
                await pool.many(count)
                answer: dict[str, Any] = {}
            case {"do": "singles", "count": count}:
                answer = {"seconds": await pool.singles(count)}
        print(json.dumps(answer), flush=True)
    await pool.supervisor.close()


def _rate(child: Child, count: int, **what: Any) -> float:
    child.ask(**what, count=count)
    return count / child.cpu


def run() -> list[dict[str, Any]]:
    core = min(os.sched_getaffinity(0))
    ours, warm, asked, fresh = [], [], [], []
    alone: list[float] = []
    started: list[float] = []
    with (
        running([sys.executable, "-m", __name__], core) as pool,
        running(DENO, core) as deno,
        running(DENO, None) as free,
    ):
        pool.ask(do="many", count=RUNS)
        ways = list(product(WINDOWS, (False, True)))
        rates = {
            (window, text): _rate(deno, MESSAGES, do="warm", window=window, text=text)
            for _ in range(2)
            for window, text in ways
        }
        window, text = max(rates, key=rates.__getitem__)
        for _ in range(ROUNDS):
            ours.append(_rate(pool, RUNS, do="many"))
            warm.append(_rate(deno, MESSAGES, do="warm", window=window, text=text))
            free.ask(do="warm", window=1, text=False, count=MESSAGES)
            asked.append(MESSAGES / free.seconds)
            alone.append(statistics.median(pool.ask(do="singles", count=SINGLES)["seconds"]))
            started.append(statistics.median(deno.ask(do="fresh", count=FRESH)["seconds"]))
            fresh.append(FRESH / deno.cpu)
    rate, p50 = max(ours), min(alone)
    return [
        row(
            "isolated runs on one core, beside a warm Deno Worker asked message by message",
            rate,
            "runs/s",
            reference=max(asked),
            target=3,
            less=False,
        ),
        row(
            "isolated runs on one core, beside a warm Deno Worker at its best on one core",
            rate,
            "runs/s",
            reference=max(warm),
            target=3,
            less=False,
        ),
        row(
            "isolated runs on one core, beside a fresh Deno Worker per run",
            rate,
            "runs/s",
            reference=max(fresh),
            target=500,
            less=False,
        ),
        row(
            "one run alone, p50, beside a fresh Deno Worker",
            p50 * 1_000,
            "ms",
            reference=min(started) * 1_000,
            target=1 / 20,
        ),
    ]


if __name__ == "__main__":
    uvloop.run(serve())
