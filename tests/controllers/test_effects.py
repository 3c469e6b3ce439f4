"""What a run asked for becomes desired state of devices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from reconciler.adapters.embedded.documents import json_patched
from reconciler.controllers.effects import TRIES, DesiredWriter, Effects
from reconciler.core import origins
from reconciler.core.objects import (
    DEVICES_V1ALPHA2,
    DEVICES_V1BETA1,
    SCRIPT_REPOSITORIES,
    JsonObject,
    ObjectKey,
    Resource,
    mapping,
)
from reconciler.core.origins import Origin
from reconciler.core.runs import RunId, Write
from reconciler.core.store import Entry
from reconciler.core.twins import DeviceStatusRecord, Layout, Twin, decode_device
from reconciler.errors import ClusterUnavailable, Conflict, Forbidden
from tests.controllers.runpath import REPOSITORY, SWITCH, Rig, device, finish, flight


async def rigged() -> Rig:
    rig = Rig()
    await rig.devices()
    await rig.sync()
    return rig


async def perform(rig: Rig, *writes: Write, run_id: str = "run-1", **parts: object) -> Effects:
    it = flight(run_id, **parts)
    return await rig.writer.perform(it, writes)


def state(value: str, *, force: bool = False) -> Write:
    return Write("fan", "state", value, force=force)


def patches(rig: Rig) -> int:
    return rig.cluster.count("json_patch")


async def cause(rig: Rig, name: str = "state") -> Origin | None:
    record = decode_device(await rig.cluster.real.get(DEVICES_V1BETA1, SWITCH))
    return origins.of(record.origins, name, await rig.desired(name))


# With whose rights.


async def accounted(rig: Rig) -> None:
    """The Script is of a repository that a ServiceAccount acts for."""
    uid = await rig.repository()
    account = {"spec": {"serviceAccountName": "deployer"}}
    await rig.cluster.real.merge_patch(
        SCRIPT_REPOSITORIES, REPOSITORY, account, field_manager="operator"
    )
    await rig.script(repository=uid)
    await rig.sync()
    rig.cluster.acted.clear()


def test_a_service_account_writes_for_the_runs_of_its_repository():
    async def check() -> None:
        rig = await rigged()
        assert await perform(rig, state("on")) == Effects(changed=["switch/state=on"])
        assert rig.cluster.acted == []
        await accounted(rig)
        assert await perform(rig, state("off")) == Effects(changed=["switch/state=off"])
        assert rig.cluster.acted == [("default/deployer", "json_patch", "Device")]

    finish(check())


def test_what_its_service_account_may_not_do_is_not_done_by_us():
    async def check() -> None:
        rig = await rigged()
        await accounted(rig)
        rig.cluster.refuse(ObjectKey("default", "deployer"), "json_patch")
        effects = await perform(rig, state("on"))
        assert (effects.refused, effects.failed) == (["switch/state=on"], True)
        assert "default/deployer may not json_patch" in effects.message
        assert await rig.desired("state") == "off"

    finish(check())


# Writing.


def test_write_becomes_desired_with_the_run_as_its_cause():
    async def check() -> None:
        rig = await rigged()
        assert await perform(rig, state("on")) == Effects(changed=["switch/state=on"])
        assert await rig.desired("state") == "on"
        assert await cause(rig) == Origin(
            run_id=RunId("run-1"),
            script="thermostat",
            at=rig.clock.now(),
            marks={"state": origins.mark("on")},
        )

    finish(check())


def test_writes_to_one_device_are_one_patch_and_the_last_to_a_property_counts():
    async def check() -> None:
        rig = await rigged()
        effects = await perform(rig, state("on"), Write("fan", "speed", 3), state("auto"))
        assert effects == Effects(changed=["switch/state=auto", "switch/speed=3"])
        assert patches(rig) == 1
        assert (await rig.desired("state"), await rig.desired("speed")) == ("auto", "3")

    finish(check())


def test_two_aliases_of_one_device_are_one_device():
    async def check() -> None:
        rig = await rigged()
        both = {"matchNames": {"fan": "switch", "vent": "switch"}}
        effects = await perform(rig, state("on"), Write("vent", "speed", 1), writeSelector=both)
        assert (effects.changed, patches(rig)) == (["switch/state=on", "switch/speed=1"], 1)

    finish(check())


def test_writes_to_several_devices_are_performed_each_on_its_own():
    async def check() -> None:
        rig = await rigged()
        await rig.create(DEVICES_V1BETA1, device("lamp", "switch", state="off"))
        await rig.sync()
        both = {"matchNames": {"fan": "switch", "lamp": "lamp"}}
        rig.cluster.fail("json_patch", Forbidden("not that one"))
        effects = await perform(rig, state("on"), Write("lamp", "state", "on"), writeSelector=both)
        assert effects == Effects(
            changed=["lamp/state=on"],
            refused=["switch/state=on"],
            message="switch/state=on: not that one",
            failed=True,
        )

    finish(check())


def test_equal_value_is_not_written():
    async def check() -> None:
        rig = await rigged()
        assert await perform(rig, state("off")) == Effects(unchanged=["switch/state=off"])
        assert patches(rig) == 0

    finish(check())


def test_equal_value_is_written_by_force():
    async def check() -> None:
        rig = await rigged()
        assert (await perform(rig, state("off", force=True))).changed == ["switch/state=off"]
        found = await cause(rig)
        assert found is not None
        assert (patches(rig), found.run_id) == (1, "run-1")

    finish(check())


# Checks.


@pytest.mark.parametrize(
    ("write", "refused", "message"),
    [
        pytest.param(
            Write("lamp", "state", "on"),
            "lamp/state=on",
            "the writeSelector of the Script does not name this device",
            id="alias not granted",
        ),
        pytest.param(
            Write("sensor", "temperature", 5.0),
            "sensor/temperature=5.0",
            "the writeSelector of the Script does not name this device",
            id="granted to read only",
        ),
        pytest.param(
            Write("fan", "serial", "x"), "switch/serial=x", "ReadOnly", id="property is ReadOnly"
        ),
        pytest.param(
            Write("fan", "speed", 11), "switch/speed=11", "cannot be 11", id="out of range"
        ),
        pytest.param(Write("fan", "speed", "x"), "switch/speed=x", "is INT, not 'x'", id="type"),
        pytest.param(
            Write("fan", "nothing", 1), "switch/nothing=1", "has no property", id="no such property"
        ),
    ],
)
def test_refused_write_is_named_with_its_reason_and_does_not_stop_the_others(
    write, refused, message
):
    async def check() -> None:
        rig = await rigged()
        effects = await perform(rig, write, state("on"))
        assert (effects.changed, effects.refused, effects.failed) == (
            ["switch/state=on"],
            [refused],
            False,
        )
        assert effects.message.startswith(f"{refused}: ")
        assert message in effects.message
        counts = [rig.metric("desired_writes_total", result=r) for r in ("written", "refused")]
        assert counts == [1, 1]

    finish(check())


def test_device_of_another_namespace_is_never_meant():
    async def check() -> None:
        rig = Rig()
        await rig.create(
            DEVICES_V1BETA1,
            {
                **device("switch", "switch", state="off"),
                "metadata": {"name": "switch", "namespace": "other"},
            },
        )
        await rig.sync()
        effects = await perform(rig, state("on"))
        assert (effects.refused, effects.message) == (
            ["switch/state=on"],
            "switch/state=on: there is no Device default/switch",
        )

    finish(check())


def test_long_values_are_shown_short():
    async def check() -> None:
        rig = await rigged()
        effects = await perform(rig, Write("lamp", "state", "x" * 1000))
        assert len(effects.refused[0]) < 100

    finish(check())


# Others who write.


def test_conflict_is_read_again_decided_again_and_written():
    async def check() -> None:
        rig = await rigged()
        live = mapping(await rig.cluster.real.get(DEVICES_V1BETA1, SWITCH))
        properties = list(live["spec"]["properties"])  # type: ignore[index,arg-type,call-overload]
        await rig.cluster.real.merge_patch(
            DEVICES_V1BETA1,
            SWITCH,
            {"spec": {"properties": properties[::-1]}},
            field_manager="human",
        )
        assert await perform(rig, state("on")) == Effects(changed=["switch/state=on"])
        assert (await rig.desired("state"), patches(rig)) == ("on", 2)

    finish(check())


def test_conflict_that_does_not_end_is_given_up_and_told():
    async def check() -> None:
        rig = await rigged()
        rig.cluster.fail("json_patch", Conflict("moved"), forever=True)
        assert await perform(rig, state("on")) == Effects(
            refused=["switch/state=on"], message="switch/state=on: moved", failed=True
        )
        assert patches(rig) == TRIES

    finish(check())


def test_after_a_conflict_a_value_that_is_desired_already_is_unchanged():
    async def check() -> None:
        rig = await rigged()
        await perform(rig, state("on"))
        behind = Rig(before=rig)
        await behind.sync()
        rig.cluster.fail("json_patch", Conflict("moved"))
        await rig.cluster.real.json_patch(
            DEVICES_V1BETA1,
            SWITCH,
            [{"op": "add", "path": "/spec/properties/0/desired/value", "value": "auto"}],
            field_manager="human",
        )
        assert await perform(behind, state("auto")) == Effects(unchanged=["switch/state=auto"])

    finish(check())


def test_cluster_that_does_not_answer_is_the_platforms_failure():
    async def check() -> None:
        rig = await rigged()
        rig.cluster.fail("json_patch", ClusterUnavailable("no answer"))
        effects = await perform(rig, state("on"))
        assert (effects.failed, effects.refused) == (True, ["switch/state=on"])

    finish(check())


def test_device_deleted_meanwhile_is_told():
    async def check() -> None:
        rig = await rigged()
        await rig.delete(DEVICES_V1BETA1, SWITCH)
        gone = Effects(
            refused=["switch/state=on"],
            message="switch/state=on: there is no Device default/switch",
        )
        assert await perform(rig, state("on")) == gone
        await rig.sync()
        assert await perform(rig, state("on")) == gone

    finish(check())


def test_device_deleted_and_made_anew_gets_the_write():
    async def check() -> None:
        rig = await rigged()
        await rig.delete(DEVICES_V1BETA1, SWITCH)
        await rig.create(DEVICES_V1BETA1, device("switch", "switch", state="off"))
        assert (await perform(rig, state("on"))).changed == ["switch/state=on"]
        assert await rig.desired("state") == "on"

    finish(check())


# Ahead of the watch.


def test_runs_in_quick_succession_see_what_the_run_before_wrote():
    async def check() -> None:
        rig = await rigged()
        seen = [
            await perform(rig, state("on"), run_id="1"),
            await perform(rig, state("on"), run_id="2"),
            await perform(rig, state("off"), run_id="3"),
        ]
        assert seen == [
            Effects(changed=["switch/state=on"]),
            Effects(unchanged=["switch/state=on"]),
            Effects(changed=["switch/state=off"]),
        ]
        found = await cause(rig)
        assert found is not None
        assert (await rig.desired("state"), found.run_id, patches(rig)) == ("off", "3", 2)

    finish(check())


def test_what_the_watch_brings_counts_as_soon_as_it_is_newer():
    async def check() -> None:
        rig = await rigged()
        await perform(rig, state("on"))
        await rig.cluster.real.json_patch(
            DEVICES_V1BETA1,
            SWITCH,
            [{"op": "add", "path": "/spec/properties/0/desired/value", "value": "off"}],
            field_manager="human",
        )
        await rig.sync()
        assert (await perform(rig, state("on"))).changed == ["switch/state=on"]

    finish(check())


class WatchFirst:
    """A cluster whose watch is faster than its answers."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    async def get(self, resource: Resource, key: ObjectKey) -> JsonObject:
        return await self._rig.cluster.get(resource, key)

    async def json_patch(
        self, resource: Resource, key: ObjectKey, patch: Sequence[JsonObject], **options: str
    ) -> JsonObject:
        answer = await self._rig.cluster.json_patch(
            resource, key, patch, field_manager=options["field_manager"]
        )
        await self._rig.sync()
        return answer


