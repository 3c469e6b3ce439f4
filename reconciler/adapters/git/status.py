"""Our own ref: files put on top of what it holds, pushed by compare-and-swap."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import PurePosixPath

import pygit2
from pygit2.enums import FileMode

from reconciler.adapters.git import objects, signing
from reconciler.adapters.git.answers import Push
from reconciler.adapters.git.mirror import previous, tracked
from reconciler.adapters.git.upstream import Upstream
from reconciler.errors import PushRefused, PushRejected, SourceUnavailable
from reconciler.ports.clock import Clock
from reconciler.ports.git import CommitId, StatusOptions

log = logging.getLogger(__name__)

# With two writers an attempt loses about every second time; who asks again starts afresh.
ATTEMPTS = 5
# Longer than a push to a near server takes, so that two writers fall out of step.
_FIRST_PAUSE_SECONDS = 0.1
# Where a commit says how many its history has. Who rewrites it begins to count anew.
_NUMBER = "Status-Number"
_NUMBERED = re.compile(rf"^{_NUMBER}: (\d{{1,9}})$", re.MULTILINE)
# Status files lie three deep; what others put further down is theirs.
_DEEPEST = 8

# Folders of new contents by name; None removes a file.
_Files = dict[str, "bytes | _Files | None"]


class GitStatusRef:
    """Keeps the promises of `StatusRef`. Serves one event loop.

    Where somebody deleted the ref, it is made again from the tree it last had.
    """

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
        self._upstream = upstream
        self._mirror = upstream.mirror
        self._ref = ref
        self._lock = lock
        self._clock = clock
        self._author = author
        self._options = options
        self._release = release
        self._is_closed = False

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
        async with self._upstream.deadline(timeout), self._lock:
            for attempt in range(ATTEMPTS):
                if attempt:
                    longest = _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
                    # Not for secrets.
                    await self._clock.sleep(random.uniform(0, longest))  # noqa: S311
                async with self._mirror.exclusive() as lock:
                    outcome, commit = await self._attempt(files, message, lock, again=attempt > 0)
                if outcome is Push.LANDED:
                    return commit
        raise PushRejected(
            f"{self._ref} of {self._upstream.address} moved during {ATTEMPTS} attempts to push; "
            "see who else writes to it"
        )

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._release()

    async def _attempt(
        self, files: Mapping[PurePosixPath, bytes | None], message: str, lock: int, *, again: bool
    ) -> tuple[Push, CommitId | None]:
        tip = None if self._mirror.is_damaged else await self._mirror.tip(self._tracked)
        if again or tip is None:
            await self._refresh(tip, lock)
        commit = await self._build(files, message, lock)
        if commit is None and not again and await self._refresh(tip, lock):
            # Equal to what we last saw, but that is not what the remote holds.
            commit = await self._build(files, message, lock)
        if commit is None:
            return Push.LANDED, None
        expected = await self._mirror.tip(self._tracked)
        try:
            outcome, said = await self._upstream.transport.push(
                commit, self._ref, expected=expected, git_dir=self._mirror.path, fd=lock
            )
        except SourceUnavailable:
            # The connection broke: before the push, after it, or instead of saying "stale".
            tip = await self._upstream.ask(self._ref)
            if tip == expected:
                raise
            outcome, said = (Push.LANDED if tip == commit else Push.MOVED), ""
        if outcome is Push.REFUSED:
            raise PushRefused(f"{self._upstream.address} refuses a push to {self._ref}: {said}")
        if outcome is Push.LANDED:
            await self._mirror.call(
                lambda repository: objects.set_target(repository, self._tracked, commit)
            )
            await self._upstream.tidy(lock)
        return outcome, CommitId(commit)

    async def _refresh(self, known: str | None, lock: int) -> bool:
        """Bring in what the remote holds; say whether that is other than `known`."""
        tip = await self._upstream.ask(self._ref)
        if tip is not None and (tip != known or self._mirror.is_damaged):
            await self._upstream.bring(self._ref, lock)
        elif tip is None and known is not None:

            def let_go(repository: pygit2.Repository) -> None:
                objects.set_target(repository, previous(self._ref), known)
                objects.set_target(repository, self._tracked, None)

            await self._mirror.call(let_go)
        return tip != known

    async def _build(
        self, files: Mapping[PurePosixPath, bytes | None], message: str, lock: int
    ) -> str | None:
        """The id of a commit of `files` on what the mirror tracks; None if that is equal."""
        tip = await self._mirror.tip(self._tracked)
        number = 0 if tip is None else await self._mirror.call(self._number)
        begins = number >= self._options.history and await self._set_aside(tip, lock)
        parent = None if begins else tip
        between = "\n" if "\n\n" in message else "\n\n"
        message = f"{message.rstrip()}{between}{_NUMBER}: {1 if begins else number + 1}\n"
        nested: _Files = {}
        for path, data in files.items():
            folder = nested
            for part in path.parts[:-1]:
                inner = folder.setdefault(part, {})
                folder = inner if isinstance(inner, dict) else {}
            folder[path.name] = data

        def commit(repository: pygit2.Repository) -> str | None:
            base = self._tracked if tip else previous(self._ref)
            held = objects.target(repository, base)
            old = pygit2.Oid(hex=objects.commit(repository, base).tree) if held else None
            new = _updated(repository, old, nested)
            if new == old if tip else new is None:
                return None
            signature = pygit2.Signature(*self._author, int(self._clock.now()), 0)
            tree = new or repository.TreeBuilder().write()
            parents = [pygit2.Oid(hex=parent)] if parent else []
            made = signature, signature, message, tree, parents
            if not self._options.signing_key:
                return str(repository.create_commit(None, *made))
            content = repository.create_commit_string(*made)
            key, folder = self._options.signing_key, self._mirror.path
            signed = signing.ssh_signature(content.encode(), key, folder=folder)
            return str(repository.create_commit_with_signature(content, signed, "gpgsig"))

        return await self._mirror.call(commit)

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

    @property
    def _tracked(self) -> str:
        return tracked(self._ref)

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


def _updated(
    repository: pygit2.Repository, old: pygit2.Oid | None, files: _Files
) -> pygit2.Oid | None:
    """The tree `old` with `files` put in; None when nothing is left of it.

    Only the folders that files lie in are read and written.
    """
    before = repository[old] if old is not None else None
    builder = repository.TreeBuilder(before) if before is not None else repository.TreeBuilder()
    for name, content in files.items():
        if isinstance(content, bytes):
            builder.insert(name, repository.create_blob(content), FileMode.BLOB)
            continue
        entry = before[name] if before is not None and name in before else None
        inner = entry.id if isinstance(entry, pygit2.Tree) else None
        left = None if content is None else _updated(repository, inner, content)
        if left is not None:
            builder.insert(name, left, FileMode.TREE)
        elif entry is not None and (content is None or inner is not None):
            builder.remove(name)
    return builder.write() if len(builder) else None
