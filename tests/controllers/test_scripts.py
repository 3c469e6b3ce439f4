"""What a Script needs to run, and what its status says, over the whole run path."""

from __future__ import annotations

import hashlib

import pytest

from reconciler.api.grants import TopicRule
from reconciler.api.script import RunStatus, ScriptStatus
from reconciler.controllers.scripts import (
    ARTIFACT_RETRY,
    COUNT_SECONDS,
    LOAD_PATIENCE,
    REGISTER_RETRY,
)
from reconciler.controllers.statuses import RESULTS_INTERVAL, SETTLE, TRANSITION_INTERVAL
from reconciler.core.grants import Grants
from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from reconciler.core.runs import Cause, ExecutorId, Outcome, Write
from reconciler.errors import SourceUnavailable
from tests.controllers.runpath import (
    CODE,
    DIGEST,
    REPOSITORY,
    SCRIPT,
    Rig,
    applied_by,
    finish,
    ok,
    spec,
)

REGISTER = "https://register.example"
ELSEWHERE = {**spec()["manifest"], "register": REGISTER}
OTHER_CODE = b"export function main() { /* more */ }"
OTHER_DIGEST = "sha256:" + hashlib.sha256(OTHER_CODE).hexdigest()


def told(status: ScriptStatus) -> list[tuple[str, str, str]]:
    return [(c.type, c.status, c.reason) for c in status.conditions]


READY = [("Ready", "True", "Deployed")]
SUCCEEDING = ("RunsSucceeding", "True", "Succeeded")


def reconciling(reason: str) -> list[tuple[str, str, str]]:
    return [("Ready", "Unknown", reason), ("Reconciling", "True", reason)]


def stalled(reason: str) -> list[tuple[str, str, str]]:
    return [("Ready", "False", reason), ("Stalled", "True", reason)]


async def deployed(rig: Rig, **parts: object) -> ExecutorId:
    """A Script of a repository, loaded and Ready, that has had its first run; its executor."""
    uid = await rig.repository()
    await rig.devices()
    await rig.script(repository=uid, **parts)
    executor = rig.sessions.connect(credit=100)
    await rig.sync()
    await load(rig, executor)
    await answer_all(rig, executor)
    await caught_up(rig)
    return executor


