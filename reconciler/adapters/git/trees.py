"""Trees compared by hash, as bytes.

Git sorts a tree and names every subtree by its hash, so two versions of a folder agree in all but a
window, and a subtree with the same hash needs no look at all. Reading through the library would
make an object of every entry; here only the window is taken apart, at a cost per untouched entry
of some tens of nanoseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from reconciler.core import gitpaths
from reconciler.core.gitpaths import Entry, Judgement
from reconciler.errors import SourceInvalid
from reconciler.ports.git import FileChange, Refusal, TreeDiff

# A comparison that finds more is of a repository that nobody wrote by hand; a tree whose folders
# repeat the same subtree can hold 10^10 paths in ten objects.
MAX_PATHS = 200_000
# 16 MiB of one folder are about 300,000 names.
MAX_TREE_BYTES = 16 * 1024 * 1024
# Beyond so many changed names in one folder it is cheaper to take the folder apart as a whole.
_FEW = 32

_ENTRY = re.compile(rb"([0-7]{1,7}) ([^\0]*)\0(.{20})", re.DOTALL)
_ENTRIES = re.compile(rb"(?>[0-7]{1,7} [^\0]*+\0.{20})*+", re.DOTALL)

ReadTree = Callable[[str], bytes | None]
ReadSize = Callable[[str], int]


class Comparison:
    """One walk over what differs between two trees.

    `read_tree` gives the bytes of a tree, None where it is over `MAX_TREE_BYTES`. More than
    `max_paths` differing files and folders raise `SourceInvalid`.
    """

    def __init__(
        self, read_tree: ReadTree, read_size: ReadSize, *, max_paths: int = MAX_PATHS
    ) -> None:
        self._read_tree = read_tree
        self._max_paths = max_paths
        self._read_size = read_size
        self.removed: list[FileChange] = []
        self.written: list[FileChange] = []
        self.refused: list[Refusal] = []
        # Without a file in them they add nothing to the above, and cost as much.
        self._folders = 0

    def result(self) -> TreeDiff:
        """Removals come first: one of them may cover a folder that is written anew."""
        return TreeDiff((*self.removed, *self.written), tuple(self.refused))

    def folder(self, path: PurePosixPath, old: str | None, new: str | None) -> None:
        """Compare one folder, and those below it that differ."""
        if old == new:
            return
        self._count()
        self._folders += 1
        old_bytes, new_bytes = self._bytes(old), self._bytes(new)
        if new_bytes is None:
            self.refused.append(
                Refusal(str(path), "TreeInvalid", f"{path} is too large or damaged; split it")
            )
            return
        if old_bytes is None:
            self.removed.append(FileChange(path, None))
        before, after = _differing(old_bytes or b"", new_bytes, path)
        for name in sorted({*before.readable, *before.refused, *after.readable, *after.refused}):
            self._entry(path / name, name, before, after)

    def _entry(self, path: PurePosixPath, name: str, before: Judgement, after: Judgement) -> None:
        refused = after.refused.get(name)
        if refused is not None:
            if before.refused.get(name) != refused:
                self._count()
                problem = refused[1]
                self.refused.append(Refusal(str(path), problem.reason, f"{path} {problem.message}"))
            return
        was, now = before.readable.get(name), after.readable.get(name)
        if name in before.refused or (was and not was.is_tree and not (now and not now.is_tree)):
            self._count()
            self.removed.append(FileChange(path, None))
        was_tree = was.id.hex() if was and was.is_tree else None
        if now and not now.is_tree:
            if was is None or was.is_tree or was.id != now.id:
                self._count()
                blob = now.id.hex()
                self.written.append(FileChange(path, blob, self._read_size(blob)))
            self.folder(path, was_tree, None)
        else:
            self.folder(path, was_tree, now.id.hex() if now else None)

    def _bytes(self, tree: str | None) -> bytes | None:
        if tree is None:
            return b""
        raw = self._read_tree(tree)
        return raw if raw is not None and _ENTRIES.fullmatch(raw) else None

    def _count(self) -> None:
        found = len(self.removed) + len(self.written) + len(self.refused)
        if found + self._folders >= self._max_paths:
            raise SourceInvalid(
                f"more than {self._max_paths} paths differ; point `path` at a smaller folder"
            )


def _differing(old: bytes, new: bytes, folder: PurePosixPath) -> tuple[Judgement, Judgement]:
    """Judge both versions of a folder, at least for every name whose judgement differs."""
    before, after = _window(old, new)
    both = set(before) & set(after)
    before = [entry for entry in before if entry not in both]
    after = [entry for entry in after if entry not in both]
    names = {entry.name for entry in before} | {entry.name for entry in after}
    if len(names) > _FEW or _may_have_twins(names, old) or _may_have_twins(names, new):
        before, after = _parse(old), _parse(new)
    return gitpaths.judge(before, folder=folder), gitpaths.judge(after, folder=folder)


def _may_have_twins(names: set[bytes], tree: bytes) -> bool:
    """False only if no entry of `tree` is the twin of another of these names.

    Says True too often, where an id or the end of a longer name looks alike; that costs time only.
    The twin of an ASCII name is ASCII: `gitpaths` refuses what merely looks so.
    """
    if not all(name.isascii() for name in names):
        return True
    lowered = tree.lower()
    return any(lowered.count(b" " + name.lower() + b"\0") > 1 for name in names) or (
        len({name.lower() for name in names}) < len(names)
    )


def _window(old: bytes, new: bytes) -> tuple[list[Entry], list[Entry]]:
    """The entries between the common beginning and the common end of two trees."""
    prefix = _common(old, new, from_end=False)
    match = _ENTRIES.match(new, 0, prefix)
    start = match.end() if match else 0
    old, new = old[start:], new[start:]
    suffix = _common(old, new, from_end=True)
    before, old_end = _parse_until(old, len(old) - suffix)
    after, new_end = _parse_until(new, len(new) - suffix)
    if len(old) - old_end != len(new) - new_end:
        # An id that reads like entries put the two out of step.
        return _parse(old), _parse(new)
    return before, after


def _common(old: bytes, new: bytes, *, from_end: bool) -> int:
    """Length of the longest common beginning, or end, by bisection over whole-block compares."""
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        part = slice(-middle, None) if from_end else slice(middle)
        if old[part] == new[part]:
            low = middle
        else:
            high = middle - 1
    return low


def _parse_until(tree: bytes, least: int) -> tuple[list[Entry], int]:
    """Entries from the start to the first boundary at or after `least`, and that boundary."""
    entries: list[Entry] = []
    position = 0
    while position < least and (match := _ENTRY.match(tree, position)):
        entries.append(Entry(int(match[1], 8), match[2], match[3]))
        position = match.end()
    return entries, position


def _parse(tree: bytes) -> list[Entry]:
    return [Entry(int(mode, 8), name, oid) for mode, name, oid in _ENTRY.findall(tree)]
