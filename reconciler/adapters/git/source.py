"""One repository, read through its mirror."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import PurePosixPath

import pygit2
from pygit2.enums import ObjectType

from reconciler.adapters.git import watch
from reconciler.adapters.git.mirror import tracked
from reconciler.adapters.git.trees import MAX_TREE_BYTES, Comparison
from reconciler.adapters.git.upstream import Upstream
from reconciler.core import gitpaths
from reconciler.errors import SourceInvalid, SourceUnavailable
from reconciler.ports.git import Commit, CommitId, TreeDiff, TreeId


class GitSource:
    """Keeps the promises of `Source`. Serves one event loop."""

    def __init__(self, upstream: Upstream, *, release: Callable[[], None]) -> None:
        self._upstream = upstream
        self._mirror = upstream.mirror
        self._release = release
        self._is_closed = False

    async def fetch(self, branch: str, *, timeout: timedelta) -> Commit:
        problem = gitpaths.ref_problem(branch)
        if problem:
            raise SourceInvalid(f"the branch {branch[:100]!r} {problem}")
        ref = f"refs/heads/{branch}"
        async with self._upstream.deadline(timeout), self._mirror.exclusive() as lock:
            tip = await self._upstream.require(ref)
            if self._mirror.is_damaged or await self._mirror.tip(tracked(ref)) != tip:
                await self._upstream.bring(ref, lock)
                await self._upstream.tidy(lock)
            return await self._mirror.call(lambda repository: _commit(repository, ref))

    async def diff(self, old: TreeId | None, new: TreeId, *, folder: PurePosixPath) -> TreeDiff:
        def compare(repository: pygit2.Repository) -> TreeDiff:
            if old is not None and pygit2.Oid(hex=old) not in repository.odb:
                raise SourceUnavailable(
                    f"the tree {old} is no longer in the mirror; compare from nothing",
                    reason="RevisionGone",
                )
            comparison = Comparison(
                lambda tree: _read(repository, tree, ObjectType.TREE, MAX_TREE_BYTES),
                lambda blob: repository.odb.read_header(pygit2.Oid(hex=blob))[1],
            )
            comparison.folder(
                folder,
                _folder(repository, old, folder) if old else None,
                _folder(repository, new, folder),
            )
            return comparison.result()

        return await self._mirror.call(compare)

    async def read(self, blobs: Sequence[str], *, limit: int) -> Mapping[str, bytes]:
        def collect(repository: pygit2.Repository) -> Mapping[str, bytes]:
            found = {blob: _read(repository, blob, ObjectType.BLOB, limit) for blob in blobs}
            return {blob: data for blob, data in found.items() if data is not None}

        return await self._mirror.call(collect)

    async def has_folder(self, tree: TreeId, folder: PurePosixPath) -> bool:
        return await self._mirror.call(
            lambda repository: _folder(repository, tree, folder) is not None
        )

    def changes(self, branch: str) -> AsyncIterator[None]:
        return watch.changes(self._upstream.address.path, branch)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._release()


def _commit(repository: pygit2.Repository, ref: str) -> Commit:
    commit = repository[repository.references[tracked(ref)].target]
    if not isinstance(commit, pygit2.Commit):
        raise SourceInvalid(f"{ref} does not point to a commit; correct the branch")
    # Not `message`, which trusts the encoding that the commit claims.
    message = commit.raw_message.decode("utf-8", "replace")
    return Commit(id=CommitId(str(commit.id)), tree=TreeId(str(commit.tree_id)), message=message)


def _read(repository: pygit2.Repository, name: str, kind: ObjectType, limit: int) -> bytes | None:
    """The object's bytes; None, without inflating it, where they are more than `limit`."""
    oid = pygit2.Oid(hex=name)
    found, size = repository.odb.read_header(oid)
    if found != kind:
        raise KeyError(name)
    if size > limit:
        return None
    data: bytes = repository.odb.read(oid)[1]
    return data


def _folder(repository: pygit2.Repository, tree: str, folder: PurePosixPath) -> str | None:
    """The id of the tree at `folder`; None if there is none or something else is there."""
    current = repository[pygit2.Oid(hex=tree)]
    for part in folder.parts:
        if part not in current or current[part].filemode != gitpaths.TREE_MODE:
            return None
        current = current[part]
    return str(current.id)
