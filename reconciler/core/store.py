"""What a reflector keeps: one decoded record per object, and what changed in between.

The store never moves backwards: an older version of an object it holds is not taken from a watch.
A list is believed as a whole; whether it is too old is the reflector's to judge.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from reconciler.core.documents import Document, Metadata, document
from reconciler.core.objects import JsonObject, ObjectKey, text

T = TypeVar("T")


class Delta(NamedTuple, Generic[T]):
    """One object before and after; never both None. A delete holds the last state known, which
    is not always the last state there was.
    """

    key: ObjectKey
    old: T | None
    new: T | None


class Identity(NamedTuple):
    """What tells versions of an object apart. `uid` differs when it was deleted and made again."""

    key: ObjectKey
    uid: str
    resource_version: str


class Entry(NamedTuple, Generic[T]):
    uid: str
    resource_version: str
    record: T


def identity_of(obj: JsonObject | Document) -> Identity:
    """Empty strings where the object does not say."""
    # There are few namespaces and very many objects: one string each for the former.
    if not isinstance(obj, Document):
        obj = document(obj, Document)
    meta = obj.metadata
    if not isinstance(meta, Metadata):
        meta = Metadata()
    key = ObjectKey(sys.intern(text(meta.namespace)), text(meta.name))
    return Identity(key, text(meta.uid), text(meta.resource_version))


def is_older(left: str, right: str) -> bool:
    """Whether one resourceVersion is surely older than another; False where that cannot be told."""
    return left.isdecimal() and right.isdecimal() and int(left) < int(right)


class Store(Generic[T]):
    """Records by key. Not thread-safe: it belongs to one event loop."""

    def __init__(self) -> None:
        self._entries: dict[ObjectKey, Entry[T]] = {}
        # Another number after every change, for who derives something of all records.
        self.version = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[T]:
        return (entry.record for entry in self._entries.values())

    def get(self, key: ObjectKey) -> T | None:
        entry = self._entries.get(key)
        return None if entry is None else entry.record

    def keys(self) -> tuple[ObjectKey, ...]:
        return tuple(self._entries)

    def entry(self, key: ObjectKey) -> Entry[T] | None:
        """With the UID and resourceVersion it was last seen with."""
        return self._entries.get(key)

    def is_news(self, identity: Identity) -> bool:
        """Whether to decode this version: not when it is the one held, or older than that."""
        held = self._entries.get(identity.key)
        if held is None or held.uid != identity.uid:
            return True
        version = identity.resource_version
        return version != held.resource_version and not is_older(version, held.resource_version)

    def put(self, key: ObjectKey, entry: Entry[T]) -> tuple[Delta[T], ...]:
        """Hold a version that `is_news`; no delta when the record equals the one held.

        An object that was deleted and made again is two deltas: one went, one came.
        """
        held = self._entries.get(key)
        self._entries[key] = entry
        self.version += 1
        return _deltas(key, held, entry)

    def remove(self, identity: Identity) -> tuple[Delta[T], ...]:
        """Forget an object that is gone; its successor of the same name stays."""
        held = self._entries.get(identity.key)
        if held is None or held.uid != identity.uid:
            return ()
        del self._entries[identity.key]
        self.version += 1
        return (Delta(identity.key, held.record, None),)

    def replace(self, entries: Mapping[ObjectKey, Entry[T]]) -> tuple[Delta[T], ...]:
        """Hold `entries` and nothing else; what is missing from them is gone."""
        before, self._entries = self._entries, dict(entries)
        self.version += 1
        gone = [Delta(key, held.record, None) for key, held in before.items() if key not in entries]
        stayed = [
            delta
            for key, entry in entries.items()
            for delta in _deltas(key, before.get(key), entry)
        ]
        return (*gone, *stayed)


def _deltas(key: ObjectKey, held: Entry[T] | None, entry: Entry[T]) -> tuple[Delta[T], ...]:
    if held is None:
        return (Delta(key, None, entry.record),)
    if held.uid != entry.uid:
        return (Delta(key, held.record, None), Delta(key, None, entry.record))
    if held.record is entry.record or held.record == entry.record:
        return ()
    return (Delta(key, held.record, entry.record),)
