"""The loop around a work queue."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result
from reconciler.core.workqueue import BASE_DELAY
from reconciler.errors import Conflict, Stalled, Waiting
from tests.controllers.runpath import finish
from tests.fakes.clock import FakeClock

Reconcile = Callable[[str], Awaitable[Result]]


class Bench:
    def __init__(self, reconcile: Reconcile, *, workers: int = 1) -> None:
        self.clock = FakeClock()
        self.registry = CollectorRegistry()
        self.loop: KeyLoop[str] = KeyLoop(
            "Script", reconcile, clock=self.clock, metrics=Metrics(self.registry), workers=workers
        )

    def counted(self, result: str) -> float | None:
        labels = {"kind": "Script", "result": result}
        return self.registry.get_sample_value("scriptops_reconcile_total", labels)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.loop.run())
        try:
            yield
        finally:
            task.cancel()
            [ended] = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)


def ends(*outcomes: Result | Exception) -> tuple[list[str], Reconcile]:
    """A reconcile that ends with each of `outcomes` in turn, then well; and the keys it saw."""
    seen: list[str] = []
    left = list(outcomes)

    async def reconcile(key: str) -> Result:
        seen.append(key)
        outcome = left.pop(0) if left else Result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return seen, reconcile


def test_keys_added_before_and_while_running_are_reconciled():
    async def check() -> None:
        seen, reconcile = ends()
        bench = Bench(reconcile)
        bench.loop.add("a")
        async with bench.running():
            await bench.clock.settle()
            bench.loop.add("b")
            await bench.clock.settle()
            assert (seen, bench.loop.idle, bench.counted("success")) == (["a", "b"], True, 2)

    finish(check())


def test_error_of_one_key_touches_no_other_and_is_retried_with_backoff(caplog):
    async def check() -> None:
        failures = Counter[str]()

        async def reconcile(key: str) -> Result:
            failures[key] += 1
            if key == "bad":
                raise ZeroDivisionError("boom")
            return Result()

        bench = Bench(reconcile)
        async with bench.running():
            for key in ("good", "bad", "fine"):
                bench.loop.add(key)
            await bench.clock.settle()
            assert failures == {"good": 1, "bad": 1, "fine": 1}
            await bench.clock.advance(BASE_DELAY)
            await bench.clock.advance(BASE_DELAY)
            assert failures == {"good": 1, "bad": 2, "fine": 1}
            await bench.clock.advance(BASE_DELAY)
            assert failures["bad"] == 3
            assert bench.counted("error") == 3

    finish(check())
    [first, *_] = caplog.records
    assert (first.key, first.reason, first.exc_info[0]) == (
        "bad",
        "InternalError",
        ZeroDivisionError,
    )


def test_waiting_comes_back_at_its_time_every_time_without_backoff():
    async def check() -> None:
        waiting = [Waiting("x", requeue_after=timedelta(seconds=30)) for _ in range(3)]
        seen, reconcile = ends(*waiting)
        bench = Bench(reconcile)
        async with bench.running():
            bench.loop.add("a")
            await bench.clock.advance(29.9)
            assert len(seen) == 1
            await bench.clock.advance(0.1)
            assert len(seen) == 2
            await bench.clock.advance(30)
            assert (len(seen), bench.counted("waiting")) == (3, 3)

    finish(check())


def test_stalled_rests_until_it_is_added():
    async def check() -> None:
        seen, reconcile = ends(Stalled("x"))
        bench = Bench(reconcile)
        async with bench.running():
            bench.loop.add("a")
            await bench.clock.advance(100_000)
            assert (seen, bench.loop.idle) == (["a"], True)
            bench.loop.add("a")
            await bench.clock.settle()
            assert seen == ["a", "a"]

    finish(check())


def test_success_forgets_earlier_failures():
    async def check() -> None:
        seen, reconcile = ends(Conflict("1"), Conflict("2"), Result(), Conflict("3"))
        bench = Bench(reconcile)
        async with bench.running():
            bench.loop.add("a")
            await bench.clock.advance(BASE_DELAY * 3)
            assert len(seen) == 3
            bench.loop.add("a")
            await bench.clock.advance(BASE_DELAY)
            assert len(seen) == 5

    finish(check())


def test_result_may_ask_for_another_look():
    async def check() -> None:
        seen, reconcile = ends(Result(timedelta(seconds=5)))
        bench = Bench(reconcile)
        async with bench.running():
            bench.loop.add("a")
            await bench.clock.advance(4.9)
            assert len(seen) == 1
            await bench.clock.advance(0.1)
            assert (len(seen), bench.counted("requeue")) == (2, 1)

    finish(check())


def test_delayed_key_is_not_due_and_an_earlier_wish_wins():
    async def check() -> None:
        seen, reconcile = ends()
        bench = Bench(reconcile)
        async with bench.running():
            bench.loop.add_after("a", 10)
            bench.loop.add_after("a", 3)
            await bench.clock.advance(2.9)
            assert (seen, bench.loop.idle) == ([], True)
            await bench.clock.advance(0.1)
            assert seen == ["a"]
            await bench.clock.advance(100)
            assert seen == ["a"]

    finish(check())


class Gated:
    """A reconcile that waits to be let go."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.most = 0
        self.gate = asyncio.Event()
        self._now = Counter[str]()

    async def __call__(self, key: str) -> Result:
        self.started.append(key)
        self._now[key] += 1
        assert self._now[key] == 1
        self.most = max(self.most, self._now.total())
        try:
            await self.gate.wait()
        finally:
            self._now[key] -= 1
        return Result()


