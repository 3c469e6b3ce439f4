"""Runs that are started until one succeeds: over bad ends, lost executors, crashes, suspensions."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.core.deliveries import ATTEMPTS, Stage
from reconciler.core.objects import DEVICES_V1BETA1, SCRIPTS
from reconciler.core.runqueue import PER_SCRIPT, PER_SCRIPT_BYTES
from reconciler.core.runs import Cause, Outcome, RunId, Write
from reconciler.errors import ClusterUnavailable, Transient, Waiting
from reconciler.ports.journal import RETENTION
from reconciler.ports.sessions import ExecutorId
from tests.controllers.runpath import SCRIPT, SWITCH, Rig, finish, ok
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
            assert list(rig.journal.deliveries) == [run_id]
            await answer(rig, executor)
            await rig.clock.advance(3600)
            assert (starts(rig, run_id), rig.journal.deliveries) == ([1], {})

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
            assert (rig.journal.deliveries, rig.metric("runs_given_up_total")) == ({}, 1)

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
            assert (starts(rig, run_id), rig.journal.deliveries) == ([1, 2], {})

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
            assert (starts(second, run_id), second.journal.deliveries) == ([2], {})

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
            assert (len(rig.queue), list(rig.journal.deliveries)) == (0, [run_id])
            executor = rig.sessions.connect(credit=100)
            await rig.clock.advance(600)
            assert starts(rig, run_id) == []
            await rig.change_spec(suspend=False)
            await rig.sync()
            await answer(rig, executor)
            assert (starts(rig, run_id), rig.journal.deliveries) == ([1], {})

    finish(check())


def test_runs_of_a_script_that_is_gone_are_forgotten_also_when_it_went_unseen():
    async def check() -> None:
        first = Rig()
        async with first.running():
            executor = await deployed(first, **LEAST)
            first.sessions.disconnect(executor)
            await trigger(first)
        second = Rig(before=first)
        await second.deliveries.lead()
        second.triggering.keep_only({"another"})
        assert second.journal.deliveries == {}
        third = Rig(before=first)
        async with third.running():
            await third.sync()
            await third.delete(SCRIPTS, SCRIPT)
            await third.sync()
            assert third.journal.deliveries == {}

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
            assert rig.journal.deliveries == {}

    finish(check())


def test_every_change_is_a_run_of_its_own_as_long_as_there_is_room():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **LEAST, readChange=True)
            rig.sessions.disconnect(executor)
            for value in ("31", "32", "33"):
                await rig.report(value)
            assert len(rig.queue) == len(rig.journal.deliveries) == 3
            for _ in range(PER_SCRIPT - 3):
                await trigger(rig)
            with pytest.raises(Waiting):
                await trigger(rig)
            await rig.report("34")
            assert len(rig.journal.deliveries) == PER_SCRIPT
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
            assert len(rig.journal.deliveries) == 4

    finish(check())


def test_a_script_that_promises_less_is_not_journaled():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **{**LEAST, "qos": "AtMostOnce"})
            run_id = await trigger(rig)
            assert rig.journal.deliveries == {}
            await rig.clock.settle()
            await end(rig, executor, Outcome.FAILED)
            await rig.clock.advance(60)
            assert starts(rig, run_id) == [1]

    finish(check())


ONCE = {**LEAST, "qos": "OnlyOnce"}
FETCHING = {"network": {"allow": ["https://example.com"]}}


async def deployed_with(rig: Rig, parts: dict[str, object]) -> ExecutorId:
    uid = await rig.repository()
    await rig.devices()
    await rig.script(repository=uid, executePolicy=ONCE, **parts)
    return await connected(rig)


async def answer_with(rig: Rig, executor: ExecutorId, *writes: Write) -> None:
    flying = [key for key in rig.sessions.runs(executor) if key.run_id in rig.dispatcher._in_flight]
    rig.sessions.answer(executor, *(ok(key, *writes) for key in flying))
    await rig.clock.settle()


def told(rig: Rig, run_id: RunId) -> list[Outcome]:
    return [
        it.outcome
        for it in rig.runs.newest(namespace="default", script=SCRIPT.name)
        if it.run_id == run_id
    ]


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT])
def test_once_means_that_whatever_came_of_it_is_its_outcome(outcome: Outcome):
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **ONCE)
            run_id = await trigger(rig)
            await rig.clock.settle()
            await end(rig, executor, outcome)
            await rig.clock.advance(3600)
            assert (starts(rig, run_id), told(rig, run_id)) == ([1], [outcome])
            assert rig.journal.deliveries == {}

    finish(check())


def test_once_a_lost_start_that_could_do_nothing_outside_has_not_happened():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **ONCE)
            run_id = await trigger(rig)
            await rig.clock.settle()
            rig.sessions.disconnect(executor)
            other = await connected(rig)
            await rig.clock.advance(2)
            await answer(rig, other)
            assert starts(rig, run_id) == [1, 2]
            assert told(rig, run_id) == [Outcome.SUCCEEDED]

    finish(check())


def test_once_a_lost_start_that_may_have_fetched_is_unknown_and_not_repeated():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed_with(rig, FETCHING)
            run_id = await trigger(rig)
            await rig.clock.settle()
            assert rig.journal.deliveries[run_id].stage is Stage.STARTED
            rig.sessions.disconnect(executor)
            await connected(rig)
            await rig.clock.advance(60)
            assert (starts(rig, run_id), told(rig, run_id)) == ([1], [Outcome.UNKNOWN])

    finish(check())


@pytest.mark.parametrize("dispatched", [True, False], ids=["in flight", "waiting"])
def test_once_a_crash_leaves_unknown_only_what_had_been_sent(dispatched: bool):  # noqa: FBT001 - a case
    async def check() -> None:
        first = Rig()
        async with first.running():
            executor = await deployed_with(first, FETCHING)
            if not dispatched:
                first.sessions.disconnect(executor)
            run_id = await trigger(first)
            await first.clock.settle()
        second = Rig(before=first)
        async with second.running():
            executor = await connected(second)
            await answer(second, executor)
            outcome = Outcome.UNKNOWN if dispatched else Outcome.SUCCEEDED
            assert told(second, run_id) == [outcome]
            assert starts(second, run_id) == ([] if dispatched else [2])
            assert second.journal.deliveries == {}

    finish(check())


def test_once_what_was_accepted_before_a_crash_is_performed_after_it_and_not_started_again():
    async def check() -> None:
        first = Rig()
        async with first.running():
            executor = await deployed(first, **ONCE)
            run_id = await trigger(first)
            await first.clock.settle()
            first.cluster.fail("json_patch", ClusterUnavailable("no answer"), forever=True)
            await answer_with(first, executor, Write("fan", "state", "on"))
            assert first.journal.deliveries[run_id].stage is Stage.ACCEPTED
            assert (await first.desired("state"), told(first, run_id)) == ("off", [])
        first.cluster.heal()
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            await second.clock.advance(1)
            assert (await second.desired("state"), starts(second, run_id)) == ("on", [])
            assert told(second, run_id) == [Outcome.SUCCEEDED]
            assert second.journal.deliveries == {}

    finish(check())


def test_once_a_write_is_not_repeated_though_the_crash_came_before_that_was_known():
    async def check() -> None:
        first = Rig()
        async with first.running():
            executor = await deployed(first, **ONCE)
            run_id = await trigger(first)
            await first.clock.settle()
            first.journal.loses_drops = True
            await answer_with(first, executor, Write("fan", "state", "on"))
            assert told(first, run_id) == [Outcome.SUCCEEDED]
        # Somebody else has written since.
        await first.cluster.real.merge_patch(
            DEVICES_V1BETA1,
            SWITCH,
            {"spec": {"properties": [{"name": "state", "desired": {"value": "by hand"}}]}},
            field_manager="somebody",
        )
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            await second.clock.advance(1)
            assert await second.desired("state") == "by hand"
            assert told(second, run_id) == [Outcome.SUCCEEDED]

    finish(check())


def test_once_nothing_is_performed_before_its_outcome_is_on_record():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **ONCE)
            run_id = await trigger(rig)
            await rig.clock.settle()
            rig.journal.is_full = True
            await answer_with(rig, executor, Write("fan", "state", "on"))
            await rig.clock.advance(5)
            assert (await rig.desired("state"), told(rig, run_id)) == ("off", [])
            rig.journal.is_full = False
            await rig.clock.advance(60)
            assert (await rig.desired("state"), told(rig, run_id)) == ("on", [Outcome.SUCCEEDED])
            assert starts(rig, run_id) == [1]

    finish(check())


@pytest.mark.parametrize("qos", ["AtMostOnce", "AtLeastOnce", "OnlyOnce"])
def test_the_same_key_means_the_same_run_for_a_day(qos: str):
    async def check() -> None:
        async def ask(rig: Rig) -> RunId:
            return await rig.operations.trigger(
                SCRIPT, cause=Cause.WEBHOOK, event=b"1", key="order-7"
            )

        first = Rig()
        async with first.running():
            executor = await deployed(first, **{**ONCE, "qos": qos})
            asked = await asyncio.gather(ask(first), ask(first))
            await answer(first, executor)
            asked += [await ask(first)]
            assert (len(set(asked)), starts(first, asked[0])) == (1, [1])
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            assert await ask(second) == asked[0]
            await second.clock.settle()
            # Only what is kept is remembered over a restart.
            assert starts(second, asked[0]) == ([1] if qos == "AtMostOnce" else [])
            await second.clock.advance(RETENTION.total_seconds() + 1)
            await ask(second)
            await second.clock.settle()
            assert starts(second, asked[0]) != []

    finish(check())


def test_once_what_was_to_be_remembered_is_kept_after_a_crash_too():
    async def check() -> None:
        first = Rig()
        async with first.running():
            executor = await deployed(first, **ONCE)
            first.journal.loses_drops = True
            for number in (1, 2):
                await trigger(first)
                await first.clock.settle()
                [key] = [k for k in first.sessions.runs(executor) if k.run_id in flying(first)]
                state = b'{"n": %d}' % number
                first.sessions.answer(executor, ok(key, state=state))
                await first.clock.settle()
            uid = next(iter(first.journal.deliveries.values())).run.uid
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            await second.clock.advance(1)
            assert (second.memory.of(uid), second.journal.deliveries) == (b'{"n": 2}', {})

    finish(check())


def flying(rig: Rig) -> set[RunId]:
    return set(rig.dispatcher._in_flight)
