"""Drift reconciled: what is read and written when, and for how long nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from reconciler.core.objects import (
    DEVICES_V1BETA1,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
    Reference,
)
from reconciler.errors import ClusterUnavailable, Forbidden, SourceUnavailable
from tests.controllers.syncpath import RULES, TEAM, Desk
from tests.support.rulebook import HOUSE

RELAY = ObjectKey(TEAM, "relay")
LAMP = ObjectKey(TEAM, "lamp")
WRITES = ("create", "apply", "merge_patch", "json_patch", "delete")
OTHER = {"spec": {"manifest": {"version": "9.9.9"}}}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


async def version(desk: Desk) -> str:
    live: Any = await desk.cluster.real.get(SCRIPTS, RELAY)
    return str(live["spec"]["manifest"]["version"])


async def change(desk: Desk, **patch: Any) -> None:
    """What somebody else does, and the watch tells."""
    wanted = patch or OTHER
    await desk.cluster.real.merge_patch(SCRIPTS, RELAY, wanted, field_manager="somebody")
    await desk.see()


async def drifted(desk: Desk) -> str:
    await desk.clock.advance(1.0)
    found = {c["type"]: c for c in (await desk.status())["conditions"]}
    return str(found.get("Drifted", {}).get("reason", ""))


def test_drift_is_put_back_without_a_look_at_git() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            desk.remote.fault = SourceUnavailable("the git server is away")
            fetches = desk.remote.fetches
            await change(desk)
            assert await version(desk) == "1.0.0"
            assert desk.remote.fetches == fetches

    run(test())


def test_our_own_writes_are_no_drift_and_cost_no_read() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            reads = desk.cluster.count("get", "get_owned")
            await desk.see()
            assert desk.cluster.count("get", "get_owned") == reads

    run(test())


def test_a_value_that_a_rule_desires_costs_no_read() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            before = desk.cluster.count("get", "get_owned", *WRITES)
            value = {"op": "add", "path": "/spec/properties/0/desired", "value": {"value": "true"}}
            await desk.cluster.real.json_patch(
                DEVICES_V1BETA1, LAMP, [value], field_manager="scriptops"
            )
            desk.cluster.report_twins(
                DEVICES_V1BETA1, LAMP, {"power": {"reported": {"value": "true"}}}
            )
            await desk.see()
            assert desk.cluster.count("get", "get_owned", *WRITES) == before

    run(test())


def test_a_cluster_that_does_not_answer_is_asked_again() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            desk.cluster.fail("apply", ClusterUnavailable("no answer"))
            await change(desk)
            assert await version(desk) == "9.9.9"
            await desk.clock.advance(1.0)
            assert await version(desk) == "1.0.0"

    run(test())


def test_while_it_waits_the_other_writer_costs_nothing() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            for _ in range(3):
                await change(desk)
                assert await version(desk) == "1.0.0"
                await desk.see()
            await change(desk)
            assert await version(desk) == "9.9.9"
            before = desk.cluster.count("get", "get_owned", "apply")
            for number in range(100):
                await change(desk, spec={"manifest": {"version": f"9.9.{number}"}})
            assert desk.cluster.count("get", "get_owned", "apply") == before
            assert await drifted(desk) == "Contended"
            assert await version(desk) == "1.0.0"
            await desk.see()
            # Each pause is twice the one before.
            for pause in (2.0, 4.0, 8.0):
                await change(desk)
                await desk.clock.advance(pause - 1.1)
                assert await version(desk) == "9.9.9"
                await desk.clock.advance(1.2)
                assert await version(desk) == "1.0.0"
                await desk.see()

    run(test())


def test_a_fight_that_is_over_is_forgotten() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            for _ in range(4):
                await change(desk)
                await desk.clock.advance(1.0)
                await desk.see()
            assert await drifted(desk) == "Contended"
            await desk.clock.advance(61.0)
            assert await drifted(desk) == ""
            await change(desk)
            assert await version(desk) == "1.0.0"

    run(test())


def test_what_leaves_git_is_forgotten() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open(drift={"mode": "Detect"}):
            await desk.see()
            await change(desk)
            assert await drifted(desk) == "DriftDetected"
            desk.remote.commit({"manifests/relay.yaml": None})
            await desk.look()
            assert await drifted(desk) == ""
            assert desk.repositories.claim(Reference("Script", *RELAY)) is None

    run(test())


def test_a_revision_that_could_not_go_out_yet_is_not_overtaken() -> None:
    """What a reconcile holds back for a reason does not go out because somebody touches it."""

    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            desk.cluster.fail("apply", ClusterUnavailable("no answer"), forever=True)
            changed = HOUSE["manifests/relay.yaml"].replace(b"1.0.0", b"1.0.1")
            desk.remote.commit({"manifests/relay.yaml": changed, "scripts/relay/1.0.1.js": b"//"})
            await desk.look()
            applies = desk.cluster.count("apply")
            await change(desk)
            assert desk.cluster.count("apply") == applies

    run(test())


def test_what_is_deleted_while_it_waits_comes_back() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            await change(desk, metadata={"finalizers": ["example.org/slow"]})
            live: Any = await desk.cluster.real.get(SCRIPTS, RELAY)
            uid = live["metadata"]["uid"]
            await desk.cluster.real.delete(SCRIPTS, RELAY, uid=uid)
            await desk.see()
            await change(desk, metadata={"finalizers": None})
            await desk.clock.advance(1.0)
            live = await desk.cluster.real.get(SCRIPTS, RELAY)
            assert live["metadata"]["uid"] != uid

    run(test())


DETECT: dict[str, Any] = {"drift": {"mode": "Detect"}}


async def delete(desk: Desk) -> None:
    live: Any = await desk.cluster.real.get(SCRIPTS, RELAY)
    await desk.cluster.real.delete(SCRIPTS, RELAY, uid=live["metadata"]["uid"])


async def respec(desk: Desk, **spec: Any) -> None:
    await desk.cluster.real.merge_patch(
        SCRIPT_REPOSITORIES, RULES, {"spec": spec}, field_manager="operator"
    )
    await desk.see()


def test_with_detect_what_was_deleted_stays_away_however_often_git_is_read() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open(**DETECT):
            await desk.see()
            await delete(desk)
            await desk.see()
            assert await drifted(desk) == "DriftDetected"
            # All is planned for again, for another policy and because files were passed over before.
            ignored = [{"kind": "Script", "pointers": ["/spec/env"]}]
            await respec(desk, drift={"mode": "Detect", "ignore": ignored})
            desk.remote.commit({"scriptops.yaml": b"ignore: ['manifests/none/*']\n"})
            await desk.look()
            assert await desk.live() == {}
            assert await drifted(desk) == "DriftDetected"
            desk.remote.commit(
                {"manifests/relay.yaml": HOUSE["manifests/relay.yaml"] + b"  suspend: true\n"}
            )
            await desk.look()
            assert set(await desk.live()) == {"relay"}

    run(test())


def test_with_detect_what_was_deleted_while_nobody_looked_stays_away_and_is_told() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open(**DETECT):
            await desk.see()
        await delete(desk)
        after = Desk(before=desk)
        async with after.open(**DETECT):
            await after.see()
            assert await drifted(after) == "DriftDetected"
            assert await after.live() == {}
            # The policy says so: it is put back.
            await respec(after, drift={"mode": "Correct"})
            assert set(await after.live()) == {"relay"}
            await after.see()
            assert await drifted(after) == ""

    run(test())


def test_with_detect_what_could_not_be_applied_before_a_restart_is_applied_after_it() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        desk.cluster.fail("apply", Forbidden("not allowed"), forever=True)
        async with desk.open(**DETECT):
            await desk.see()
            assert await desk.live() == {}
        desk.cluster.heal()
        after = Desk(before=desk)
        async with after.open(**DETECT):
            await after.see()
            assert set(await after.live()) == {"relay"}

    run(test())