async def load(rig: Rig, executor: ExecutorId, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    await rig.clock.settle()
    rig.sessions.load_all(executor, outcome)
    await rig.clock.settle()


async def answer_all(rig: Rig, executor: ExecutorId, *writes: Write, **parts: object) -> int:
    """Answer the runs that are in flight; how many there were."""
    flying = [key for key in rig.sessions.runs(executor) if key.run_id in rig.dispatcher._in_flight]
    rig.sessions.answer(executor, *(ok(key, *writes, **parts) for key in flying))
    await rig.clock.settle()
    return len(flying)


async def caught_up(rig: Rig) -> None:
    """Statuses written, and seen by the watch."""
    await rig.clock.advance(RESULTS_INTERVAL + SETTLE)
    await rig.sync()


# Becoming Ready.


def test_first_status_of_a_script_that_loads_quickly_says_ready():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            uid = await rig.repository()
            await rig.devices()
            await rig.script(repository=uid)
            assert (await rig.status()).observed_generation == -1
            executor = rig.sessions.connect(credit=100)
            await rig.sync()
            assert rig.triggering.index.get(SCRIPT) is None
            await load(rig, executor)
            await answer_all(rig, executor)
            assert rig.status_patches == 0
            await rig.clock.advance(SETTLE)
            status = await rig.status()
            assert told(status) == [*READY, SUCCEEDING]
            assert status.last_run is not None
            assert (status.observed_generation, status.digest, status.runs) == (1, DIGEST, 1)
            assert status.last_run.cause == "Deployed"
            assert rig.status_patches == 1
            assert [(e.reason, e.type) for e in rig.cluster.emitted] == [("Deployed", "Normal")]

    finish(check())


def test_ready_is_never_true_before_the_artifact_is_loaded():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            uid = await rig.repository()
            await rig.script(repository=uid)
            rig.sessions.connect(credit=100)
            await rig.sync()
            await rig.clock.advance(LOAD_PATIENCE + SETTLE)
            assert told(await rig.status()) == reconciling("Progressing")
            await rig.clock.advance(3600)
            assert told(await rig.status()) == reconciling("Progressing")
            assert rig.triggering.index.get(SCRIPT) is None

    finish(check())


def test_without_an_executor_it_waits_and_goes_on_when_one_comes():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            uid = await rig.repository()
            await rig.script(repository=uid)
            rig.sessions.connect(script_types=("Wasm",), credit=10)
            await rig.sync()
            await rig.clock.advance(SETTLE)
            status = await rig.status()
            assert told(status) == reconciling("ExecutorAbsent")
            assert status.observed_generation == 1
            executor = rig.sessions.connect(credit=10)
            await load(rig, executor)
            await rig.clock.advance(TRANSITION_INTERVAL)
            assert told(await rig.status()) == READY

    finish(check())


def test_artifact_that_does_not_load_stalls_with_the_reason():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            uid = await rig.repository()
            await rig.script(repository=uid)
            executor = rig.sessions.connect(credit=10)
            await rig.sync()
            await load(rig, executor, Outcome.LOAD_FAILED)
            await rig.clock.advance(SETTLE)
            status = await rig.status()
            assert told(status) == stalled("LoadFailed")
            assert {c.message for c in status.conditions} == {"it has no main"}
            assert (rig.sessions.runs(executor), rig.triggering.index.get(SCRIPT)) == ([], None)
            assert [(e.reason, e.type) for e in rig.cluster.emitted] == [("LoadFailed", "Warning")]

    finish(check())


@pytest.mark.parametrize(
    ("parts", "reason", "message"),
    [
        pytest.param(
            {"manifest": {"scriptType": "Js", "name": "thermostat", "version": "9"}},
            "ArtifactNotFound",
            "scripts/thermostat/9.js is not in ScriptRepository default/rules; add it, or correct "
            "spec.manifest.name and version",
            id="version is not in the repository",
        ),
        pytest.param(
            {"manifest": {**spec()["manifest"], "digest": OTHER_DIGEST}},
            "DigestMismatch",
            f"the artifact is {DIGEST}, the manifest asks for {OTHER_DIGEST}; correct "
            "spec.manifest.digest or publish the bytes it names",
            id="other bytes than the manifest pins",
        ),
        pytest.param(
            {"manifest": {"scriptType": "Lua", "name": "t", "version": "1"}},
            "InvalidSpec",
            "spec.manifest.scriptType: Input should be 'Js' or 'Wasm'",
            id="spec is not valid",
        ),
        pytest.param(
            {"manifest": ELSEWHERE},
            "ArtifactNotFound",
            f"{REGISTER}/thermostat/1.0.0.js is not there",
            id="register does not have it",
        ),
    ],
)
def test_what_a_person_must_change_stalls_and_says_so(parts, reason, message):
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            uid = await rig.repository()
            await rig.script(repository=uid, **parts)
            rig.sessions.connect(credit=10)
            await rig.sync()
            await rig.clock.advance(SETTLE)
            status = await rig.status()
            assert told(status) == stalled(reason)
            assert {c.message for c in status.conditions} == {message}
            assert status.observed_generation == 1

    finish(check())


def test_script_of_no_repository_and_no_register_stalls():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            await rig.script()
            await rig.sync()
            await rig.clock.advance(SETTLE)
            assert told(await rig.status()) == stalled("NoRegister")

    finish(check())


def test_topics_that_are_not_granted_stall_a_script():
    async def check() -> None:
        rule = TopicRule(namespaces=["default"], topics=["rooms/#"])
        rig = Rig(grants=Grants(topics=(rule,)))
        async with rig.running():
            policy = {"mqtt": {"topics": ["rooms/door", "#"]}}
            await rig.script(repository=await rig.repository(), executePolicy=policy)
            rig.sessions.connect(credit=10)
            await rig.sync()
            await rig.clock.advance(SETTLE)
            status = await rig.status()
            assert told(status) == stalled("TopicNotGranted")
            assert "the MQTT topics #;" in status.conditions[0].message

    finish(check())


def test_a_label_does_not_reach_artifacts_of_a_repository_that_does_not_deploy_there():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            uid = await rig.repository()
            stranger = ObjectKey("elsewhere", "thermostat")
            await rig.script(stranger, repository=uid)
            rig.sessions.connect(credit=10)
            await rig.sync()
            await rig.clock.advance(SETTLE)
            assert told(await rig.status(stranger)) == stalled("NoRegister")

    finish(check())


def test_a_label_alone_does_not_make_a_script_a_repositorys():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            marks = {"labels": applied_by(await rig.repository())["labels"]}
            await rig.create(
                SCRIPTS,
                {
                    "apiVersion": SCRIPTS.api_version,
                    "kind": "Script",
                    "metadata": {"name": SCRIPT.name, "namespace": SCRIPT.namespace, **marks},
                    "spec": spec(),
                },
            )
            rig.sessions.connect(credit=10)
            await rig.sync()
            await rig.clock.advance(SETTLE)
            assert told(await rig.status()) == stalled("NoRegister")

    finish(check())


def test_artifact_of_a_repository_that_was_not_read_yet_is_waited_for():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            rig.synced.clear()
            uid = await rig.repository()
            await rig.script(
                repository=uid, manifest={"scriptType": "Js", "name": "thermostat", "version": "2"}
            )
            executor = rig.sessions.connect(credit=10)
            await rig.sync()
            await rig.clock.advance(SETTLE)
            assert told(await rig.status()) == reconciling("ArtifactPending")
            rig.scripts.published([rig.publish(OTHER_CODE, "2")])
            await load(rig, executor)
            await rig.clock.advance(TRANSITION_INTERVAL)
            assert told(await rig.status()) == READY

    finish(check())


def test_spec_that_is_put_right_becomes_ready_and_stalled_goes():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.change_spec(manifest={"version": "9"})
            await rig.sync()
            await rig.clock.advance(TRANSITION_INTERVAL)
            assert told(await rig.status()) == [*stalled("ArtifactNotFound"), SUCCEEDING]
            assert rig.triggering.index.get(SCRIPT) is None
            await rig.change_spec(manifest={"version": "1.0.0"})
            await rig.sync()
            await rig.clock.advance(TRANSITION_INTERVAL)
            assert told(await rig.status()) == [*READY, SUCCEEDING]
            assert await answer_all(rig, executor) == 1

    finish(check())


# Registers elsewhere.


def test_artifact_of_another_register_is_fetched_once_and_kept():
    async def check() -> None:
        rig = Rig()
        rig.registers.files[f"{REGISTER}/thermostat/1.0.0.js"] = CODE
        async with rig.running():
            executor = await deployed(rig, manifest=ELSEWHERE)
            await answer_all(rig, executor)
            await caught_up(rig)
            assert told(await rig.status()) == [*READY, SUCCEEDING]
            assert (len(rig.registers.fetched), rig.registry.read(DIGEST)) == (1, CODE)
        again = Rig(before=rig)
        async with again.running():
            again.sessions.connect(credit=10)
            await again.sync()
            assert again.triggering.index.get(SCRIPT) is not None
            assert len(rig.registers.fetched) == 1

    finish(check())


def test_register_may_hold_a_package_and_the_executor_is_told_which():
    async def check() -> None:
        rig = Rig()
        packed = b"PK and so on"
        rig.registers.files[f"{REGISTER}/thermostat/1.0.0.zip"] = packed
        async with rig.running():
            executor = await deployed(rig, manifest=ELSEWHERE)
            await answer_all(rig, executor)
            await caught_up(rig)
            assert rig.registers.fetched == [
                f"{REGISTER}/thermostat/1.0.0.{ext}" for ext in ("js", "zip")
            ]
            assert rig.registry.read(f"sha256:{hashlib.sha256(packed).hexdigest()}") == packed
            assert rig.dispatcher._runnables[SCRIPT].ref.file == "thermostat/1.0.0.zip"
        again = Rig(before=rig)
        async with again.running():
            again.sessions.connect(credit=10)
            await again.sync()
            assert again.dispatcher._runnables[SCRIPT].ref.file == "thermostat/1.0.0.zip"
            assert len(rig.registers.fetched) == 2

    finish(check())


def test_what_a_register_lacked_is_fetched_once_somebody_has_pushed_it():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, manifest=ELSEWHERE)
            assert told(await rig.status()) == stalled("ArtifactNotFound")
            rig.registers.files[f"{REGISTER}/thermostat/1.0.0.js"] = CODE
            await rig.clock.advance(REGISTER_RETRY.total_seconds())
            await load(rig, executor)
            await answer_all(rig, executor)
            await caught_up(rig)
            assert told(await rig.status()) == [*READY, SUCCEEDING]

    finish(check())


