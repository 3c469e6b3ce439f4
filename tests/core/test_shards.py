"""Which part of the work a namespace belongs to."""

from __future__ import annotations

from collections import Counter

from reconciler.core.shards import shard_of


def test_a_namespace_stays_in_its_shard_over_versions() -> None:
    """Replicas of two versions run side by side during an update: they must agree."""
    names = ("default", "team-a", "factory")
    assert [shard_of(name, 8) for name in names] == [5, 4, 0]


def test_one_shard_holds_all() -> None:
    assert {shard_of(f"team-{n}", 1) for n in range(50)} == {0}


def test_namespaces_are_spread() -> None:
    found = Counter(shard_of(f"team-{n}", 8) for n in range(8_000))
    assert sorted(found) == list(range(8))
    assert min(found.values()) > 800
