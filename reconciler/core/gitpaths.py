"""Which entries of a git tree are read, and which branch names are spoken.

A repository may hold anything: a tree is bytes that somebody pushed, not what a checkout would have
allowed. What is judged here depends on the folder alone, never on the order of commits, so that a
tree means the same whatever was read before it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

TREE_MODE = 0o40000
FILE_MODES = frozenset({0o100644, 0o100755})
_SYMLINK_MODE = 0o120000
_SUBMODULE_MODE = 0o160000

# No sane manifest lies deeper, and a tree that names itself over and over ends somewhere.
MAX_DEPTH = 32
# PATH_MAX is 4096 with room for the folder of a checkout; conditions and logs repeat the path.
MAX_PATH_BYTES = 1024

# A pointer is under 200 bytes in practice; the format's own limit is 1024.
_LFS_MAX_BYTES = 1024
_LFS_FIRST_LINES = (
    b"version https://git-lfs.github.com/spec/v1\n",
    b"version https://hawser.github.com/spec/v1\n",
)

# Cc control, Cf format (zero width, bidi override, what HFS+ ignores), Cs surrogate, Zl Zp lines.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NTFS_GIT = re.compile(r"\.git|git~\d+", re.IGNORECASE)
_REF_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]")


class Entry(NamedTuple):
    """One line of a tree, as git holds it."""

    mode: int
    name: bytes
    id: bytes

    @property
    def is_tree(self) -> bool:
        return self.mode == TREE_MODE


class Problem(NamedTuple):
    """Why something is not read: a PascalCase reason and a sentence that names the fix."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The entries of one folder by printable name; no name is in both."""

    readable: dict[str, Entry]
    refused: dict[str, tuple[Entry, Problem]]


def printable(name: bytes) -> str:
    """`name` as text that fits JSON and one line, and that no readable entry can have.

    A name that is readable comes back as it is.
    """
    if name in (b"", b"."):
        return "(empty name)" if not name else "\\x2e"
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _INVISIBLE
        else character
        for character in name.decode("utf-8", "backslashreplace").replace("/", "\\x2f")
    )


def judge(entries: Iterable[Entry], *, folder: PurePosixPath) -> Judgement:
    """Say which entries of `folder` are read.

    Of names that a case-insensitive or normalising file system would merge, none is read: which of
    them is meant, nobody can say.
    """
    depth = len(folder.parts) + 1
    room = MAX_PATH_BYTES - len(str(folder).encode())
    readable: dict[str, Entry] = {}
    refused: dict[str, tuple[Entry, Problem]] = {}
    twins: dict[str, list[Entry]] = {}
    for entry in entries:
        problem = _problem(entry, depth=depth, room=room)
        if problem is None:
            twins.setdefault(_fold(entry.name.decode()), []).append(entry)
        else:
            refused[printable(entry.name)] = (entry, problem)
    for same in twins.values():
        if len(same) == 1:
            readable[same[0].name.decode()] = same[0]
        else:
            for entry in same:
                refused[printable(entry.name)] = (entry, _twin_problem(entry, same))
    for name in refused.keys() & readable.keys():
        # The same name twice, once as something that is not read: as ambiguous as twins are.
        del readable[name]
    return Judgement(readable, refused)


def ref_problem(name: str) -> str | None:
    """What is wrong with `name` as a branch, by the rules of `git check-ref-format`; None if good.

    Stricter than git in three points: it may not begin with `-`, nor with `refs/`, nor be `HEAD`.
    """
    parts = name.split("/")
    if not name:
        return "is empty"
    if name.startswith("-"):
        return "begins with '-'"
    if name in ("HEAD", "@"):
        return "is not a branch but a symbolic name; give the name of a branch"
    if name.startswith("refs/"):
        return "is a full ref; give the name of a branch without 'refs/heads/'"
    if _REF_FORBIDDEN.search(name) or not name.isprintable():
        return "holds a space, a control character or one of ~ ^ : ? * [ \\"
    if ".." in name or "@{" in name or name.endswith("."):
        return "holds '..' or '@{', or ends with a dot"
    if any(not part or part.startswith(".") or part.endswith(".lock") for part in parts):
        return "has a part that is empty, begins with a dot or ends with '.lock'"
    if len(name.encode()) > 244:
        # 255 bytes of a file name, less "refs/heads/".
        return "is longer than 244 bytes"
    return None


def is_lfs_pointer(data: bytes) -> bool:
    """Whether `data` is what Git LFS leaves in the tree in place of a file."""
    return len(data) <= _LFS_MAX_BYTES and data.startswith(_LFS_FIRST_LINES)


def _fold(name: str) -> str:
    """Names that are equal after this are one name on some file system."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _problem(entry: Entry, *, depth: int, room: int) -> Problem | None:
    return (
        _mode_problem(entry.mode)
        or _name_problem(entry.name)
        or _place_problem(entry, depth=depth, room=room)
    )


def _mode_problem(mode: int) -> Problem | None:
    if mode == TREE_MODE or mode in FILE_MODES:
        return None
    if mode == _SYMLINK_MODE:
        return Problem("SymbolicLink", "is a symbolic link; put the file itself in its place")
    if mode == _SUBMODULE_MODE:
        return Problem("Submodule", "is a submodule; give it a ScriptRepository of its own")
    return Problem("FileMode", f"has mode {mode:o}; only 100644, 100755 and folders are read")


def _name_problem(name: bytes) -> Problem | None:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return Problem("NotUtf8", "has a name that is not UTF-8; rename it")
    if text in ("", ".", ".."):
        return Problem("PathTraversal", "has a name that means another folder; rename it")
    if "/" in text or "\\" in text:
        return Problem("Separator", "has a slash or backslash in its name; rename it")
    # Of ASCII only control characters are not printable.
    is_plain = text.isascii() and text.isprintable()
    if not is_plain and any(unicodedata.category(c) in _INVISIBLE for c in text):
        return Problem(
            "InvisibleCharacter", "has control or invisible characters in its name; rename it"
        )
    if _NTFS_GIT.fullmatch(text.partition(":")[0].rstrip(" .")):
        return Problem("DotGit", "is a spelling of '.git'; rename it")
    if not text.isascii() and _fold(text).isascii():
        return Problem("Lookalike", "has a name that only looks like ASCII; rename it")
    return None


def _place_problem(entry: Entry, *, depth: int, room: int) -> Problem | None:
    if depth > MAX_DEPTH:
        return Problem("TooDeep", f"lies more than {MAX_DEPTH} folders deep; move it up")
    if len(entry.name) + 1 > room:
        return Problem("PathTooLong", f"has a path of over {MAX_PATH_BYTES} bytes; shorten it")
    return None


def _twin_problem(entry: Entry, same: list[Entry]) -> Problem:
    others = sorted({other.name.decode() for other in same} - {entry.name.decode()})
    if not others:
        return Problem("DuplicateName", "is in its folder more than once; remove the others")
    listed = ", ".join(repr(other) for other in others[:3])
    return Problem(
        "CaseTwins", f"differs from {listed} by case or Unicode form only; rename all but one"
    )
