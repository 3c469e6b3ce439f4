"""What a broken file must never delete."""

from __future__ import annotations

import pytest

from reconciler.core.manifests import ManifestSet
from reconciler.core.problems import Problem
from tests.core.manifests import SCOPE, device, loaded, path, ref, script, update

BROKEN = "kind: Script\nmetadata: {name: one\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(script("one", version="?"), id="a field that is wrong"),
        pytest.param(script("one").replace("Script", "Scirpt"), id="a kind misspelled"),
        pytest.param(script("one").replace("kind: Script", ""), id="no kind"),
        pytest.param(script("one").replace("v1alpha1", "v9"), id="a version nobody has"),
        pytest.param(script("one") + "spec: {}\n", id="a key twice"),
        pytest.param(script("one") + "extra: &a 1\n", id="an anchor"),
        pytest.param(script("one", namespace="default") + "x: .nan\n", id="not a number"),
    ],
)
def test_a_broken_document_that_says_who_it_is_is_held_even_by_a_new_process(text: str) -> None:
    manifests = loaded(a=text)
    assert (dict(manifests.desired), manifests.prune_safe) == ({}, True)
    assert ref("one") in manifests.held


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BROKEN, id="no YAML"),
        pytest.param(script("One"), id="no name"),
        pytest.param(script("one").replace("name:", "nmae:"), id="a name misspelled"),
        pytest.param(script("one").replace("metadata", "metadta"), id="metadata misspelled"),
        pytest.param(script("one") + "kind: Script\n", id="a kind twice"),
        pytest.param(script("one", namespace="De Fault"), id="a namespace that is none"),
        pytest.param("version https://git-lfs.github.com/spec/v1\n", id="an LFS pointer"),
        pytest.param("kind: List\nitems: 1\n", id="a List without items"),
        pytest.param("a" * (1 << 20) + "a", id="a file that is too large"),
    ],
)
def test_what_an_opaque_file_held_stays_held_until_it_can_be_read(text: str) -> None:
    manifests = loaded(a=script("one"), b=script("two"))
    assert update(manifests, a=text) == {ref("one")}
    assert (manifests.held, manifests.prune_safe) == ({ref("one")}, True)
    assert update(manifests, a=text + "\n# and again", b=script("two")) == frozenset()
    assert manifests.held == {ref("one")}
    assert update(manifests, a="") == {ref("one")}
    assert (manifests.held, set(manifests.desired)) == (frozenset(), {ref("two")})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BROKEN, id="no YAML"),
        pytest.param("a: 1\n", id="no object"),
        pytest.param(script("One"), id="no name"),
    ],
)
def test_a_new_process_prunes_nothing_while_a_file_is_opaque(text: str) -> None:
    manifests = loaded(a=text, b=script("two"))
    assert (manifests.prune_safe, manifests.prune_blockers) == (False, (path("a.yaml"),))
    update(manifests, a=text + "#", b=None)
    assert manifests.prune_blockers == (path("a.yaml"),)
    update(manifests, a=None, c=text)
    assert manifests.prune_blockers == (path("c.yaml"),)
    update(manifests, c=script("one"))
    assert manifests.prune_safe


def test_an_object_is_held_when_it_may_have_moved_into_a_file_that_broke() -> None:
    manifests = loaded(a=script("one"), b=script("two"))
    assert update(manifests, a=None, b=None, c=BROKEN) == {ref("one"), ref("two")}
    assert (manifests.held, manifests.prune_safe) == ({ref("one")}, True)


def test_an_object_may_be_pruned_while_another_file_is_broken() -> None:
    manifests = loaded(a=script("one"), b=script("two"))
    update(manifests, a=BROKEN)
    assert update(manifests, b=None) == {ref("two")}
    assert (manifests.held, manifests.prune_safe) == ({ref("one")}, True)


def test_what_is_held_follows_a_broken_file_that_is_renamed() -> None:
    manifests = loaded(a=script("one"))
    update(manifests, a=BROKEN)
    update(manifests, a=None, b=BROKEN)
    assert manifests.held == {ref("one")}
    update(manifests, b=None)
    assert (manifests.held, manifests.prune_safe) == (frozenset(), True)


def test_a_file_that_was_not_read_at_all_may_hold_all_that_went_with_it() -> None:
    manifests = loaded(a=script("one"), b=device("lamp"))
    gone = Problem(path=path("c.yaml"), line=0, pointer="", reason="TooLarge", message="too large")
    manifests.update({path("a.yaml"): None, path("b.yaml"): None, path("c.yaml"): gone})
    assert manifests.held == {ref("one"), ref("lamp", "Device")}


def test_an_object_that_is_held_and_then_desired_elsewhere_is_desired() -> None:
    manifests = loaded(a=script("one"))
    update(manifests, a=BROKEN)
    assert update(manifests, b=script("one")) == {ref("one")}
    assert (set(manifests.desired), manifests.held) == ({ref("one")}, frozenset())


def test_an_empty_repository_wants_nothing_and_knows_it() -> None:
    manifests = ManifestSet(SCOPE)
    assert (manifests.update({}).references, manifests.prune_safe) == (frozenset(), True)
