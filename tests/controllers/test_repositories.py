"""ScriptRepositories reconciled: what is written when, and what is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from reconciler.core.objects import DEVICES_V1BETA1, SCRIPTS, ObjectKey
from reconciler.errors import ClusterUnavailable, ObjectInvalid, SourceUnavailable
from tests.controllers.syncpath import RULES, TEAM, Desk
from tests.support.rulebook import HOUSE, documents, script

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
        theirs = script("relay")
        theirs["metadata"] = {
            "name": "relay",
            "namespace": TEAM,
            "labels": {
                "scriptops.hit.edu.cn/repository-uid": "another",
                "scriptops.hit.edu.cn/repository": "other-rules",
            },
        }
        await desk.cluster.real.create(SCRIPTS, theirs, field_manager="scriptops")
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