def test_one_at_which_a_chain_was_broken_says_so_until_it_is_another():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            looping = ("Looping", "True", "Loop")
            for message in ("first", "second"):
                rig.triggering.on_loop(SCRIPT, rig.world.scripts.get(SCRIPT).uid, message)
                await rig.clock.advance(TRANSITION_INTERVAL)
                await rig.sync()
            status = await rig.status()
            assert told(status) == [*READY, looping, SUCCEEDING]
            assert status.conditions[1].message == "first"
            warnings = [e for e in rig.cluster.emitted if e.type == "Warning"]
            assert [(e.reason, e.message) for e in warnings] == [("Loop", "first")]
            await rig.change_spec(executePolicy={"loop": "Allow"})
            await rig.sync()
            await answer_all(rig, executor)
            await caught_up(rig)
            assert told(await rig.status()) == [*READY, SUCCEEDING]

    finish(check())


def test_register_that_does_not_answer_never_lends_a_new_version_the_bytes_of_the_old():
    async def check() -> None:
        rig = Rig()
        rig.registers.files[f"{REGISTER}/thermostat/1.0.0.js"] = CODE
        async with rig.running():
            executor = await deployed(rig, manifest=ELSEWHERE)
            rig.registers.fault = SourceUnavailable("no answer")
            await rig.change_spec(manifest={"version": "2.0.0"})
            await rig.sync()
            await rig.clock.advance(TRANSITION_INTERVAL)
            await rig.sync()
            status = await rig.status()
            assert told(status) == [*reconciling("SourceUnavailable"), SUCCEEDING]
            assert (status.observed_generation, status.digest) == (2, DIGEST)
            await rig.clock.advance(ARTIFACT_RETRY.total_seconds() * 3)
            assert told(await rig.status()) == [*reconciling("SourceUnavailable"), SUCCEEDING]
            rig.registers.fault = None
            rig.registers.files[f"{REGISTER}/thermostat/2.0.0.js"] = OTHER_CODE
            await rig.clock.advance(ARTIFACT_RETRY.total_seconds())
            await load(rig, executor)
            await answer_all(rig, executor)
            await caught_up(rig)
            status = await rig.status()
            assert (told(status), status.digest) == ([*READY, SUCCEEDING], OTHER_DIGEST)

    finish(check())


