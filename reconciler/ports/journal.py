"""Runs that have to be started until one succeeds: what outlives the process of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reconciler.core.runs import Run, RunId


class Journal(Protocol):
    """By run id; of each the newest attempt. What `keep` returned from is durable.

    Used by one event loop only. A crash may lose what was dropped since the last write: such a run
    is then found again.
    """

    def load(self) -> Sequence[Run]:
        """All that is kept, oldest first; read once at start. Damaged rows are left out."""
        ...

    async def keep(self, run: Run) -> None:
        """Raises `Transient` when the disk refuses; the run is then not kept."""
        ...

    def drop(self, run_id: RunId) -> None:
        """At once; durable with the next write, a second later at most."""
        ...

    async def flush(self) -> None:
        """Raises `Transient`; what was dropped then waits for the next flush."""
        ...

    def close(self) -> None: ...
