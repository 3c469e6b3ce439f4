"""A reflector in front of a cluster that fails in every way it can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from reconciler.controllers.reflecting import Reflector
from reconciler.core.objects import SCRIPTS, JsonObject, ObjectKey
from reconciler.core.store import Delta, Store
from reconciler.errors import (
    ClusterUnavailable,
    Expired,
    ObjectInvalid,
    ScriptOpsError,
    Throttled,
)
from reconciler.ports.cluster import Page, WatchEvent
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import FakeCluster

NS = "default"


def name_and_env(obj: JsonObject) -> str:
    document: Any = obj
    if "broken" in document["spec"]:
        raise ObjectInvalid(f"{document['metadata']['name']} is broken")
    return f"{document['metadata']['name']}={document['spec'].get('env', '')}"


class World:
    """A reflector of Scripts over a fake cluster, and a clock to move both."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeCluster(self.clock)
        self.store: Store[str] = Store()
        self.told: list[tuple[str | None, str | None]] = []
        self.undecodable: list[tuple[ObjectKey, str]] = []
        self.reflector = Reflector(
            self.cluster,
            SCRIPTS,
            shape=dict,
            decode=name_and_env,
            store=self.store,
            clock=self.clock,
            on_deltas=self._hear,
            on_undecodable=self._report,
            chance=lambda: 0.0,
        )

    def _hear(self, deltas: Any) -> None:
        self.told += [(delta.old, delta.new) for delta in deltas]

    def _report(self, key: ObjectKey, error: ScriptOpsError) -> None:
        self.undecodable.append((key, error.reason))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reflector.run())
        try:
            await self.clock.settle()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def put(self, name: str, **spec: Any) -> dict[str, Any]:
        document = {
            "apiVersion": SCRIPTS.api_version,
            "kind": "Script",
            "metadata": {"namespace": NS, "name": name},
            "spec": spec,
        }
        put: Any = await self.cluster.real.apply(SCRIPTS, document, field_manager="tests")
        await self.clock.settle()
        return dict(put)

    async def remove(self, name: str) -> None:
        key = ObjectKey(NS, name)
        live: Any = await self.cluster.real.get(SCRIPTS, key)
        await self.cluster.real.delete(SCRIPTS, key, uid=live["metadata"]["uid"])
        await self.clock.settle()

    def requests(self) -> list[str]:
        return [call.method for call in self.cluster.calls]


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(World())

    asyncio.run(main())


def test_what_is_there_comes_first_then_changes_as_they_happen() -> None:
    async def test(world: World) -> None:
        await world.put("a", env="1")
        async with world.running():
            assert world.reflector.synced.is_set()
            await world.put("a", env="2")
            await world.put("b")
            await world.remove("a")
        assert world.told == [(None, "a=1"), ("a=1", "a=2"), (None, "b="), ("a=2", None)]
        assert list(world.store) == ["b="]
        assert world.requests() == ["list_page", "watch"]

    run(test)


def test_a_list_of_many_pages_is_held_as_a_whole() -> None:
    async def test(world: World) -> None:
        for i in range(1200):
            await world.cluster.real.create(
                SCRIPTS,
                {
                    "apiVersion": SCRIPTS.api_version,
                    "kind": "Script",
                    "metadata": {"namespace": NS, "name": f"s{i}"},
                    "spec": {},
                },
                field_manager="tests",
            )
        async with world.running():
            assert len(world.store) == 1200
        assert world.requests() == ["list_page", "list_page", "list_page", "watch"]

    run(test)


def test_a_watch_that_falls_silent_is_replaced_within_its_time() -> None:
    async def test(world: World) -> None:
        async with world.running():
            world.cluster.silence()
            await world.put("a")
            assert list(world.store) == []
            world.cluster.heal()
            await world.clock.advance(300)
            assert list(world.store) == ["a="]
        assert world.requests() == ["list_page", "watch", "watch"]

    run(test)


def test_an_expired_watch_lists_again_and_finds_what_was_deleted_meanwhile() -> None:
    async def test(world: World) -> None:
        await world.put("a")
        await world.put("b")
        async with world.running():
            world.told.clear()
            world.cluster.fail("watch", Expired("too old"), Expired("too old"))
            world.cluster.break_watches(Expired("too old"))
            await world.clock.settle()
            await world.remove("a")
            await world.put("b", env="2")
            await world.clock.advance(10)
            assert world.told == [("a=", None), ("b=", "b=2")]
            await world.put("c")
            assert world.told[-1] == (None, "c=")
        assert world.requests() == ["list_page", "watch"] * 4

    run(test)


def test_an_expired_continue_token_twice_lists_from_the_start_and_ends_complete() -> None:
    async def test(world: World) -> None:
        half = Page([await world.put("a")], "1", "token")
        await world.put("b")
        expired = Expired("continue token too old")
        world.cluster.answer_pages(half, expired, half, expired)
        async with world.running():
            await world.clock.advance(10)
            assert sorted(world.store) == ["a=", "b="]
        assert world.requests() == [*["list_page"] * 5, "watch"]

    run(test)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(
            Throttled("429", retry_after=timedelta(seconds=1)), id="429 asks for patience"
        ),
        pytest.param(ClusterUnavailable("500"), id="500"),
        pytest.param(ClusterUnavailable("503"), id="503"),
        pytest.param(ClusterUnavailable("504"), id="504"),
    ],
)
def test_a_cluster_that_is_down_ten_minutes_is_asked_seldom_and_seen_again(
    error: ScriptOpsError,
) -> None:
    async def test(world: World) -> None:
        await world.put("a")
        async with world.running():
            world.told.clear()
            before = len(world.cluster.calls)
            world.cluster.fail("watch", error, forever=True)
            world.cluster.fail("list_page", error, forever=True)
            world.cluster.break_watches(error)
            await world.put("b")
            await world.clock.advance(60)
            # 0.8 + 1.6 + ... + 25.6 s are 50 s: seven requests in the first minute.
            assert len(world.cluster.calls) - before <= 7
            await world.clock.advance(540)
            assert len(world.cluster.calls) - before <= 7 + 540 / 30
            assert list(world.store) == ["a="]
            world.cluster.heal()
            await world.clock.advance(31)
            assert (world.told, sorted(world.store)) == ([(None, "b=")], ["a=", "b="])

    run(test)


