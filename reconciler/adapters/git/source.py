"""One repository, read through its mirror."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import PurePosixPath

import pygit2
from pygit2.enums import ObjectType

from reconciler.adapters.git import objects, watch
from reconciler.adapters.git.mirror import tracked
from reconciler.adapters.git.trees import MAX_TREE_BYTES, Comparison
from reconciler.adapters.git.upstream import Upstream
from reconciler.core import gitpaths
from reconciler.errors import SourceInvalid, SourceUnavailable
from reconciler.ports.git import Commit, TreeDiff, TreeId


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
            return await self._mirror.call(
                lambda repository: objects.commit(repository, tracked(ref))
            )

    async def diff(self, old: TreeId | None, new: TreeId, *, folder: PurePosixPath) -> TreeDiff:
        def compare(repository: pygit2.Repository) -> TreeDiff:
            if old is not None and pygit2.Oid(hex=old) not in repository.odb:
                raise SourceUnavailable(
                    f"the tree {old} is no longer in the mirror; compare from nothing",
                    reason="RevisionGone",
                )
            comparison = Comparison(
                lambda tree: objects.read(repository, tree, ObjectType.TREE, MAX_TREE_BYTES),
                lambda blob: repository.odb.read_header(pygit2.Oid(hex=blob))[1],
            )
            comparison.folder(
                folder,
                objects.folder(repository, old, folder) if old else None,
                objects.folder(repository, new, folder),
            )
            return comparison.result()

        return await self._mirror.call(compare)

    async def read(self, blobs: Sequence[str], *, limit: int) -> Mapping[str, bytes]:
        def collect(repository: pygit2.Repository) -> Mapping[str, bytes]:
            found = {blob: objects.read(repository, blob, ObjectType.BLOB, limit) for blob in blobs}
            return {blob: data for blob, data in found.items() if data is not None}

        return await self._mirror.call(collect)

    async def has_folder(self, tree: TreeId, folder: PurePosixPath) -> bool:
        return await self._mirror.call(
            lambda repository: objects.folder(repository, tree, folder) is not None
        )

    def changes(self, branch: str) -> AsyncIterator[None]:
        return watch.changes(self._upstream.address.path, branch)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._release()
