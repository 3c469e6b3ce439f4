"""Runs that wait for what they committed: written, watched, driven again, and gone on with."""

from __future__ import annotations

from typing import Any

import orjson

from reconciler.controllers.committing import FIRST_DRIVE
from reconciler.core import origins
from reconciler.core.objects import ANNOTATION_CAUSE, DEVICES_V1BETA1, SCRIPTS, Reference
from reconciler.core.origins import Origin
from reconciler.core.runs import Cause, Commit, ExecutorId, Outcome, Pause, RunId, RunKey, Write
from reconciler.core.twins import decode_device
from reconciler.errors import ClusterUnavailable
from tests.controllers.runpath import SCRIPT, SWITCH, Rig, finish, ok, reported
from tests.controllers.test_deliveries import LEAST, starts
from tests.controllers.test_schedules import connected, deployed

WEBHOOK = {"cron": "", "webhook": True, "runOnDeploy": False}
ON = Write("fan", "state", "on", 2)


async def paused(
    rig: Rig, *writes: Write, level: int = 2, timeout_ms: int = 0, **policy: Any
) -> tuple[ExecutorId, RunKey]:
    """A run that was sent, and waits for what it has committed."""
    executor = await deployed(rig, **{**WEBHOOK, **policy})
    return executor, await paused_on(rig, executor, *writes, level=level, timeout_ms=timeout_ms)


async def paused_on(
    rig: Rig, executor: ExecutorId, *writes: Write, level: int = 2, timeout_ms: int = 0
) -> RunKey:
    await rig.operations.trigger(SCRIPT, cause=Cause.WEBHOOK, event=b"1")
    await rig.clock.settle()
    key = rig.sessions.runs(executor)[-1]
    commit = Commit(0, "fan", level, writes or (ON,), timeout_ms)
    rig.sessions.pause(executor, Pause(key=key, commits=(commit,), duration_us=5))
    await rig.clock.settle()
    return key


def sent(rig: Rig, run_id: RunId) -> list[dict[str, Any]]:
    """The activations of a run, in the order they were sent."""
    return [
        orjson.loads(activation)
        for dispatches in rig.sessions.sent.values()
        for dispatch in dispatches
        for key, activation in dispatch.runs
        if key.run_id == run_id
    ]


async def switched(rig: Rig, **twin: Any) -> None:
    """The switch says something, and the watch brings it."""
    stamp = str(int(rig.clock.now() * 1000))
    told = {**reported("on", stamp), **twin} if twin else reported("on", stamp)
    rig.cluster.real.report_twins(DEVICES_V1BETA1, SWITCH, {"state": told})
    await rig.sync()


async def version(rig: Rig) -> str:
    return decode_device(await rig.cluster.real.get(DEVICES_V1BETA1, SWITCH)).resource_version


def test_a_run_goes_on_with_the_same_activation_once_its_device_reports():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor, key = await paused(rig)
            assert await rig.desired("state") == "on"
            await rig.report("31")
            await rig.clock.advance(2)
            assert len(sent(rig, key.run_id)) == 1
            await switched(rig)
            first, second = sent(rig, key.run_id)
            reply = {"n": 0, "op": "commit", "alias": "fan", "qos": 2, "ok": True}
            assert second == {**first, "replies": [{**reply, "reached": 2, "ms": 2000}]}
            [*_, dispatch] = rig.sessions.sent[executor]
            assert (dispatch.runs[0][0], dispatch.waited_ms) == (key, 2000)
            rig.sessions.answer(executor, ok(key, ON._replace(done=True), duration_us=7))
            await rig.clock.settle()
            record = rig.runs.get(key.run_id)
            assert record is not None
            assert (record.outcome, record.changed, record.duration_us) == (
                *(Outcome.SUCCEEDED, ("switch/state=on",)),
                12,
            )
            assert rig.metric("commits_total", qos="2", result="reached") == 1
            assert rig.metric("redrives_total") == 0

    finish(check())


