"""What must outlive the process and is in no cluster: the values each Script last evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a Script has been run for already.

    `values` are reported values by device name and property. `generation` and `digest` are those
    of the last `Deployed` decision.
    """

    generation: int
    digest: str
    values: Mapping[str, Mapping[str, str]]


class Evaluations(Protocol):
    """By UID of the Script. Kept in memory, written behind.

    `put` returns at once; `flush` returns when all that was put is durable, and is called at least
    once a second while there is anything to write. A crash loses what was put after the last
    flush: those changes are then evaluated again, never forgotten.
    """

    def load(self) -> Mapping[str, Evaluation]:
        """All that is known, read once at start; damaged rows are left out."""
        ...

    def put(self, uid: str, evaluation: Evaluation) -> None: ...

    def remove(self, uid: str) -> None: ...

    async def flush(self) -> None: ...

    def close(self) -> None: ...