# Runs.


def test_change_becomes_a_run_and_the_run_a_desired_value():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.report("31")
            assert await answer_all(rig, executor, Write("fan", "state", "on"), duration_us=7) == 1
            assert await rig.desired("state") == "on"
            [record, _] = rig.runs.newest(namespace=None, script=None)
            assert (record.outcome, record.cause, record.changed) == (
                Outcome.SUCCEEDED,
                Cause.READ_CHANGE,
                ("switch/state=on",),
            )
            await caught_up(rig)
            status = await rig.status()
            assert (status.runs, status.failures, status.status, status.message) == (2, 0, 0, "")
            assert status.last_run == RunStatus(
                id=record.run_id,
                cause="ReadChange",
                outcome="Succeeded",
                finished_at=status.last_run.finished_at if status.last_run else "",
                duration_microseconds=7,
                writes=1,
                unchanged=0,
            )

    finish(check())


def test_failing_run_leaves_the_script_ready():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.report("31")
            await answer_all(rig, executor, outcome=Outcome.FAILED, message="boom at 1.0.0.js:3")
            await rig.clock.advance(TRANSITION_INTERVAL)
            status = await rig.status()
            assert told(status) == [*READY, ("RunsSucceeding", "False", "Failed")]
            assert (status.status, status.message, status.runs, status.failures) == (
                1,
                "boom at 1.0.0.js:3",
                2,
                1,
            )
            assert rig.cluster.emitted[-1].type == "Warning"
            await rig.report("32")
            await answer_all(rig, executor)
            await rig.clock.advance(TRANSITION_INTERVAL + SETTLE)
            status = await rig.status()
            assert (told(status), status.status, status.message) == ([*READY, SUCCEEDING], 0, "")

    finish(check())


