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

from reconciler.core import fixtures, gitpaths, layout, yamldocs
from reconciler.errors import SourceInvalid
from reconciler.ports.git import Refusal

# The parts of a repository that mean something to us.
FOLDERS: Final = (layout.MANIFESTS, layout.SCRIPTS)
# All that is read; a folder of clusters alone makes no repository.
READ: Final = (*FOLDERS, layout.CLUSTERS)
CONFIG: Final = str(layout.REPOSITORY_FILE)
# Twice what a repository may hold: beyond it somebody named the wrong folder.
MAX_FILES: Final = 200_000
MAX_BYTES: Final = max(layout.MAX_SCRIPT_BYTES, yamldocs.MAX_BYTES)
_FILE_MODE: Final = 0o100644
# Nearly every file at once; more would be dear to set aside for each of them.
_BLOCK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class WorkTree:
    """Files by their path in the repository, and the entries that are not read."""

    files: Mapping[PurePosixPath, bytes]
    refused: tuple[Refusal, ...]


def root_of(path: Path) -> Path:
    """The repository that a file or folder belongs to.

    The nearest folder upwards that holds `manifests/`, `scripts/` or `scriptops.yaml`. Raises
    `SourceInvalid` where there is none, or no such path.
    """
    start = path.resolve()
    if not start.exists():
        raise SourceInvalid(f"there is no file or folder {path}")
    folder = start if start.is_dir() else start.parent
    for parent in (folder, *folder.parents):
        if any((parent / name).is_dir() for name in FOLDERS) or (parent / CONFIG).is_file():
            return parent
    raise SourceInvalid(
        f"{folder} is in no repository of rules: neither manifests/ nor scripts/ here or above; "
        "scriptops init makes one to start from"
    )


def read(root: Path, *, tests: bool = False) -> WorkTree:
    """Read what a revision made of the folder as it is now would deploy, and nothing else of it
    but, where they are asked for, the tests of scripts.

    Raises `SourceInvalid` for a folder too large to be meant.
    """
    files: dict[PurePosixPath, bytes] = {}
    refused: list[Refusal] = []
    for count, (path, found) in enumerate(
        _walk(root, PurePosixPath(), only={*READ, CONFIG}), start=1
    ):
        if count > MAX_FILES:
            raise SourceInvalid(f"{root} holds more than {MAX_FILES} files; name its repository")
        if isinstance(found, Refusal):
            refused.append(found)
        elif is_ours(path) or (tests and fixtures.parse_path(path) is not None):
            content = _content(found, path)
            if isinstance(content, Refusal):
                refused.append(content)
            else:
                files[path] = content
    return WorkTree(files, tuple(refused))


def is_ours(path: PurePosixPath) -> bool:
    """Whether a revision that holds `path` would have it read."""
    return (
        path == layout.REPOSITORY_FILE
        or layout.is_manifest(path, layout.overlay_of(path))
        or layout.parse_script_path(path) is not None
    )


def _content(file: str, path: PurePosixPath) -> bytes | Refusal:
    """Opens nothing that has become a link or a pipe since it was looked at."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # Not by an object for files: it would make ready for the largest, ten thousand times.
            content = b""
            while len(content) <= MAX_BYTES and (more := os.read(descriptor, _BLOCK)):
                content += more
        finally:
            os.close(descriptor)
    except OSError as error:
        return Refusal(str(path), "Unreadable", f"cannot be read: {error.strerror}")
    if len(content) > MAX_BYTES:
        return too_large(path)
    return content


def too_large(path: PurePosixPath) -> Refusal:
    return Refusal(str(path), "FileTooLarge", f"is larger than {MAX_BYTES} bytes; split it")


def _walk(
    root: Path, folder: PurePosixPath, *, only: set[str] | None = None
) -> Iterator[tuple[PurePosixPath, str | Refusal]]:
    """Files below `folder` in the order of their paths; what is refused comes as a Refusal."""
    here = os.fspath(root / folder)
    with os.scandir(os.fsencode(here)) as found:
        entries = [
            gitpaths.Entry(_git_mode(entry), entry.name, b"")
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
            yield folder / name, f"{here}/{name}"


def _git_mode(entry: os.DirEntry[bytes]) -> int:
    """A mode as git would record it, but for the bit of programs, which nobody asks for.

    What the folder says of its entries is enough for most.
    """
    if entry.is_file(follow_symlinks=False):
        return _FILE_MODE
    if entry.is_dir(follow_symlinks=False):
        return gitpaths.TREE_MODE
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
