"""ScriptRepositories reconciled: what is written when, and what is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import pytest

from reconciler.controllers.leading import Leadership
from reconciler.core.objects import (
    DEVICES_V1BETA1,
    LABEL_REPOSITORY,
    LABEL_REPOSITORY_UID,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
    mapping,
)
from reconciler.errors import ClusterUnavailable, ObjectInvalid, SourceUnavailable
from tests.controllers.syncpath import RULES, TEAM, URL, Desk
from tests.support.rulebook import HOUSE, documents, script

WRITES = ("create", "apply", "merge_patch", "json_patch", "delete")
GONE = ClusterUnavailable("the API server does not answer")


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def counts(**others: int) -> dict[str, int]:
    return dict.fromkeys(("created", "configured", "unchanged", "pruned", "skipped"), 0) | others


def test_a_first_look_applies_everything_and_says_so() -> None:
    async def test() -> None:
        desk = Desk()
        commit = desk.remote.commit(HOUSE)
        async with desk.open():
            status = await desk.status()
            assert status["revision"] == f"main@sha1:{commit}"
            assert status["counts"] == counts(created=5)
            assert await desk.verdict() == ("True", "Applied")
            assert desk.synced == [RULES]
            assert [str(synced) for synced in desk.told] == ["5 created, 2 artifacts published"]

    run(test())


def test_another_look_at_the_same_revision_writes_nothing() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            writes = ("create", "apply", "merge_patch", "json_patch", "delete")
            before = desk.cluster.count(*writes)
            await desk.look()
            await desk.look()
            assert desk.remote.fetches == 3
            assert desk.cluster.count(*writes) == before
            assert len(desk.told) == 1

    run(test())


class Following(Leadership):
    """Another replica leads, until a test says otherwise."""

    is_leading = False

    def leads(self, namespace: str) -> bool:
        return self.is_leading


@pytest.mark.parametrize("suspend", [False, True], ids=["as it is", "suspended"])
def test_what_another_replica_applies_is_published_here_and_nothing_written(suspend: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    async def test() -> None:
        desk = Desk(leadership=Following())
        desk.remote.commit(HOUSE)
        before = desk.cluster.count(*WRITES)
        async with desk.open(suspend=suspend):
            assert desk.synced == [RULES]
            assert [len(refs) for refs in desk.published] == [2]
            await desk.look()
            assert desk.cluster.count(*WRITES) == before
            assert desk.told == []

    run(test())


def test_who_begins_to_lead_applies_it_as_after_a_start() -> None:
    async def test() -> None:
        leadership = Following()
        desk = Desk(leadership=leadership)
        commit = desk.remote.commit(HOUSE)
        async with desk.open():
            assert await desk.live() == {}
            leadership.is_leading = True
            desk.repositories.gained(RULES)
            await desk.look()
            assert (await desk.status())["revision"] == f"main@sha1:{commit}"
            assert set(await desk.live()) == {"relay"}
            assert desk.synced == [RULES, RULES]
            # And the other way round.
            leadership.is_leading = False
            desk.repositories.lost(RULES)
            desk.remote.commit({"manifests/more.yaml": documents(script("more"))})
            await desk.look()
            assert set(await desk.live()) == {"relay"}

    run(test())


def test_an_unrelated_commit_is_one_write_of_the_status_alone() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            writes = ("create", "apply", "merge_patch", "json_patch", "delete")
            before = desk.cluster.count(*writes)
            commit = desk.remote.commit({"README.md": b"x"})
            await desk.look()
            assert desk.cluster.count(*writes) == before + 1
            status = await desk.status()
            assert status["revision"] == f"main@sha1:{commit}"
            assert status["counts"] == counts(unchanged=5)

    run(test())


def test_a_revision_that_met_a_silent_cluster_is_applied_when_it_answers() -> None:
    """Live devices could not be read, so nothing was planned; the revision is not forgotten."""

    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        desk.cluster.fail("get", GONE, forever=True)
        async with desk.open():
            assert await desk.live() == {}
            assert await desk.verdict() == ("Unknown", "ClusterUnavailable")
            assert desk.synced == []
            desk.cluster.heal()
            await desk.look()
            assert set(await desk.live()) == {"relay"}
            assert set(await desk.live(DEVICES_V1BETA1)) == {"door", "lamp"}
            assert await desk.verdict() == ("True", "Applied")
            assert desk.synced == [RULES]

    run(test())


def test_what_left_git_meanwhile_is_pruned_by_the_first_look_of_a_process_that_succeeds() -> None:
    async def test() -> None:
        first = Desk()
        first.remote.commit({**HOUSE, "manifests/old.yaml": documents(script("old"))})
        async with first.open():
            assert set(await first.live()) == {"old", "relay"}
        second = Desk(before=first)
        second.remote.commit({"manifests/old.yaml": None})
        second.cluster.fail("get", GONE)
        async with second.open():
            assert set(await second.live()) == {"old", "relay"}
            await second.look()
            assert set(await second.live()) == {"relay"}
            assert (await second.status())["counts"] == counts(unchanged=5, pruned=1)

    run(test())


def test_a_write_that_fails_is_tried_again_and_the_others_are_done() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit({**HOUSE, "manifests/more.yaml": documents(script("more"))})
        desk.cluster.fail("apply", GONE)
        async with desk.open():
            assert len(await desk.live()) == 1
            assert await desk.verdict() == ("Unknown", "ClusterUnavailable")
            message = (await desk.status())["conditions"][0]["message"]
            assert message == f"1 objects not applied yet: {GONE}"
            await desk.see()
            await desk.look()
            assert set(await desk.live()) == {"more", "relay"}
            assert await desk.verdict() == ("True", "Applied")

    run(test())


def test_an_object_that_the_cluster_refuses_is_a_problem_of_its_file_and_not_hammered_at() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        desk.cluster.fail("apply", ObjectInvalid("spec.env is too long"), forever=True)
        async with desk.open():
            assert await desk.verdict() == ("False", "Invalid")
            [problem] = (await desk.status())["problems"]
            assert problem == {
                "path": "manifests/relay.yaml",
                "line": 1,
                "pointer": "",
                "reason": "Invalid",
                "message": "spec.env is too long",
            }
            assert (await desk.status())["counts"] == counts(created=4, skipped=1)
            await desk.clock.advance(59.0)
            assert desk.cluster.count("apply") == 1
            await desk.clock.advance(1.0)
            assert desk.cluster.count("apply") == 2

    run(test())


def test_a_source_that_does_not_answer_is_asked_again_and_what_was_reached_stays_in_the_status() -> (
    None
):
    async def test() -> None:
        desk = Desk()
        commit = desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            desk.remote.fault = SourceUnavailable("no answer")
            await desk.look()
            assert await desk.verdict() == ("Unknown", "SourceUnavailable")
            assert (await desk.status())["revision"] == f"main@sha1:{commit}"
            assert set(await desk.live()) == {"relay"}
            desk.remote.fault = None
            await desk.look()
            assert await desk.verdict() == ("True", "Applied")

    run(test())


@pytest.mark.parametrize("change", ["deleted", "edited"])
def test_a_script_that_somebody_changed_is_put_back_without_waiting_for_the_interval(
    change: str,
) -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            key = ObjectKey(TEAM, "relay")
            before = (await desk.live())["relay"]
            if change == "deleted":
                uid = before["metadata"]["uid"]
                await desk.cluster.real.delete(SCRIPTS, key, uid=str(uid))
            else:
                patch = {"spec": {"suspend": True, "env": {"a": "b"}, "manifest": {"name": "x"}}}
                await desk.cluster.real.merge_patch(SCRIPTS, key, patch, field_manager="somebody")
            await desk.see()
            after = (await desk.live())["relay"]
            assert after["spec"]["manifest"] == before["spec"]["manifest"]

    run(test())


def test_our_own_status_writes_put_nothing_back() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            fetches = desk.remote.fetches
            status = {"status": {"observedGeneration": 1}}
            await desk.cluster.real.merge_patch(
                SCRIPTS, ObjectKey(TEAM, "relay"), status, field_manager="us", status=True
            )
            await desk.see()
            assert desk.remote.fetches == fetches

    run(test())


def test_an_object_that_another_repository_owns_is_told_of_in_every_revision_until_it_is_free() -> (
    None
):
    async def test() -> None:
        desk = Desk()
        await of_another(desk, "relay")
        desk.remote.commit(HOUSE)
        await desk.see()
        async with desk.open():
            assert await desk.verdict() == ("False", "OwnedByAnother")
            assert (await desk.status())["counts"] == counts(created=4, skipped=1)
            desk.remote.commit({"README.md": b"x"})
            await desk.look()
            assert await desk.verdict() == ("False", "OwnedByAnother")
            assert (await desk.status())["counts"] == counts(unchanged=4, skipped=1)
            live = (await desk.live())["relay"]
            uid = live["metadata"]["uid"]
            await desk.cluster.real.delete(SCRIPTS, ObjectKey(TEAM, "relay"), uid=str(uid))
            await desk.see()
            await desk.look()
            assert await desk.verdict() == ("True", "Applied")

    run(test())


def test_a_status_that_somebody_else_wrote_is_put_back_and_not_for_ever_at_once() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open():
            await desk.see()
            told = await desk.status()
            for _ in range(60):
                garbage = {"status": {"observedGeneration": 7, "revision": "main@sha1:0"}}
                await desk.cluster.real.merge_patch(
                    SCRIPT_REPOSITORIES, RULES, garbage, field_manager="somebody", status=True
                )
                await desk.see()
                await desk.clock.advance(0.5)
                await desk.see()
            assert desk.cluster.count("json_patch") < 20
            await desk.clock.advance(60)
            await desk.see()
            assert await desk.status() == told

    run(test())


def test_what_a_repository_that_is_gone_has_left_is_taken_over() -> None:
    async def test() -> None:
        desk = Desk()
        other = await of_another(desk, "relay")
        desk.remote.commit(HOUSE)
        await desk.see()
        async with desk.open():
            assert await desk.verdict() == ("False", "OwnedByAnother")
            await desk.cluster.real.delete(SCRIPT_REPOSITORIES, ObjectKey(TEAM, "other"), uid=other)
            await desk.see()
            await desk.look()
            assert await desk.verdict() == ("True", "Applied")
            [owner] = (await desk.live())["relay"]["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["name"]) == ("ScriptRepository", RULES.name)

    run(test())


async def of_another(desk: Desk, name: str) -> str:
    """A Script of a repository that goes on; the UID of that."""
    other: dict[str, Any] = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {"name": "other", "namespace": TEAM},
        "spec": {"url": URL, "suspend": True},
    }
    made = await desk.cluster.real.create(SCRIPT_REPOSITORIES, other, field_manager="operator")
    uid = str(mapping(made["metadata"])["uid"])
    labels = {LABEL_REPOSITORY_UID: uid, LABEL_REPOSITORY: "other"}
    metadata = {"name": name, "namespace": TEAM, "labels": labels}
    theirs = {**script(name), "metadata": metadata}
    await desk.cluster.real.create(SCRIPTS, theirs, field_manager="scriptops")
    return uid


def owners_of(obj: Mapping[str, Any]) -> list[tuple[str, bool, bool]]:
    """Name of each owner, whether it is the controller, and whether its deletion waits."""
    owners = obj["metadata"].get("ownerReferences", [])
    return [(it["name"], it["controller"], it["blockOwnerDeletion"]) for it in owners]


OURS = [(RULES.name, True, False)]


@pytest.mark.parametrize(
    ("spec", "scripts", "devices"),
    [
        pytest.param({}, OURS, [], id="as the prune policy has it"),
        pytest.param({"prune": {"devices": True}}, OURS, OURS, id="devices too"),
        pytest.param({"prune": {"scripts": False}}, [], [], id="nothing is pruned"),
        pytest.param({"prune": {"quarantine": "1h"}}, [], [], id="quarantine comes first"),
        pytest.param({"prune": {"maxPercent": 30}}, [], [], id="not so many at once"),
        pytest.param({"prune": {"maxCount": 3}}, [], [], id="nor in number"),
        pytest.param({"deletionPolicy": "Orphan"}, [], [], id="orphans"),
    ],
)
def test_a_repository_owns_what_it_prunes_without_a_limit(
    spec: Mapping[str, Any],
    scripts: list[tuple[str, bool, bool]],
    devices: list[tuple[str, bool, bool]],
) -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open(**spec):
            assert [owners_of(it) for it in (await desk.live()).values()] == [scripts]
            live = await desk.live(DEVICES_V1BETA1)
            assert [owners_of(it) for it in live.values()] == [devices] * len(live)

    run(test())


def test_a_policy_that_changes_changes_owners() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)

        async def owners() -> set[str]:
            live = [*(await desk.live()).values(), *(await desk.live(DEVICES_V1BETA1)).values()]
            return {str(owners_of(it)) for it in live}

        async with desk.open(prune={"devices": True}):
            assert await owners() == {str(OURS)}
            await desk.open_again(deletionPolicy="Orphan", prune={"devices": True})
            assert await owners() == {"[]"}
            await desk.open_again(prune={"devices": True})
            assert await owners() == {str(OURS)}

    run(test())


def test_a_suspended_repository_is_not_fetched() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open(suspend=True):
            assert await desk.verdict() == ("True", "Suspended")
            assert desk.remote.fetches == 0

    run(test())


def test_credentials_that_are_not_there_are_named() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        async with desk.open(credentials={"name": "deploy-key"}):
            assert await desk.verdict() == ("False", "CredentialsNotFound")
            message = (await desk.status())["conditions"][0]["message"]
            assert "there is no Secret team/deploy-key" in message

    run(test())


def test_a_repository_hears_of_a_status_commit_once_however_many_statuses_are_in_it() -> None:
    """Else who is told would grow with every status, and so would the time of each commit."""
    statuses = Desk().repositories._statuses
    tellers = {statuses.committed("rules") for _ in range(1000)}
    assert len(tellers) == 1
    assert statuses.committed("others") not in tellers
