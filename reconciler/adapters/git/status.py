"""The status ref: files put on top of what it holds, in a history that begins anew."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import PurePosixPath

import pygit2

from reconciler.adapters.git import objects
from reconciler.adapters.git.answers import Push
from reconciler.adapters.git.swapping import Files, SwappedRef, updated
from reconciler.adapters.git.upstream import Upstream
from reconciler.ports.clock import Clock
from reconciler.ports.git import CommitId, StatusOptions

log = logging.getLogger(__name__)

# Where a commit says how many its history has. Who rewrites it begins to count anew.
_NUMBER = "Status-Number"
_NUMBERED = re.compile(rf"^{_NUMBER}: (\d{{1,9}})$", re.MULTILINE)
# Status files lie three deep; what others put further down is theirs.
_DEEPEST = 8


class GitStatusRef(SwappedRef):
    """Keeps the promises of `StatusRef`. Serves one event loop.

    Where somebody deleted the ref, it is made again from the tree it last had.
    """

    revives = True

    def __init__(
        self,
        upstream: Upstream,
        ref: str,
        *,
        lock: asyncio.Lock,
        clock: Clock,
        author: tuple[str, str],
        options: StatusOptions,
        release: Callable[[], None],
    ) -> None:
        super().__init__(
            upstream,
            ref,
            lock=lock,
            clock=clock,
            author=author,
            signing_key=options.signing_key,
            release=release,
        )
        self._history = options.history

    async def paths(self, *, timeout: timedelta) -> frozenset[PurePosixPath]:
        async with (
            self._upstream.deadline(timeout),
            self._lock,
            self._mirror.exclusive() as lock,
        ):
            tip = None if self._mirror.is_damaged else await self._mirror.tip(self._tracked)
            await self._refresh(tip, lock)
            if await self._mirror.tip(self._tracked) is None:
                return frozenset()
            return await self._mirror.call(self._listed)

    async def push(
        self,
        files: Mapping[PurePosixPath, bytes | None],
        *,
        message: str,
        timeout: timedelta,
    ) -> CommitId | None:
        nested: Files = {}
        for path, data in files.items():
            folder = nested
            for part in path.parts[:-1]:
                inner = folder.setdefault(part, {})
                folder = inner if isinstance(inner, dict) else {}
            folder[path.name] = data

        def put(repository: pygit2.Repository, old: pygit2.Oid | None) -> pygit2.Oid | None:
            return updated(repository, old, nested)

        return await self._swap(put, message=message, timeout=timeout)

    async def _follows(self, tip: str | None, message: str, lock: int) -> tuple[str | None, str]:
        number = 0 if tip is None else await self._mirror.call(self._number)
        begins = number >= self._history and await self._set_aside(tip, lock)
        between = "\n" if "\n\n" in message else "\n\n"
        message = f"{message.rstrip()}{between}{_NUMBER}: {1 if begins else number + 1}\n"
        return (None if begins else tip), message

    async def _set_aside(self, tip: str | None, lock: int) -> bool:
        """Keep what there is in the ref beside ours, so that ours may begin anew."""
        aside = f"{self._ref}.1"
        outcome, said = await self._upstream.transport.push(
            str(tip),
            aside,
            expected=await self._upstream.ask(aside),
            git_dir=self._mirror.path,
            fd=lock,
        )
        if outcome is not Push.LANDED:
            log.warning(
                "history of the status ref goes on growing",
                extra={"ref": self._ref, "error": f"{aside} cannot be pushed: {said}"},
            )
        return outcome is Push.LANDED

    def _number(self, repository: pygit2.Repository) -> int:
        """The how-many-th of its history the newest commit is; 0 for one that is not ours.

        It is written in the commit, since a mirror does not hold the history.
        """
        *_, trailers = objects.commit(repository, self._tracked).message.rstrip().split("\n\n")
        found = _NUMBERED.search(trailers)
        return int(found[1]) if found else 0

    def _listed(self, repository: pygit2.Repository) -> frozenset[PurePosixPath]:
        tree = objects.commit(repository, self._tracked).tree
        return frozenset(_walked(repository[pygit2.Oid(hex=tree)], PurePosixPath()))


def _walked(tree: pygit2.Tree, folder: PurePosixPath) -> Iterator[PurePosixPath]:
    for entry in tree:
        if isinstance(entry, pygit2.Tree):
            if len(folder.parts) < _DEEPEST:
                yield from _walked(entry, folder / str(entry.name))
        elif isinstance(entry, pygit2.Blob):
            yield folder / str(entry.name)