def test_answer_that_comes_after_the_watch_hides_nothing_later():
    async def check() -> None:
        rig = await rigged()
        rig.writer = DesiredWriter(rig.world, WatchFirst(rig), clock=rig.clock, metrics=rig.metrics)  # type: ignore[arg-type]
        await perform(rig, state("on"))
        await rig.cluster.real.json_patch(
            DEVICES_V1BETA1,
            SWITCH,
            [{"op": "add", "path": "/spec/properties/0/desired/value", "value": "off"}],
            field_manager="human",
        )
        await rig.sync()
        assert await perform(rig, state("on")) == Effects(changed=["switch/state=on"])
        assert await rig.desired("state") == "on"

    finish(check())


def test_writes_of_several_runs_to_one_device_go_one_after_the_other_and_none_is_forgotten():
    async def check() -> None:
        rig = await rigged()
        gate = asyncio.Event()

        class SlowAnswers(WatchFirst):
            async def json_patch(
                self,
                resource: Resource,
                key: ObjectKey,
                patch: Sequence[JsonObject],
                **options: str,
            ) -> JsonObject:
                answer = await rig.cluster.json_patch(
                    resource, key, patch, field_manager=options["field_manager"]
                )
                await gate.wait()
                return answer

        rig.writer = DesiredWriter(
            rig.world, SlowAnswers(rig), clock=rig.clock, metrics=rig.metrics
        )  # type: ignore[arg-type]
        first = asyncio.ensure_future(perform(rig, Write("fan", "speed", 3), run_id="1"))
        second = asyncio.ensure_future(perform(rig, state("on"), run_id="2"))
        await rig.clock.settle()
        assert patches(rig) == 1
        gate.set()
        await asyncio.gather(first, second)
        found = [await cause(rig, name) for name in ("speed", "state")]
        assert [it and it.run_id for it in found] == ["1", "2"]
        assert patches(rig) == 2

    finish(check())


