"""What one cluster has otherwise than all others, and what a broken overlay must not do."""

from __future__ import annotations

import itertools
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.api.repository import RepositoryFile
from reconciler.core import layout
from reconciler.core.admission import Scope
from reconciler.core.manifests import Change, ManifestSet
from reconciler.core.objects import Reference
from reconciler.core.problems import Problem
from tests.core.manifests import ref, script

SCOPE = Scope(namespace="default", cluster="here")
BASE, OWN = PurePosixPath("manifests/a.yaml"), PurePosixPath("clusters/here/a.yaml")
OTHER = PurePosixPath("clusters/here/b.yaml")
BROKEN = "kind: [\n# one"
ONE = ref("one")


def reads(manifests: ManifestSet) -> dict[Reference, str]:
    """Which version of each object is meant."""
    return {
        reference: desired.script.manifest.version
        for reference, desired in manifests.desired.items()
        if desired.script is not None
    }


def update(manifests: ManifestSet, changes: dict[PurePosixPath, str | None]) -> set[Reference]:
    told: dict[PurePosixPath, Change] = {
        path: None if text is None else text.encode() for path, text in changes.items()
    }
    return set(manifests.update(told).references)


def loaded(changes: dict[PurePosixPath, str | None]) -> ManifestSet:
    manifests = ManifestSet(SCOPE)
    update(manifests, changes)
    return manifests


def test_an_object_of_the_cluster_takes_the_place_of_the_one_of_all() -> None:
    manifests = loaded(
        {BASE: script("one") + "---\n" + script("two"), OWN: script("one", version="2")}
    )
    assert reads(manifests) == {ONE: "2", ref("two"): "1"}
    assert manifests.problems == ()
    assert manifests.desired[ONE].path == OWN


def test_it_comes_and_goes() -> None:
    manifests = loaded({BASE: script("one")})
    assert update(manifests, {OWN: script("one", version="2")}) == {ONE}
    assert reads(manifests) == {ONE: "2"}
    assert update(manifests, {BASE: script("one", version="3")}) == set()
    assert update(manifests, {OWN: None}) == {ONE}
    assert reads(manifests) == {ONE: "3"}
    assert update(manifests, {OWN: script("one", version="4"), BASE: None}) == {ONE}
    assert reads(manifests) == {ONE: "4"}
    assert update(manifests, {OWN: None}) == {ONE}
    assert (reads(manifests), manifests.held) == ({}, frozenset())


def test_an_object_of_the_cluster_alone_is_deployed() -> None:
    assert reads(loaded({OWN: script("one")})) == {ONE: "1"}


def test_twice_in_the_overlay_is_a_duplicate_and_names_no_other_file() -> None:
    manifests = loaded({BASE: script("one"), OWN: script("one"), OTHER: script("one")})
    assert (reads(manifests), manifests.held) == ({}, {ONE})
    assert [p.path for p in manifests.problems] == [OWN, OTHER]
    assert all("manifests/" not in p.message for p in manifests.problems)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(script("one").replace("version", "verzion"), id="a document with an error"),
        pytest.param(BROKEN, id="a file that is no YAML"),
        pytest.param(layout.LFS_POINTER.decode() + "v1", id="a file that is not there"),
    ],
)
def test_while_an_overlay_is_broken_its_object_is_not_deployed_as_all_have_it(broken: str) -> None:
    for before in ({}, {OWN: script("one", version="2")}):
        manifests = loaded({BASE: script("one"), **before})
        update(manifests, {OWN: broken})
        assert (reads(manifests), manifests.held) == ({}, {ONE})
    manifests = loaded({BASE: script("one"), OWN: broken})
    assert (reads(manifests), manifests.held) == ({}, {ONE})
    assert update(manifests, {OWN: script("one", version="2")}) == {ONE}
    assert (reads(manifests), manifests.held, manifests.prune_safe) == (
        {ONE: "2"},
        frozenset(),
        True,
    )
    update(manifests, {OWN: broken})
    assert update(manifests, {OWN: None}) == {ONE}
    assert reads(manifests) == {ONE: "1"}


def test_a_broken_overlay_stops_no_object_that_it_does_not_name() -> None:
    manifests = loaded({BASE: script("one") + "---\n" + script("zwei"), OWN: BROKEN})
    assert reads(manifests) == {ref("zwei"): "1"}
    assert update(manifests, {BASE: script("one") + "---\n" + script("zwei", version="2")}) == {
        ref("zwei")
    }
    late = PurePosixPath("manifests/late.yaml")
    assert update(manifests, {late: script("one-more")}) == {ref("one-more")}
    assert reads(manifests) == {ref("zwei"): "2", ref("one-more"): "1"}
    # What left the base may be in the overlay still.
    assert update(manifests, {BASE: None}) == {ref("zwei")}
    assert manifests.held == {ONE}


