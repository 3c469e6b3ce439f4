"""Rollouts over the whole run path: time stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from reconciler.api.rollout import RolloutStatus
from reconciler.controllers.dispatching import SWEEP_SECONDS
from reconciler.controllers.shadowing import ANSWER_SECONDS
from reconciler.controllers.statuscommits import document
from reconciler.core.objects import ANNOTATION_ROLLOUT, SCRIPTS, Reference
from reconciler.core.rollouts import Action
from reconciler.core.runs import Cause, Commit, ExecutorId, Outcome, Pause, RunKey, Write
from reconciler.errors import ObjectNotFound, Stalled
from tests.controllers.runpath import CODE, DHT11, DIGEST, SCRIPT, SWITCH, Rig, finish, ok
from tests.controllers.test_scripts import answer_all, caught_up, deployed, load, reconciling, told

NEW_CODE = b"export function main() { /* new */ }"
OLD = {"scriptType": "Js", "name": "thermostat", "version": "1.0.0"}
NEW = {**OLD, "version": "2.0.0"}
ON = Write("fan", "state", "on")
OFF = Write("fan", "state", "off")


def canary(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "Canary", "canary": {"steps": list(steps)}, **more}


ALL = canary({"percent": 100})
SHADOW = {"type": "Shadow"}


async def rollout(rig: Rig) -> RolloutStatus:
    """As the cluster has it."""
    found = (await rig.status()).rollout
    assert found is not None
    return found


async def begun(rig: Rig, policy: dict[str, Any], **parts: Any) -> ExecutorId:
    """A Script whose second version is on trial."""
    executor = await deployed(rig, rollout=policy, **parts)
    rig.publish(NEW_CODE, "2.0.0")
    await rig.change_spec(manifest=NEW)
    await rig.sync()
    await load(rig, executor)
    await caught_up(rig)
    return executor


def in_flight(rig: Rig, executor: ExecutorId) -> list[tuple[str, RunKey]]:
    """Version and key of what the executor has and was not answered, shadows among it."""
    known = rig.dispatcher._in_flight.keys() | rig.dispatcher.shadows._under.keys()
    return [
        (dispatch.script.file, key)
        for dispatch in rig.sessions.sent[executor]
        for key, _ in dispatch.runs
        if key.run_id in known
    ]


def files(rig: Rig, executor: ExecutorId) -> list[str]:
    return [file for file, _ in in_flight(rig, executor)]


async def answer(rig: Rig, executor: ExecutorId, *writes: Write, **parts: Any) -> Sequence[str]:
    """Answer all that is in flight; which versions that was."""
    found = in_flight(rig, executor)
    rig.sessions.answer(executor, *(ok(key, *writes, **parts) for _, key in found))
    await rig.clock.settle()
    return [file for file, _ in found]


def test_without_a_rollout_the_status_says_nothing_of_one() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            await deployed(rig)
            assert (await rig.status()).rollout is None

    finish(work())


def test_nothing_runs_for_a_new_version_until_something_happens() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, ALL)
            status = await rig.status()
            assert files(rig, executor) == []
            assert (told(status)[:2], status.digest) == (reconciling("RolloutPaused"), DIGEST)
            await rig.report("20")
            assert await answer(rig, executor) == ["thermostat/2.0.0.js"]

    finish(work())


def test_a_step_ends_when_its_time_has_come_and_the_last_one_with_a_run_on_deployment() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, canary({"percent": 1, "pause": "1m"}))
            assert told(await rig.status())[:2] == reconciling("RolloutProgressing")
            await rig.clock.advance(60)
            assert files(rig, executor) == ["thermostat/2.0.0.js"]
            await answer(rig, executor)
            await caught_up(rig)
            status = await rig.status()
            assert told(status)[0] == ("Ready", "True", "Deployed")
            assert ("Progressing", "True", "NewVersionAvailable") in told(status)
            assert status.digest != DIGEST
            assert rig.metric("rollouts_total", result="promoted") == 1
            assert [run.cause for run in rig.runs.newest(namespace=None, script=None)] == [
                Cause.DEPLOYED,
                Cause.DEPLOYED,
            ]

    finish(work())


def test_a_step_that_waits_for_runs_is_late_after_its_deadline_and_goes_on_when_they_come() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            policy = canary({"percent": 100, "runs": 1}, progressDeadline="1m")
            executor = await begun(rig, policy)
            await rig.clock.advance(61)
            await caught_up(rig)
            assert told(await rig.status())[0] == ("Ready", "False", "ProgressDeadlineExceeded")
            await rig.report("20")
            await answer(rig, executor)
            await caught_up(rig)
            assert (await rollout(rig)).phase == "Healthy"

    finish(work())


def test_a_run_that_waits_when_its_version_is_given_up_goes_to_the_stable_one() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, ALL)
            await rig.report("20")
            await rig.report("21")
            [(_, key)] = in_flight(rig, executor)
            rig.sessions.answer(executor, ok(key, outcome=Outcome.CRASHED))
            await rig.clock.settle()
            assert (await answer(rig, executor))[-1:] == ["thermostat/1.0.0.js"]
            await caught_up(rig)
            found = await rollout(rig)
            assert (found.phase, found.reason) == ("Degraded", "CrashBudgetExceeded")
            assert rig.metric("rollouts_total", result="halted") == 1

    finish(work())


def test_a_restart_without_executors_runs_the_stable_version_on_and_keeps_the_candidate() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            await begun(rig, canary({"percent": 1}))
            before = await rollout(rig)
        after = Rig(before=rig)
        async with after.running():
            await after.sync()
            runnable = after.dispatcher.running(SCRIPT)
            assert runnable is not None
            assert runnable.ref.digest == DIGEST
            assert runnable.candidate is not None
            assert runnable.candidate.runnable.ref.file == "thermostat/2.0.0.js"
            assert len(after.queue) == 0
            await caught_up(after)
            assert await rollout(after) == before

    finish(work())


def test_a_rollout_that_came_with_the_new_version_returns_to_what_ran_before_it() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            rig.publish(NEW_CODE, "2.0.0")
            await rig.change_spec(manifest=NEW, rollout=ALL)
            await rig.sync()
            await load(rig, executor)
            await caught_up(rig)
            found = await rollout(rig)
            assert (found.stable_digest, found.percent) == (DIGEST, 100)
            await rig.operations.roll_out(SCRIPT, Action.ABORT)
            await rig.sync()
            await rig.report("20")
            assert await answer(rig, executor) == ["thermostat/1.0.0.js"]

    finish(work())


def test_asking_for_rollouts_is_no_new_version_and_no_reason_to_run() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.change_spec(rollout=ALL)
            await rig.sync()
            await caught_up(rig)
            assert files(rig, executor) == []
            assert (await rollout(rig)).phase == "Healthy"

    finish(work())


def test_what_was_asked_of_an_earlier_rollout_is_not_done_to_a_later_one() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, ALL)
            await rig.operations.roll_out(SCRIPT, Action.PROMOTE_FULL)
            await rig.sync()
            await rig.change_spec(rollout=None)
            await rig.sync()
            await answer_all(rig, executor)
            await caught_up(rig)
            await rig.change_spec(manifest=OLD, rollout=ALL)
            await rig.sync()
            await load(rig, executor)
            await caught_up(rig)
            assert (await rollout(rig)).percent == 100

    finish(work())


def test_a_rollout_that_leaves_the_manifest_lets_the_new_version_run_at_once() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, ALL)
            await rig.operations.roll_out(SCRIPT, Action.ABORT)
            await rig.sync()
            await rig.change_spec(rollout=None)
            await rig.sync()
            assert await answer(rig, executor) == ["thermostat/2.0.0.js"]
            await caught_up(rig)
            assert (await rig.status()).rollout is None

    finish(work())


def test_while_paused_a_new_version_waits_and_the_old_one_runs() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, ALL, paused=True)
            assert (await rollout(rig)).phase == "Paused"
            await rig.report("20")
            assert await answer(rig, executor) == ["thermostat/1.0.0.js"]
            await rig.change_spec(paused=None)
            await rig.sync()
            await rig.report("21")
            assert await answer(rig, executor) == ["thermostat/2.0.0.js"]

    finish(work())


def test_a_suspended_script_s_rollout_stands_still() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            await begun(rig, canary({"percent": 1, "pause": "1m"}))
            await rig.change_spec(suspend=True)
            await rig.sync()
            await rig.clock.advance(3600)
            await caught_up(rig)
            status = await rig.status()
            assert told(status)[0] == ("Ready", "True", "Suspended")
            await rig.change_spec(suspend=False)
            await rig.sync()
            await rig.clock.advance(59)
            assert (await rollout(rig)).candidate
            await rig.clock.advance(10)
            assert not (await rollout(rig)).candidate

    finish(work())


def test_a_script_that_goes_takes_its_rollout_and_its_shadows_along() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, SHADOW)
            await rig.report("20")
            await answer(rig, executor, ON)
            assert files(rig, executor) == ["thermostat/2.0.0.js"]
            await rig.delete(SCRIPTS, SCRIPT)
            await rig.sync()
            await answer(rig, executor, OFF)
            assert await rig.desired("state") == "on"
            assert rig.scripts.rollouts._rollouts == {}
            assert rig.registry.read(DIGEST) == CODE

    finish(work())


def test_a_shadow_sees_what_the_other_run_saw_and_what_it_wants_is_not_done() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, SHADOW)
            await rig.report("20")
            [(_, first)] = in_flight(rig, executor)
            rig.sessions.answer(executor, ok(first, ON, state=b'{"n":1}'))
            await rig.clock.settle()
            [(_, second)] = in_flight(rig, executor)
            sent = {
                key: activation
                for dispatch in rig.sessions.sent[executor]
                for key, activation in dispatch.runs
            }
            assert sent[first] == sent[second]
            rig.sessions.answer(executor, ok(second, OFF, state=b'{"n":2}'))
            await rig.clock.settle()
            await caught_up(rig)
            assert await rig.desired("state") == "on"
            uid = next(iter(rig.world.scripts)).uid
            assert rig.memory.of(uid) == b'{"n":1}'
            found = await rollout(rig)
            assert (found.runs, found.differing, found.failed) == (1, 1, 0)
            [difference] = found.differences
            assert (difference.run, difference.stable, difference.shadow) == (
                first.run_id,
                ["switch/state=on", 'state={"n":1}'],
                ["switch/state=off", 'state={"n":2}'],
            )
            told_events = rig.cluster.real.events(Reference("Script", *SCRIPT))
            assert [it.event.reason for it in told_events].count("ShadowDiffers") == 1
            assert rig.runs.get(second.run_id) is None

    finish(work())


def test_a_shadow_that_wants_the_same_is_no_difference() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, SHADOW)
            await rig.report("20")
            await answer(rig, executor, OFF, ON)
            await answer(rig, executor, ON)
            await caught_up(rig)
            found = await rollout(rig)
            assert (found.runs, found.differing, found.differences) == (1, 0, [])
            assert rig.metric("shadow_runs_total", result="same") == 1

    finish(work())


def test_a_shadow_that_commits_is_told_what_the_other_run_was_and_never_waits() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, SHADOW)
            await rig.report("20")
            [(_, first)] = in_flight(rig, executor)
            wish = ON._replace(qos=2)
            rig.sessions.pause(
                executor, Pause(key=first, commits=(Commit(0, "fan", 2, (wish,), 9),))
            )
            await rig.clock.advance(1)
            done = wish._replace(done=True)
            rig.sessions.answer(executor, ok(first, done))
            await rig.clock.settle()
            [(_, shadow)] = in_flight(rig, executor)
            off = OFF._replace(qos=2)
            commits = (Commit(0, "fan", 2, (wish,)), Commit(1, "fan", 2, (off,)))
            rig.sessions.pause(executor, Pause(key=shadow, commits=commits))
            await rig.clock.settle()
            [*_, dispatch] = rig.sessions.sent[executor]
            [(again, activation)] = dispatch.runs
            told = [(it["n"], it["reached"]) for it in orjson.loads(activation)["replies"]]
            assert (dispatch.script.file, told) == ("thermostat/2.0.0.js", [(0, 0), (1, 2)])
            rig.sessions.answer(executor, ok(again, done, off._replace(done=True)))
            await rig.clock.settle()
            await caught_up(rig)
            assert (await rig.desired("state"), (await rollout(rig)).differing) == ("on", 1)

    finish(work())


def test_a_shadow_waits_for_credit_that_nobody_else_wants_and_is_dropped_with_its_executor() -> (
    None
):
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, SHADOW)
            rig.sessions.disconnect(executor)
            other = rig.sessions.connect(credit=1)
            await rig.report("20")
            await answer(rig, other, ON)
            assert (files(rig, other), len(rig.dispatcher.shadows)) == ([], 1)
            await rig.report("21")
            rig.sessions.give(other, 1)
            await rig.clock.settle()
            assert files(rig, other) == ["thermostat/1.0.0.js"]
            rig.sessions.give(other, 1)
            await rig.clock.settle()
            assert files(rig, other) == ["thermostat/1.0.0.js", "thermostat/2.0.0.js"]
            rig.sessions.disconnect(other)
            await rig.clock.settle()
            await caught_up(rig)
            assert (await rollout(rig)).runs == 0

    finish(work())


def test_a_request_is_done_once_also_after_a_restart() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            await begun(rig, canary({"percent": 1}, {"percent": 2}, {"percent": 3}))
            patch = {"metadata": {"annotations": {ANNOTATION_ROLLOUT: "promote please"}}}
            await rig.cluster.real.merge_patch(SCRIPTS, SCRIPT, patch, field_manager="kubectl")
            await rig.sync()
            await caught_up(rig)
            assert (await rollout(rig)).percent == 2
        after = Rig(before=rig)
        async with after.running():
            await after.sync()
            await caught_up(after)
            found = await rollout(after)
            assert (found.percent, found.last_handled_request) == (2, "promote please")

    finish(work())


@pytest.mark.parametrize(
    ("annotation", "percent"),
    [
        pytest.param("promote", 2, id="a word that nothing follows"),
        pytest.param("", 1, id="nothing"),
        pytest.param(":", 1, id="a separator alone"),
        pytest.param(" promote x", 1, id="a blank first"),
        pytest.param("promotex", 1, id="no blank where one is expected"),
        pytest.param("PROMOTE x", 1, id="capital letters"),
        pytest.param("undo:", 0, id="no revision behind the colon: back to the stable one"),
        pytest.param("undo:x", 1, id="a revision that is no number"),
        pytest.param("undo:1:2 x", 1, id="two colons"),
        pytest.param("\n\x00", 1, id="control characters"),
    ],
)
def test_what_people_write_into_the_annotation_is_done_or_passed_over(
    annotation: str, percent: int
) -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            await begun(rig, canary({"percent": 1}, {"percent": 2}, {"percent": 3}))
            patch = {"metadata": {"annotations": {ANNOTATION_ROLLOUT: annotation}}}
            await rig.cluster.real.merge_patch(SCRIPTS, SCRIPT, patch, field_manager="kubectl")
            await rig.sync()
            await caught_up(rig)
            assert (await rollout(rig)).percent == percent

    finish(work())


@pytest.mark.parametrize(
    ("action", "revision", "why"),
    [
        pytest.param(Action.PROMOTE, None, "NothingToPromote", id="nothing to promote"),
        pytest.param(Action.PROMOTE_FULL, None, "NothingToPromote", id="nothing to promote fully"),
        pytest.param(Action.ABORT, None, "NothingToAbort", id="nothing to abort"),
        pytest.param(Action.UNDO, None, "NothingToUndo", id="no former version"),
        pytest.param(Action.UNDO, 7, "RevisionNotKept", id="a revision that is not kept"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_reason(
    action: Action, revision: int | None, why: str
) -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            await deployed(rig, rollout=ALL)
            with pytest.raises(Stalled) as refused:
                await rig.operations.roll_out(SCRIPT, action, revision=revision)
            assert refused.value.reason == why

    finish(work())


def test_rollouts_of_scripts_that_have_none_or_are_not_there_are_refused() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            await deployed(rig)
            with pytest.raises(Stalled, match="has no rollout"):
                await rig.operations.roll_out(SCRIPT, Action.ABORT)
            with pytest.raises(ObjectNotFound):
                await rig.operations.roll_out(DHT11, Action.ABORT)

    finish(work())


def test_undo_runs_bytes_that_have_left_the_repository_and_lets_go_of_what_is_not_kept() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, {"type": "AllAtOnce"}, revisionHistoryLimit=1)
            await answer_all(rig, executor)
            rig.registry.remove(rig.publish(CODE))
            await rig.operations.roll_out(SCRIPT, Action.UNDO)
            await rig.sync()
            assert rig.registry.read(DIGEST) == CODE
            assert await answer(rig, executor) == ["thermostat/1.0.0.js"]
            await caught_up(rig)
            assert (await rollout(rig)).stable_digest == DIGEST
            for number in ("3", "4"):
                rig.publish(NEW_CODE + number.encode(), f"{number}.0.0")
                await rig.change_spec(manifest={**OLD, "version": f"{number}.0.0"})
                await rig.sync()
                await load(rig, executor)
                await answer_all(rig, executor)
            await caught_up(rig)
            kept = [(it.revision, it.spec["manifest"]) for it in (await rollout(rig)).versions]
            assert [number for number, _ in kept] == [5, 4]
            assert rig.registry.read(DIGEST) is None

    finish(work())


def test_devices_of_both_versions_are_not_joined_into_one_run() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            policy = {"type": "Canary", "canary": {"by": "Devices", "steps": [{"percent": 50}]}}
            selector = {"matchNames": {"sensor": "dht11", "other": "switch"}}
            executor = await begun(rig, policy, readSelector=selector)
            rig.sessions.disconnect(executor)
            await rig.report("20")
            await rig.report("up", name="state", key=SWITCH)
            assert len(rig.queue) == 2
            other = rig.sessions.connect(credit=10)
            await rig.clock.settle()
            assert sorted(files(rig, other)) == ["thermostat/1.0.0.js", "thermostat/2.0.0.js"]

    finish(work())


def test_what_goes_to_git_names_kept_versions_without_their_specs() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            await deployed(rig, rollout=ALL, env={"word": "only in the branch that is deployed"})
            status = await rig.status()
            text = document(SCRIPT, status).decode()
            assert "only in the branch" not in text
            assert status.rollout is not None
            assert f"version: {status.rollout.stable}" in text

    finish(work())


def test_a_version_that_no_executor_loads_is_given_up_and_the_old_one_runs() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, rollout=ALL)
            rig.publish(NEW_CODE, "2.0.0")
            await rig.change_spec(manifest=NEW)
            await rig.sync()
            await load(rig, executor, Outcome.LOAD_FAILED)
            await caught_up(rig)
            found = await rollout(rig)
            assert (found.phase, found.reason, found.message) == (
                "Degraded",
                "LoadFailed",
                "it has no main",
            )
            assert told(await rig.status())[0] == ("Ready", "False", "LoadFailed")
            await rig.report("20")
            assert await answer(rig, executor) == ["thermostat/1.0.0.js"]

    finish(work())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"manifest": NEW}, "ArtifactNotFound", id="its file is missing"),
        pytest.param({"limits": {"heap": "1Mi"}}, "InvalidSpec", id="its spec is not valid"),
    ],
)
def test_a_version_that_cannot_be_had_leaves_the_old_one_running(
    change: dict[str, Any], why: str
) -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, rollout=ALL)
            await rig.change_spec(**change)
            await rig.sync()
            await caught_up(rig)
            assert told(await rig.status())[0] == ("Ready", "False", why)
            await rig.report("20")
            assert await answer(rig, executor) == ["thermostat/1.0.0.js"]

    finish(work())


def test_a_script_without_rollouts_stops_when_its_spec_is_not_valid() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.change_spec(limits={"heap": "1Mi"})
            await rig.sync()
            await caught_up(rig)
            await rig.report("20")
            assert files(rig, executor) == []
            assert (await rig.status()).rollout is None

    finish(work())


def test_a_shadow_that_the_platform_loses_counts_for_nothing() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, SHADOW)
            await rig.report("20")
            await answer(rig, executor, ON)
            await answer(rig, executor, outcome=Outcome.UNAVAILABLE)
            await rig.report("21")
            await answer(rig, executor, ON)
            assert files(rig, executor) == ["thermostat/2.0.0.js"]
            await rig.clock.advance(ANSWER_SECONDS + SWEEP_SECONDS)
            assert files(rig, executor) == []
            await caught_up(rig)
            assert (await rollout(rig)).runs == 0

    finish(work())


def test_how_a_shadow_ends_and_what_would_be_refused_are_differences_too() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await begun(rig, SHADOW)
            await rig.report("20")
            await answer(rig, executor, ON)
            many = [Write("fan", f"property-{n:02}", "x") for n in range(12)]
            await answer(
                rig,
                executor,
                Write("heater", "power", value=True),
                *many,
                outcome=Outcome.FAILED,
                message="boom",
            )
            await caught_up(rig)
            found = await rollout(rig)
            [difference] = found.differences
            assert (found.failed, difference.stable) == (1, ["switch/state=on"])
            assert difference.shadow == [
                "heater/power=refused",
                *(f"switch/property-{n:02}=refused" for n in range(9)),
                "and 4 more",
            ]

    finish(work())


def test_a_shadow_of_another_kind_waits_for_an_executor_that_has_its_engine() -> None:
    async def work() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, rollout=SHADOW)
            wasm = {**NEW, "scriptType": "Wasm"}
            ref = rig.publish(CODE)._replace(version="2.0.0", ext="wasm")
            rig.registry.publish(ref, b"\0asm")
            both = rig.sessions.connect(script_types=("Wasm",), credit=10)
            await rig.change_spec(manifest=wasm)
            await rig.sync()
            await load(rig, both)
            await rig.report("20")
            assert await answer(rig, executor, ON) == ["thermostat/1.0.0.js"]
            assert files(rig, executor) == []
            assert await answer(rig, both, ON) == ["thermostat/2.0.0.wasm"]

    finish(work())
