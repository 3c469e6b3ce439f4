"""What is wrong in a repository, said so that its author can repair it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from reconciler.core.objects import Reference

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding. `message` is a sentence without a trailing dot that names the fix.

    `line` counts from 1 and is 0 where a file has no lines. `pointer` is a JSON pointer into the
    document (through the items of a List). `reference` is the object that it concerns, where that
    can be told. An error keeps its document from being deployed; a warning keeps nothing back and
    will fail when it runs; a note is worth knowing. `column` counts from 1, 0 is the whole line.
    """

    path: PurePosixPath
    line: int
    pointer: str
    reason: str
    message: str
    severity: Severity = "error"
    reference: Reference | None = None
    column: int = 0

    def __str__(self) -> str:
        at = f"{self.path}:{self.line}" if self.line else str(self.path)
        pointer = f" {self.pointer}" if self.pointer else ""
        return f"{at}:{pointer} {self.message}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean "cron"?`, or nothing when nothing is near."""
    # Beyond this a word is no misspelling, and comparing costs by the square.
    if len(word) > 253:
        return ""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f'; did you mean "{names[near[0]]}"?' if near else ""


def escape(token: str) -> str:
    """One token of a JSON pointer."""
    return token.replace("~", "~0").replace("/", "~1")


def quoted(value: str, *, limit: int = 80) -> str:
    """What an author wrote, printable and short enough for a sentence."""
    shown = value if len(value) <= limit else value[: limit - 1] + "…"
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown) + '"'
