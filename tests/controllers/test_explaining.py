"""Why a Script did or did not run: what is put side by side, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.ledger import WhyNot
from reconciler.core.objects import ObjectKey
from reconciler.core.runqueue import PER_SCRIPT
from reconciler.core.runs import Cause, Outcome
from reconciler.errors import Forbidden, ObjectNotFound, Waiting
from tests.controllers.runpath import SCRIPT, Rig, finish
from tests.controllers.test_schedules import connected, deployed, pass_by
from tests.controllers.test_scripts import answer_all, caught_up

EVERY = {"readChange": True, "webhook": True}


def explained(rig: Rig) -> Any:
    return rig.operations.explain(SCRIPT)


def counted(rig: Rig) -> dict[tuple[str, str], tuple[int, str]]:
    return {
        (it["reason"], it["cause"]): (it["count"], it["detail"]) for it in explained(rig)["notRun"]
    }


def test_everything_that_triggers_it_is_named_with_what_it_was_run_for():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            await deployed(rig, **EVERY)
            await rig.report("31")
            found = explained(rig)
            assert found["triggers"] == [
                {
                    "kind": "ReadChange",
                    "devices": [
                        {
                            "name": "dht11",
                            "problem": "",
                            "properties": [
                                {"name": "temperature", "reported": "31", "evaluated": "31"}
                            ],
                        }
                    ],
                },
                {"kind": "Cron", "expression": "0 * * * *", "next": "2023-11-14T23:00:00Z"},
                {"kind": "Webhook"},
                {"kind": "Deployed"},
                {"kind": "Manual"},
            ]
            assert (found["canRun"], found["why"], found["inFlight"]) == (True, "", 1)
            assert found["last"]["cause"] == "Deployed"

    finish(check())


def test_devices_that_are_missing_or_silent_are_said_to_be():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **EVERY)
            [trigger, *_] = explained(rig)["triggers"]
            assert [d["problem"] for d in trigger["devices"]] == ["it has reported nothing yet"]
            selector = {"matchNames": {"sensor": "dht11", "other": "gone"}}
            await rig.change_spec(readSelector=selector)
            await rig.sync()
            await pass_by(rig, executor, 0.1)
            [trigger, *_] = explained(rig)["triggers"]
            assert [d["problem"] for d in trigger["devices"]] == [
                "it has reported nothing yet",
                "there is no Device gone",
            ]

    finish(check())


def test_what_waits_is_shown_and_what_joined_it_is_counted():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **EVERY)
            rig.sessions.disconnect(executor)
            for value in ("31", "32", "33"):
                await rig.report(value)
            found = explained(rig)
            assert (found["executors"], [it["cause"] for it in found["waiting"]]) == (
                0,
                ["ReadChange"],
            )
            assert counted(rig) == {("Coalesced", "ReadChange"): (2, "dht11")}

    finish(check())


def test_a_report_of_no_other_value_is_counted():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **EVERY)
            await rig.report("31")
            await pass_by(rig, executor, 0.1)
            await rig.report("31")
            await rig.clock.advance(1)
            await rig.report("31")
            assert counted(rig) == {("Unchanged", "ReadChange"): (2, "dht11")}

    finish(check())


def test_requests_that_were_refused_are_counted():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            executor = await deployed(rig, **EVERY)
            rig.sessions.disconnect(executor)
            for _ in range(PER_SCRIPT):
                await rig.operations.trigger(SCRIPT, cause=Cause.WEBHOOK)
            with pytest.raises(Waiting):
                await rig.operations.trigger(SCRIPT, cause=Cause.WEBHOOK)
            assert counted(rig) == {("QueueFull", "Webhook"): (1, "")}
            await rig.change_spec(suspend=True)
            await rig.sync()
            await rig.clock.advance(1)
            with pytest.raises(Forbidden):
                await rig.operations.trigger(SCRIPT, cause=Cause.MANUAL)
            assert counted(rig) == {
                ("Dropped", "Webhook"): (PER_SCRIPT, ""),
                ("QueueFull", "Webhook"): (1, ""),
                ("Suspended", "Manual"): (1, ""),
            }
            found = explained(rig)
            assert (found["canRun"], found["why"]) == (False, "it is suspended")

    finish(check())


def test_missed_ticks_are_counted_with_the_newest():
    async def check() -> None:
        first = Rig()
        async with first.running():
            await pass_by(first, await deployed(first), 1)
        await first.clock.advance(2.5 * 3600)
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            assert counted(second) == {("Missed", "Cron"): (1, "2023-11-15T01:00:00Z")}

    finish(check())


def test_the_last_run_is_told_with_its_message_after_a_restart_too():
    async def check() -> None:
        first = Rig()
        async with first.running():
            executor = await deployed(first, **EVERY)
            await first.report("31")
            await answer_all(first, executor, outcome=Outcome.FAILED, message="Error: boom")
            await caught_up(first)
            told = explained(first)["last"]
        second = Rig(before=first)
        async with second.running():
            await connected(second)
            assert explained(second)["last"] == told
        assert told["message"] == "Error: boom"
        assert (told["cause"], told["outcome"]) == ("ReadChange", "Failed")

    finish(check())


def test_a_script_that_is_not_ready_says_why():
    async def check() -> None:
        rig = Rig()
        async with rig.running():
            uid = await rig.repository()
            await rig.devices()
            manifest = {"scriptType": "Js", "name": "thermostat", "version": "9.9.9"}
            await rig.script(repository=uid, manifest=manifest)
            await rig.sync()
            await rig.clock.advance(10)
            await rig.sync()
            found = explained(rig)
            assert found["canRun"] is False
            assert "9.9.9" in found["why"]
            with pytest.raises(ObjectNotFound):
                rig.operations.explain(ObjectKey("default", "nobody"))

    finish(check())


def test_every_reason_has_a_meaning():
    assert all(why.meaning for why in WhyNot)
