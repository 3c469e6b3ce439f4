"""A ref of our own at the remote: a tree changed, committed, and pushed by compare-and-swap."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeAlias

import pygit2
from pygit2.enums import FileMode

from reconciler.adapters.git import objects, signing
from reconciler.adapters.git.answers import Push
from reconciler.adapters.git.mirror import previous, tracked
from reconciler.adapters.git.upstream import Upstream
from reconciler.errors import PushRefused, PushRejected, SourceUnavailable
from reconciler.ports.clock import Clock
from reconciler.ports.git import CommitId

# With two writers an attempt loses about every second time; who asks again starts afresh.
ATTEMPTS = 5
# Longer than a push to a near server takes, so that two writers fall out of step.
_FIRST_PAUSE_SECONDS = 0.1

# Folders of new contents by name; None removes a file.
Files = dict[str, "bytes | Files | None"]
# The tree that shall be, made of the one that is; None for one that holds nothing.
Edit: TypeAlias = Callable[[pygit2.Repository, pygit2.Oid | None], pygit2.Oid | None]


class SwappedRef:
    """Commits edits of a tree on a ref that others may write too. Serves one event loop.

    `revives`: where somebody deleted the ref, it is made again from the tree it last had.
    """

    revives = False

    def __init__(
        self,
        upstream: Upstream,
        ref: str,
        *,
        lock: asyncio.Lock,
        clock: Clock,
        author: tuple[str, str],
        signing_key: str,
        release: Callable[[], None],
    ) -> None:
        self._upstream = upstream
        self._mirror = upstream.mirror
        self._ref = ref
        self._lock = lock
        self._clock = clock
        self._author = author
        self._signing_key = signing_key
        self._release = release
        self._is_closed = False

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._release()

    async def _swap(self, edit: Edit, *, message: str, timeout: timedelta) -> CommitId | None:
        """None when the edit leaves the tree as it is."""
        commit = await self._pushed(edit, message, timeout)
        if commit is not None:
            # It has landed, however long this takes and whatever becomes of it.
            with suppress(SourceUnavailable):
                async with self._lock, self._mirror.exclusive() as lock:
                    await self._upstream.tidy(lock)
        return commit

    async def _pushed(self, edit: Edit, message: str, timeout: timedelta) -> CommitId | None:
        async with self._upstream.deadline(timeout), self._lock:
            for attempt in range(ATTEMPTS):
                if attempt:
                    longest = _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
                    # Not for secrets.
                    await self._clock.sleep(random.uniform(0, longest))  # noqa: S311
                async with self._mirror.exclusive() as lock:
                    outcome, commit = await self._attempt(edit, message, lock, again=attempt > 0)
                if outcome is Push.LANDED:
                    return commit
        raise PushRejected(
            f"{self._ref} of {self._upstream.address} moved during {ATTEMPTS} attempts to push; "
            "see who else writes to it"
        )

    async def _attempt(
        self, edit: Edit, message: str, lock: int, *, again: bool
    ) -> tuple[Push, CommitId | None]:
        tip = None if self._mirror.is_damaged else await self._mirror.tip(self._tracked)
        if again or tip is None:
            await self._refresh(tip, lock)
        commit = await self._build(edit, message, lock)
        if commit is None and not again and await self._refresh(tip, lock):
            # Equal to what we last saw, but that is not what the remote holds.
            commit = await self._build(edit, message, lock)
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

    async def _follows(self, tip: str | None, message: str, _lock: int) -> tuple[str | None, str]:
        """The parent of the next commit, and its message."""
        return tip, message

    async def _build(self, edit: Edit, message: str, lock: int) -> str | None:
        """The id of a commit of `edit` on what the mirror tracks; None if that is equal."""
        tip = await self._mirror.tip(self._tracked)
        parent, message = await self._follows(tip, message, lock)

        def commit(repository: pygit2.Repository) -> str | None:
            base = self._tracked if tip or not self.revives else previous(self._ref)
            held = objects.target(repository, base)
            old = pygit2.Oid(hex=objects.commit(repository, base).tree) if held else None
            new = edit(repository, old)
            if new == old if tip else new is None:
                return None
            signature = pygit2.Signature(*self._author, int(self._clock.now()), 0)
            tree = new or repository.TreeBuilder().write()
            parents = [pygit2.Oid(hex=parent)] if parent else []
            made = signature, signature, message, tree, parents
            if not self._signing_key:
                return str(repository.create_commit(None, *made))
            content = repository.create_commit_string(*made)
            key, folder = self._signing_key, self._mirror.path
            signed = signing.ssh_signature(content.encode(), key, folder=folder)
            return str(repository.create_commit_with_signature(content, signed, "gpgsig"))

        return await self._mirror.call(commit)

    @property
    def _tracked(self) -> str:
        return tracked(self._ref)


def updated(
    repository: pygit2.Repository, old: pygit2.Oid | None, files: Files
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
        left = None if content is None else updated(repository, inner, content)
        if left is not None:
            builder.insert(name, left, FileMode.TREE)
        elif entry is not None and (content is None or inner is not None):
            builder.remove(name)
    return builder.write() if len(builder) else None
