"""What the front doors see of a running controller, and the one thing they may do."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.controllers.operations import WAITERS, RunLog
from reconciler.core.objects import ObjectKey
from reconciler.core.runqueue import PER_SCRIPT
from reconciler.core.runs import Cause, LogLine, Outcome, RunId, RunRecord
from reconciler.errors import Forbidden, ObjectNotFound, Waiting
from tests.controllers.runpath import SCRIPT, Rig, finish
from tests.controllers.test_scripts import answer_all, deployed

LAMP = ObjectKey("other", "lamp")


def record(run_id: str, script: ObjectKey = SCRIPT, *, output: str = "") -> RunRecord:
    return RunRecord(
        run_id=RunId(run_id),
        script=script,
        cause=Cause.WEBHOOK,
        outcome=Outcome.SUCCEEDED,
        message="",
        revision="main@sha1:1",
        digest="sha256:0",
        created_at=1_700_000_000.0,
        finished_at=1_700_000_001.0,
        duration_us=7,
        changed=("switch/state=on",),
        logs=(LogLine("info", output),) if output else (),
    )


# The log of runs.


def test_runs_are_remembered_newest_first_up_to_a_number():
    log = RunLog(size=3)
    for n in range(5):
        log.add(record(str(n)))
    assert [r.run_id for r in log.newest(namespace=None, script=None)] == ["4", "3", "2"]
    assert (log.get(RunId("1")), log.get(RunId("2"))) == (None, record("2"))


def test_who_waits_for_a_run_gets_it_and_others_wait_on():
    async def check() -> None:
        log = RunLog()
        one = asyncio.ensure_future(log.ended(RunId("1"), seconds=30))
        same = asyncio.ensure_future(log.ended(RunId("1"), seconds=30))
        other = asyncio.ensure_future(log.ended(RunId("2"), seconds=30))
        await asyncio.sleep(0)
        log.add(record("1"))
        assert await one == await same == record("1")
        assert await log.ended(RunId("1"), seconds=0) == record("1")
        assert not other.done()
        other.cancel()
        assert await log.ended(RunId("3"), seconds=0) is None
        assert log._waiters.keys() <= {other}

    finish(check())


def test_only_so_many_may_wait_for_runs():
    async def check() -> None:
        log = RunLog()
        waiting = [asyncio.ensure_future(log.ended(RunId("1"), seconds=30)) for _ in range(WAITERS)]
        await asyncio.sleep(0)
        # It is told the id of its run, as if it had waited for nothing.
        assert await log.ended(RunId("1"), seconds=30) is None
        for task in waiting:
            task.cancel()

    finish(check())


def test_runs_are_found_by_namespace_and_script():
    log = RunLog()
    for n, script in enumerate((SCRIPT, LAMP, SCRIPT)):
        log.add(record(str(n), script))
    found = [
        [r.run_id for r in log.newest(namespace=namespace, script=script)]
        for namespace, script in (("default", None), (None, "lamp"), ("default", "lamp"))
    ]
    assert found == [["2", "0"], ["1"], []]


def test_old_output_goes_first_when_there_is_much():
    log = RunLog(size=10, output=100)
    log.add(record("1", output="x" * 60))
    log.add(record("2"))
    log.add(record("3", output="y" * 60))
    assert [r.logs for r in log.newest(namespace=None, script=None)] == [
        (LogLine("info", "y" * 60),),
        (),
        (),
    ]
    for n in range(1000):
        log.add(record(f"many-{n}", output="z"))
    assert (len(log._with_output), log._held) == (10, 10)


# Triggers.


def test_trigger_queues_a_run_with_its_event():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, executePolicy={"webhook": True})
            run_id = await rig.operations.trigger(SCRIPT, cause=Cause.WEBHOOK, event=b'{"a":1}')
            assert rig.operations.run(run_id) is None
            await rig.clock.settle()
            await answer_all(rig, executor)
            run = rig.operations.run(run_id)
            assert run is not None
            assert (run["cause"], run["outcome"]) == ("Webhook", "Succeeded")

    finish(check())


@pytest.mark.parametrize(
    ("parts", "cause", "error", "reason"),
    [
        pytest.param({"suspend": True}, Cause.MANUAL, Forbidden, "Suspended", id="suspended"),
        pytest.param({}, Cause.WEBHOOK, Forbidden, "WebhookOff", id="webhook is not allowed"),
        pytest.param(
            {"manifest": {"scriptType": "Js", "name": "thermostat", "version": "9"}},
            Cause.MANUAL,
            Waiting,
            "NotReady",
            id="not ready",
        ),
        pytest.param({"evn": {}}, Cause.WEBHOOK, Waiting, "NotReady", id="spec is not valid"),
    ],
)
def test_trigger_that_cannot_be_is_refused_with_its_reason(parts, cause, error, reason):
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            await deployed(rig, **parts)
            with pytest.raises(error) as caught:
                await rig.operations.trigger(SCRIPT, cause=cause)
            assert caught.value.reason == reason

    finish(check())


def test_trigger_of_a_script_that_is_not_ready_says_why():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            missing = {"scriptType": "Js", "name": "thermostat", "version": "9"}
            await deployed(rig, manifest=missing)
            with pytest.raises(Waiting, match=r"is not ready: scripts/thermostat/9\.js is not in"):
                await rig.operations.trigger(SCRIPT, cause=Cause.MANUAL)

    finish(check())


def test_trigger_of_no_script_is_not_found():
    async def check() -> None:
        with pytest.raises(ObjectNotFound, match="there is no Script default/thermostat"):
            await Rig().operations.trigger(SCRIPT, cause=Cause.MANUAL)

    finish(check())


def test_trigger_beyond_the_bound_says_that_too_many_wait():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            rig.sessions.disconnect(executor)
            for _ in range(PER_SCRIPT):
                await rig.operations.trigger(SCRIPT, cause=Cause.MANUAL)
            with pytest.raises(Waiting) as caught:
                await rig.operations.trigger(SCRIPT, cause=Cause.MANUAL)
            assert caught.value.reason == "QueueFull"

    finish(check())


# Views.


def test_run_is_shown_as_the_port_says():
    rig = Rig()
    rig.runs.add(record("r", output="hot"))
    assert rig.operations.runs(limit=5) == [
        {
            "id": "r",
            "script": {"namespace": "default", "name": "thermostat"},
            "cause": "Webhook",
            "depth": 0,
            "chain": "",
            "outcome": "Succeeded",
            "message": "",
            "revision": "main@sha1:1",
            "digest": "sha256:0",
            "createdAt": "2023-11-14T22:13:20Z",
            "finishedAt": "2023-11-14T22:13:21Z",
            "durationMicroseconds": 7,
            "changed": ["switch/state=on"],
            "unchanged": [],
            "refused": [],
            "outranked": [],
            "logs": [{"level": "info", "text": "hot"}],
        }
    ]
    assert rig.operations.run(RunId("x")) is None


def test_device_is_shown_with_typed_values_and_null_for_the_unknown():
    async def check() -> None:
        rig = Rig()
        await rig.devices()
        await rig.report("21.5")
        assert rig.operations.devices("default") == [
            {
                "kind": "Device",
                "metadata": {"name": "dht11", "namespace": "default"},
                "model": "sensor",
                "properties": [
                    {
                        "name": "temperature",
                        "reported": 21.5,
                        "desired": None,
                        "type": "FLOAT",
                        "timestamp": 1_700_000_000_000,
                    }
                ],
            },
            {
                "kind": "Device",
                "metadata": {"name": "switch", "namespace": "default"},
                "model": "switch",
                "properties": [
                    {
                        "name": "state",
                        "reported": None,
                        "desired": "off",
                        "type": "STRING",
                        "timestamp": None,
                    },
                    {
                        "name": "speed",
                        "reported": None,
                        "desired": None,
                        "type": "INT",
                        "timestamp": None,
                    },
                ],
            },
        ]
        assert rig.operations.devices("nowhere") == []

    finish(check())


def test_scripts_and_repositories_are_the_objects_of_the_cluster_by_key():
    async def check() -> None:
        rig = Rig()
        uid = await rig.repository()
        await rig.script(LAMP, repository=uid)
        await rig.script(repository=uid)
        await rig.sync()
        names = [d["metadata"]["name"] for d in rig.operations.scripts()]  # type: ignore[index,call-overload]
        assert names == ["thermostat", "lamp"]
        assert [d["kind"] for d in rig.operations.repositories("default")] == ["ScriptRepository"]
        assert rig.operations.scripts("nowhere") == []

    finish(check())


def test_debug_shows_store_triggers_queue_and_executors():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig)
            await rig.operations.trigger(SCRIPT, cause=Cause.MANUAL)
            await rig.clock.settle()
            await rig.operations.trigger(SCRIPT, cause=Cause.MANUAL)
            debug = rig.operations.debug()
            assert debug["queue"] == {"waiting": 1, "inFlight": 1}
            assert debug["executors"] == [{"id": executor, "name": executor, "engines": {}}]
            assert [t["script"] for t in debug["triggers"]] == ["default/thermostat"]  # type: ignore[index,union-attr,call-overload]
            assert {k: len(v) for k, v in debug["store"].items()} == {  # type: ignore[union-attr,arg-type]
                "scripts": 1,
                "repositories": 1,
                "models": 2,
                "devices": 2,
            }

    finish(check())


def test_operations_are_ready_when_the_controller_is():
    assert list(Rig().operations.not_ready()) == []