def test_a_run_that_waits_is_shown_with_what_it_waits_for():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor, key = await paused(rig)
            told = rig.operations.run(key.run_id)
            assert told is not None
            assert (told["outcome"], told["finishedAt"], told["changed"]) == (
                *("Waiting", ""),
                ["switch/state=on"],
            )
            assert told["message"] == "it waits for fan (qos 2) since 2023-11-14T22:13:20Z"
            assert rig.operations.runs(script="thermostat", limit=1) == [told]
            assert rig.operations.runs(script="other") == []
            assert rig.metric("runs_paused") == 1
            explained = rig.operations.explain(SCRIPT)
            assert (explained["inFlight"], explained["paused"]) == (
                1,
                [{"id": key.run_id, "since": "2023-11-14T22:13:20Z", "devices": ["fan (qos 2)"]}],
            )
            await switched(rig)
            rig.sessions.answer(executor, ok(key))
            await rig.clock.settle()
            assert rig.metric("runs_paused") == 0
            [ended] = rig.operations.runs()
            assert ended["outcome"] == "Succeeded"

    finish(check())


def test_observed_is_enough_for_quality_1_and_not_for_2():
    async def check() -> None:
        for level, goes_on in ((1, True), (2, False)):
            rig = Rig()
            async with rig.running():
                _, key = await paused(rig, level=level)
                observed = {"observedDesired": {"value": "on", "metadata": {}}}
                await switched(rig, **{**reported("off"), **observed})
                assert len(sent(rig, key.run_id)) == 1 + goes_on

    finish(check())


def test_a_device_that_does_not_answer_is_driven_again_ever_later_until_the_wait_is_over():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            _, key = await paused(rig)
            await rig.sync()
            versions = [await version(rig)]
            for pause in (FIRST_DRIVE, 2 * FIRST_DRIVE):
                await rig.clock.advance(pause - 0.2)
                assert await version(rig) == versions[-1]
                await rig.clock.advance(0.3)
                await rig.sync()
                versions.append(await version(rig))
            assert len(set(versions)) == 3
            assert await rig.desired("state") == "on"
            await rig.clock.advance(30)
            [_, second] = sent(rig, key.run_id)
            [reply] = second["replies"]
            assert (reply["ok"], reply["reached"], reply["code"], reply["message"]) == (
                *(True, 0, "NotConverged"),
                "state=on is desired and nothing reported",
            )
            assert reply["ms"] == 30_000
            assert rig.metric("redrives_total") == 2
            assert rig.metric("commits_total", qos="2", result="not_converged") == 1
            told = rig.cluster.real.events(Reference("Script", *SCRIPT))
            assert [(it.event.reason, it.event.message) for it in told][-1] == (
                "NotConverged",
                "switch: state=on is desired and nothing reported",
            )

    finish(check())


def test_a_commit_waits_no_longer_than_it_says_itself():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            _, key = await paused(rig, timeout_ms=700)
            await rig.clock.advance(0.6)
            assert len(sent(rig, key.run_id)) == 1
            await rig.clock.advance(0.2)
            assert sent(rig, key.run_id)[1]["replies"][0]["ms"] == 700

    finish(check())


def test_what_somebody_else_wants_instead_is_neither_waited_for_nor_fought():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            _, key = await paused(rig)
            entries = [{"name": "state", "desired": {"value": "auto"}}, {"name": "speed"}]
            await rig.cluster.real.merge_patch(
                DEVICES_V1BETA1, SWITCH, {"spec": {"properties": entries}}, field_manager="kubectl"
            )
            await rig.sync()
            [reply] = sent(rig, key.run_id)[1]["replies"]
            assert (reply["code"], reply["message"]) == (
                "NotConverged",
                "state=auto is desired by now",
            )
            await rig.clock.advance(3600)
            assert await rig.desired("state") == "auto"

    finish(check())


def test_what_a_script_of_a_higher_priority_holds_is_not_waited_for():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **WEBHOOK)
            now = rig.clock.now()
            marks = {"state": origins.mark("off")}
            held = Origin(
                run_id=RunId("r0"), script="boost", at=now, priority=5, until=now + 60, marks=marks
            )
            annotations = {ANNOTATION_CAUSE: origins.written("", held)}
            await rig.cluster.real.merge_patch(
                DEVICES_V1BETA1,
                SWITCH,
                {"metadata": {"annotations": annotations}},
                field_manager="x",
            )
            await rig.sync()
            key = await paused_on(rig, executor)
            [reply] = sent(rig, key.run_id)[1]["replies"]
            assert (reply["code"], reply["reached"], reply["message"]) == (
                "NotConverged",
                0,
                "state=off is desired by now",
            )
            rig.sessions.answer(executor, ok(key, ON._replace(done=True)))
            await rig.clock.settle()
            record = rig.runs.get(key.run_id)
            assert record is not None
            assert (record.outcome, record.outranked) == (Outcome.SUCCEEDED, ("switch/state=on",))

    finish(check())


