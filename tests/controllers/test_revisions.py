"""One repository read from commit to commit: what each reading says changed, and what is held."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

from reconciler.controllers.revisions import Reading, Revisions
from reconciler.core.objects import Reference
from reconciler.errors import SourceUnavailable, Stalled
from reconciler.ports.registry import ArtifactRef
from tests.controllers.syncpath import TEAM, Desk
from tests.support.rulebook import HOUSE, QUIET, RELAY, documents, script

ALL = frozenset(
    {
        Reference("Script", TEAM, "relay"),
        *(Reference("Device", TEAM, name) for name in ("door", "lamp")),
        *(Reference("DeviceModel", TEAM, name) for name in ("sensor", "lamp")),
    }
)


def ref(name: str, version: str = "1.0.0") -> ArtifactRef:
    return ArtifactRef(TEAM, "rules", name, version, "js")


def named(*names: str) -> frozenset[Reference]:
    return frozenset(Reference("Script", TEAM, name) for name in names)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


async def read(revisions: Revisions) -> Reading:
    return await revisions.read(timeout=timedelta(seconds=10))


def test_a_first_reading_is_everything_and_the_same_tree_again_is_nothing() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        revisions = desk.revisions()
        first = await read(revisions)
        assert (first.changed, first.is_first) == (ALL, True)
        assert first.published == {ref("relay"), ref("quiet")}
        again = await read(revisions)
        assert (again.changed, again.published, again.is_first) == (frozenset(), frozenset(), False)

    run(test())


def test_a_reading_names_what_came_changed_and_went() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit({**HOUSE, "manifests/a.yaml": documents(script("a"), script("b"))})
        revisions = desk.revisions()
        await read(revisions)
        changed = documents(script("b", env={"x": "y"}), script("c"))
        desk.remote.commit({"manifests/a.yaml": changed})
        assert (await read(revisions)).changed == named("a", "b", "c")
        assert set(revisions.desired) == ALL | named("b", "c")

    run(test())


def test_only_the_folder_of_the_repository_counts() -> None:
    async def test() -> None:
        desk = Desk()
        inside = {f"house/{path}": content for path, content in HOUSE.items()}
        desk.remote.commit({**inside, "manifests/outside.yaml": documents(script("outside"))})
        revisions = desk.revisions("house")
        assert (await read(revisions)).changed == ALL
        desk.remote.commit({"manifests/outside.yaml": None})
        assert (await read(revisions)).changed == frozenset()

    run(test())


def test_a_script_waits_for_its_artifact_and_is_named_when_that_comes() -> None:
    async def test() -> None:
        desk = Desk()
        late = documents(script("late", artifact="late"))
        desk.remote.commit({**HOUSE, "manifests/late.yaml": late})
        revisions = desk.revisions()
        await read(revisions)
        assert named("late") <= revisions.held
        assert [p.reason for p in revisions.errors] == ["ArtifactNotFound"]
        desk.remote.commit({"scripts/late/1.0.0.js": QUIET})
        reading = await read(revisions)
        assert (reading.changed, reading.published) == (named("late"), {ref("late")})
        assert (revisions.held, revisions.errors) == (frozenset(), ())

    run(test())


def test_other_bytes_of_a_version_are_refused_until_they_are_taken_back() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        revisions = desk.revisions()
        await read(revisions)
        desk.remote.commit({"scripts/relay/1.0.0.js": RELAY + b"//"})
        reading = await read(revisions)
        assert reading.published == frozenset()
        assert [(str(p.path), p.reason) for p in revisions.errors] == [
            ("scripts/relay/1.0.0.js", "VersionImmutable")
        ]
        artifact = desk.registry.resolve(ref("relay"))
        assert artifact is not None
        assert desk.registry.read(artifact.digest) == RELAY
        desk.remote.commit({"scripts/relay/1.0.0.js": RELAY})
        assert (await read(revisions)).published == frozenset()
        assert revisions.errors == ()

    run(test())


def test_where_versions_may_be_edited_other_bytes_are_published() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        revisions = desk.revisions(replace_versions=True)
        await read(revisions)
        desk.remote.commit({"scripts/relay/1.0.0.js": RELAY + b"//"})
        reading = await read(revisions)
        assert (reading.changed, reading.published) == (frozenset(), {ref("relay")})
        assert revisions.errors == ()

    run(test())


def test_an_artifact_that_left_is_forgotten_when_no_script_runs_it_any_more() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        desk.in_use = {ref("quiet")}
        revisions = desk.revisions()
        await read(revisions)
        desk.remote.commit({"scripts/quiet/1.0.0.js": None})
        await read(revisions)
        revisions.collect()
        assert desk.registry.resolve(ref("quiet")) is not None
        desk.in_use.clear()
        revisions.collect()
        assert desk.registry.resolve(ref("quiet")) is None

    run(test())


@pytest.mark.parametrize(
    ("files", "changed"),
    [
        # Nothing was taken in, so the tree that is back is the one read before.
        pytest.param(dict.fromkeys(HOUSE), frozenset(), id="the folder is gone"),
        pytest.param(
            {path: None for path in HOUSE if path.startswith("manifests/")}, ALL, id="no manifests"
        ),
    ],
)
def test_a_repository_that_came_to_nothing_is_an_error_and_complete_when_it_is_back(
    files: dict[str, bytes | None], changed: frozenset[Reference]
) -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        revisions = desk.revisions()
        await read(revisions)
        desk.remote.commit(files)
        with pytest.raises(Stalled) as stalled:
            await read(revisions)
        assert stalled.value.reason == "EmptySource"
        desk.remote.commit(HOUSE)
        again = await read(revisions)
        assert again.changed == changed
        assert set(revisions.desired) == ALL

    run(test())


def test_a_reading_that_failed_is_made_good_by_the_next() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        revisions = desk.revisions()
        desk.remote.fault = SourceUnavailable("no answer")
        with pytest.raises(SourceUnavailable):
            await read(revisions)
        desk.remote.fault = None
        assert (await read(revisions)).changed == ALL

    run(test())


def test_what_a_broken_file_declared_is_held_and_everything_else_may_be_pruned() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        revisions = desk.revisions()
        await read(revisions)
        desk.remote.commit({"manifests/relay.yaml": b"kind: [\n"})
        await read(revisions)
        assert revisions.held == named("relay")
        assert revisions.prune_safe

    run(test())


@pytest.mark.parametrize("knows_it", [True, False], ids=["after a good one", "at first"])
def test_below_a_folder_that_is_refused_nothing_is_known_and_nothing_pruned(
    *, knows_it: bool
) -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit({**HOUSE, "manifests/hall/more.yaml": documents(script("more"))})
        revisions = desk.revisions()
        if knows_it:
            await read(revisions)
            assert revisions.prune_safe
        desk.remote.commit({"manifests/Hall/twin.yaml": documents(script("twin"))})
        await read(revisions)
        assert not revisions.prune_safe
        assert {p.reason for p in revisions.errors} == {"CaseTwins"}
        desk.remote.commit({"manifests/Hall/twin.yaml": None})
        await read(revisions)
        assert revisions.prune_safe
        assert revisions.errors == ()
        assert set(revisions.desired) == ALL | named("more")

    run(test())


def test_what_is_to_be_ignored_is_not_read_and_goes_when_that_changes() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit({**HOUSE, "manifests/drafts/a.yaml": documents(script("a"))})
        revisions = desk.revisions()
        await read(revisions)
        desk.remote.commit({"scriptops.yaml": b"ignore: [manifests/drafts]\n"})
        reading = await read(revisions)
        assert named("a") <= reading.changed
        assert not reading.is_first
        assert set(revisions.desired) == ALL
        desk.remote.commit({"scriptops.yaml": None})
        await read(revisions)
        assert set(revisions.desired) == ALL | named("a")

    run(test())


def packed(ext: str, version: str = "1.0.0") -> ArtifactRef:
    return ref("quiet", version)._replace(ext=ext)


def test_a_version_is_published_with_whatever_extension_it_has() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(
            {**HOUSE, "scripts/quiet/1.0.1.zip": b"PK", "scripts/quiet/2.gz": b"\x1f"}
        )
        revisions = desk.revisions()
        assert (await read(revisions)).published == {
            ref("relay"),
            ref("quiet"),
            packed("zip", "1.0.1"),
            packed("gz", "2"),
        }
        assert revisions.errors == ()

    run(test())


def test_a_version_with_two_extensions_holds_its_script_until_one_is_removed() -> None:
    async def test() -> None:
        desk = Desk()
        twice = documents(script("twice", artifact="quiet"))
        desk.remote.commit(
            {**HOUSE, "manifests/twice.yaml": twice, "scripts/quiet/1.0.0.zip": b"PK"}
        )
        revisions = desk.revisions()
        await read(revisions)
        assert named("twice") <= revisions.held
        assert [(str(p.path), p.reason, p.message) for p in revisions.errors] == [
            (
                "manifests/twice.yaml",
                "VersionTwice",
                (
                    "scripts/quiet/1.0.0.js and scripts/quiet/1.0.0.zip are one version; "
                    "nobody can tell which is meant, so keep one"
                ),
            ),
            (
                "scripts/quiet/1.0.0.zip",
                "VersionTwice",
                "scripts/quiet/1.0.0.js is the same version; keep one",
            ),
        ]
        desk.remote.commit({"scripts/quiet/1.0.0.js": None})
        reading = await read(revisions)
        assert packed("zip") in reading.published
        assert (revisions.held, revisions.errors) == (frozenset(), ())
        assert desk.registry.resolve(packed("js")) is None

    run(test())


def test_a_version_in_use_does_not_become_another_kind_of_file() -> None:
    async def test() -> None:
        desk = Desk()
        desk.remote.commit(HOUSE)
        desk.in_use.add(ref("quiet"))
        revisions = desk.revisions()
        await read(revisions)
        desk.remote.commit({"scripts/quiet/1.0.0.js": None, "scripts/quiet/1.0.0.gz": b"\x1f"})
        await read(revisions)
        assert [(str(p.path), p.reason, p.message) for p in revisions.errors] == [
            (
                "scripts/quiet/1.0.0.gz",
                "VersionImmutable",
                (
                    "1.0.0 was published as scripts/quiet/1.0.0.js; a version is immutable: name the "
                    "file otherwise, and set spec.manifest.version"
                ),
            )
        ]
        assert desk.registry.resolve(packed("gz")) is None

    run(test())
