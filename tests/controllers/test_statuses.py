"""Script status, written to the cluster at a bounded rate per object."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from reconciler.api.meta import Condition
from reconciler.api.script import ScriptStatus
from reconciler.controllers.statuses import (
    RESULTS,
    RESULTS_INTERVAL,
    SETTLE,
    TRANSITION_INTERVAL,
)
from reconciler.core.objects import SCRIPTS, ObjectKey
from reconciler.core.scripts import ScriptRecord, decode_script
from reconciler.errors import ClusterUnavailable, Forbidden
from tests.controllers.runpath import SCRIPT, Rig, finish

READY = Condition(type="Ready", status="True", reason="Deployed")
STALLED = Condition(type="Ready", status="False", reason="InvalidSpec")


def ran(runs: int, *conditions: Condition) -> ScriptStatus:
    return ScriptStatus(observed_generation=1, conditions=list(conditions or (READY,)), runs=runs)


class Bench:
    def __init__(self) -> None:
        self.rig = Rig()
        self.statuses = self.rig.statuses
        self.record: ScriptRecord

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.record = decode_script(await self.rig.script())
        task = asyncio.ensure_future(self.statuses.loop.run())
        try:
            yield
        finally:
            task.cancel()

    def want(self, status: ScriptStatus, *, transition: bool = False, uid: str = "") -> None:
        self.statuses.want(
            SCRIPT,
            uid or self.record.uid,
            status,
            live=self.record.status,
            transition=transition,
        )

    @property
    def patches(self) -> int:
        return self.rig.status_patches

    async def advance(self, seconds: float) -> None:
        await self.rig.clock.advance(seconds)


def test_first_status_is_written_almost_at_once_with_all_that_settled():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.want(ran(0), transition=True)
            bench.want(ran(1))
            await bench.advance(SETTLE)
            assert (bench.patches, await bench.rig.status()) == (1, ran(1))
            assert bench.rig.metric("status_patches_total", kind="Script") == 1

    finish(check())


def test_results_are_written_once_per_interval_and_only_the_newest():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            for n in range(1, 1001):
                bench.want(ran(n))
                await bench.advance(0.02)
            assert bench.patches == 20 / RESULTS_INTERVAL
            await bench.advance(RESULTS_INTERVAL)
            assert (await bench.rig.status()).runs == 1000

    finish(check())


def test_results_that_come_while_a_patch_is_under_way_wait_their_interval_too():
    async def check() -> None:
        bench = Bench()
        real = bench.rig.cluster.real.json_patch

        async def slow(*args, **options):
            await bench.rig.clock.sleep(0.5)
            return await real(*args, **options)

        async with bench.running():
            bench.rig.cluster.real.json_patch = slow  # type: ignore[method-assign]  # a slow network
            for n in range(1, 200):
                bench.want(ran(n))
                await bench.advance(0.1)
            assert bench.patches <= 1 + 20 / RESULTS_INTERVAL

    finish(check())


def test_transition_goes_promptly_and_not_faster_than_its_own_rate():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.want(ran(0), transition=True)
            await bench.advance(SETTLE)
            bench.want(ran(1))
            await bench.advance(TRANSITION_INTERVAL)
            assert bench.patches == 1
            bench.want(ran(1, STALLED), transition=True)
            await bench.advance(SETTLE)
            assert (bench.patches, await bench.rig.status()) == (2, ran(1, STALLED))
            for n in range(100):
                bench.want(ran(n, READY if n % 2 else STALLED), transition=True)
                await bench.advance(0.01)
            assert bench.patches <= 2 + 1 / TRANSITION_INTERVAL + 1

    finish(check())


def test_status_that_is_there_already_is_not_written():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.want(ran(1), transition=True)
            await bench.advance(SETTLE)
            bench.want(ran(2))
            bench.want(ran(1))
            await bench.advance(60)
            assert bench.patches == 1
            restarted = Bench()
            restarted.rig = Rig(before=bench.rig)
            restarted.statuses = restarted.rig.statuses
            await restarted.rig.sync()
            live = restarted.rig.world.scripts.get(SCRIPT)
            assert live is not None
            restarted.record = live
            restarted.want(ran(1), transition=True)
            assert restarted.statuses.loop._queue.next_due() is None

    finish(check())


def test_status_is_written_to_no_other_object_of_the_name():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.want(ran(5), transition=True)
            await bench.rig.delete(SCRIPTS, SCRIPT)
            newer = decode_script(await bench.rig.script())
            await bench.advance(60)
            assert (await bench.rig.status(), bench.patches) == (newer.status, 1)
            bench.statuses.want(SCRIPT, newer.uid, ran(1), live=newer.status, transition=True)
            await bench.advance(SETTLE)
            assert await bench.rig.status() == ran(1)

    finish(check())


def test_status_of_a_deleted_object_is_forgotten():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.want(ran(5), transition=True)
            await bench.rig.delete(SCRIPTS, SCRIPT)
            await bench.advance(600)
            assert (bench.patches, bench.statuses._objects) == (1, {})

    finish(check())


def test_newest_status_is_written_when_the_cluster_answers_again():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.rig.cluster.fail("json_patch", ClusterUnavailable("down"), forever=True)
            bench.want(ran(1), transition=True)
            await bench.advance(600)
            assert bench.patches < 20
            bench.want(ran(2))
            bench.rig.cluster.heal()
            await bench.advance(RESULTS_INTERVAL)
            assert await bench.rig.status() == ran(2)

    finish(check())


def test_refused_status_rests_until_there_is_another():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.rig.cluster.fail("json_patch", Forbidden("no"))
            bench.want(ran(1), transition=True)
            await bench.advance(600)
            assert bench.patches == 1
            bench.want(ran(2))
            await bench.advance(SETTLE)
            assert await bench.rig.status() == ran(2)

    finish(check())


def test_one_object_that_fails_holds_up_no_other():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            other = ObjectKey("default", "other")
            second = decode_script(await bench.rig.script(other))
            bench.rig.cluster.fail("json_patch", ClusterUnavailable("down"))
            bench.want(ran(1), transition=True)
            bench.statuses.want(other, second.uid, ran(2), live=second.status, transition=True)
            await bench.advance(SETTLE)
            assert await bench.rig.status(other) == ran(2)

    finish(check())


@pytest.mark.parametrize("known", [True, False])
def test_next_status_is_built_on_what_we_want_where_that_is_ahead_of_the_watch(known):
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            live = bench.record.status
            bench.want(ran(3))
            uid = bench.record.uid if known else "another"
            assert bench.statuses.latest(SCRIPT, uid, live) == (ran(3) if known else live)

    finish(check())


# Others who write it, too.


async def overwritten(bench: Bench, runs: int = 99) -> None:
    """Somebody else writes the status, and the watch tells of it."""
    body = {"status": ran(runs).model_dump(mode="json", exclude_none=True)}
    live = await bench.rig.cluster.real.merge_patch(
        SCRIPTS, SCRIPT, body, field_manager="somebody", status=True
    )
    bench.statuses.seen(decode_script(live))


def test_a_status_that_somebody_else_wrote_is_put_back():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.want(ran(1))
            await bench.advance(SETTLE)
            live = await bench.rig.cluster.real.get(SCRIPTS, SCRIPT)
            bench.statuses.seen(decode_script(live))
            await bench.advance(RESULTS_INTERVAL)
            assert bench.patches == 1
            await overwritten(bench)
            await bench.advance(SETTLE)
            assert (bench.patches, await bench.rig.status()) == (2, ran(1))

    finish(check())


def test_who_goes_on_writing_it_is_answered_ever_more_rarely_and_given_up_on_never():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            bench.want(ran(1))
            await bench.advance(SETTLE)
            for _ in range(600):
                await overwritten(bench)
                await bench.advance(1.0)
            assert bench.patches < 20
            await bench.advance(300)
            assert await bench.rig.status() == ran(1)

    finish(check())


def test_what_we_wrote_ourselves_is_never_taken_for_another_s():
    async def check() -> None:
        bench = Bench()
        async with bench.running():
            late = []
            for n in range(1, 4):
                bench.want(ran(n))
                await bench.advance(RESULTS_INTERVAL)
                late.append(decode_script(await bench.rig.cluster.real.get(SCRIPTS, SCRIPT)))
            for record in late:
                bench.statuses.seen(record)
            await bench.advance(RESULTS_INTERVAL)
            assert bench.patches == 3

    finish(check())


def test_many_that_are_busy_are_told_of_less_often():
    many = [ObjectKey("default", f"busy-{number}") for number in range(2 * RESULTS.burst)]

    async def check() -> None:
        bench = Bench()
        live = [decode_script(await bench.rig.script(key)) for key in many]
        async with bench.running():
            for runs in range(1, 21):
                for it in live:
                    status = ran(runs)
                    bench.statuses.want(it.key, it.uid, status, live=it.status, transition=False)
                await bench.advance(1)
            assert bench.patches <= RESULTS.burst + 20 * RESULTS.per_second
            await bench.advance(2 * len(many) / RESULTS.per_second)
            assert {(await bench.rig.status(key)).runs for key in many} == {20}

    finish(check())