def test_what_somebody_else_wants_is_not_written_over_before_the_watch_has_told_of_it():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            await paused(rig)
            await rig.sync()
            entries = [{"name": "state", "desired": {"value": "auto"}}, {"name": "speed"}]
            await rig.cluster.real.merge_patch(
                DEVICES_V1BETA1, SWITCH, {"spec": {"properties": entries}}, field_manager="kubectl"
            )
            await rig.clock.advance(FIRST_DRIVE + 1)
            assert (await rig.desired("state"), rig.metric("redrives_total")) == ("auto", 1)

    finish(check())


def test_what_is_refused_is_told_at_once_and_judged_by_the_script():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor, key = await paused(rig, Write("fan", "serial", "x", 2))
            [reply] = sent(rig, key.run_id)[1]["replies"]
            assert (reply["ok"], reply["code"]) == (False, "Denied")
            rig.sessions.answer(executor, ok(key, Write("fan", "serial", "x", 2, done=True)))
            await rig.clock.settle()
            record = rig.runs.get(key.run_id)
            assert record is not None
            assert (record.outcome, record.refused) == (Outcome.SUCCEEDED, ("switch/serial=x",))

    finish(check())


def test_a_cluster_that_does_not_answer_is_told_as_failed():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            rig.cluster.fail("json_patch", ClusterUnavailable("it is away"))
            _, key = await paused(rig)
            [reply] = sent(rig, key.run_id)[1]["replies"]
            assert (reply["ok"], reply["code"]) == (False, "Failed")

    finish(check())


def test_all_waits_of_a_run_together_are_bounded():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor, key = await paused(rig)
            await rig.clock.advance(31)
            rig.sessions.pause(
                executor, Pause(key=key, commits=(Commit(1, "fan", 2, (ON,)),), replies=b"[]")
            )
            await rig.clock.settle()
            record = rig.runs.get(key.run_id)
            assert record is not None
            assert (record.outcome, record.message, record.changed) == (
                Outcome.TIMED_OUT,
                "it waited for more than 30000 ms for its devices",
                ("switch/state=on",),
            )

    finish(check())


def test_a_run_that_waits_is_with_no_executor_and_none_of_its_script_overtakes_it():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor, key = await paused(rig)
            rig.sessions.disconnect(executor)
            other = rig.sessions.connect(credit=10)
            await rig.operations.trigger(SCRIPT, cause=Cause.WEBHOOK, event=b"2")
            await rig.clock.settle()
            assert (rig.sessions.runs(other), rig.dispatcher.in_flight_of(SCRIPT)) == ([], 1)
            await switched(rig)
            assert rig.sessions.runs(other) == [key]
            rig.sessions.answer(other, ok(key))
            await rig.clock.settle()
            assert len(rig.sessions.runs(other)) == 2

    finish(check())


def test_a_run_that_an_executor_did_not_begin_goes_on_elsewhere_with_its_replies():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor, key = await paused(rig)
            await switched(rig)
            rig.sessions.answer(executor, ok(key, outcome=Outcome.UNAVAILABLE))
            await rig.clock.settle()
            _, second, third = sent(rig, key.run_id)
            assert second == third

    finish(check())


def test_a_run_of_at_least_once_starts_again_when_its_controller_ends_while_it_waits():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            _, key = await paused(rig, **LEAST)
            await rig.dispatcher.drained()
            record = rig.runs.get(key.run_id)
            assert record is not None
            assert record.outcome is Outcome.LOST
        after = Rig(before=rig)
        async with after.running():
            await connected(after)
            await after.clock.advance(60)
            assert starts(after, key.run_id) == [2]

    finish(check())


def test_what_another_replica_leads_by_now_is_not_gone_on_with():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor, key = await paused(rig)
            rig.dispatcher.let_go(SCRIPT)
            await switched(rig)
            await rig.clock.advance(60)
            assert rig.sessions.runs(executor) == [key]
            assert (rig.dispatcher.in_flight, rig.runs.get(key.run_id)) == (0, None)
            assert rig.metric("redrives_total") == 0

    finish(check())


def test_the_script_may_go_while_a_run_of_it_waits():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor, key = await paused(rig)
            await rig.delete(SCRIPTS, SCRIPT)
            await rig.sync()
            await switched(rig)
            rig.sessions.answer(executor, ok(key))
            await rig.clock.settle()
            assert (rig.dispatcher.in_flight, rig.runs.get(key.run_id) is not None) == (0, True)

    finish(check())
