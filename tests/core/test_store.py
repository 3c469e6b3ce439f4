"""What a store holds, and the deltas that tell of it."""

from __future__ import annotations

import pytest

from reconciler.core.objects import ObjectKey
from reconciler.core.store import Delta, Entry, Identity, Store, identity_of, is_older

KEY = ObjectKey("default", "dht11")
OTHER = ObjectKey("default", "switch")


def holding(*entries: tuple[ObjectKey, str, str, str]) -> Store[str]:
    store: Store[str] = Store()
    store.replace({key: Entry(uid, version, record) for key, uid, version, record in entries})
    return store


def test_an_object_first_seen_comes() -> None:
    store: Store[str] = Store()
    assert store.put(KEY, Entry("u", "1", "a")) == (Delta(KEY, None, "a"),)
    assert (store.get(KEY), store.keys(), len(store), list(store)) == ("a", (KEY,), 1, ["a"])


def test_an_object_that_changed_is_told_with_its_state_before() -> None:
    store = holding((KEY, "u", "1", "a"))
    assert store.put(KEY, Entry("u", "2", "b")) == (Delta(KEY, "a", "b"),)


def test_an_equal_record_is_no_delta_and_its_version_counts() -> None:
    store = holding((KEY, "u", "1", "a"))
    assert store.put(KEY, Entry("u", "2", "a")) == ()
    assert store.entry(KEY) == Entry("u", "2", "a")


def test_an_object_made_again_goes_and_comes() -> None:
    store = holding((KEY, "u", "1", "a"))
    assert store.put(KEY, Entry("v", "2", "a")) == (Delta(KEY, "a", None), Delta(KEY, None, "a"))


def test_a_removal_is_for_one_uid() -> None:
    store = holding((KEY, "v", "2", "b"))
    assert store.remove(Identity(KEY, "u", "3")) == ()
    assert store.remove(Identity(KEY, "v", "3")) == (Delta(KEY, "b", None),)
    assert KEY not in store


def test_a_list_tells_what_went_came_and_changed() -> None:
    third = ObjectKey("default", "third")
    store = holding((KEY, "u", "1", "a"), (OTHER, "o", "1", "x"), (third, "t", "1", "t"))
    listed = {
        OTHER: Entry("o", "5", "y"),
        third: Entry("t", "1", "t"),
        ObjectKey("default", "new"): Entry("n", "4", "n"),
    }
    assert store.replace(listed) == (
        Delta(KEY, "a", None),
        Delta(OTHER, "x", "y"),
        Delta(ObjectKey("default", "new"), None, "n"),
    )


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        pytest.param(Identity(KEY, "u", "10"), False, id="the version held is no news"),
        pytest.param(Identity(KEY, "u", "9"), False, id="an older version is no news"),
        pytest.param(Identity(KEY, "u", "11"), True, id="a newer version is news"),
        pytest.param(Identity(KEY, "v", "9"), True, id="another object is news"),
        pytest.param(Identity(OTHER, "u", "9"), True, id="an object not held is news"),
        pytest.param(Identity(KEY, "u", "x"), True, id="a version that cannot be compared is news"),
    ],
)
def test_a_store_never_moves_backwards(identity: Identity, *, expected: bool) -> None:
    assert holding((KEY, "u", "10", "a")).is_news(identity) is expected


def test_versions_compare_as_numbers_or_not_at_all() -> None:
    pairs = [("9", "10"), ("10", "9"), ("9", "9"), ("x", "10"), ("", "1")]
    assert [is_older(*pair) for pair in pairs] == [True, False, False, False, False]


def test_identity_reads_any_object() -> None:
    meta = {"namespace": "default", "name": "dht11", "uid": "u", "resourceVersion": "7"}
    assert identity_of({"metadata": meta}) == Identity(KEY, "u", "7")
    assert identity_of({"metadata": None}) == Identity(ObjectKey("", ""), "", "")
