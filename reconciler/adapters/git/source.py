"""One repository, read through its mirror."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Final

import pygit2
from pygit2.enums import ObjectType

from reconciler.adapters.git import answers, objects, verify, watch
from reconciler.adapters.git.mirror import tracked
from reconciler.adapters.git.reverts import Reverting
from reconciler.adapters.git.trees import MAX_TREE_BYTES, Comparison
from reconciler.adapters.git.upstream import Upstream
from reconciler.core import gitpaths
from reconciler.errors import SourceInvalid, SourceUnavailable, SourceUnverified
from reconciler.ports.git import (
    Commit,
    CommitId,
    Reverted,
    Signature,
    SigningKeys,
    TreeDiff,
    TreeId,
)

_COMMIT: Final = re.compile("[0-9a-f]{40}")
# Of one commit: a version, an environment or two, and room for those of robots.
_MOST_TAGS: Final = 16
# Where the mirror keeps a tag while it is looked at.
_LOOKED_AT: Final = "refs/scriptops/tags/"
_TAGS: Final = "refs/tags/"


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
            if not await self._upstream.follow(ref, lock):
                # Now, when nothing waits for it: it takes seconds after many status commits.
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

    async def keep(self, commits: Collection[CommitId], *, owner: str) -> None:
        folder = _kept(owner)
        wanted = {f"{folder}{commit}": commit for commit in commits}

        def renew(repository: pygit2.Repository) -> None:
            there = {name for name in repository.references if name.startswith(folder)}
            for name in there - wanted.keys():
                repository.references.delete(name)
            for name in wanted.keys() - there:
                if pygit2.Oid(hex=wanted[name]) in repository.odb:
                    objects.set_target(repository, name, wanted[name])

        await self._mirror.call(renew)

    async def find(self, commit: CommitId, *, timeout: timedelta) -> Commit:
        if not _COMMIT.fullmatch(commit):
            raise SourceInvalid(
                f"{commit[:100]!r} is no commit id of 40 hexadecimal digits",
                reason="RevisionNotFound",
            )
        found = await self._mirror.call(lambda repository: _held(repository, commit))
        if found is not None:
            return found
        ref = f"{_kept('found')}{commit}"
        async with self._upstream.deadline(timeout), self._mirror.exclusive() as lock:
            try:
                await self._upstream.transport.fetch(
                    [f"+{commit}:{ref}"], git_dir=self._mirror.path, fd=lock
                )
            except (SourceInvalid, SourceUnavailable) as error:
                if not answers.is_unknown_object(error):
                    raise
                raise SourceInvalid(
                    f"the commit {commit} was not kept, and {self._upstream.address} does not hand "
                    "it out; choose another of status.history",
                    reason="RevisionNotFound",
                ) from error
        return await self._mirror.call(lambda repository: objects.commit(repository, ref))

    async def reverted(
        self, tip: TreeId, *, bad: TreeId, good: TreeId, places: Collection[PurePosixPath]
    ) -> Reverted:
        def revert(repository: pygit2.Repository) -> Reverted:
            reverting = Reverting(repository, places)
            return Reverted(TreeId(reverting.tree(tip, bad, good)), reverting.count)

        return await self._mirror.call(revert)

    async def verify_commit(
        self, commit: CommitId, keys: SigningKeys, *, timeout: timedelta
    ) -> Signature:
        async with self._upstream.deadline(timeout), self._mirror.exclusive():
            return await verify.signature(self._mirror, "commit", commit, keys)

    async def verify_tag(
        self, commit: CommitId, keys: SigningKeys, *, timeout: timedelta
    ) -> Signature:
        problem = SourceUnverified(
            f"no annotated tag of {self._upstream.address} names commit {commit[:10]}; sign one "
            "with git tag -s, and push it",
            reason="TagMissing",
        )
        async with self._upstream.deadline(timeout), self._mirror.exclusive() as lock:
            found = await self._upstream.transport.tags_of(commit)
            # A server may call them anything.
            named = [
                ref
                for ref in sorted(found, reverse=True)
                if gitpaths.ref_problem(ref.removeprefix(_TAGS)) is None and ref.startswith(_TAGS)
            ]
            for ref in named[:_MOST_TAGS]:
                try:
                    return await self._verify_tag(ref, found[ref], commit, keys, lock)
                except SourceUnverified as error:
                    problem = error
        raise problem

    async def _verify_tag(
        self, ref: str, oid: str, commit: CommitId, keys: SigningKeys, lock: int
    ) -> Signature:
        ours = f"{_LOOKED_AT}{oid}"
        await self._upstream.transport.fetch([f"+{ref}:{ours}"], git_dir=self._mirror.path, fd=lock)
        try:
            if await self._mirror.tip(ours) != oid:
                raise SourceUnavailable(f"{ref} moved while it was looked at")
            head = await verify.tag_head(self._mirror, oid)
            if head is None or head.commit != commit or f"{_TAGS}{head.name}" != ref:
                raise SourceUnverified(
                    f"{ref} was signed under another name, or for another commit; sign a new tag",
                    reason="TagMoved",
                )
            return await verify.signature(self._mirror, "tag", oid, keys)
        finally:
            await self._mirror.call(lambda repository: objects.set_target(repository, ours, None))

    def changes(self, branch: str) -> AsyncIterator[None]:
        return watch.changes(self._upstream.address.path, branch)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._release()


def _kept(owner: str) -> str:
    """Where the mirror keeps revisions for one owner."""
    return f"refs/kept/{owner}/"


def _held(repository: pygit2.Repository, commit: str) -> Commit | None:
    """A commit that is kept for somebody: of any other the trees may be gone."""
    names = (n for n in repository.references if n.startswith("refs/kept/"))
    kept = next((name for name in names if name.endswith(f"/{commit}")), None)
    return None if kept is None else objects.commit(repository, kept)
