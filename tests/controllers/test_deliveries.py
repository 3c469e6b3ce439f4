"""Runs that are started until one succeeds: over bad ends, lost executors, crashes, suspensions."""

from __future__ import annotations

import pytest

from reconciler.controllers.deliveries import ATTEMPTS
from reconciler.core.objects import SCRIPTS
from reconciler.core.runqueue import PER_SCRIPT, PER_SCRIPT_BYTES
from reconciler.core.runs import Cause, Outcome, RunId
from reconciler.errors import Transient, Waiting
from reconciler.ports.sessions import ExecutorId
from tests.controllers.runpath import SCRIPT, Rig, finish, ok
from tests.controllers.test_schedules import answer, connected, deployed

LEAST = {"cron": "", "qos": "AtLeastOnce", "webhook": True, "runOnDeploy": False}


async def trigger(rig: Rig) -> RunId:
    return await rig.operations.trigger(SCRIPT, cause=Cause.WEBHOOK, event=b"1")


def starts(rig: Rig, run_id: RunId) -> list[int]:
    """The attempts of a run that were sent to executors, in order."""
    return [
        key.attempt
        for dispatches in rig.sessions.sent.values()
        for dispatch in dispatches
        for key, _ in dispatch.runs
        if key.run_id == run_id
    ]


async def end(rig: Rig, executor: ExecutorId, outcome: Outcome) -> None:
    flying = [key for key in rig.sessions.runs(executor) if key.run_id in rig.dispatcher._in_flight]
    rig.sessions.answer(executor, *(ok(key, outcome=outcome) for key in flying))
    await rig.clock.settle()


def test_a_run_that_succeeds_is_started_once_and_forgotten():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **LEAST)
            run_id = await trigger(rig)
            assert list(rig.journal.runs) == [run_id]
            await answer(rig, executor)
            await rig.clock.advance(3600)
            assert (starts(rig, run_id), rig.journal.runs) == ([1], {})

    finish(check())


def test_a_run_that_ends_badly_is_started_again_ever_later_until_it_is_given_up():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **LEAST)
            run_id = await trigger(rig)
            for number, rest in enumerate((1, 2, 4, 8), start=1):
                await rig.clock.settle()
                await end(rig, executor, Outcome.FAILED)
                await rig.clock.advance(rest - 0.1)
                assert len(starts(rig, run_id)) == number
                await rig.clock.advance(0.2)
                assert len(starts(rig, run_id)) == number + 1
            await end(rig, executor, Outcome.TIMED_OUT)
            await rig.clock.advance(3600)
            assert starts(rig, run_id) == list(range(1, ATTEMPTS + 1))
            assert (rig.journal.runs, rig.metric("runs_given_up_total")) == ({}, 1)

    finish(check())


def test_a_run_whose_executor_is_lost_is_started_by_another():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **LEAST)
            run_id = await trigger(rig)
            await rig.clock.settle()
            rig.sessions.disconnect(executor)
            other = await connected(rig)
            await rig.clock.advance(2)
            await answer(rig, other)
            assert (starts(rig, run_id), rig.journal.runs) == ([1, 2], {})

    finish(check())


@pytest.mark.parametrize("dispatched", [True, False], ids=["in flight", "waiting"])
def test_a_crash_starts_it_again_under_another_number(dispatched: bool):  # noqa: FBT001 - a case
    async def check() -> None:
        first = Rig()
        async with first.running():
            executor = await deployed(first, **LEAST)
            if not dispatched:
                first.sessions.disconnect(executor)
            run_id = await trigger(first)
            await first.clock.settle()
            assert starts(first, run_id) == ([1] if dispatched else [])
        second = Rig(before=first)
        async with second.running():
            executor = await connected(second)
            await answer(second, executor)
            await second.clock.advance(60)
            assert (starts(second, run_id), second.journal.runs) == ([2], {})

    finish(check())


def test_runs_of_a_suspended_script_wait_for_it():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **LEAST)
            rig.sessions.disconnect(executor)
            run_id = await trigger(rig)
            await rig.change_spec(suspend=True)
            await rig.sync()
            assert (len(rig.queue), list(rig.journal.runs)) == (0, [run_id])
            executor = rig.sessions.connect(credit=100)
            await rig.clock.advance(600)
            assert starts(rig, run_id) == []
            await rig.change_spec(suspend=False)
            await rig.sync()
            await answer(rig, executor)
            assert (starts(rig, run_id), rig.journal.runs) == ([1], {})

    finish(check())


def test_runs_of_a_script_that_is_gone_are_forgotten_also_when_it_went_unseen():
    async def check() -> None:
        first = Rig()
        async with first.running():
            executor = await deployed(first, **LEAST)
            first.sessions.disconnect(executor)
            await trigger(first)
        second = Rig(before=first)
        second.triggering.keep_only({"another"})
        assert second.journal.runs == {}
        third = Rig(before=first)
        async with third.running():
            await third.sync()
            await third.delete(SCRIPTS, SCRIPT)
            await third.sync()
            assert third.journal.runs == {}

    finish(check())


def test_what_cannot_be_kept_is_refused_to_who_asks_and_tried_again_for_devices():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **LEAST, readChange=True)
            rig.journal.is_full = True
            with pytest.raises(Transient):
                await trigger(rig)
            await rig.report("31")
            await rig.clock.advance(1)
            assert rig.sessions.runs(executor) == []
            rig.journal.is_full = False
            await rig.clock.advance(5)
            await answer(rig, executor)
            assert len(rig.sessions.runs(executor)) == 1
            assert rig.journal.runs == {}

    finish(check())


def test_every_change_is_a_run_of_its_own_as_long_as_there_is_room():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **LEAST, readChange=True)
            rig.sessions.disconnect(executor)
            for value in ("31", "32", "33"):
                await rig.report(value)
            assert len(rig.queue) == len(rig.journal.runs) == 3
            for _ in range(PER_SCRIPT - 3):
                await trigger(rig)
            with pytest.raises(Waiting):
                await trigger(rig)
            await rig.report("34")
            assert len(rig.journal.runs) == PER_SCRIPT
            assert any(run.cause is Cause.READ_CHANGE for run in rig.queue.waiting(SCRIPT))

    finish(check())


def test_large_events_are_refused_before_they_fill_memory_and_journal():
    async def check() -> None:
        rig = Rig()
        event = b'"' + b"x" * (PER_SCRIPT_BYTES // 4 - 2) + b'"'
        async with rig.running():
            executor = await deployed(rig, **LEAST)
            rig.sessions.disconnect(executor)
            for _ in range(4):
                await rig.operations.trigger(SCRIPT, cause=Cause.WEBHOOK, event=event)
            with pytest.raises(Waiting, match="too many runs"):
                await rig.operations.trigger(SCRIPT, cause=Cause.WEBHOOK, event=b"1")
            assert len(rig.journal.runs) == 4

    finish(check())


def test_a_script_that_promises_less_is_not_journaled():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **{**LEAST, "qos": "AtMostOnce"})
            run_id = await trigger(rig)
            assert rig.journal.runs == {}
            await rig.clock.settle()
            await end(rig, executor, Outcome.FAILED)
            await rig.clock.advance(60)
            assert starts(rig, run_id) == [1]

    finish(check())
