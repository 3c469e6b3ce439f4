"""One ScriptRepository for several clusters: handed out, asked about, and none waits for another."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine, Mapping
from typing import Any

import pytest

from reconciler.core.objects import (
    LABEL_FLEET,
    SCRIPT_REPOSITORIES,
    SECRETS,
    ObjectKey,
    mapping,
)
from reconciler.errors import ClusterUnavailable, Forbidden, ObjectNotFound
from tests.controllers.syncpath import RULES, TEAM, URL, Desk
from tests.fakes.cluster import FakeCluster
from tests.support.rulebook import HOUSE

BOUND = [
    {"name": name, "kubeConfig": {"secretRef": {"name": name}}} for name in ("plant-a", "plant-b")
]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


async def bind(desk: Desk, name: str, *, key: str = "value") -> FakeCluster:
    """A cluster, and the Secret with which it is reached."""
    there = desk.clusters.known[name] = FakeCluster(desk.clock)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": TEAM},
        "data": {key: base64.b64encode(name.encode()).decode()},
    }
    await desk.cluster.real.apply(SECRETS, secret, field_manager="operator", force=True)
    return there


async def forget(desk: Desk, name: str) -> None:
    """The Secret is deleted."""
    key = ObjectKey(TEAM, name)
    live = await desk.cluster.real.get(SECRETS, key)
    await desk.cluster.real.delete(SECRETS, key, uid=str(mapping(live["metadata"])["uid"]))


async def handed(there: FakeCluster) -> Mapping[str, Any]:
    return await there.real.get(SCRIPT_REPOSITORIES, RULES)


async def says(there: FakeCluster, status: str, reason: str, revision: str = "main@sha1:1") -> None:
    """The controller there has looked at it."""
    generation = mapping((await handed(there))["metadata"])["generation"]
    told = {
        "observedGeneration": generation,
        "revision": revision,
        "conditions": [{"type": "Ready", "status": status, "reason": reason, "message": reason}],
    }
    await there.real.merge_patch(
        SCRIPT_REPOSITORIES, RULES, {"status": told}, field_manager="theirs", status=True
    )


async def clusters(desk: Desk) -> list[tuple[str, str, str]]:
    found = (await desk.status()).get("clusters", ())
    return [(it["name"], it["ready"], it["reason"]) for it in found]


def test_each_cluster_is_given_it_and_asked_how_it_is() -> None:
    async def test() -> None:
        desk = Desk()
        a, b = await bind(desk, "plant-a"), await bind(desk, "plant-b")
        async with desk.open(clusters=BOUND, ref="live", suspend=False):
            for there in (a, b):
                live = await handed(there)
                assert live["spec"] == {
                    "url": URL,
                    "interval": "60s",
                    "statusRef": "",
                    "ref": "live",
                    "suspend": False,
                }
                assert live["metadata"]["labels"] == {LABEL_FLEET: "here"}
            assert await desk.verdict() == ("Unknown", "Progressing")
            await says(a, "True", "Applied")
            await says(b, "True", "Applied")
            await desk.look()
            assert await desk.verdict() == ("True", "HandedOut")
            assert await clusters(desk) == [
                ("plant-a", "True", "Applied"),
                ("plant-b", "True", "Applied"),
            ]
            assert (await desk.status())["revision"] == "main@sha1:1"
            await says(b, "False", "SourceInvalid", "main@sha1:0")
            await desk.look()
            assert await desk.verdict() == ("False", "SourceInvalid")
            assert (await desk.status())["revision"] == ""
            # Nothing of it is deployed where it was handed out.
            assert await desk.live() == {}

    run(test())


def test_one_that_is_down_holds_up_no_other_and_what_was_heard_of_it_stays() -> None:
    async def test() -> None:
        desk = Desk()
        a, b = await bind(desk, "plant-a"), await bind(desk, "plant-b")
        async with desk.open(clusters=BOUND):
            await says(a, "True", "Applied")
            await says(b, "True", "Applied")
            await desk.look()
            for error in (ClusterUnavailable("no answer"), Forbidden("no right")):
                a.fail("get", error, forever=True)
                document = {"spec": {"ref": error.reason.lower()}}
                await desk.cluster.real.merge_patch(
                    SCRIPT_REPOSITORIES, RULES, document, field_manager="operator"
                )
                await desk.see()
                await desk.see()
                assert (await handed(b))["spec"]["ref"] == error.reason.lower()
                [first, second] = (await desk.status())["clusters"]
                assert (first["reason"], first["revision"]) == (error.reason, "main@sha1:1")
                assert second["reason"] == "Progressing"
            a.heal()
            await says(b, "True", "Applied")
            await desk.look()
            await says(a, "True", "Applied")
            await desk.look()
            assert await desk.verdict() == ("True", "HandedOut")

    run(test())


def test_what_is_there_and_from_nobody_here_is_left() -> None:
    async def test() -> None:
        desk = Desk()
        a, b = await bind(desk, "plant-a"), await bind(desk, "plant-b")
        theirs = {
            "apiVersion": "hit.edu.cn/v1alpha1",
            "kind": "ScriptRepository",
            "metadata": {"name": RULES.name, "namespace": TEAM},
            "spec": {"url": "https://git.example/theirs.git"},
        }
        await a.real.create(SCRIPT_REPOSITORIES, theirs, field_manager="them")
        async with desk.open(clusters=BOUND):
            assert (await handed(a))["spec"] == theirs["spec"]
            assert (await handed(b))["spec"]["url"] == URL
            assert await clusters(desk) == [
                ("plant-a", "False", "OwnedByAnother"),
                ("plant-b", "Unknown", "Progressing"),
            ]

    run(test())


def test_a_secret_that_is_not_there_or_holds_none_is_said() -> None:
    async def test() -> None:
        desk = Desk()
        await bind(desk, "plant-b", key="kubeconfig")
        async with desk.open(clusters=BOUND):
            assert await clusters(desk) == [
                ("plant-a", "False", "CredentialsNotFound"),
                ("plant-b", "False", "CredentialsNotFound"),
            ]
            await bind(desk, "plant-a")
            del desk.clusters.known["plant-a"]
            await desk.look()
            assert (await clusters(desk))[0] == ("plant-a", "False", "KubeConfigInvalid")

    run(test())


def test_from_a_cluster_that_is_bound_no_more_it_is_taken_away() -> None:
    async def test() -> None:
        desk = Desk()
        a, b = await bind(desk, "plant-a"), await bind(desk, "plant-b")
        async with desk.open(clusters=BOUND):
            await says(a, "True", "Applied")
            await desk.cluster.real.merge_patch(
                *(SCRIPT_REPOSITORIES, RULES, {"spec": {"clusters": BOUND[:1]}}),
                field_manager="operator",
            )
            await desk.see()
            await desk.see()
            assert await clusters(desk) == [("plant-a", "True", "Applied")]
            with pytest.raises(ObjectNotFound):
                await handed(b)
            # The last one goes: then it is deployed here.
            desk.remote.commit(HOUSE)
            await desk.cluster.real.merge_patch(
                *(SCRIPT_REPOSITORIES, RULES, {"spec": {"clusters": []}}), field_manager="operator"
            )
            await desk.see()
            with pytest.raises(ObjectNotFound):
                await handed(a)
            assert (await clusters(desk), await desk.verdict()) == ([], ("True", "Applied"))

    run(test())


def test_what_cannot_be_taken_away_is_told_until_it_is_or_its_secret_is_gone() -> None:
    async def test() -> None:
        desk = Desk()
        a, b = await bind(desk, "plant-a"), await bind(desk, "plant-b")
        desk.remote.commit(HOUSE)
        async with desk.open(clusters=BOUND):
            for there in (a, b):
                there.fail("get", ClusterUnavailable("no answer"), forever=True)
            await desk.cluster.real.merge_patch(
                *(SCRIPT_REPOSITORIES, RULES, {"spec": {"clusters": []}}), field_manager="operator"
            )
            await desk.see()
            # One that is down holds up nothing here.
            assert await desk.verdict() == ("True", "Applied")
            assert await clusters(desk) == [
                ("plant-a", "Unknown", "ClusterUnavailable"),
                ("plant-b", "Unknown", "ClusterUnavailable"),
            ]
            a.heal()
            await forget(desk, "plant-b")
            await desk.look()
            assert await clusters(desk) == []
            with pytest.raises(ObjectNotFound):
                await handed(a)
            b.heal()
            assert (await handed(b))["spec"]["url"] == URL

    run(test())


def test_what_others_have_made_there_is_not_taken_away() -> None:
    async def test() -> None:
        desk = Desk()
        there = await bind(desk, "plant-a")
        desk.remote.commit(HOUSE)
        async with desk.open(clusters=BOUND[:1]):
            mine = {"metadata": {"labels": {LABEL_FLEET: "another"}}}
            await there.real.merge_patch(SCRIPT_REPOSITORIES, RULES, mine, field_manager="them")
            await desk.cluster.real.merge_patch(
                *(SCRIPT_REPOSITORIES, RULES, {"spec": {"clusters": []}}), field_manager="operator"
            )
            await desk.see()
            assert (await clusters(desk), await desk.verdict()) == ([], ("True", "Applied"))
            assert (await handed(there))["spec"]["url"] == URL

    run(test())


def test_suspending_it_suspends_it_everywhere() -> None:
    async def test() -> None:
        desk = Desk()
        there = await bind(desk, "plant-a")
        async with desk.open(clusters=BOUND[:1]):
            for suspend in (True, False):
                await desk.cluster.real.merge_patch(
                    *(SCRIPT_REPOSITORIES, RULES, {"spec": {"suspend": suspend}}),
                    field_manager="operator",
                )
                await desk.see()
                assert (await handed(there))["spec"]["suspend"] is suspend
            assert desk.clusters.closed == len(desk.clusters.opened)

    run(test())


def test_what_another_cluster_says_is_cut_to_what_a_status_holds() -> None:
    async def test() -> None:
        desk = Desk()
        there = await bind(desk, "plant-a")
        async with desk.open(clusters=BOUND[:1]):
            await says(there, "False", "no <word> " * 3_000, "r" * 100_000)
            await desk.look()
            [told] = (await desk.status())["clusters"]
            assert (told["ready"], told["reason"]) == ("False", "Unknown")
            assert len(told["message"]) + len(told["revision"]) < 10_000

    run(test())


def test_a_name_that_is_bound_twice_is_refused() -> None:
    async def test() -> None:
        desk = Desk()
        await bind(desk, "plant-a")
        async with desk.open(clusters=[BOUND[0], BOUND[0]]):
            assert await desk.verdict() == ("False", "InvalidSpec")
            assert desk.clusters.opened == []

    run(test())