def test_results_of_a_script_that_was_deleted_and_made_anew_are_dropped():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, executePolicy={"readChange": True, "runOnDeploy": False})
            await rig.report("31")
            uid = rig.world.scripts.get(SCRIPT).repository_uid
            await rig.delete(SCRIPTS, SCRIPT)
            await rig.script(
                repository=uid, executePolicy={"readChange": True, "runOnDeploy": False}
            )
            await rig.sync()
            assert await answer_all(rig, executor, outcome=Outcome.FAILED, message="old") == 1
            await caught_up(rig)
            status = await rig.status()
            assert (told(status), status.runs, status.message) == (READY, 0, "")
            assert rig.scripts._facts == {}

    finish(check())


def test_deleted_script_runs_no_more_and_leaves_nothing():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.delete(SCRIPTS, SCRIPT)
            await rig.report("31")
            assert await answer_all(rig, executor) == 0
            assert (rig.evaluations.rows, rig.scripts._facts, rig.statuses._objects) == ({}, {}, {})
            assert rig.artifacts._uses == {}

    finish(check())


def test_script_deleted_while_its_artifact_was_fetched_is_not_brought_back():
    async def check() -> None:
        rig = Rig()
        real = rig.registers.fetch
        rig.registers.files[f"{REGISTER}/thermostat/1.0.0.js"] = CODE

        async def slow(*place: str) -> bytes:
            await rig.clock.sleep(5)
            return await real(*place)

        rig.registers.fetch = slow  # type: ignore[method-assign]  # a slow register
        async with rig.running():
            await deployed(rig)
            other = SCRIPT._replace(name="other")
            await rig.script(other, manifest=ELSEWHERE)
            await rig.sync()
            await rig.delete(SCRIPTS, other)
            await rig.sync()
            await rig.clock.advance(60)
            assert len(rig.registers.fetched) == 1
            assert rig.triggering.index.get(other) is None
            assert (len(rig.evaluations.rows), list(rig.statuses._objects)) == (1, [SCRIPT])

    finish(check())


# Changes.


def test_suspended_script_is_ready_and_runs_nothing_until_resumed():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.change_spec(suspend=True)
            await rig.sync()
            await rig.report("31")
            assert await answer_all(rig, executor) == 0
            await rig.clock.advance(TRANSITION_INTERVAL)
            assert told(await rig.status()) == [("Ready", "True", "Suspended"), SUCCEEDING]
            await rig.change_spec(suspend=None)
            await rig.sync()
            assert await answer_all(rig, executor) == 1

    finish(check())


def test_new_bytes_of_a_version_in_dev_mode_are_loaded_and_run_once():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            rig.scripts.published([rig.publish(OTHER_CODE, replace=True)])
            await rig.clock.settle()
            assert rig.triggering.index.get(SCRIPT).digest == DIGEST
            await load(rig, executor)
            assert await answer_all(rig, executor) == 1
            await caught_up(rig)
            status = await rig.status()
            assert (status.digest, status.runs) == (OTHER_DIGEST, 2)
            assert status.last_run is not None
            assert status.last_run.cause == "Deployed"

    finish(check())


def test_what_ran_before_goes_on_while_the_new_is_loaded():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            rig.publish(OTHER_CODE, "2.0.0")
            await rig.change_spec(manifest={"version": "2.0.0"})
            await rig.sync()
            await rig.report("31")
            [_, dispatch] = [d for d in rig.sessions.sent[executor] if d.runs]
            assert dispatch.script.digest == DIGEST
            assert await answer_all(rig, executor) == 1

    finish(check())


def test_change_of_spec_runs_once_with_the_new_spec():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.change_spec(env={"threshold-value": "500"})
            await rig.sync()
            *_, dispatch = rig.sessions.sent[executor]
            assert b'"threshold-value":"500"' in dispatch.runs[0][1]
            assert await answer_all(rig, executor) == 1
            await caught_up(rig)
            assert (await rig.status()).observed_generation == 2

    finish(check())


def test_status_that_we_wrote_is_no_reason_to_reconcile():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            await deployed(rig)
            before = rig.metric("reconcile_total", kind="Script", result="success")
            await rig.sync()
            await caught_up(rig)
            assert rig.metric("reconcile_total", kind="Script", result="success") == before

    finish(check())


