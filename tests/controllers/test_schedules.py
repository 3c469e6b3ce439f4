"""Runs at the times that a Script's `cron` names: once each, over restarts, suspensions, edits."""

from __future__ import annotations

import json
from typing import Any

from reconciler.errors import Transient
from reconciler.ports.sessions import ExecutorId
from tests.controllers.runpath import Rig, finish, ok
from tests.controllers.test_scripts import load
from tests.fakes.evaluations import FakeEvaluations

HOUR = 3600.0


async def answer(rig: Rig, executor: ExecutorId) -> None:
    await rig.clock.settle()
    flying = [key for key in rig.sessions.runs(executor) if key.run_id in rig.dispatcher._in_flight]
    rig.sessions.answer(executor, *(ok(key) for key in flying))
    await rig.clock.settle()


async def connected(rig: Rig) -> ExecutorId:
    executor = rig.sessions.connect(credit=1000)
    await rig.sync()
    await load(rig, executor)
    await answer(rig, executor)
    return executor


async def deployed(rig: Rig, cron: str = "0 * * * *", **policy: object) -> ExecutorId:
    """A Script with a schedule that has had its first run; its executor."""
    uid = await rig.repository()
    await rig.devices()
    await rig.script(repository=uid, executePolicy={"cron": cron, **policy})
    return await connected(rig)


async def pass_by(rig: Rig, executor: ExecutorId, hours: float) -> None:
    """Time passes, and what runs meanwhile ends."""
    for _ in range(round(hours * 12)):
        await rig.clock.advance(HOUR / 12)
        await answer(rig, executor)


def ticks(rig: Rig) -> list[str]:
    """The times for which runs were sent, as the script is told them."""
    told: list[Any] = [
        json.loads(activation)
        for dispatches in rig.sessions.sent.values()
        for dispatch in dispatches
        for _, activation in dispatch.runs
    ]
    return [it["event"]["scheduledAt"][11:16] for it in told if it["cause"] == "Cron"]


def missed(rig: Rig) -> float:
    return rig.metric("ticks_total", result="missed")


def test_each_tick_is_one_run_that_is_told_when_it_was_due():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await pass_by(rig, executor, 3)
            assert ticks(rig) == ["23:00", "00:00", "01:00"]
            assert (missed(rig), rig.metric("ticks_total", result="due")) == (0, 3)

    finish(check())


def test_what_the_controller_was_not_there_for_is_missed():
    async def check() -> None:
        first = Rig()
        async with first.running():
            await pass_by(first, await deployed(first), 1)
        await first.clock.advance(2.5 * HOUR)
        second = Rig(before=first)
        async with second.running():
            executor = await connected(second)
            assert ticks(second) == []
            assert missed(second) == 1
            await pass_by(second, executor, 1)
            assert ticks(second) == ["02:00"]

    finish(check())


def test_a_starting_deadline_makes_up_for_the_newest_tick_once():
    async def check() -> None:
        first = Rig()
        async with first.running():
            await pass_by(first, await deployed(first, startingDeadline="1h"), 1)
        await first.clock.advance(2.5 * HOUR)
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            assert ticks(second) == ["01:00"]
        third = Rig(before=second)
        async with third.running():
            await connected(third)
            assert ticks(third) == []

    finish(check())


def test_the_first_tick_of_all_is_made_up_for_too():
    async def check() -> None:
        first = Rig()
        async with first.running():
            await deployed(first, startingDeadline="1h")
        await first.clock.advance(HOUR)
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            assert ticks(second) == ["23:00"]

    finish(check())


def test_a_tick_that_began_before_a_crash_does_not_begin_again():
    async def check() -> None:
        first = Rig()
        async with first.running():
            await deployed(first, startingDeadline="1h")
            await first.clock.advance(HOUR)
            assert ticks(first) == ["23:00"]
        # It was in flight, and nobody knows what became of it.
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            assert ticks(second) == []

    finish(check())


def test_a_tick_that_cannot_be_noted_does_not_run_until_it_can():
    class FullDisk(FakeEvaluations):
        is_full = False

        async def flush(self) -> None:
            if self.is_full:
                raise Transient("no space is left", reason="StateUnavailable")

    async def check() -> None:
        rig = Rig()
        disk = rig.evaluations = FullDisk()
        rig.triggering._evaluations = disk
        async with rig.running():
            executor = await deployed(rig, startingDeadline="1h")
            disk.is_full = True
            await pass_by(rig, executor, 1)
            assert ticks(rig) == []
            disk.is_full = False
            await pass_by(rig, executor, 0.1)
            assert ticks(rig) == ["23:00"]

    finish(check())


