"""Runs that promise something: what outlives the process of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol

from reconciler.core.deliveries import Delivery
from reconciler.core.runs import RunId

# How long it is remembered that a run which had a key has ended.
RETENTION: Final = timedelta(hours=24)


class Journal(Protocol):
    """By run id; of each how far it is. What `keep` or `accept` returned from is durable.

    Used by one event loop only. The runs of a namespace belong to a shard; whoever has claimed a
    shard last may write for it, and what comes from an earlier claim is refused with `Fenced`. A
    crash may lose what was dropped since the last write: such a run is then found again.
    """

    # Told of runs that others have kept for a shard which we have claimed since.
    on_found: Callable[[Delivery], None]

    async def claim(self, shard: int, *, at_least: int = 1) -> int:
        """Begin to write for a shard: its new epoch, higher than any before. Raises `Transient`."""
        ...

    async def load(self, shard: int) -> Sequence[Delivery]:
        """All that is kept of a shard, oldest first; right after the claim. Damaged ones are left
        out.
        """
        ...

    async def keep(self, delivery: Delivery) -> None:
        """Raises `Transient` when it cannot be kept now, and `Fenced`."""
        ...

    async def accept(self, delivery: Delivery) -> Delivery:
        """Keep an outcome. What is accepted of the run from now on: an earlier one stays, if any.

        Raises as `keep`.
        """
        ...

    def drop(self, run_id: RunId) -> None:
        """It is done. At once; durable with the next write, a second later at most.

        Of a run with a key it is remembered for `RETENTION` that it was.
        """
        ...

    async def has_ended(self, run_id: RunId) -> bool:
        """Whether a run with a key was dropped within `RETENTION`. Raises `Transient`."""
        ...

    async def flush(self) -> None:
        """Raises `Transient`; what was dropped then waits for the next flush."""
        ...

    async def close(self) -> None:
        """Write what is left, then close."""
        ...
