"""Where sources and status refs come from."""

from __future__ import annotations

import asyncio
from pathlib import Path

from reconciler.adapters.git import address as addresses
from reconciler.adapters.git.address import EVERYWHERE, Allowed
from reconciler.adapters.git.mirror import CROWDED_FOLDER, Mirror
from reconciler.adapters.git.notes import GitNotesRef
from reconciler.adapters.git.source import GitSource
from reconciler.adapters.git.status import GitStatusRef
from reconciler.adapters.git.transport import DEFAULT_SIZE_LIMIT, Transport
from reconciler.adapters.git.upstream import Upstream
from reconciler.core import gitpaths
from reconciler.errors import SourceInvalid
from reconciler.ports.clock import Clock
from reconciler.ports.git import DEFAULT_STATUS_OPTIONS, Remote, StatusOptions

AUTHOR = ("scriptops", "scriptops@localhost")


class GitMirrors:
    """One bare mirror per repository below `folder`, shared by its sources and status refs.

    Serves one event loop. Another process on the same folder waits for its turn at each mirror.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        allowed: Allowed = EVERYWHERE,
        size_limit: int = DEFAULT_SIZE_LIMIT,
        crowded: int = CROWDED_FOLDER,
    ) -> None:
        """More files than `crowded` in one folder of objects are packed."""
        self._crowded = crowded
        self._folder = folder.resolve()
        self._clock = clock
        self._allowed = allowed
        self._size_limit = size_limit
        self._mirrors: dict[str, Mirror] = {}
        self._users: dict[str, int] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    def source(self, remote: Remote) -> GitSource:
        """Raises `SourceInvalid` for an address that is not allowed or lacks credentials."""
        upstream, key = self._upstream(remote)
        return GitSource(upstream, release=lambda: self._release(key))

    def status_ref(
        self,
        remote: Remote,
        ref: str,
        options: StatusOptions = DEFAULT_STATUS_OPTIONS,
        *,
        author: tuple[str, str] = AUTHOR,
    ) -> GitStatusRef:
        """`ref` is a branch, with or without `refs/heads/`; `author` a name and an address.

        Raises `SourceInvalid` as `source` does, and for a ref that git would not take.
        """
        branch = ref.removeprefix("refs/heads/")
        problem = gitpaths.ref_problem(branch)
        if problem:
            raise SourceInvalid(f"the status ref {ref[:100]!r} {problem}")
        upstream, key = self._upstream(remote)
        return GitStatusRef(
            upstream,
            f"refs/heads/{branch}",
            lock=self._locks.setdefault((key, branch), asyncio.Lock()),
            clock=self._clock,
            author=author,
            options=options,
            release=lambda: self._release(key),
        )

    def notes_ref(
        self,
        remote: Remote,
        ref: str,
        options: StatusOptions = DEFAULT_STATUS_OPTIONS,
        *,
        author: tuple[str, str] = AUTHOR,
    ) -> GitNotesRef:
        """`ref` is a whole name. Raises `SourceInvalid` as `status_ref` does."""
        name = ref.removeprefix("refs/notes/")
        problem = gitpaths.ref_problem(name) if name != ref else "does not begin with refs/notes/"
        if problem:
            raise SourceInvalid(f"the notes ref {ref[:100]!r} {problem}")
        upstream, key = self._upstream(remote)
        return GitNotesRef(
            upstream,
            ref,
            lock=self._locks.setdefault((key, ref), asyncio.Lock()),
            clock=self._clock,
            author=author,
            signing_key=options.signing_key,
            release=lambda: self._release(key),
        )

    def close(self) -> None:
        """Let go of all mirrors; sources and status refs of them end with it."""
        for mirror in self._mirrors.values():
            mirror.close()
        self._mirrors.clear()
        self._users.clear()

    def _upstream(self, remote: Remote) -> tuple[Upstream, str]:
        address = addresses.parse(remote, allowed=self._allowed)
        if address.path is not None and address.path.is_relative_to(self._folder):
            raise SourceInvalid(f"{address} lies in scriptops's own data; give the repository")
        key = address.key
        mirror = self._mirrors.get(key) or Mirror(self._folder, key, crowded=self._crowded)
        transport = Transport(
            remote, address, size_limit=self._size_limit, secrets_prefix=mirror.secrets_prefix
        )
        self._mirrors[key] = mirror
        self._users[key] = self._users.get(key, 0) + 1
        return Upstream(mirror, transport), key

    def _release(self, key: str) -> None:
        if key not in self._users:
            return
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._mirrors.pop(key).close()