def test_ticks_of_a_suspended_script_are_missed():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.change_spec(suspend=True)
            await rig.sync()
            await pass_by(rig, executor, 2)
            await rig.change_spec(suspend=False)
            await rig.sync()
            await pass_by(rig, executor, 1)
            assert ticks(rig) == ["01:00"]

    finish(check())


def test_a_changed_schedule_has_missed_nothing():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, startingDeadline="12h")
            policy = {"cron": "5 22 * * *", "startingDeadline": "12h"}
            await rig.change_spec(executePolicy=policy)
            await rig.sync()
            await pass_by(rig, executor, 24)
            assert ticks(rig) == ["22:05"]

    finish(check())


def test_ticks_that_nobody_can_run_become_one_run_of_the_newest():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            rig.sessions.disconnect(executor)
            await rig.clock.advance(3 * HOUR)
            assert len(rig.queue) == 1
            await connected(rig)
            assert ticks(rig) == ["01:00"]

    finish(check())


def test_a_clock_that_is_put_forward_is_noticed_and_one_put_back_repeats_nothing():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, startingDeadline="10m")
            rig.clock._start += 50 * 60
            await pass_by(rig, executor, 1 / 12)
            assert ticks(rig) == ["23:00"]
            rig.clock._start -= 50 * 60
            await pass_by(rig, executor, 1)
            assert ticks(rig) == ["23:00"]
            await pass_by(rig, executor, 1)
            assert ticks(rig) == ["23:00", "00:00"]

    finish(check())


# Conditions on devices.


def gated(**policy: object) -> dict[str, object]:
    return {"cron": "", "readChange": True, **policy}


def hot(**parts: object) -> list[dict[str, object]]:
    return [{"read": "sensor", "property": "temperature", "above": 30, **parts}]


def changes(rig: Rig) -> int:
    return sum(
        json.loads(activation)["cause"] == "ReadChange"
        for dispatches in rig.sessions.sent.values()
        for dispatch in dispatches
        for _, activation in dispatch.runs
    )


def test_only_changes_that_a_condition_asks_for_lead_to_a_run():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **gated(when=hot()))
            for value in ("20", "31", "25", "32"):
                await rig.report(value)
                await answer(rig, executor)
            assert changes(rig) == 2

    finish(check())


def test_a_condition_that_lasts_runs_by_the_clock_also_over_a_restart():
    async def check() -> None:
        first = Rig()
        async with first.running():
            executor = await deployed(first, **gated(when=hot(**{"for": "10m"})))
            await first.report("31")
            await pass_by(first, executor, 5 / 60)
            assert changes(first) == 0
        second = Rig(before=first)
        async with second.running():
            executor = await connected(second)
            assert changes(second) == 0
            await pass_by(second, executor, 5 / 60)
            assert changes(second) == 1
        third = Rig(before=second)
        async with third.running():
            await pass_by(third, await connected(third), 1)
            assert changes(third) == 0

    finish(check())


def test_a_deadline_that_passed_while_nobody_was_there_runs_at_the_start():
    async def check() -> None:
        first = Rig()
        async with first.running():
            await deployed(first, **gated(when=hot(**{"for": "10m"})))
            await first.report("31")
        await first.clock.advance(HOUR)
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            assert changes(second) == 1

    finish(check())


def test_a_run_that_was_let_through_but_not_dispatched_is_not_lost_in_a_crash():
    async def check() -> None:
        first = Rig()
        async with first.running():
            executor = await deployed(first, **gated(when=hot(), throttle="1m"))
            first.sessions.disconnect(executor)
            await first.report("31")
            assert len(first.queue) == 1
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            assert changes(second) == 1

    finish(check())


def test_a_debounced_change_survives_a_restart():
    async def check() -> None:
        first = Rig()
        async with first.running():
            await deployed(first, **gated(debounce="30s"))
            await first.report("31")
            assert changes(first) == 0
        second = Rig(before=first)
        async with second.running():
            executor = await connected(second)
            await pass_by(second, executor, 5 / 60)
            assert changes(second) == 1

    finish(check())


def test_what_holds_when_a_rule_is_deployed_is_for_its_first_run():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            await rig.devices()
            await rig.report("35")
            uid = await rig.repository()
            await rig.script(repository=uid, executePolicy=gated(when=hot()))
            executor = await connected(rig)
            await pass_by(rig, executor, 1)
            assert changes(rig) == 0
            await rig.report("36")
            await answer(rig, executor)
            assert changes(rig) == 1

    finish(check())