def test_so_many_workers_work_at_once_and_never_two_on_one_key():
    async def check() -> None:
        gated = Gated()
        bench = Bench(gated, workers=3)
        async with bench.running():
            for key in "abcde":
                bench.loop.add(key)
            await bench.clock.settle()
            bench.loop.add("a")
            await bench.clock.settle()
            assert (gated.started, gated.most, bench.loop.idle) == (["a", "b", "c"], 3, False)
            gated.gate.set()
            await bench.clock.settle()
            assert (gated.started, gated.most) == (["a", "b", "c", "d", "e", "a"], 3)

    finish(check())


def test_delay_that_ends_while_all_work_is_seen_when_one_is_free():
    async def check() -> None:
        gated = Gated()
        bench = Bench(gated)
        async with bench.running():
            bench.loop.add("a")
            bench.loop.add_after("b", 1)
            await bench.clock.advance(5)
            assert gated.started == ["a"]
            gated.gate.set()
            await bench.clock.settle()
            assert gated.started == ["a", "b"]

    finish(check())


def test_cancelled_loop_cancels_its_work_and_the_key_is_due_when_it_runs_again():
    async def check() -> None:
        gated = Gated()
        bench = Bench(gated)
        async with bench.running():
            bench.loop.add("a")
            await bench.clock.settle()
        assert gated.started == ["a"]
        gated.gate.set()
        async with bench.running():
            await bench.clock.settle()
            assert (gated.started, bench.loop.idle) == (["a", "a"], True)

    finish(check())


def test_cancellation_of_what_a_reconcile_waits_for_is_an_error_of_that_key_only(caplog):
    async def check() -> None:
        lost = asyncio.get_running_loop().create_future()
        seen: list[str] = []

        async def reconcile(key: str) -> Result:
            seen.append(key)
            if seen.count("a") == 1 and key == "a":
                await lost
            return Result()

        bench = Bench(reconcile)
        async with bench.running():
            bench.loop.add("a")
            await bench.clock.settle()
            lost.cancel()
            bench.loop.add("b")
            await bench.clock.settle()
            assert seen == ["a", "b"]
            await bench.clock.advance(BASE_DELAY)
            assert (seen, bench.loop.idle) == (["a", "b", "a"], True)

    finish(check())
    assert [record.reason for record in caplog.records] == ["InternalError"]


@pytest.mark.parametrize("rounds", range(8))
def test_loop_ends_at_whatever_moment_it_is_cancelled(rounds):
    async def check() -> None:
        _, reconcile = ends()
        bench = Bench(reconcile)
        task = asyncio.ensure_future(bench.loop.run())
        bench.loop.add_after("a", 10)
        await bench.clock.settle()
        bench.loop.add("b")
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,), timeout=5)
        assert task.cancelled()

    finish(check())
