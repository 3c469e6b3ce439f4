"""A journal that outlives the controllers of a test, not the test."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.core.runs import Run, RunId
from reconciler.errors import Transient


class FakeJournal:
    """Keeps the promises of `Journal` as far as memory goes; `before` is what a crash left.

    While it `is_full` it refuses, as a disk does.
    """

    def __init__(self, before: FakeJournal | None = None) -> None:
        self.runs: dict[RunId, Run] = dict(before.runs) if before is not None else {}
        self.is_full = False

    def load(self) -> Sequence[Run]:
        return tuple(self.runs.values())

    async def keep(self, run: Run) -> None:
        if self.is_full:
            raise Transient("no space is left", reason="StateUnavailable")
        self.runs[run.key.run_id] = run

    def drop(self, run_id: RunId) -> None:
        self.runs.pop(run_id, None)

    async def flush(self) -> None:
        """All is where it belongs already."""

    def close(self) -> None:
        """Nothing is open."""
