"""Which lines of a script the cases of a test reached."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Statements:
    """The line at which each statement of a source begins, by the name that its hits have."""

    lines: Mapping[str, int]


@dataclass(slots=True)
class FileCoverage:
    """How many cases reached each line that holds the beginning of a statement."""

    path: PurePosixPath
    statements: Statements
    cases: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cases = dict.fromkeys(sorted(set(self.statements.lines.values())), 0)

    def add(self, hits: Collection[str]) -> None:
        """What one case reached."""
        lines = self.statements.lines
        for line in {lines[hit] for hit in hits if hit in lines}:
            self.cases[line] += 1

    @property
    def missed(self) -> tuple[int, ...]:
        return tuple(line for line, cases in self.cases.items() if not cases)

    @property
    def share(self) -> float:
        """Of its lines with statements, from 0 to 1; a script without any is covered."""
        return 1 - len(self.missed) / len(self.cases) if self.cases else 1.0


def ranges(lines: Collection[int]) -> str:
    """`3, 7-9`."""
    parts: list[list[int]] = []
    for line in sorted(lines):
        if parts and parts[-1][1] == line - 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)


def lcov(files: Collection[FileCoverage]) -> str:
    """What editors and forges read; a count is that of the cases that reached the line."""
    out: list[str] = []
    for file in files:
        out += ["TN:", f"SF:{file.path}"]
        out += (f"DA:{line},{cases}" for line, cases in file.cases.items())
        out += [
            f"LF:{len(file.cases)}",
            f"LH:{len(file.cases) - len(file.missed)}",
            "end_of_record",
        ]
    return "".join(f"{line}\n" for line in out)
