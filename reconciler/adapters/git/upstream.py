"""A mirror and its remote: what the remote says now, brought into the mirror."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pygit2
from pygit2.enums import RepositoryOpenFlag

from reconciler.adapters.git import objects
from reconciler.adapters.git.mirror import Mirror, previous, tracked
from reconciler.adapters.git.transport import Transport
from reconciler.errors import ScriptOpsError, SourceInvalid, SourceUnavailable


class Upstream:
    """One remote through its mirror. Everything here is called under `mirror.exclusive`."""

    def __init__(self, mirror: Mirror, transport: Transport) -> None:
        self.mirror = mirror
        self.transport = transport
        self.address = transport.address

    @asynccontextmanager
    async def deadline(self, timeout: timedelta) -> AsyncIterator[None]:
        """End the body in time; what git was doing then is killed."""
        seconds = timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise SourceUnavailable(
                f"{self.address} did not answer in full within {seconds:g} s"
            ) from error

    async def ask(self, ref: str) -> str | None:
        """The commit `ref` of the remote points to, None if there is no such ref.

        Of a repository on this machine the ref itself is read; whatever hinders that, git tells.
        """
        tip, _ = await self._ask(ref)
        return tip

    async def require(self, ref: str) -> str:
        """As `ask`, for a ref that has to be there."""
        tip, holds_anything = await self._ask(ref)
        if tip is None and not holds_anything:
            raise SourceInvalid(f"{self.address} is empty; push a branch to it")
        if tip is None:
            branch = ref.removeprefix("refs/heads/")
            raise SourceInvalid(f"{self.address} has no branch {branch!r}; correct the name")
        return tip

    async def bring(self, ref: str, lock: int) -> None:
        """Make the mirror's tracked ref what the remote's is, with all trees and blobs of it.

        The remote has just answered. If the fetch fails all the same, the mirror may be the cause:
        a new one is tried, and replaces it only when complete.
        """
        failure: ScriptOpsError | None = None
        if not self.mirror.is_damaged:
            try:
                await self._fetch(ref, lock)
            except (SourceUnavailable, SourceInvalid) as error:
                if error.reason == "SourceTooLarge":
                    raise
                failure = error
            else:
                return
        others = await self._other_refs(ref)

        async def fill(path: Path) -> None:
            await self.transport.fetch([_refspec(ref)], git_dir=path, fd=lock)
            for other in others:
                try:
                    await self.transport.fetch([_refspec(other)], git_dir=path, fd=lock)
                except ScriptOpsError:  # its own reader will find out and say so
                    continue

        try:
            await self.mirror.rebuild(fill)
        except (SourceUnavailable, SourceInvalid) as error:
            raise failure or error from error

    async def tidy(self, lock: int) -> None:
        """Pack what has gathered. Best effort: a failure is met again, with words, by a fetch."""
        if await self.mirror.is_crowded():
            await self.mirror.forget_history()
            await self.transport.collect_garbage(git_dir=self.mirror.path, fd=lock)
            await self.mirror.reopen()

    async def _ask(self, ref: str) -> tuple[str | None, bool]:
        path = self.address.path
        if path is not None:
            local = await self.mirror.run(lambda: _read_local(path, ref))
            if local is not None:
                return local
        return await self.transport.advertised(ref)

    async def _fetch(self, ref: str, lock: int) -> None:
        def keep_previous(repository: pygit2.Repository) -> None:
            commit = objects.target(repository, tracked(ref))
            if commit is not None:
                objects.set_target(repository, previous(ref), commit)

        await self.mirror.call(keep_previous)
        await self.transport.fetch([_refspec(ref)], git_dir=self.mirror.path, fd=lock)

    async def _other_refs(self, ref: str) -> Sequence[str]:
        prefix = tracked("refs/")

        def listed(repository: pygit2.Repository) -> Sequence[str]:
            return [
                f"refs/{name.removeprefix(prefix)}"
                for name in repository.references
                if name.startswith(prefix) and name != tracked(ref)
            ]

        try:
            return await self.mirror.call(listed)
        except SourceUnavailable:
            return ()


def _refspec(ref: str) -> str:
    return f"+{ref}:{tracked(ref)}"


def _read_local(path: Path, ref: str) -> tuple[str | None, bool] | None:
    try:
        repository = pygit2.Repository(str(path), RepositoryOpenFlag.NO_SEARCH)
    except pygit2.GitError:
        return None
    try:
        commit = objects.target(repository, ref)
        return commit, commit is not None or any(True for _ in repository.references)
    except (pygit2.GitError, KeyError, ValueError):
        return None
    finally:
        repository.free()
