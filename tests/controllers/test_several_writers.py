"""Several Scripts that write one property: who may, and who is told that it may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reconciler.controllers.effects import LEASE, Effects
from reconciler.controllers.runnables import InFlight
from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from reconciler.core.runs import ExecutorId, Outcome, RunRecord, Write
from tests.controllers.runpath import (
    SCRIPT,
    SWITCH,
    Rig,
    finish,
    ok,
    run,
    runnable,
)

BOOST = ObjectKey("default", "boost")


def flight(script: ObjectKey, run_id: str, **policy: Any) -> InFlight:
    return InFlight(
        run=replace(run(run_id), script=script),
        runnable=runnable(script, executePolicy=policy),
        executor=ExecutorId("e"),
        deadline=0.0,
    )


async def rigged() -> Rig:
    rig = Rig()
    await rig.devices()
    await rig.sync()
    return rig


async def wrote(
    rig: Rig, script: ObjectKey, value: str, *, force: bool = False, **policy: Any
) -> Effects:
    it = flight(script, f"run-{rig.cluster.count('json_patch')}", **policy)
    effects = await rig.writer.perform(it, [Write("fan", "state", value, force=force)])
    await rig.sync()
    return effects


def test_of_equal_ones_the_newest_counts():
    async def check() -> None:
        rig = await rigged()
        for script, value in ((SCRIPT, "on"), (BOOST, "auto"), (SCRIPT, "on")):
            assert (await wrote(rig, script, value)).changed == [f"switch/state={value}"]

    finish(check())


def test_what_a_higher_priority_has_set_is_kept_for_its_lease_and_the_loser_is_told():
    async def check() -> None:
        rig = await rigged()
        await wrote(rig, SCRIPT, "on")
        assert (await wrote(rig, BOOST, "auto", priority=10)).changed == ["switch/state=auto"]
        before = rig.cluster.count("json_patch")
        why = (
            "switch/state=on is not written: Script boost (priority 10) holds the property until "
            "2023-11-14T22:14:20Z"
        )
        for force in (False, True):
            assert await wrote(rig, SCRIPT, "on", force=force) == Effects(
                outranked=["switch/state=on"], warnings=[why]
            )
        assert await wrote(rig, SCRIPT, "auto") == Effects(unchanged=["switch/state=auto"])
        assert (await rig.desired("state"), rig.cluster.count("json_patch")) == ("auto", before)
        assert rig.metric("desired_writes_total", result="outranked") == 2
        rig.clock.jump(LEASE)
        assert (await wrote(rig, SCRIPT, "on")).changed == ["switch/state=on"]

    finish(check())


def test_a_lease_is_as_long_as_the_manifest_says_and_counted_from_the_last_run():
    async def check() -> None:
        rig = await rigged()
        boost: dict[str, Any] = {"priority": 1, "lease": "10s"}
        await wrote(rig, BOOST, "auto", **boost)
        for _ in range(5):
            rig.clock.jump(6)
            assert (await wrote(rig, BOOST, "auto", **boost)).unchanged == ["switch/state=auto"]
            assert (await wrote(rig, SCRIPT, "on")).outranked == ["switch/state=on"]
        rig.clock.jump(10)
        assert (await wrote(rig, SCRIPT, "on")).changed == ["switch/state=on"]

    finish(check())


def test_a_hold_is_not_written_again_while_half_of_it_is_left():
    async def check() -> None:
        rig = await rigged()
        for _ in range(10):
            await wrote(rig, BOOST, "auto", priority=1)
            rig.clock.jump(1)
        assert rig.cluster.count("json_patch") == 1

    finish(check())


def test_one_that_finds_its_value_desired_already_holds_it_from_then_on():
    async def check() -> None:
        rig = await rigged()
        await wrote(rig, SCRIPT, "auto")
        assert await wrote(rig, BOOST, "auto", priority=1) == Effects(
            unchanged=["switch/state=auto"]
        )
        assert (await wrote(rig, SCRIPT, "on")).outranked == ["switch/state=on"]

    finish(check())


def test_other_properties_of_the_device_are_written_all_the_same():
    async def check() -> None:
        rig = await rigged()
        await wrote(rig, BOOST, "auto", priority=1)
        it = flight(SCRIPT, "both")
        writes = (Write("fan", "state", "on"), Write("fan", "speed", 3))
        effects = await rig.writer.perform(it, writes)
        assert (effects.changed, effects.outranked) == (["switch/speed=3"], ["switch/state=on"])

    finish(check())


def test_what_a_person_desires_is_nobodys_and_may_be_written():
    async def check() -> None:
        rig = await rigged()
        await wrote(rig, BOOST, "auto", priority=1)
        await rig.cluster.real.json_patch(
            DEVICES_V1BETA1,
            SWITCH,
            [{"op": "add", "path": "/spec/properties/0/desired/value", "value": "off"}],
            field_manager="human",
        )
        await rig.sync()
        assert (await wrote(rig, SCRIPT, "on")).changed == ["switch/state=on"]

    finish(check())


def test_a_loser_has_succeeded_with_a_word_in_its_log_and_one_event_until_it_may_again():
    async def check() -> None:
        rig = await rigged()
        async with rig.running():
            await rig.script()
            await rig.sync()
            uid = rig.world.scripts.get(SCRIPT).uid
            told: list[RunRecord] = []
            rig.finisher.listeners.append(told.append)
            await wrote(rig, BOOST, "auto", priority=1)
            for value in ("on", "on", "auto", "on"):
                it = flight(SCRIPT, f"run-{value}")
                it.run = replace(it.run, uid=uid)
                await rig.finisher.finish(it, ok(it.run.key, Write("fan", "state", value)))
            await rig.clock.advance(5)
        assert [(record.outcome, record.outranked) for record in told] == [
            (Outcome.SUCCEEDED, outranked)
            for outranked in (("switch/state=on",), ("switch/state=on",), (), ("switch/state=on",))
        ]
        assert [line.level for line in told[0].logs] == ["warn"]
        events = [(e.reason, e.message) for e in rig.cluster.emitted if e.reason == "Outranked"]
        assert events == [("Outranked", told[0].logs[0].text)] * 2

    finish(check())
