"""Git: a mirror that is fetched, trees that are compared by hash, refs that are pushed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Final, NewType, Protocol

CommitId = NewType("CommitId", str)
TreeId = NewType("TreeId", str)


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository as an operator bound it. `repr` never shows secrets, not even those in the URL.

    `secrets` are the data of a Secret by key (`username`, `password`, `ca.crt`, `identity`,
    `known_hosts`).
    """

    url: str
    secrets: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"Remote({re.sub(r'(?<=://)[^/@]*@', '***@', self.url)!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What a ref points to. `revision` in conditions reads `<branch>@sha1:<id>`."""

    id: CommitId
    tree: TreeId
    message: str


@dataclass(frozen=True, slots=True)
class FileChange:
    """One path that differs between two trees, from the root of the repository.

    `blob` is None where it was removed, and with it whatever was read below that path.
    """

    path: PurePosixPath
    blob: str | None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A tree entry that will not be read, and why. `path` is printable whatever git holds."""

    path: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TreeDiff:
    """All that changed below a folder, and the entries of the new tree that are refused.

    `refused` speaks of changed entries only: an entry refused before and unchanged since is not
    repeated, and one that is gone appears in `changes` with blob None. An entry that was read and
    is refused now appears in `refused` only. Removals come first in `changes`.
    """

    changes: Sequence[FileChange]
    refused: Sequence[Refusal]


@dataclass(frozen=True, slots=True)
class Reverted:
    """A tree, and how many of its entries (files, or folders as a whole) were put back."""

    tree: TreeId
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKeys:
    """Whose signatures count.

    `allowed_signers` and `revoked` are files as ssh-keygen reads them, `openpgp` armoured public
    keys.
    """

    allowed_signers: str = ""
    revoked: str = ""
    openpgp: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    """One that holds. `by` is a principal or user id of the keys given, `key` a fingerprint."""

    by: str
    key: str

    def __str__(self) -> str:
        return f"{self.by} ({self.key})" if self.by else self.key


class Source(Protocol):
    """One repository, read. Implementations keep a bare mirror and never check anything out."""

    async def fetch(self, branch: str, *, timeout: timedelta) -> Commit:
        """The commit that `branch` of the remote points to now, with all its trees and blobs.

        Ends within `timeout` whatever the server does. Raises `SourceUnavailable`,
        `SourceInvalid` (no such branch, empty repository, a URL or ref that is not allowed).
        """
        ...

    async def diff(self, old: TreeId | None, new: TreeId, *, folder: PurePosixPath) -> TreeDiff:
        """What changed below `folder` from `old` (None: from nothing) to `new`.

        Costs by the number of changed entries, not by the size of the tree. A folder that is not
        in `new` reads as empty; the caller decides what that means. Raises `SourceUnavailable` for
        a damaged mirror, which the next fetch replaces, and with reason `RevisionGone` where `old`
        is no longer held (history was rewritten and the mirror replaced): compare from nothing.
        """
        ...

    async def read(self, blobs: Sequence[str], *, limit: int) -> Mapping[str, bytes]:
        """Blobs by id. One larger than `limit` bytes is left out, and never inflated."""
        ...

    async def has_folder(self, tree: TreeId, folder: PurePosixPath) -> bool: ...

    async def keep(self, commits: Collection[CommitId], *, owner: str) -> None:
        """Have these to be found later, of what was fetched, and no others of this owner."""
        ...

    async def find(self, commit: CommitId, *, timeout: timedelta) -> Commit:
        """A commit that was kept, or that the remote hands out by its id.

        Raises `SourceInvalid` with reason RevisionNotFound, and what `fetch` raises.
        """
        ...

    async def reverted(
        self, tip: TreeId, *, bad: TreeId, good: TreeId, places: Collection[PurePosixPath]
    ) -> Reverted:
        """`tip` with each file as in `good` that is in `tip` still as it is in `bad`.

        Only files at or below `places` are looked at.
        """
        ...

    async def verify_commit(
        self, commit: CommitId, keys: SigningKeys, *, timeout: timedelta
    ) -> Signature:
        """The signature of that very commit, by one of `keys`.

        An SSH key counts if it was valid at the date that the commit bears, and is not revoked;
        an OpenPGP key if it is valid now. Raises `SourceUnverified`, and what `fetch` raises.
        """
        ...

    async def verify_tag(
        self, commit: CommitId, keys: SigningKeys, *, timeout: timedelta
    ) -> Signature:
        """The signature of an annotated tag that the remote has now, under the name that was
        signed, and that names that very commit.

        Raises `SourceUnverified`, and what `fetch` raises.
        """
        ...

    def changes(self, branch: str) -> AsyncIterator[None]:
        """Wake-ups when a repository on this machine may have moved; for others it never yields.

        The first comes when watching begins: what moved before has woken nobody.
        Losing one costs latency only: the interval poll finds it. A push of ours to the status ref
        does not wake it.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions:
    """How commits on a status ref are made.

    `history` is after how many commits the ref begins anew; what was is then kept in `<ref>.1`, in
    place of what was there. `signing_key` is a private key in OpenSSH's format.
    """

    history: int = 1_000
    signing_key: str = field(default="", repr=False)


DEFAULT_STATUS_OPTIONS: Final = StatusOptions()


class Git(Protocol):
    """Where repositories are opened.

    Two openings of one URL share a mirror, two of one status ref a lock.
    """

    def source(self, remote: Remote) -> Source:
        """Raises `SourceInvalid` for a URL that is not allowed."""
        ...

    def status_ref(
        self, remote: Remote, ref: str, options: StatusOptions = DEFAULT_STATUS_OPTIONS
    ) -> StatusRef:
        """Raises `SourceInvalid` for a ref that is not a branch name."""
        ...

    def notes_ref(
        self, remote: Remote, ref: str, options: StatusOptions = DEFAULT_STATUS_OPTIONS
    ) -> NotesRef:
        """Raises `SourceInvalid` for a ref that is not below `refs/notes/`.

        Of the options only the key counts: others write notes too, so they never begin anew.
        """
        ...


class StatusRef(Protocol):
    """One ref that only we write: status files, committed and pushed by compare-and-swap."""

    async def paths(self, *, timeout: timedelta) -> frozenset[PurePosixPath]:
        """The files that the ref holds at the remote, none where there is no ref.

        Raises `SourceUnavailable` and `SourceInvalid`.
        """
        ...

    async def push(
        self,
        files: Mapping[PurePosixPath, bytes | None],
        *,
        message: str,
        timeout: timedelta,
    ) -> CommitId | None:
        """Put `files` on top of what the ref holds (None removes one) and push it.

        None when that leaves the tree as it is: no commit is made. If the ref moved, fetches and
        replays, a bounded number of times; nobody's commit is lost. When it returns, the remote
        holds the commit. Raises `PushRefused`, `PushRejected` (still moving), `SourceUnavailable`,
        and `SourceInvalid` for a key that cannot sign.
        """
        ...

    def close(self) -> None: ...


class NotesRef(Protocol):
    """Notes on commits, as `git notes` has them, that others write too."""

    async def put(
        self, lines: Mapping[CommitId, str], *, owner: str, message: str, timeout: timedelta
    ) -> CommitId | None:
        """On each of these commits one line `<owner>: <line>`, in place of the one that is there.

        Everything else that is noted stays, by whomever and on whatever. None when that changes
        nothing. Retries, promises and raises as `StatusRef.push` does.
        """
        ...

    def close(self) -> None: ...