# Layouts.


class AlphaCluster:
    """One v1alpha2 Device."""

    def __init__(self, document: JsonObject) -> None:
        self.document = document

    async def json_patch(
        self, resource: Resource, key: ObjectKey, patch: Sequence[JsonObject], **options: str
    ) -> JsonObject:
        assert (resource, key) == (DEVICES_V1ALPHA2, SWITCH)
        self.document = json_patched(self.document, patch)  # type: ignore[assignment]
        return self.document


def test_layout_with_desired_in_status_twins_is_written_there():
    async def check() -> None:
        rig = Rig()
        document: JsonObject = {
            "apiVersion": DEVICES_V1ALPHA2.api_version,
            "kind": "Device",
            "metadata": {
                "name": "switch",
                "namespace": "default",
                "uid": "d",
                "resourceVersion": "5",
            },
            "spec": {"deviceModelRef": {"name": "unknown"}},
            "status": {
                "twins": [
                    {
                        "propertyName": "state",
                        "desired": {"value": "off", "metadata": {"type": "string"}},
                        "reported": {"value": "off", "metadata": {"timestamp": "1"}},
                    }
                ]
            },
        }
        cluster = AlphaCluster(document)
        rig.writer = DesiredWriter(rig.world, cluster, clock=rig.clock, metrics=rig.metrics)  # type: ignore[arg-type]
        record = decode_device(document)
        rig.world.devices.put(SWITCH, Entry("d", "5", record))
        assert record.layout is Layout.V1ALPHA2
        assert (await perform(rig, state("on"))).changed == ["switch/state=on"]
        assert cluster.document["status"] == {
            "twins": [
                {
                    "propertyName": "state",
                    "desired": {"value": "on", "metadata": {"type": "string"}},
                    "reported": {"value": "off", "metadata": {"timestamp": "1"}},
                }
            ]
        }

    finish(check())


