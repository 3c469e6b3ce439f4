"""Git in memory: remotes by URL, with the promises of `reconciler.ports.git`.

What the real adapter promises beyond the ports (deadlines, damage, hostile bytes) is tested there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath

from reconciler.core import gitpaths, notes
from reconciler.core.gitpaths import Entry
from reconciler.errors import PushRefused, ScriptOpsError, SourceInvalid, SourceUnverified
from reconciler.ports.git import (
    DEFAULT_STATUS_OPTIONS,
    Commit,
    CommitId,
    FileChange,
    Refusal,
    Remote,
    Reverted,
    Signature,
    SigningKeys,
    StatusOptions,
    TreeDiff,
    TreeId,
)

FILE = 0o100644


@dataclass(frozen=True, slots=True)
class FakeFile:
    data: bytes
    mode: int = FILE

    @property
    def blob(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()  # noqa: S324 - git's own


Tree = Mapping[str, FakeFile]


class FakeRemote:
    """One repository. Set `fault` to make every call raise it, `hook` to refuse pushes."""

    def __init__(self, *, is_local: bool = True) -> None:
        self.is_local = is_local
        self.fault: ScriptOpsError | None = None
        self.hook: str | None = None
        self.commits: dict[str, list[Commit]] = {}
        self.trees: dict[TreeId, Tree] = {}
        self.last_trees: dict[str, Tree] = {}
        self.fetches = 0
        # Who signed a commit, or a tag that names it.
        self.signed: dict[str, str] = {}
        self.tagged: dict[str, str] = {}
        self.verifications = 0
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)

    def commit(
        self,
        files: Mapping[str, bytes | None],
        branch: str = "main",
        message: str = "change",
        *,
        mode: int = FILE,
    ) -> CommitId:
        """Put `files` (None removes one) on top of `branch`."""
        tree = dict(self._tree(branch))
        for path, data in files.items():
            tree.pop(path, None)
            if data is not None:
                tree[path] = FakeFile(data, mode)
        return self.set_tree(branch, tree, message)

    def set_tree(self, branch: str, tree: Tree, message: str) -> CommitId:
        text = repr(sorted(tree.items()))
        tree_id = TreeId(hashlib.sha1(text.encode()).hexdigest())  # noqa: S324 - looks like git's
        self.trees[tree_id] = tree
        history = self.commits.setdefault(branch, [])
        name = f"{branch} {len(history)} {tree_id} {message}"
        commit_id = CommitId(hashlib.sha1(name.encode()).hexdigest())  # noqa: S324 - looks like git's
        history.append(Commit(id=commit_id, tree=tree_id, message=message))
        for event in self._waiting[branch]:
            event.set()
        return commit_id

    def history(self, branch: str) -> int:
        return len(self.commits.get(branch, ()))

    def files(self, branch: str) -> dict[str, bytes]:
        return {path: file.data for path, file in sorted(self._tree(branch).items())}

    def delete_branch(self, branch: str) -> None:
        self.last_trees[branch] = self._tree(branch)
        del self.commits[branch]

    def base(self, branch: str) -> Tree:
        """What a push is put on: the branch, or what it held before it was deleted."""
        return self._tree(branch) or self.last_trees.get(branch, {})

    async def woken(self, branch: str) -> AsyncIterator[None]:
        event = asyncio.Event()
        self._waiting[branch].add(event)
        try:
            while True:
                await event.wait()
                event.clear()
                yield
        finally:
            self._waiting[branch].discard(event)

    def _tree(self, branch: str) -> Tree:
        return self.trees[self.commits[branch][-1].tree] if branch in self.commits else {}


class FakeGit:
    """Keeps the promises of `Git`. A URL that was not added is not allowed."""

    def __init__(self) -> None:
        self.remotes: dict[str, FakeRemote] = {}

    def add(self, url: str, *, is_local: bool = True) -> FakeRemote:
        return self.remotes.setdefault(url, FakeRemote(is_local=is_local))

    def source(self, remote: Remote) -> FakeSource:
        return FakeSource(self._remote(remote))

    def status_ref(
        self, remote: Remote, ref: str, options: StatusOptions = DEFAULT_STATUS_OPTIONS
    ) -> FakeStatusRef:
        branch = ref.removeprefix("refs/heads/")
        problem = gitpaths.ref_problem(branch)
        if problem:
            raise SourceInvalid(f"the status ref {ref!r} {problem}")
        return FakeStatusRef(self._remote(remote), branch, options)

    def notes_ref(
        self,
        remote: Remote,
        ref: str,
        options: StatusOptions = DEFAULT_STATUS_OPTIONS,
    ) -> FakeNotesRef:
        name = ref.removeprefix("refs/notes/")
        if name == ref or gitpaths.ref_problem(name):
            raise SourceInvalid(f"the notes ref {ref!r} is none")
        return FakeNotesRef(self._remote(remote), ref)

    def _remote(self, remote: Remote) -> FakeRemote:
        if remote.url not in self.remotes:
            raise SourceInvalid(f"the repository URL {remote.url!r} is not allowed")
        return self.remotes[remote.url]


class FakeSource:
    """Keeps the promises of `Source`."""

    def __init__(self, remote: FakeRemote) -> None:
        self._remote = remote
        self.is_closed = False

    async def fetch(self, branch: str, *, timeout: timedelta) -> Commit:
        self._remote.fetches += 1
        problem = gitpaths.ref_problem(branch)
        if problem:
            raise SourceInvalid(f"the branch {branch!r} {problem}")
        if self._remote.fault is not None:
            raise self._remote.fault
        if branch not in self._remote.commits:
            raise SourceInvalid(f"the repository has no branch {branch!r}")
        return self._remote.commits[branch][-1]

    async def diff(self, old: TreeId | None, new: TreeId, *, folder: PurePosixPath) -> TreeDiff:
        before = _Flat(self._remote.trees[old] if old else {}, folder)
        after = _Flat(self._remote.trees[new], folder)
        gone = {*before.readable, *before.refused} - {*after.readable, *after.refused}
        removed = gone | (before.refused.keys() & after.readable.keys())
        written = {
            path: file
            for path, file in after.readable.items()
            if path not in before.readable or before.readable[path].blob != file.blob
        }
        return TreeDiff(
            (
                *(FileChange(path, None) for path in sorted(removed)),
                *(
                    FileChange(path, written[path].blob, len(written[path].data))
                    for path in sorted(written)
                ),
            ),
            tuple(
                refusal
                for path, (entry, refusal) in sorted(after.refused.items())
                if before.refused.get(path) != (entry, refusal)
            ),
        )

    async def read(self, blobs: Sequence[str], *, limit: int) -> Mapping[str, bytes]:
        held = {
            file.blob: file.data for tree in self._remote.trees.values() for file in tree.values()
        }
        return {blob: held[blob] for blob in blobs if len(held[blob]) <= limit}

    async def has_folder(self, tree: TreeId, folder: PurePosixPath) -> bool:
        return any(folder in PurePosixPath(path).parents for path in self._remote.trees[tree])

    async def keep(self, commits: Collection[CommitId], *, owner: str) -> None:
        """Here nothing is ever forgotten."""

    async def find(self, commit: CommitId, *, timeout: timedelta) -> Commit:
        for history in self._remote.commits.values():
            for held in history:
                if held.id == commit:
                    return held
        raise SourceInvalid(f"there is no commit {commit}", reason="RevisionNotFound")

    async def reverted(
        self, tip: TreeId, *, bad: TreeId, good: TreeId, places: Collection[PurePosixPath]
    ) -> Reverted:
        ours, theirs, wanted = (dict(self._remote.trees[tree]) for tree in (tip, bad, good))
        count = 0
        for path in theirs.keys() | wanted.keys():
            old, new = theirs.get(path), wanted.get(path)
            here = PurePosixPath(path)
            if set(places).isdisjoint((here, *here.parents)):
                continue
            if old == new or ours.get(path) != old:
                continue
            count += 1
            ours.pop(path, None)
            if new is not None:
                ours[path] = new
        text = repr(sorted(ours.items()))
        tree = TreeId(hashlib.sha1(text.encode()).hexdigest())  # noqa: S324 - looks like git's
        self._remote.trees[tree] = ours
        return Reverted(tree, count)

    async def verify_commit(
        self, commit: CommitId, keys: SigningKeys, *, timeout: timedelta
    ) -> Signature:
        return self._verify(commit, self._remote.signed, keys, "SignatureMissing")

    async def verify_tag(
        self, commit: CommitId, keys: SigningKeys, *, timeout: timedelta
    ) -> Signature:
        return self._verify(commit, self._remote.tagged, keys, "TagMissing")

    def _verify(
        self, commit: CommitId, by: Mapping[str, str], keys: SigningKeys, missing: str
    ) -> Signature:
        """`allowed_signers` here are names alone."""
        self._remote.verifications += 1
        if commit not in by:
            raise SourceUnverified(f"{commit[:10]} is not signed", reason=missing)
        if by[commit] not in keys.allowed_signers.split():
            raise SourceUnverified(f"{commit[:10]} is signed by another", reason="SignerUnknown")
        return Signature(by[commit], "SHA256:fake")

    async def changes(self, branch: str) -> AsyncIterator[None]:
        if not self._remote.is_local:
            await asyncio.Event().wait()
        yield
        async for _ in self._remote.woken(branch):
            yield

    def close(self) -> None:
        self.is_closed = True


class FakeStatusRef:
    """Keeps the promises of `StatusRef`."""

    def __init__(self, remote: FakeRemote, branch: str, options: StatusOptions) -> None:
        self._remote = remote
        self._branch = branch
        self._options = options
        self.is_closed = False

    async def paths(self, *, timeout: timedelta) -> frozenset[PurePosixPath]:
        if self._remote.fault is not None:
            raise self._remote.fault
        return frozenset(map(PurePosixPath, self._remote.files(self._branch)))

    async def push(
        self, files: Mapping[PurePosixPath, bytes | None], *, message: str, timeout: timedelta
    ) -> CommitId | None:
        if self._remote.fault is not None:
            raise self._remote.fault
        before = self._remote.base(self._branch)
        tree = dict(before)
        for path, data in files.items():
            tree.pop(str(path), None)
            if data is not None:
                tree[str(path)] = FakeFile(data)
        if tree == before and (self._branch in self._remote.commits or not tree):
            return None
        if self._remote.hook is not None:
            raise PushRefused(
                f"the repository refuses a push to {self._branch}: {self._remote.hook}"
            )
        commits = self._remote.commits
        if len(commits.get(self._branch, ())) >= self._options.history:
            commits[f"{self._branch}.1"] = commits.pop(self._branch)
        return self._remote.set_tree(self._branch, tree, message)

    def close(self) -> None:
        self.is_closed = True


class FakeNotesRef:
    """Keeps the promises of `NotesRef`. A note lies in a file that is named after its commit."""

    def __init__(self, remote: FakeRemote, ref: str) -> None:
        self._remote = remote
        self._ref = ref
        self.is_closed = False

    async def put(
        self, lines: Mapping[CommitId, str], *, owner: str, message: str, timeout: timedelta
    ) -> CommitId | None:
        if self._remote.fault is not None:
            raise self._remote.fault
        before = self._remote.files(self._ref)
        after = {
            **before,
            **{c: notes.with_line(before.get(c, b""), owner, line) for c, line in lines.items()},
        }
        if after == before:
            return None
        if self._remote.hook is not None:
            raise PushRefused(f"the repository refuses a push to {self._ref}: {self._remote.hook}")
        return self._remote.commit({**after}, self._ref, message)

    def close(self) -> None:
        self.is_closed = True


class _Flat:
    """A tree as its readable files and refused entries by path, below `folder`."""

    def __init__(self, tree: Tree, folder: PurePosixPath) -> None:
        self.readable: dict[PurePosixPath, FakeFile] = {}
        self.refused: dict[PurePosixPath, tuple[str, Refusal]] = {}
        self._walk({PurePosixPath(path): file for path, file in tree.items()}, folder)

    def _walk(self, files: Mapping[PurePosixPath, FakeFile], folder: PurePosixPath) -> None:
        inside = {path: file for path, file in files.items() if folder in path.parents}
        entries: dict[bytes, Entry] = {}
        for path, file in inside.items():
            name = path.relative_to(folder).parts[0]
            is_file = path == folder / name
            entries[name.encode()] = Entry(
                file.mode if is_file else gitpaths.TREE_MODE,
                name.encode(),
                bytes.fromhex(file.blob) if is_file else b"",
            )
        judgement = gitpaths.judge(entries.values(), folder=folder)
        for name, entry in judgement.readable.items():
            if entry.is_tree:
                self._walk(inside, folder / name)
            else:
                self.readable[folder / name] = inside[folder / name]
        for name, (entry, problem) in judgement.refused.items():
            path = folder / name
            refusal = Refusal(str(path), problem.reason, f"{path} {problem.message}")
            self.refused[path] = (entry.id.hex(), refusal)
