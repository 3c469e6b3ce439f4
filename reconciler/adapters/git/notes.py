"""Notes on commits, as `git notes` keeps them: a tree of blobs, each named after its commit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

import pygit2
from pygit2.enums import ObjectType

from reconciler.adapters.git import objects
from reconciler.adapters.git.swapping import Files, SwappedRef, updated
from reconciler.core import notes
from reconciler.ports.git import CommitId

log = logging.getLogger(__name__)

# A note is read by people; one of more than this is something else, and stays as it is.
MAX_NOTE_BYTES = 1024 * 1024


class GitNotesRef(SwappedRef):
    """Keeps the promises of `NotesRef`. Serves one event loop."""

    async def put(
        self, lines: Mapping[CommitId, str], *, owner: str, message: str, timeout: timedelta
    ) -> CommitId | None:
        def note(repository: pygit2.Repository, old: pygit2.Oid | None) -> pygit2.Oid | None:
            nested: Files = {}
            for commit, line in lines.items():
                path, before = _find(repository, old, commit)
                if before is None:
                    log.warning("note too large", extra={"commit": commit, "ref": self._ref})
                    continue
                folder = nested
                for part in path[:-1]:
                    inner = folder.setdefault(part, {})
                    folder = inner if isinstance(inner, dict) else {}
                folder[path[-1]] = notes.with_line(before, owner, line)
            return updated(repository, old, nested)

        return await self._swap(note, message=message, timeout=timeout)


def _find(
    repository: pygit2.Repository, old: pygit2.Oid | None, commit: CommitId
) -> tuple[tuple[str, ...], bytes | None]:
    """Where the note of a commit is, or shall be, and what it says; None for too much.

    Git spreads a tree of many notes over folders of two digits, and those again; a commit is looked
    for in each of these places, and a new one goes one level deep or as deep as there are folders.
    """
    tree = repository[old] if old is not None else None
    path: tuple[str, ...] = ()
    rest: str = commit
    while True:
        entry = tree[rest] if tree is not None and rest in tree else None
        if isinstance(entry, pygit2.Blob):
            found = objects.read(repository, str(entry.id), ObjectType.BLOB, MAX_NOTE_BYTES)
            return (*path, rest), found
        head, below = rest[:2], rest[2:]
        inner = tree[head] if tree is not None and head in tree else None
        if not isinstance(inner, pygit2.Tree) or not below:
            return ((*path, rest) if path else (head, below)), b""
        tree, path, rest = inner, (*path, head), below
