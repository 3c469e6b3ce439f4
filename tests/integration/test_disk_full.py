"""No space left: what was there stays, the message names the folder, and all goes on with room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.adapters.evaluations import SqliteEvaluations
from reconciler.adapters.git import GitMirrors
from reconciler.adapters.registry import DiskRegistry
from reconciler.core.objects import DEVICES_V1BETA1, SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from reconciler.errors import ClusterUnavailable, ObjectNotFound, SourceUnavailable, Transient
from reconciler.ports.git import Remote
from reconciler.ports.registry import ArtifactRef
from reconciler.ports.state import Evaluation
from tests.contract.githarness import ROOT, SOON, STATUS, mirrors
from tests.support.gitserver import Repository, git_http
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE, documents, script
from tests.support.smalldisk import SmallDisk, on_a_small_disk
from tests.support.statusfiles import status_files
from tests.support.system import condition, executor, is_ready, reason, serving, settings

TEAM = "team"
RELAY, DOOR, LAMP, ONE = (ObjectKey(TEAM, name) for name in ("relay", "door", "lamp", "one"))
REF = ArtifactRef("team", "rules", "relay", "1", "js")
# Bytes that no compression makes small.
LARGE = os.urandom(300_000)


async def unavailable(asked: Awaitable[object], place: Path) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        await asked
    assert str(place) in str(caught.value)
    assert caught.value.reason == "SourceUnavailable"


def mirror(folder: Path) -> int:
    """Which folder on disk the one mirror is."""
    [head] = folder.glob("*/HEAD")
    return head.parent.stat().st_ino


@on_a_small_disk
def test_a_fetch_without_room_leaves_what_was_fetched_readable_and_goes_on_with_room(
    disk: SmallDisk, other: Path
) -> None:
    repository = Repository(other / "rules.git", "--bare")
    repository.commit({"a": b"1"})
    remote = Remote(str(repository.path))
    place = disk.path / "git"

    async def fetched(git: GitMirrors) -> None:
        source = git.source(remote)
        disk.fill()
        await unavailable(source.fetch("main", timeout=SOON), place)
        disk.free()
        before = await source.fetch("main", timeout=SOON)
        which = mirror(place)
        wanted = repository.commit({"large": LARGE})
        for leave in (0, 100_000):
            # The second is enough to begin: git itself is refused in the middle of the pack.
            disk.fill(leave=leave)
            await unavailable(source.fetch("main", timeout=SOON), place)
            [found] = (await source.diff(None, before.tree, folder=ROOT)).changes
            assert await source.read([found.blob], limit=10) == {found.blob: b"1"}
            disk.free()
        assert (await source.fetch("main", timeout=SOON)).id == wanted
        assert mirror(place) == which

    with mirrors(place) as git:
        asyncio.run(fetched(git))


@on_a_small_disk
def test_a_secret_that_cannot_be_handed_to_git_for_want_of_room_is_no_bug(
    disk: SmallDisk, other: Path
) -> None:
    repository = Repository(other / "rules.git", "--bare")
    repository.commit({"a": b"1"})
    place = disk.path / "git"

    async def fetched(remote: Remote) -> None:
        with mirrors(place) as git:
            source = git.source(remote)
            first = await source.fetch("main", timeout=SOON)
            disk.fill()
            await unavailable(source.fetch("main", timeout=SOON), place)
            assert not list(place.glob("*.secrets-*"))
            disk.free()
            assert await source.fetch("main", timeout=SOON) == first

    with git_http(other) as url:
        asyncio.run(fetched(Remote(f"{url}/rules.git", {"ca.crt": "an authority"})))


@on_a_small_disk
def test_a_status_commit_without_room_leaves_the_ref_as_it_was_and_is_made_with_room(
    disk: SmallDisk, other: Path
) -> None:
    repository = Repository(other / "rules.git", "--bare")
    repository.commit({"a": b"1"})
    place = disk.path / "git"

    async def pushed(git: GitMirrors) -> None:
        ref = git.status_ref(Remote(str(repository.path)), STATUS)

        async def push(content: bytes) -> None:
            files = {PurePosixPath("x"): content}
            await ref.push(files, message="status", timeout=SOON)

        await push(b"before")
        which, tip = mirror(place), repository.tip(STATUS)
        disk.fill()
        await unavailable(push(b"after"), place)
        assert repository.tip(STATUS) == tip
        disk.free()
        await push(b"after")
        assert repository.files(STATUS) == {"x": b"after"}
        assert repository.git("rev-list", "--count", STATUS) == "2"
        assert mirror(place) == which

    with mirrors(place) as git:
        asyncio.run(pushed(git))


@on_a_small_disk
def test_a_publish_without_room_names_the_folder_and_changes_nothing(
    disk: SmallDisk, other: Path
) -> None:
    folder = disk.path / "registry"
    several = [(REF._replace(version=str(n)), LARGE + bytes([n])) for n in range(2, 5)]

    def publish_all(registry: DiskRegistry) -> object:
        return asyncio.run(registry.publish_all(several))

    registry = DiskRegistry(folder)
    kept = registry.publish(REF, b"kept")
    # No room at all; room for the first of several; room for bytes and none for their names.
    for leave in (0, 400_000):
        disk.fill(leave=leave)
        for attempt in (
            lambda: registry.publish(REF._replace(version="2"), LARGE * 2),
            lambda: publish_all(registry),
        ):
            with pytest.raises(Transient) as caught:
                attempt()
            assert caught.value.reason == "RegistryUnavailable"
            assert str(folder) in str(caught.value)
            assert registry.list("team", "rules") == (kept,)
            assert registry.read(kept.digest) == b"kept"
            blobs = [path.name for path in folder.glob("blobs/sha256/*/*")]
            assert blobs == [kept.digest.removeprefix("sha256:")]
            assert not list(folder.glob("tmp/*"))
        disk.free()
    publish_all(registry)
    registry.close()
    again = DiskRegistry(folder)
    assert {it.ref.version for it in again.list("team", "rules")} == {"1", "2", "3", "4"}
    assert all(again.read(it.digest) for it in again.list("team", "rules"))
    again.close()


@on_a_small_disk
def test_evaluations_without_room_are_kept_in_memory_and_written_with_room(
    disk: SmallDisk, other: Path
) -> None:
    path = disk.path / "evaluations.db"
    many = {f"uid-{n}": Evaluation(n, "sha256:x", {"d": {"p": "v" * 500}}) for n in range(200)}

    async def flushed(evaluations: SqliteEvaluations) -> None:
        for uid, evaluation in many.items():
            evaluations.put(uid, evaluation)
        with pytest.raises(Transient) as caught:
            await evaluations.flush()
        assert (caught.value.reason, str(path) in str(caught.value)) == ("StateUnavailable", True)
        disk.free()
        await evaluations.flush()

    evaluations = SqliteEvaluations(path)
    disk.fill()
    asyncio.run(flushed(evaluations))
    evaluations.close()
    again = SqliteEvaluations(path)
    assert again.load() == many
    again.close()


@on_a_small_disk
def test_a_write_to_the_embedded_cluster_without_room_is_refused_whole_and_works_with_room(
    disk: SmallDisk, other: Path
) -> None:
    folder = disk.path / "cluster"

    def named(name: str) -> Any:
        return {
            **script(name, env={"filling": "x" * 20_000}),
            "metadata": {"name": name, "namespace": TEAM},
        }

    async def written() -> None:
        cluster = await EmbeddedCluster.open(folder, clock=SystemClock())
        await cluster.create(SCRIPTS, named("before"), field_manager="tests")
        disk.fill()
        with pytest.raises(ClusterUnavailable) as caught:
            await cluster.create(SCRIPTS, named("refused"), field_manager="tests")
        assert str(folder) in str(caught.value)
        with pytest.raises(ObjectNotFound):
            await cluster.get(SCRIPTS, ObjectKey(TEAM, "refused"))
        assert await cluster.get(SCRIPTS, ObjectKey(TEAM, "before"))
        disk.free()
        await cluster.create(SCRIPTS, named("after"), field_manager="tests")
        await cluster.close()
        again = await EmbeddedCluster.open(folder, clock=SystemClock())
        page: Any = await again.list_page(SCRIPTS)
        assert [o["metadata"]["name"] for o in page.items] == ["after", "before"]
        await again.close()

    asyncio.run(written())


@on_a_small_disk
def test_a_controller_whose_mirrors_have_no_room_says_so_runs_on_and_catches_up(
    disk: SmallDisk, other: Path
) -> None:
    git = Repository(other / "rules.git", "--bare")
    (other / "data").mkdir()
    (other / "data" / "git").symlink_to(disk.path)
    with (
        serving(settings(other / "data")) as system,
        executor(system.grpc, other / "executor.log"),
    ):
        rules = system.repository(TEAM, git.path, interval="1s", resultsInterval="1s")
        system.synced(rules, git.commit(HOUSE))
        system.ready(RELAY)
        disk.fill()
        commit = git.commit({"manifests/one.yaml": documents(script("one"))})
        live = system.object_is(
            SCRIPT_REPOSITORIES, rules, lambda o: reason(o)[1] == "SourceUnavailable", "no room"
        )
        assert str(disk.path) in condition(live, "Reconciling")["message"]
        system.report(DOOR, open=True)
        system.object_is(
            DEVICES_V1BETA1,
            LAMP,
            lambda o: o["spec"]["properties"][0].get("desired", {}).get("value") == "true",
            "what is deployed runs on",
        )
        disk.free()
        system.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"interval": "2s"}})
        system.synced(rules, commit)
        system.ready(ONE)
        # And what could not be committed meanwhile is.
        told: list[Any] = []

        def is_told() -> bool:
            live = {key: system.get(SCRIPTS, key)["status"] for key in (RELAY, ONE)}
            told[:] = [status_files(git), live]
            return bool(told[0] == told[1])

        try:
            wait_until(is_told, what="the status ref says what the cluster says", every=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}: {told}") from None


@on_a_small_disk
def test_a_controller_whose_whole_disk_is_full_lives_on_and_catches_up(
    disk: SmallDisk, other: Path
) -> None:
    git = Repository(other / "rules.git", "--bare")
    with (
        serving(settings(disk.path / "data")) as system,
        executor(system.grpc, other / "executor.log"),
    ):
        rules = system.repository(TEAM, git.path, interval="1s")
        system.synced(rules, git.commit(HOUSE))
        before = system.ready(RELAY)
        disk.fill()
        commit = git.commit({"manifests/one.yaml": documents(script("one"))})
        failed = system.controller.metrics.reconcile_total.labels("ScriptRepository", "error")
        wait_until(lambda: failed._value.get() > 1, what="it has tried in vain")
        assert system.ask("/healthz") is not None
        assert [s["metadata"]["name"] for s in system.ask("/api/v1alpha1/scripts")["items"]] == [
            "relay"
        ]
        disk.free()
        live = system.synced(rules, commit)
        assert reason(live) == ("True", "Applied")
        after = system.ready(RELAY)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert is_ready(system.ready(ONE))
    assert "Traceback" not in (other / "executor.log").read_text()