def test_a_throttled_watch_does_not_list_again() -> None:
    async def test(world: World) -> None:
        async with world.running():
            throttled = Throttled("429", retry_after=timedelta(seconds=5))
            world.cluster.fail("watch", *[throttled] * 20)
            world.cluster.break_watches(throttled)
            await world.clock.advance(900)
            await world.put("a")
            assert list(world.store) == ["a="]
        assert world.cluster.count("list_page") == 1

    run(test)


def test_a_stale_list_does_not_move_the_copy_backwards() -> None:
    async def test(world: World) -> None:
        stale = Page([await world.put("a", env="old")], "1", None)
        await world.put("a", env="new")
        async with world.running():
            world.told.clear()
            world.cluster.answer_pages(stale, stale)
            world.cluster.break_watches(Expired("too old"))
            await world.clock.advance(2)
            assert list(world.store) == ["a=new"]
            await world.clock.advance(10)
            await world.put("b")
        assert world.told == [(None, "b=")]

    run(test)


def test_an_older_state_in_a_watch_does_not_move_the_copy_backwards() -> None:
    async def test(world: World) -> None:
        old = await world.put("a", env="old")
        await world.put("a", env="new")
        world.cluster.watch_only_batches([WatchEvent("MODIFIED", old)])
        async with world.running():
            await world.put("b")
            assert sorted(world.store) == ["a=new", "b="]

    run(test)


def test_bookmarks_are_not_needed() -> None:
    async def test(world: World) -> None:
        async with world.running():
            await world.clock.advance(4000)
            await world.put("a")
            assert list(world.store) == ["a="]
        assert world.cluster.count("list_page") == 1

    run(test)


def test_a_bookmark_moves_the_next_watch_forward() -> None:
    async def test(world: World) -> None:
        await world.put("a")
        page = await world.cluster.real.list_page(SCRIPTS)
        first = page.resource_version
        later = str(int(first) + 1)
        bookmark = WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": later}})
        world.cluster.watch_only_batches([bookmark])
        async with world.running():
            pass
        watches = [call.detail for call in world.cluster.calls if call.method == "watch"]
        assert watches == [first, later]

    run(test)


def test_one_object_that_cannot_be_read_among_a_thousand_is_reported_and_stops_nobody() -> None:
    async def test(world: World) -> None:
        for i in range(1000):
            await world.cluster.real.apply(
                SCRIPTS,
                {
                    "apiVersion": SCRIPTS.api_version,
                    "kind": "Script",
                    "metadata": {"namespace": NS, "name": f"s{i}"},
                    "spec": {"broken": True} if i == 500 else {},
                },
                field_manager="tests",
            )
        async with world.running():
            assert len(world.store) == 999
            assert world.undecodable == [(ObjectKey(NS, "s500"), "Invalid")]
            await world.put("s500", env="mended")
            assert len(world.store) == 1000

    run(test)


def test_an_object_that_becomes_unreadable_keeps_its_last_record() -> None:
    async def test(world: World) -> None:
        await world.put("a", env="good")
        async with world.running():
            await world.put("a", broken=True)
            world.cluster.break_watches(Expired("too old"))
            await world.clock.advance(5)
            assert list(world.store) == ["a=good"]
            await world.remove("a")
        assert world.told == [(None, "a=good"), ("a=good", None)]
        assert world.undecodable == [(ObjectKey(NS, "a"), "Invalid")] * 2

    run(test)


@pytest.mark.parametrize("is_watched", [True, False])
def test_an_object_made_again_under_its_name_went_and_came(*, is_watched: bool) -> None:
    async def test(world: World) -> None:
        await world.put("a", env="1")
        async with world.running():
            world.told.clear()
            if not is_watched:
                world.cluster.break_watches(Expired("too old"))
                await world.clock.settle()
            await world.remove("a")
            await world.put("a", env="1")
            await world.clock.advance(5)
        assert world.told == [("a=1", None), (None, "a=1")]

    run(test)


def test_deltas_are_told_after_the_store_holds_them() -> None:
    async def test(world: World) -> None:
        held: list[str | None] = []

        def hear(deltas: Any) -> None:
            held.extend(world.store.get(delta.key) for delta in deltas)

        reflector: Reflector[Any, str] = Reflector(
            world.cluster,
            SCRIPTS,
            shape=dict,
            decode=name_and_env,
            store=world.store,
            clock=world.clock,
            on_deltas=hear,
        )
        await world.put("a")
        task = asyncio.create_task(reflector.run())
        await reflector.synced.wait()
        await world.put("a", env="2")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert held == ["a=", "a=2"]

    run(test)


def test_a_delta_names_its_object() -> None:
    assert Delta(ObjectKey(NS, "a"), None, "x").key == ObjectKey(NS, "a")
