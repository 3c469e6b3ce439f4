"""The end of a run."""

from __future__ import annotations

import pytest

from reconciler.core.recordings import Recording
from reconciler.core.runs import Cause, LogLine, Outcome, RunRecord, Write
from reconciler.errors import ClusterUnavailable
from tests.controllers.runpath import SCRIPT, Rig, finish, flight, ok
from tests.fakes.recordings import FakeRecordings

ON = Write("fan", "state", "on")
NOT_GRANTED = Write("lamp", "state", "on")


async def rigged() -> Rig:
    rig = Rig()
    await rig.devices()
    await rig.sync()
    return rig


def test_finished_run_is_remembered_counted_and_told():
    async def check() -> None:
        rig = await rigged()
        told: list[RunRecord] = []
        rig.finisher.listeners.append(told.append)
        it = flight()
        rig.clock.jump(1)
        logs = (LogLine("info", "hot"),)
        await rig.finisher.finish(it, ok(it.run.key, ON, duration_us=250, logs=logs))
        expected = RunRecord(
            run_id=it.run.key.run_id,
            script=SCRIPT,
            cause=Cause.READ_CHANGE,
            outcome=Outcome.SUCCEEDED,
            message="",
            revision="main@sha1:1",
            digest=it.runnable.ref.digest,
            created_at=0.0,
            finished_at=rig.clock.now(),
            duration_us=250,
            changed=("switch/state=on",),
            logs=logs,
            uid="u1",
        )
        assert (rig.runs.get(it.run.key.run_id), told) == (expected, [expected])
        assert rig.metric("runs_total", outcome="Succeeded", cause="ReadChange") == 1
        assert rig.metric("run_seconds_sum") == 0.00025
        assert rig.metric("effect_latency_seconds_count") == 1

    finish(check())


@pytest.mark.parametrize(
    ("writes", "outcome", "expected", "message"),
    [
        pytest.param((ON,), Outcome.SUCCEEDED, Outcome.SUCCEEDED, "", id="all granted"),
        pytest.param(
            (ON, NOT_GRANTED),
            Outcome.SUCCEEDED,
            Outcome.DENIED,
            "lamp/state=on: the writeSelector of the Script does not name this device",
            id="one write not granted",
        ),
        pytest.param((), Outcome.FAILED, Outcome.FAILED, "boom", id="the script's own error"),
        pytest.param((), Outcome.LOST, Outcome.LOST, "boom", id="lost"),
    ],
)
def test_outcome_is_that_of_the_run_unless_its_writes_were_refused(
    writes, outcome, expected, message
):
    async def check() -> None:
        rig = await rigged()
        it = flight()
        said = "" if outcome is Outcome.SUCCEEDED else "boom"
        await rig.finisher.finish(it, ok(it.run.key, *writes, outcome=outcome, message=said))
        record = rig.runs.get(it.run.key.run_id)
        assert record is not None
        assert (record.outcome, record.message) == (expected, message)

    finish(check())


def test_writes_that_the_cluster_did_not_take_are_the_platforms_failure():
    async def check() -> None:
        rig = await rigged()
        rig.cluster.fail("json_patch", ClusterUnavailable("no answer"))
        it = flight()
        await rig.finisher.finish(it, ok(it.run.key, ON))
        record = rig.runs.get(it.run.key.run_id)
        assert record is not None
        assert (record.outcome, record.message, record.refused) == (
            Outcome.UNAVAILABLE,
            "switch/state=on: no answer",
            ("switch/state=on",),
        )

    finish(check())


def test_run_that_changed_nothing_has_no_effect_latency():
    async def check() -> None:
        rig = await rigged()
        it = flight()
        await rig.finisher.finish(it, ok(it.run.key, Write("fan", "state", "off")))
        record = rig.runs.get(it.run.key.run_id)
        assert record is not None
        assert (record.changed, record.unchanged) == ((), ("switch/state=off",))
        assert rig.metric("effect_latency_seconds_count") == 0

    finish(check())


def test_a_finished_run_is_recorded_with_its_activation_and_what_it_answered():
    async def check() -> None:
        rig = await rigged()
        rig.finisher.recordings = recordings = FakeRecordings()
        token = {"secretKeyRef": {"name": "api", "key": "token"}}
        it = flight(envFrom={"token": token})
        it.activation = b'{"now":1,"env":{"token":"hunter2"}}'
        result = ok(it.run.key, ON, NOT_GRANTED, state=b'{"n":1}')
        await rig.finisher.finish(it, result)
        record = rig.runs.get(it.run.key.run_id)
        assert record is not None
        assert recordings.held == [
            Recording(
                ref=it.runnable.ref,
                uid=it.run.uid,
                secrets=frozenset({"token"}),
                activation=b'{"now":1,"env":{"token":"hunter2"}}',
                result=result,
                record=record,
            )
        ]

    finish(check())
