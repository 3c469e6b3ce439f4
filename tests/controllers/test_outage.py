"""A cluster that does not answer for long: what waits is bounded, and the newest is written after."""

import asyncio

import pytest

from reconciler.api.meta import Condition
from reconciler.controllers.events import NORMAL_BACKLOG, WARNING_BACKLOG, Events
from reconciler.controllers.statuses import RESULTS_INTERVAL
from reconciler.core.objects import SCRIPTS, ObjectKey
from reconciler.core.runqueue import PER_SCRIPT
from reconciler.core.runs import Cause, Outcome
from reconciler.errors import ClusterUnavailable, Waiting
from reconciler.ports.cluster import ClusterEvent
from tests.controllers.runpath import SCRIPT, Rig, finish, ok
from tests.fakes.cluster import FakeCluster

MINUTES = 10
MANY = [ObjectKey("default", f"rule-{n}") for n in range(10)]
WRITES = ("create", "apply", "merge_patch", "json_patch", "delete")


async def rigged(rig: Rig) -> str:
    """Ten Scripts that are Ready, each after its first run, on one executor."""
    repository = await rig.repository()
    await rig.devices()
    for key in MANY:
        await rig.script(key, repository=repository, executePolicy={"webhook": True})
    executor = rig.sessions.connect(credit=100_000)
    await rig.sync()
    rig.sessions.load_all(executor)
    await rig.clock.settle()
    await answer(rig, executor, Outcome.SUCCEEDED)
    await rig.clock.advance(RESULTS_INTERVAL)
    await rig.sync()
    return executor


async def answer(rig: Rig, executor: str, outcome: Outcome) -> None:
    """End all runs that were sent."""
    keys, rig.sessions.sent[executor] = rig.sessions.runs(executor), []
    if keys:
        rig.sessions.answer(executor, *(ok(key, outcome=outcome) for key in keys))
    await rig.clock.settle()


def test_statuses_of_ten_minutes_without_a_cluster_are_one_wish_per_script_and_seldom_tried():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await rigged(rig)
            for method in WRITES:
                rig.cluster.fail(method, ClusterUnavailable("no answer"), forever=True)
            patches = rig.status_patches
            for second in range(60 * MINUTES):
                for key in MANY:
                    await rig.operations.trigger(key, cause=Cause.WEBHOOK)
                await rig.clock.advance(1)
                await answer(rig, executor, (Outcome.SUCCEEDED, Outcome.FAILED)[second // 30 % 2])
            # What waits does not grow with the outage: neither runs, nor wishes, nor events.
            assert len(rig.queue) == 0
            assert set(rig.statuses._objects) == set(MANY)
            work = rig.statuses.loop._queue
            assert len(work) + len(work._due) <= len(MANY)
            assert len(work._heap) <= 2 * len(MANY) + 64
            assert len(rig.events._backlog) <= NORMAL_BACKLOG + WARNING_BACKLOG
            # Results every five seconds, a transition at once, and what backs off in between.
            tries = (rig.status_patches - patches) / len(MANY)
            assert tries < 60 * MINUTES / RESULTS_INTERVAL * 2
            # Nothing new comes: what is owed is tried again all the same.
            await rig.clock.advance(60)
            rig.cluster.heal()
            before = rig.status_patches
            await rig.clock.advance(120)
            assert rig.status_patches - before == len(MANY)
            for key in MANY:
                status = await rig.status(key)
                assert (status.runs, status.failures) == (1 + 600, 300)
                assert status.last_run.outcome == "Failed"

    finish(check())


def test_runs_that_nobody_takes_meanwhile_are_refused_beyond_the_bound_and_the_rest_are_run():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await rigged(rig)
            for method in WRITES:
                rig.cluster.fail(method, ClusterUnavailable("no answer"), forever=True)
            rig.sessions.disconnect(executor)
            for _ in range(PER_SCRIPT):
                await rig.operations.trigger(MANY[0], cause=Cause.WEBHOOK)
            for _ in range(500):
                with pytest.raises(Waiting, match="too many runs"):
                    await rig.operations.trigger(MANY[0], cause=Cause.WEBHOOK)
            assert len(rig.queue) == PER_SCRIPT
            rig.cluster.heal()
            again = rig.sessions.connect(credit=100_000)
            await rig.clock.settle()
            while len(rig.queue) or rig.dispatcher.in_flight:
                rig.sessions.load_all(again)
                await answer(rig, again, Outcome.SUCCEEDED)
            await rig.clock.advance(120)
            assert (await rig.status(MANY[0])).runs == 1 + PER_SCRIPT

    finish(check())


class StuckCluster(FakeCluster):
    """Takes no event until it is let go."""

    def __init__(self) -> None:
        super().__init__(Rig().clock)
        self.free = asyncio.Event()
        self.begun: list[ClusterEvent] = []

    async def emit(self, event: ClusterEvent) -> None:
        self.begun.append(event)
        await self.free.wait()
        await super().emit(event)


def test_events_of_an_outage_are_bounded_and_bad_news_have_room():
    async def check() -> None:
        rig, cluster = Rig(), StuckCluster()
        events = Events(cluster, rig.precedence, clock=rig.clock, metrics=rig.metrics)
        task = asyncio.ensure_future(events.run())
        for n in range(5000):
            status = "False" if n % 2 else "True"
            ready = Condition(type="Ready", status=status, reason=f"R{n}", message="")
            events.transition(SCRIPTS, SCRIPT, "u", (), (ready,))
            await asyncio.sleep(0)
        assert len(events._backlog) == WARNING_BACKLOG
        assert sum(event.type == "Normal" for event in events._backlog) <= NORMAL_BACKLOG
        dropped = rig.metrics.dropped_total.labels("event")._value.get()
        assert dropped + len(events._backlog) + len(cluster.begun) == 5000
        cluster.free.set()
        await rig.clock.advance(120)
        assert not events._backlog
        told = [event.reason for event in cluster.emitted]
        assert told[:3] == ["R0", "R1", "R2"]
        assert told == sorted(told, key=lambda reason: int(reason[1:]))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    finish(check())
