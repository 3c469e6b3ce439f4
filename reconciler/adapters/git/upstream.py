"""A mirror and its remote: what the remote says now, brought into the mirror."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pygit2
from pygit2.enums import RepositoryOpenFlag

from reconciler.adapters.git import channels, objects, wire
from reconciler.adapters.git.mirror import Mirror, keep_previous, tracked
from reconciler.adapters.git.transport import Transport
from reconciler.errors import ScriptOpsError, SourceInvalid, SourceUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

# A second is usual; meanwhile nobody else has the mirror.
_TIDY_SECONDS = 20.0


class Upstream:
    """One remote through its mirror. Everything here is called under `mirror.exclusive`."""

    def __init__(self, mirror: Mirror, transport: Transport) -> None:
        self.mirror = mirror
        self.transport = transport
        self.address = transport.address
        self._is_spoken = channels.is_spoken(transport.address)

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
        told = (
            await self._look(ref)
            or await self._converse(lambda server: server.ask(ref))
            or await self.transport.advertised(ref)
        )
        return told[0]

    async def follow(self, ref: str, lock: int) -> bool:
        """Make the mirror's tracked ref what the remote's is, which has to be there; whether it was
        anything else.
        """
        known = None if self.mirror.is_damaged else await self.mirror.tip(tracked(ref))

        async def news(server: wire.Conversation) -> tuple[str | None, bool, bytes]:
            tip, holds_anything = await server.ask(ref)
            if tip is None or known is None or tip == known:
                return tip, holds_anything, b""
            return tip, holds_anything, await server.fetch(tip, have=known)

        here = await self._look(ref)
        if here is not None and (known is None or here[0] in {None, known}):
            told = (*here, b"")
        else:
            told = await self._converse(news) or (
                *(here or await self.transport.advertised(ref)),
                b"",
            )
        tip, holds_anything, pack = told
        if tip is None and not holds_anything:
            raise SourceInvalid(f"{self.address} is empty; push a branch to it")
        if tip is None:
            branch = ref.removeprefix("refs/heads/")
            raise SourceInvalid(f"{self.address} has no branch {branch!r}; correct the name")
        if tip == known:
            return False
        if not pack or not await self._take(pack, ref, tip, lock):
            await self.bring(ref, lock)
        return True

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
        """Pack what has gathered, for a bounded time, after which as much again has to gather.

        Best effort: a failure is met again, with words, by a fetch.
        """
        if await self.mirror.is_crowded():
            await self.mirror.forget_history()
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TIDY_SECONDS):
                        await self.transport.collect_garbage(git_dir=self.mirror.path, fd=lock)
            finally:
                await self.mirror.reopen()

    async def _converse(self, talk: Callable[[wire.Conversation], Awaitable[T]]) -> T | None:
        """What comes of a conversation; None where there was none, and git is to be asked."""
        if self._is_spoken:
            try:
                async with self.transport.conversation() as server:
                    return await talk(server)
            except wire.Unspoken as error:
                self._is_spoken = False
                log.debug("left to git", extra={"url": str(self.address), "error": str(error)})
            except (OSError, EOFError, UnicodeError) as error:
                # This time; and git has words for what the matter is.
                log.debug("left to git", extra={"url": str(self.address), "error": str(error)})
        return None

    async def _look(self, ref: str) -> tuple[str | None, bool] | None:
        """What `Conversation.ask` would say, if the repository is on this machine."""
        path = self.address.path
        return None if path is None else await self.mirror.run(lambda: _read_local(path, ref))

    async def _take(self, pack: bytes, ref: str, tip: str, lock: int) -> bool:
        unpacked = await self.transport.unpack(pack, git_dir=self.mirror.path, fd=lock)
        return unpacked and await self.mirror.move(ref, tip)

    async def _fetch(self, ref: str, lock: int) -> None:
        await self.mirror.call(lambda repository: keep_previous(repository, ref))
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