def test_what_an_overlay_replaced_stays_held_though_its_broken_file_names_it_no_more() -> None:
    manifests = loaded({BASE: script("one"), OWN: script("one", version="2")})
    update(manifests, {OWN: "kind: ["})
    assert (reads(manifests), manifests.held) == ({}, {ONE})


def test_an_overlay_that_could_not_be_read_may_replace_anything() -> None:
    manifests = ManifestSet(SCOPE)
    problem = Problem(path=OWN, line=0, pointer="", reason="FileTooLarge", message="too large")
    manifests.update({BASE: script("one").encode(), OWN: problem})
    assert (reads(manifests), manifests.held) == ({}, {ONE})


TEXTS = st.sampled_from(
    [
        None,
        script("one"),
        script("one", version="2"),
        script("two"),
        script("one") + "---\n" + script("two", version="3"),
        script("one").replace("version", "verzion"),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([BASE, OWN, OTHER]), TEXTS), max_size=8))
def test_after_any_updates_it_is_as_if_all_had_been_read_at_once(
    steps: list[tuple[PurePosixPath, str | None]],
) -> None:
    manifests = ManifestSet(SCOPE)
    files: dict[PurePosixPath, str | None] = {}
    before: dict[Reference, str] = {}
    for path, text in steps:
        told = update(manifests, {path: text})
        files[path] = text
        now = {reference: it.digest for reference, it in manifests.desired.items()}
        assert {r for r in {*before, *now} if before.get(r) != now.get(r)} <= told
        before = now
    fresh = loaded({path: text for path, text in files.items() if text is not None})
    assert (reads(manifests), manifests.held) == (reads(fresh), fresh.held)
    assert manifests.problems == fresh.problems


@pytest.mark.parametrize(
    ("path", "cluster", "is_read"),
    [
        pytest.param("manifests/a.yaml", "", True, id="of all, where there are none"),
        pytest.param("manifests/a.yaml", "here", True, id="of all"),
        pytest.param("clusters/here/a.yaml", "here", True, id="its own"),
        pytest.param("clusters/here/deep/a.json", "here", True, id="its own, deeper"),
        pytest.param("clusters/there/a.yaml", "here", False, id="another's"),
        pytest.param("clusters/here/a.yaml", "", False, id="of a repository without clusters"),
        pytest.param("clusters/here/.a.yaml", "here", False, id="a hidden one"),
        pytest.param("clusters/a.yaml", "a.yaml", False, id="a file in place of a folder"),
        pytest.param("clusters/here/scripts/a/1.js", "here", False, id="no manifest"),
    ],
)
def test_which_files_are_read(path: str, cluster: str, is_read: bool) -> None:  # noqa: FBT001 - a parameter
    assert layout.is_manifest(PurePosixPath(path), cluster) is is_read


@pytest.mark.parametrize(
    ("path", "hides"),
    [
        pytest.param("clusters", True, id="the folder of all clusters"),
        pytest.param("clusters/here", True, id="its own folder"),
        pytest.param("clusters/here/deep", True, id="below it"),
        pytest.param("clusters/there", False, id="another's"),
        pytest.param("manifests", True, id="manifests"),
        pytest.param("scripts/a", False, id="scripts"),
    ],
)
def test_which_entries_that_are_not_read_may_hide_manifests(path: str, hides: bool) -> None:  # noqa: FBT001 - a parameter
    assert layout.hides_manifests(PurePosixPath(path), "here") is hides
    assert not layout.hides_manifests(PurePosixPath("clusters/here"), "")


def test_a_repository_names_its_clusters_and_nothing_of_them() -> None:
    file = layout.read_repository_file(b"clusters: [plant-a, plant-b]\n")
    assert file == RepositoryFile(clusters=["plant-a", "plant-b"])
    for wrong in (
        b"clusters: [{name: a, server: 'https://10.0.0.1'}]",
        b"clusters: {a: {kubeconfig: x}}",
        b"clusters: ['../a']",
        b"clusters: [A]",
        b"clusters: ['']",
    ):
        assert isinstance(layout.read_repository_file(wrong), tuple)


def test_a_cluster_that_is_not_named_is_told_from_one_that_is() -> None:
    named = RepositoryFile(clusters=["plant-a"])
    problems = [
        layout.cluster_problem(file, cluster)
        for file, cluster in itertools.product((named, RepositoryFile()), ("plant-a", "plant-b"))
    ]
    told = 'scriptops.yaml names the clusters plant-a, and not "plant-b"'
    assert problems == ["", told, "", ""]


def test_a_folder_of_a_cluster_that_nobody_named_is_a_warning() -> None:
    files = map(PurePosixPath, ("clusters/plant-a/x.yaml", "clusters/plant-o/x.yaml", "clusters/y"))
    found = list(layout.unnamed_clusters(RepositoryFile(clusters=["plant-a"]), files))
    assert [(str(p.path), p.reason, p.severity) for p in found] == [
        ("clusters/plant-o", "ClusterNotNamed", "warning")
    ]
    assert 'did you mean "plant-a"?' in found[0].message
