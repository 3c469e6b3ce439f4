"""Replicas that share the work: who leads what, and what becomes of it when one goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from reconciler.controllers.leading import Leading
from reconciler.controllers.metrics import Metrics
from reconciler.core.leases import Lease
from reconciler.errors import ClusterUnavailable, NotLeading
from tests.fakes.clock import FakeClock
from tests.fakes.leases import FakeLeases

NAMESPACES = [f"team-{n}" for n in range(40)]


class Replica:
    """A candidate and what it is told."""

    def __init__(
        self,
        me: str,
        store: FakeLeases,
        clock: FakeClock,
        *,
        shards: int = 1,
        chance: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.me = me
        self.metrics = Metrics(CollectorRegistry())
        self.told: list[tuple[str, int]] = []
        self.leading = Leading(
            store, me=me, shards=shards, clock=clock, metrics=self.metrics, chance=chance
        )
        self.leading.on_gained = lambda shard: self.told.append(("gained", shard))
        self.leading.on_lost = lambda shard: self.told.append(("lost", shard))

    def start(self) -> None:
        self.leading.start(f"http://{self.me}:8000")

    def die(self) -> None:
        """As a power cut would end it: nothing is let go."""
        for task in self.leading._tasks:
            task.cancel()


def run(scenario: Callable[[FakeClock, FakeLeases], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario(FakeClock(), FakeLeases())

    asyncio.run(bounded())


def test_the_first_leads_and_the_other_knows_where_it_is() -> None:
    async def scenario(clock: FakeClock, store: FakeLeases) -> None:
        first, second = Replica("a", store, clock), Replica("b", store, clock)
        first.start()
        await clock.advance(1)
        second.start()
        await clock.advance(60)
        assert first.told == [("gained", 0)]
        assert second.told == []
        assert [r.leading.leads("default") for r in (first, second)] == [True, False]
        assert [r.leading.elsewhere("default") for r in (first, second)] == [None, "http://a:8000"]
        assert first.leading.epoch("default") == 1
        assert first.metrics.shards_led._value.get() == 1
        await first.leading.stop()
        await second.leading.stop()

    run(scenario)


def test_what_is_let_go_is_taken_at_the_next_look() -> None:
    async def scenario(clock: FakeClock, store: FakeLeases) -> None:
        first, second = Replica("a", store, clock), Replica("b", store, clock)
        first.start()
        await clock.advance(1)
        second.start()
        await clock.advance(5)
        await first.leading.stop()
        assert first.told == [("gained", 0), ("lost", 0)]
        assert not first.leading.leads("default")
        await clock.advance(2)
        assert second.told == [("gained", 0)]
        assert second.leading.epoch("default") == 2
        await second.leading.stop()
        assert store.records["scriptops-shard-0"].holder == ""

    run(scenario)


def test_of_one_that_died_the_lease_has_to_end_first() -> None:
    async def scenario(clock: FakeClock, store: FakeLeases) -> None:
        first, second = Replica("a", store, clock), Replica("b", store, clock)
        first.start()
        await clock.advance(1)
        second.start()
        await clock.advance(4)
        first.die()
        await clock.advance(12)
        assert second.told == []
        await clock.advance(5)
        assert second.told == [("gained", 0)]
        assert not first.leading.leads("default")
        await second.leading.stop()

    run(scenario)


def test_a_leader_that_is_cut_off_stops_before_another_may_begin() -> None:
    async def scenario(clock: FakeClock, store: FakeLeases) -> None:
        replica = Replica("a", store, clock)
        replica.start()
        await clock.advance(4)
        store.away = True
        await clock.advance(9)
        assert replica.leading.leads("default")
        await clock.advance(2)
        assert not replica.leading.leads("default")
        assert replica.told == [("gained", 0), ("lost", 0)]
        store.away = False
        await clock.advance(4)
        assert replica.told[2:] == [("gained", 0)]
        assert replica.leading.epoch("default") == 2
        await replica.leading.stop()

    run(scenario)


def test_a_renewal_whose_answer_was_lost_costs_nothing() -> None:
    async def scenario(clock: FakeClock, store: FakeLeases) -> None:
        replica = Replica("a", store, clock)
        replica.start()
        await clock.advance(3)
        written = store.records["scriptops-shard-0"]
        await store.write("scriptops-shard-0", written)
        await clock.advance(30)
        assert replica.told == [("gained", 0)]
        assert replica.leading.epoch("default") == 1
        await replica.leading.stop()

    run(scenario)


def test_nobody_leads_before_it_is_ready_to() -> None:
    async def scenario(clock: FakeClock, store: FakeLeases) -> None:
        replica = Replica("a", store, clock)
        tries: list[int] = []

        async def prepare(shard: int, _epoch: int) -> None:
            tries.append(shard)
            if len(tries) < 3:
                raise ClusterUnavailable("what was evaluated cannot be read")

        replica.leading.prepare = prepare
        replica.start()
        await clock.advance(1)
        assert replica.told == []
        assert not replica.leading.leads("default")
        await clock.advance(2)
        assert tries == [0, 0, 0]
        assert replica.told == [("gained", 0)]
        await replica.leading.stop()

    run(scenario)


def test_who_does_not_lead_does_not_write() -> None:
    async def scenario(clock: FakeClock, store: FakeLeases) -> None:
        replica = Replica("a", store, clock)
        with pytest.raises(NotLeading):
            async with replica.leading.writing("default"):
                raise AssertionError("this was begun")
        replica.start()
        await clock.advance(1)
        async with replica.leading.writing("default"):
            pass
        replica.die()
        clock.jump(10)
        with pytest.raises(NotLeading):
            async with replica.leading.writing("default"):
                raise AssertionError("this was begun")

    run(scenario)


def test_a_write_that_is_still_under_way_when_the_lease_is_lost_is_broken_off() -> None:
    async def scenario(clock: FakeClock, store: FakeLeases) -> None:
        replica = Replica("a", store, clock)
        replica.start()
        await clock.advance(0)
        await clock.settle()
        replica.die()
        clock.jump(9.9)
        with pytest.raises(NotLeading):
            async with replica.leading.writing("default"):
                await asyncio.Event().wait()

    run(scenario)


def test_replicas_that_begin_together_share_the_shards() -> None:
    async def scenario(clock: FakeClock, store: FakeLeases) -> None:
        chances = [iter([0.9, 0.1] * 1000), iter([0.2, 0.8] * 1000)]
        replicas = [
            Replica(me, store, clock, shards=8, chance=chances[n].__next__)
            for n, me in enumerate("ab")
        ]
        for replica in replicas:
            replica.start()
        await clock.advance(5)
        led = [{n for n in NAMESPACES if r.leading.leads(n)} for r in replicas]
        assert led[0] | led[1] == set(NAMESPACES)
        assert not led[0] & led[1]
        assert all(led)
        for replica in replicas:
            await replica.leading.stop()

    run(scenario)


def test_what_others_wrote_into_a_lease_is_survived() -> None:
    async def scenario(clock: FakeClock, store: FakeLeases) -> None:
        await store.write("scriptops-shard-0", Lease(holder="somebody", seconds=0, begun=-3))
        replica = Replica("a", store, clock)
        replica.start()
        await clock.advance(17)
        assert replica.told == [("gained", 0)]
        await replica.leading.stop()

    run(scenario)
