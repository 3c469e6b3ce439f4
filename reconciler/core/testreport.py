"""What came of the tests of a repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reconciler.core.coverage import FileCoverage
from reconciler.core.fixtures import Fixture
from reconciler.core.problems import Problem
from reconciler.core.recordings import Completion
from reconciler.core.verdicts import Mismatch

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    fixture: Fixture
    status: Status
    mismatches: tuple[Mismatch, ...] = ()
    completion: Completion | None = None
    duration_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of it. `problems` are test files that could not be read, or have no script."""

    root: Path
    cases: tuple[CaseResult, ...]
    problems: tuple[Problem, ...]
    coverage: tuple[FileCoverage, ...] = ()
    seconds: float = 0.0

    def count(self, status: Status) -> int:
        return sum(case.status == status for case in self.cases)

    @property
    def is_good(self) -> bool:
        return not self.problems and not self.count("failed")