def test_runs_that_were_counted_and_not_told_are_told_at_the_end():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            rig.statuses_told.clear()
            await rig.report("31")
            await answer_all(rig, executor)
            assert rig.statuses_told == []
            await rig.scripts.settle()
            await rig.scripts.settle()
            assert [(s.runs, transition) for s, transition in rig.statuses_told] == [(2, False)]

    finish(check())


def test_listener_is_told_of_every_status_and_whether_it_is_a_transition():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            rig.statuses_told.clear()
            await rig.report("31")
            await answer_all(rig, executor)
            await rig.clock.advance(COUNT_SECONDS)
            await rig.report("32")
            await answer_all(rig, executor, outcome=Outcome.FAILED)
            assert [(s.runs, transition) for s, transition in rig.statuses_told] == [
                (2, False),
                (3, True),
            ]

    finish(check())


# Restarts.


def test_restart_neither_loads_nor_runs_nor_writes_again_and_counts_on():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.report("31")
            await answer_all(rig, executor, outcome=Outcome.FAILED, message="boom")
            await caught_up(rig)
            before = await rig.status()
        again = Rig(before=rig)
        async with again.running():
            executor = again.sessions.connect(credit=100)
            await again.sync()
            patches = rig.status_patches
            await again.clock.advance(60)
            assert again.sessions.sent[executor] == []
            assert rig.status_patches == patches
            await again.report("32")
            assert await answer_all(again, executor) == 1
            await caught_up(again)
            after = await again.status()
            assert (before.runs, before.failures, after.runs, after.failures) == (2, 1, 3, 1)

    finish(check())


def test_restart_that_lost_its_memory_believes_the_cluster_and_starts_nothing():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            await deployed(rig)
        rig.evaluations.rows.clear()
        again = Rig(before=rig)
        async with again.running():
            executor = again.sessions.connect(credit=100)
            await again.sync()
            assert again.sessions.sent[executor] == []
            await again.report("32")
            assert await answer_all(again, executor) == 1

    finish(check())


def test_restart_of_a_thousand_scripts_starts_nothing():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            uid = await rig.repository()
            await rig.devices()
            keys = [SCRIPT._replace(name=f"script-{n}") for n in range(1000)]
            for key in keys:
                await rig.script(key, repository=uid)
            executor = rig.sessions.connect(credit=5000)
            await rig.sync()
            for _ in range(40):
                await load(rig, executor)
                await answer_all(rig, executor)
            await caught_up(rig)
            assert rig.metric("runs_total", outcome="Succeeded", cause="Deployed") == 1000
        again = Rig(before=rig)
        async with again.running():
            executor = again.sessions.connect(credit=5000)
            await again.sync()
            for _ in range(40):
                await again.clock.settle()
            assert (len(again.triggering.index), again.sessions.sent[executor]) == (1000, [])

    finish(check())


def test_a_script_whose_repository_goes_runs_on_until_it_is_changed():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            await deployed(rig)
            await rig.delete(SCRIPT_REPOSITORIES, REPOSITORY)
            await rig.sync()
            rig.scripts.loop.add(SCRIPT)
            await rig.clock.advance(TRANSITION_INTERVAL)
            assert told(await rig.status()) == [*READY, SUCCEEDING]
            assert rig.triggering.index.get(SCRIPT) is not None
        again = Rig(before=rig)
        async with again.running():
            again.sessions.connect(credit=10)
            await again.sync()
            await again.clock.settle()
            assert again.triggering.index.get(SCRIPT) is not None
            await again.change_spec(manifest={**spec()["manifest"], "version": "2.0.0"})
            await again.sync()
            await again.clock.advance(TRANSITION_INTERVAL)
            assert told(await again.status()) == [*stalled("NoRegister"), SUCCEEDING]

    finish(check())


def test_scripts_of_a_revision_are_made_ready_once_it_is_applied():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = rig.sessions.connect(credit=100)
            with rig.precedence.applying():
                await rig.script(repository=await rig.repository())
                await rig.sync()
                assert rig.sessions.loads(executor) == []
            await rig.clock.settle()
            assert len(rig.sessions.loads(executor)) == 1

    finish(check())
