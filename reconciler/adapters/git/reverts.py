"""What a revert would leave, as trees: the answer of `git revert`, by whole files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Final, TypeAlias

import pygit2

from reconciler.errors import SourceInvalid

# Deeper than any folder of rules; a tree that repeats itself has no bottom.
_DEEPEST: Final = 64

_Entry: TypeAlias = "tuple[pygit2.Oid, int] | None"


class Reverting:
    """`tip` with everything put back as `good` has it that is still as `bad` has it.

    What has changed since `bad` stays as it is in `tip`, so a mistake that somebody has mended is
    not brought back, and no file is a mixture. Costs by what differs between `bad` and `good`.
    """

    def __init__(self, repository: pygit2.Repository, places: Collection[PurePosixPath]) -> None:
        self._repository = repository
        self._places = frozenset(places)
        self._ways = frozenset(way for place in places for way in place.parents)
        # Entries of `tip` that were replaced.
        self.count = 0

    def tree(self, tip: str, bad: str, good: str) -> str:
        """Trees by id. Raises `SourceInvalid` for one that is nested without end."""
        ours, theirs, wanted = (
            (pygit2.Oid(hex=tree), int(pygit2.enums.FileMode.TREE)) for tree in (tip, bad, good)
        )
        found = self._reverted(ours, theirs, wanted, PurePosixPath())
        return str(found[0] if found else self._repository.TreeBuilder().write())

    def _reverted(self, tip: _Entry, bad: _Entry, good: _Entry, path: PurePosixPath) -> _Entry:
        if good in (bad, tip):
            return tip
        is_way = path in self._ways and path not in self._places
        if not all(_is_folder(entry) for entry in (tip, bad, good)):
            if is_way:
                return tip
            if tip != bad:
                return tip
            self.count += 1
            return good
        if len(path.parts) > _DEEPEST:
            raise SourceInvalid(f"folders are nested more than {_DEEPEST} deep")
        return self._folder(tip, bad, good, path)

    def _folder(self, tip: _Entry, bad: _Entry, good: _Entry, path: PurePosixPath) -> _Entry:
        ours, theirs, wanted = self._entries(tip), self._entries(bad), self._entries(good)
        changed = [name for name in theirs | wanted if theirs.get(name) != wanted.get(name)]
        builder = (
            self._repository.TreeBuilder(self._repository[tip[0]])
            if tip is not None
            else self._repository.TreeBuilder()
        )
        for name in changed:
            inner = path / name
            if not self._concerns(inner):
                continue
            left = self._reverted(ours.get(name), theirs.get(name), wanted.get(name), inner)
            if left is not None:
                builder.insert(name, *left)
            elif name in ours:
                builder.remove(name)
        return (builder.write(), int(pygit2.enums.FileMode.TREE)) if len(builder) else None

    def _concerns(self, path: PurePosixPath) -> bool:
        return path in self._ways or not self._places.isdisjoint((path, *path.parents))

    def _entries(self, folder: _Entry) -> dict[str, tuple[pygit2.Oid, int]]:
        if folder is None:
            return {}
        tree = self._repository[folder[0]]
        return {str(entry.name): (entry.id, int(entry.filemode)) for entry in tree}


def _is_folder(entry: _Entry) -> bool:
    """What is not there is like a folder without anything in it."""
    return entry is None or entry[1] == pygit2.enums.FileMode.TREE
