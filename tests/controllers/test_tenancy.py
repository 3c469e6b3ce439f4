"""What a repository may write, and with whose rights, over the whole sync path."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from reconciler.api.script import ScriptStatus
from reconciler.core import grants
from reconciler.core.grants import Grants
from reconciler.core.objects import SCRIPTS, ObjectKey, mapping
from reconciler.errors import Stalled
from reconciler.main import granting
from reconciler.settings import ClusterKind, Settings
from tests.controllers.syncpath import TEAM, Desk
from tests.support.rulebook import DEVICES, documents, script

ACCOUNT = ObjectKey(TEAM, "deployer")
QUIET = {"scripts/quiet/1.0.0.js": b"function main() {}"}
OTHERS = "team-b"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def granted(text: str) -> Grants:
    return grants.read(PurePosixPath("grants.yaml"), text.encode())


def elsewhere(name: str) -> dict[str, Any]:
    it = script(name)
    return {**it, "metadata": {"name": name, "namespace": OTHERS}}


def commit(desk: Desk, **manifests: bytes | None) -> None:
    files = {f"manifests/{name}.yaml": content for name, content in manifests.items()}
    desk.remote.commit({**QUIET, **files})


async def problems(desk: Desk) -> list[tuple[str, int, str]]:
    status = await desk.status()
    return [(p["path"], p["line"], p["reason"]) for p in status.get("problems", ())]


def test_what_is_not_granted_is_a_finding_and_the_rest_is_applied() -> None:
    async def test() -> None:
        desk = Desk(grants=granted("grants: [{repositories: team/rules, kinds: [Script]}]"))
        commit(desk, a=documents(script("mine"), elsewhere("theirs")), b=DEVICES)
        async with desk.open(namespaces=[TEAM, OTHERS]):
            await desk.see()
            assert set(await desk.live()) == {"mine"}
            found = await problems(desk)
            assert {reason for _, _, reason in found} == {"NamespaceNotAllowed", "KindNotAllowed"}
            assert [it for it in found if it[0].endswith("a.yaml")] == [
                ("manifests/a.yaml", 20, "NamespaceNotAllowed")
            ]
            messages = [p["message"] for p in (await desk.status())["problems"]]
            assert (
                'this repository may not write to namespace "team-b"; it may write to team. Its '
                "spec.namespaces asks for this one, and no operator has granted it"
            ) in messages

    run(test())


def test_a_grant_that_is_withdrawn_leaves_what_is_there() -> None:
    async def test() -> None:
        desk = Desk(grants=granted("grants: [{repositories: team/rules, namespaces: [team-b]}]"))
        commit(desk, a=documents(script("mine"), elsewhere("theirs")))
        async with desk.open(namespaces=[TEAM, OTHERS]):
            await desk.see()
            assert set(await desk.live()) == {"mine", "theirs"}
        again = Desk(before=desk)
        async with again.open(namespaces=[TEAM, OTHERS]):
            await again.see()
            assert set(await again.live()) == {"mine", "theirs"}
            commit(again, a=documents(script("mine")))
            await again.look()
            await again.look()
            assert set(await again.live()) == {"mine", "theirs"}
            commit(again, a=documents(script("other")))
            await again.look()
            await again.look()
            assert set(await again.live()) == {"other", "theirs"}

    run(test())


def test_a_label_in_a_namespace_of_others_gets_no_status_committed_and_nothing_pruned() -> None:
    async def test() -> None:
        desk = Desk()
        commit(desk, a=documents(script("mine")))
        async with desk.open(statusRef="results"):
            await desk.see()
            mine = (await desk.live())["mine"]
            # As a stranger copies it: with all of its marks.
            metadata = mapping(mine["metadata"])
            marks = {field: metadata[field] for field in ("labels", "annotations")}
            forged = elsewhere("forged")
            copy = {**forged, "metadata": {**forged["metadata"], **marks}}
            label = {**script("label"), "metadata": {"name": "label", "namespace": TEAM}}
            alone = {**label, "metadata": {**label["metadata"], "labels": marks["labels"]}}
            for document in (copy, alone):
                await desk.cluster.real.create(SCRIPTS, document, field_manager="stranger")
            await desk.see()
            status = ScriptStatus(runs=1)
            for record in desk.world.scripts:
                desk.repositories.status_changed(record, status, transition=True)
            await desk.clock.advance(60)
            assert [PurePosixPath(it).name for it in desk.remote.files("results")] == ["mine.yaml"]
        again = Desk(before=desk)
        commit(again, a=documents(script("other")))
        async with again.open(statusRef=""):
            await again.see()
            assert set(await again.live()) == {"other", "forged", "label"}

    run(test())


def test_all_that_is_written_for_a_repository_is_written_as_its_service_account() -> None:
    async def test() -> None:
        desk = Desk()
        rule = documents(script("a", env={"limit": "1"}))
        commit(desk, a=rule, b=documents(script("b")), c=DEVICES)
        async with desk.open(serviceAccountName=ACCOUNT.name, prune={"devices": True}):
            await desk.see()
            made = set(desk.cluster.acted)
            assert made == {
                (str(ACCOUNT), "apply", "Script"),
                (str(ACCOUNT), "create", "Device"),
                (str(ACCOUNT), "create", "DeviceModel"),
            }
            desk.cluster.acted.clear()
            drifted = {"spec": {"env": {"limit": "2"}}}
            await desk.cluster.real.merge_patch(
                SCRIPTS, ObjectKey(TEAM, "a"), drifted, field_manager="somebody"
            )
            await desk.see()
            await desk.clock.advance(5)
            await desk.see()
            assert (await desk.live())["a"]["spec"]["env"] == {"limit": "1"}
            assert set(desk.cluster.acted) == {(str(ACCOUNT), "apply", "Script")}
            desk.cluster.acted.clear()
            commit(desk, b=None, c=None)
            await desk.look()
            assert set(await desk.live()) == {"a"}
            assert set(desk.cluster.acted) == {
                (str(ACCOUNT), "delete", kind) for kind in ("Script", "Device", "DeviceModel")
            }

    run(test())


def test_what_the_account_may_not_do_is_said_and_not_done_by_us() -> None:
    async def test() -> None:
        desk = Desk()
        commit(desk, a=documents(script("a")), c=DEVICES)
        desk.cluster.refuse(ACCOUNT, "create")
        async with desk.open(serviceAccountName=ACCOUNT.name):
            await desk.see()
            assert set(await desk.live()) == {"a"}
            assert {reason for _, _, reason in await problems(desk)} == {"Forbidden"}
            assert (await desk.verdict())[0] == "False"
            messages = {p["message"] for p in (await desk.status())["problems"]}
            assert any("team/deployer may not create" in message for message in messages)
            desk.cluster._refused.clear()
            await desk.look()
            await desk.look()
            assert await problems(desk) == []

    run(test())


def test_a_grant_names_the_account_where_the_repository_names_none() -> None:
    async def test() -> None:
        text = "grants: [{repositories: '*/*', defaultServiceAccount: deployer}]"
        desk = Desk(grants=granted(text))
        commit(desk, a=documents(script("a")))
        async with desk.open():
            await desk.see()
            assert desk.cluster.acted == [(str(ACCOUNT), "apply", "Script")]

    run(test())


def test_where_nobody_can_act_nothing_is_done() -> None:
    async def test() -> None:
        desk = Desk()
        commit(desk, a=documents(script("a")))

        def refuse(account: ObjectKey) -> Any:
            raise Stalled(f"no {account}", reason="ServiceAccountsNotServed")

        desk.cluster.acting_as = refuse  # type: ignore[method-assign]
        async with desk.open(serviceAccountName=ACCOUNT.name):
            await desk.see()
            assert await desk.verdict() == ("False", "ServiceAccountsNotServed")
            assert await desk.live() == {}

    run(test())


def test_a_claim_to_be_anybody_else_stalls_the_repository() -> None:
    async def test() -> None:
        for claim in ("", "team-b/builder", "system:serviceaccount:team-b:builder"):
            desk = Desk()
            commit(desk, a=documents(script("a")))
            async with desk.open(serviceAccountName=claim):
                await desk.see()
                assert await desk.verdict() == ("False", "InvalidSpec")
                assert (await desk.live(), desk.cluster.acted) == ({}, [])

    run(test())


def test_grants_that_change_count_without_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        file = tmp_path / "grants.yaml"
        file.write_text("grants: []")
        settings = Settings(data=tmp_path, cluster=ClusterKind.KUBERNETES, grants=file)
        held = granting.HeldGrants(settings)
        desk = Desk(grants=held)
        commit(desk, a=documents(script("mine"), elsewhere("theirs")))
        follows = asyncio.ensure_future(held.follow(desk.clock, desk.repositories.grants_changed))

        async def read(text: str) -> None:
            file.write_text(text)
            waited = held.looks
            while held.looks < waited + 2:
                await desk.clock.advance(granting.LOOK_SECONDS)
                await asyncio.sleep(0)
            await desk.see()

        async with desk.open(namespaces=[TEAM, OTHERS]):
            await desk.see()
            assert set(await desk.live()) == {"mine"}
            await read("grants: [{repositories: team/rules, namespaces: [team-b]}]")
            assert set(await desk.live()) == {"mine", "theirs"}
            # What is wrong changes nothing.
            await read("grants: [{repositories: team/rules, namespaces: team-b}]")
            commit(desk, b=documents(elsewhere("more")))
            await desk.look()
            assert set(await desk.live()) == {"mine", "theirs", "more"}
            await read("grants: []")
            commit(desk, c=documents(elsewhere("too-much")))
            await desk.look()
            assert set(await desk.live()) == {"mine", "theirs", "more"}
        follows.cancel()

    run(test())


def test_an_operator_who_says_nothing_grants_all_on_a_laptop_and_nothing_on_kubernetes(
    tmp_path: Path,
) -> None:
    assert granting.granted(Settings(data=tmp_path)) == Grants(is_open=True)
    on_kubernetes = Settings(data=tmp_path, cluster=ClusterKind.KUBERNETES)
    assert granting.granted(on_kubernetes) == Grants()
    file = tmp_path / "grants.yaml"
    for cluster in ClusterKind:
        file.write_text("grants: []")
        chosen = Settings(data=tmp_path, cluster=cluster, grants=file)
        assert granting.granted(chosen) == Grants()
        file.write_text("grants: [{}]")
        with pytest.raises(Stalled, match=f"{file}:1: repositories is missing"):
            granting.granted(chosen)
        file.unlink()
        with pytest.raises(Stalled, match="cannot be read"):
            granting.granted(chosen)
