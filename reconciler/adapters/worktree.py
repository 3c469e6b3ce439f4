"""A repository as it lies in a folder, uncommitted edits and all, read the way git trees are read.

For `validate` and `plan`: the same entries are refused for the same reasons as in a pushed tree,
symbolic links are never followed, and sizes are looked at before bytes are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from reconciler.core import gitpaths
from reconciler.errors import SourceInvalid
from reconciler.ports.git import Refusal

# The parts of a repository that mean something to us.
FOLDERS: Final = ("manifests", "scripts")
CONFIG: Final = "scriptops.yaml"
# One file more than a repository of this size is likely to hold is a mistake about the folder.
MAX_FILES: Final = 100_000


@dataclass(frozen=True, slots=True)
class WorkTree:
    """Files by their path in the repository, and the entries that are not read."""

    files: Mapping[PurePosixPath, bytes]
    refused: tuple[Refusal, ...]


def root_of(path: Path) -> Path:
    """The repository that a file or folder belongs to.

    The nearest folder upwards with a `.git`, else with `manifests/` or `scripts/`; else the folder
    itself.
    """
    start = path.resolve()
    folder = start if start.is_dir() else start.parent
    parents = (folder, *folder.parents)
    for parent in parents:
        if (parent / ".git").exists():
            return parent
    for parent in parents:
        if any((parent / name).is_dir() for name in FOLDERS):
            return parent
    return folder


def read(root: Path, *, max_file_bytes: int) -> WorkTree:
    """Read what a revision made of the folder as it is now would deploy.

    Raises `SourceInvalid` when there is no such folder, or nothing in it that is ours.
    """
    if not root.is_dir():
        raise SourceInvalid(f"there is no folder {root}")
    files: dict[PurePosixPath, bytes] = {}
    refused: list[Refusal] = []
    for path, found in _walk(root, PurePosixPath(), only={*FOLDERS, CONFIG}):
        if isinstance(found, Refusal):
            refused.append(found)
            continue
        try:
            content = _read_file(found, limit=max_file_bytes)
        except OSError as error:
            refused.append(
                Refusal(str(path), "Unreadable", f"cannot be read: {error.strerror}; mend it")
            )
            continue
        if content is None:
            refused.append(
                Refusal(
                    str(path), "FileTooLarge", f"is larger than {max_file_bytes} bytes; split it"
                )
            )
        else:
            files[path] = content
        if len(files) > MAX_FILES:
            raise SourceInvalid(f"{root} holds more than {MAX_FILES} files; name its repository")
    if not files and not refused:
        raise SourceInvalid(
            f"{root} has neither manifests/ nor scripts/; `scriptops init` makes a repository "
            "to start from"
        )
    return WorkTree(files, tuple(refused))


def _walk(
    root: Path, folder: PurePosixPath, *, only: set[str] | None = None
) -> Iterator[tuple[PurePosixPath, Path | Refusal]]:
    """Files below `folder` in the order of their paths; what is refused comes as a Refusal."""
    with os.scandir(os.fsencode(root / folder)) as found:
        entries = [
            gitpaths.Entry(_git_mode(entry.stat(follow_symlinks=False).st_mode), entry.name, b"")
            for entry in found
            if only is None or os.fsdecode(entry.name) in only
        ]
    judgement = gitpaths.judge(entries, folder=folder)
    for name, (_, problem) in sorted(judgement.refused.items()):
        yield folder / name, Refusal(str(folder / name), problem.reason, problem.message)
    for name, entry in sorted(judgement.readable.items()):
        if entry.is_tree:
            yield from _walk(root, folder / name)
        else:
            yield folder / name, root / folder / name


def _git_mode(mode: int) -> int:
    """A file's mode as git would record it."""
    if stat.S_ISREG(mode):
        return 0o100755 if mode & stat.S_IXUSR else 0o100644
    if stat.S_ISDIR(mode):
        return gitpaths.TREE_MODE
    return stat.S_IFMT(mode)


def _read_file(path: Path, *, limit: int) -> bytes | None:
    """The bytes, or None above `limit`. Opens nothing that has become a link or a pipe since."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(limit + 1)
    return content if len(content) <= limit else None
