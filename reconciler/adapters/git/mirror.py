"""A bare mirror on disk: a cache of one remote that can always be built again.

Nothing is flushed to disk for it: what a power cut leaves half written is seen when it is read,
and the mirror is then replaced. What has to last, a status commit, is at the remote when a push
returns.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pygit2
from pygit2.enums import ConfigLevel, RepositoryOpenFlag

from reconciler.adapters.git import objects
from reconciler.errors import SourceUnavailable

T = TypeVar("T")

# What git's own automatic maintenance takes for too many: 6,700 loose objects (27 in one of 256
# folders) or 50 packs.
CROWDED_FOLDER = 27
_CROWDED_PACKS = 50
_LOCK_POLL_SECONDS = 0.02

# The library tells an error of the system by its words only.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_TRACKED = "refs/scriptops/current/"
_PREVIOUS = "refs/scriptops/previous/"

# The library would otherwise read the configuration of whoever runs this.
for _level in (ConfigLevel.PROGRAMDATA, ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL):
    pygit2.settings.search_path[_level] = ""


def tracked(ref: str) -> str:
    """Where the mirror keeps what `ref` of the remote was when last seen."""
    return _TRACKED + ref.removeprefix("refs/")


def previous(ref: str) -> str:
    """Where the mirror keeps what `tracked(ref)` was before, so that it can be compared with."""
    return _PREVIOUS + ref.removeprefix("refs/")


def keep_previous(repository: pygit2.Repository, ref: str) -> None:
    """Have what is tracked of `ref` still when it is something else."""
    commit = objects.target(repository, tracked(ref))
    if commit is not None:
        objects.set_target(repository, previous(ref), commit)


class Mirror:
    """The object database of one remote, shared by all who read or write that remote.

    Library calls run one at a time in a thread of the mirror's own; the git program runs under
    `exclusive`, which also keeps out other processes on the same folder.
    """

    def __init__(self, folder: Path, key: str, *, crowded: int = CROWDED_FOLDER) -> None:
        self._crowded = crowded
        self.path = folder / key
        self.is_damaged = False
        self.secrets_prefix = str(folder / f"{key}.secrets-")
        self._lock_path = folder / f"{key}.lock"
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="git-mirror")
        self._repository: pygit2.Repository | None = None
        self._is_clean = False
        # Small files that maintenance has left: too young to go, and no reason to do it again.
        self._left = 0

    async def call(self, work: Callable[[pygit2.Repository], T]) -> T:
        """Run `work` in the mirror's thread. A fault of the database marks the mirror damaged."""
        return await self.run(lambda: self._guarded(work))

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work that needs no mirror in the mirror's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _dispose(self, work: Callable[[], T]) -> T:
        """Run work on the mirror's files in its thread. Raises `SourceUnavailable`."""
        try:
            return await self.run(work)
        except (OSError, pygit2.GitError) as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: Exception) -> SourceUnavailable:
        return SourceUnavailable(
            f"the mirror {self.path} cannot be written ({error}); see to the disk under it"
        )

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[int]:
        """Hold the mirror for the git program; yields the descriptor of the lock.

        A child that inherits the descriptor holds the lock too, so that what a killed process
        left running is waited for, and everything unfinished that is found is nobody's.
        """
        async with self._lock:
            descriptor = await self._dispose(self._open_lock)
            try:
                # Another process holds it: no event of this loop can tell when it lets go.
                while not _try_lock(descriptor):  # noqa: ASYNC110 - see above
                    await asyncio.sleep(_LOCK_POLL_SECONDS)
                if not self._is_clean:
                    await self._dispose(self._clean)
                self._is_clean = False
                yield descriptor
                self._is_clean = True
            finally:
                os.close(descriptor)

    async def tip(self, ref: str) -> str | None:
        """The commit that a ref of the mirror points to."""
        return await self.call(lambda repository: objects.target(repository, ref))

    async def rebuild(self, fill: Callable[[Path], Awaitable[None]]) -> None:
        """Replace the mirror by a new one that `fill` has filled; if it raises, nothing changes.

        Call under `exclusive`.
        """
        fresh = self.path.with_suffix(".new")
        try:
            await self._dispose(lambda: _create(fresh))
            await fill(fresh)
        except BaseException:
            await asyncio.shield(self.run(lambda: shutil.rmtree(fresh, ignore_errors=True)))
            raise
        await self._dispose(lambda: self._swap(fresh))
        self.is_damaged = False

    async def is_crowded(self) -> bool:
        """Whether so many small files have gathered that reading gets slow.

        Those that the last maintenance had to leave do not count.
        """
        return await self._dispose(
            lambda: (
                self._loose() - self._left > self._crowded
                or _count(self.path / "objects" / "pack") > 2 * _CROWDED_PACKS
            )
        )

    async def forget_history(self) -> None:
        """Cut what is tracked off from its past, so that maintenance may drop the past."""

        def cut(repository: pygit2.Repository) -> None:
            self._cut_off(
                str(repository.references[name].target)
                for name in repository.references
                if name.startswith((_TRACKED, _PREVIOUS))
            )

        await self.call(cut)

    async def move(self, ref: str, commit: str) -> bool:
        """Point what is tracked of `ref` to a commit without a past; whether that is there."""

        def point(repository: pygit2.Repository) -> bool:
            if pygit2.Oid(hex=commit) not in repository.odb:
                return False
            self._cut_off([commit])
            keep_previous(repository, ref)
            objects.set_target(repository, tracked(ref), commit)
            return True

        return await self.call(point)

    def _cut_off(self, commits: Iterable[str]) -> None:
        """Let nobody ask for the parents of these."""
        shallow = self.path / "shallow"
        known = set(shallow.read_text().split()) if shallow.exists() else set()
        fresh = self.path / "shallow.lock"
        fresh.write_text("".join(f"{commit}\n" for commit in sorted(known.union(commits))))
        fresh.replace(shallow)

    async def reopen(self) -> None:
        """Forget open packs: maintenance has replaced them."""
        await self.run(self._forget)
        self._left = await self._dispose(self._loose)

    def close(self) -> None:
        """Let go of files and the thread once it has finished what it does."""
        self._thread.submit(self._forget)
        self._thread.shutdown(wait=False)

    def _loose(self) -> int:
        """Small files in one of 256 folders."""
        return _count(self.path / "objects" / "17")

    def _guarded(self, work: Callable[[pygit2.Repository], T]) -> T:
        try:
            if self._repository is None:
                self._repository = pygit2.Repository(
                    str(self.path), RepositoryOpenFlag.NO_SEARCH | RepositoryOpenFlag.BARE
                )
            return work(self._repository)
        except (pygit2.GitError, KeyError, ValueError, OSError) as error:
            if _is_of_disk(error):
                raise self.unwritable(error) from error
            self.is_damaged = True
            raise SourceUnavailable(
                f"the mirror {self.path.name} cannot be read and will be fetched again: {error}"
            ) from error

    def _open_lock(self) -> int:
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _clean(self) -> None:
        """Remove what a killed child left behind; call under the lock, which no child holds."""
        for leftover in (self.path.with_suffix(".new"), self.path.with_suffix(".old")):
            shutil.rmtree(leftover, ignore_errors=True)
        for secrets in self.path.parent.glob(f"{self.path.name}.secrets-*"):
            shutil.rmtree(secrets, ignore_errors=True)
        if not (self.path / "HEAD").exists():
            shutil.rmtree(self.path, ignore_errors=True)
            _create(self.path)
            self._forget()
        for pattern in ("*.lock", "refs/**/*.lock", "objects/info/*.lock", "shallow_*"):
            _unlink_all(self.path, pattern)
        for pattern in ("objects/pack/tmp_*", "objects/pack/.tmp-*", "objects/??/tmp_obj_*"):
            _unlink_all(self.path, pattern)

    def _swap(self, fresh: Path) -> None:
        self._forget()
        old = self.path.with_suffix(".old")
        if self.path.exists():
            self.path.rename(old)
        fresh.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)

    def _forget(self) -> None:
        if self._repository is not None:
            self._repository.free()
            self._repository = None


def _is_of_disk(error: Exception) -> bool:
    """Whether the disk is full or closed to writing, and what was written before is as it was."""
    return any(os.strerror(number) in str(error) for number in _REFUSALS)


def _create(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True, mode=0o700)
    pygit2.init_repository(str(path), bare=True).free()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlink_all(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink(missing_ok=True)


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