def test_layout_with_a_device_status_is_written_in_the_device():
    async def check() -> None:
        rig = await rigged()
        status = DeviceStatusRecord(
            key=SWITCH, uid="s", resource_version="999999999", device_uid="", twins=()
        )
        rig.world.device_statuses.put(SWITCH, Entry("s", "999999999", status))
        assert rig.world.device(SWITCH).layout is Layout.SPLIT
        assert (await perform(rig, state("on"))).changed == ["switch/state=on"]
        assert (await perform(rig, state("on"))).unchanged == ["switch/state=on"]
        assert await rig.desired("state") == "on"

    finish(check())


def test_a_report_that_comes_before_our_own_write_is_seen_beside_it():
    async def check() -> None:
        rig = await rigged()
        await perform(rig, state("on"))
        twin = Twin("state", "on", 1, None, None, None)
        status = DeviceStatusRecord(
            key=SWITCH, uid="s", resource_version="999999999", device_uid="", twins=(twin,)
        )
        rig.world.device_statuses.put(SWITCH, Entry("s", "999999999", status))
        record = rig.writer.current(SWITCH)
        assert record is not None
        seen = record.twin("state")
        assert seen is not None
        assert (seen.reported, seen.desired) == ("on", "on")
        assert origins.of(record.origins, "state", "on") is not None

    finish(check())
