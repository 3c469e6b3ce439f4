"""What must outlive the process and is in no cluster: the values each Script last evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from reconciler.core.objects import Json


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a Script has been run for already.

    `values` are reported values by device name and property. `generation` and `digest` are those
    of the last `Deployed` decision. Ticks of its schedule up to `ticked`, in seconds since the
    epoch, are decided on; 0 where nobody has looked yet.
    """

    generation: int
    digest: str
    values: Mapping[str, Mapping[str, str]]
    ticked: float = 0.0
    # What its conditions, debounce and throttle have come to, as `core.gating` writes it.
    gate: Json = None


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


class ScriptStates(Protocol):
    """What Scripts remember from run to run: one JSON object each, by UID of the Script.

    What `keep` returned from is durable. Used by one event loop only.
    """

    def get(self, uid: str) -> bytes:
        """The state of a Script; empty when it has none. From memory."""
        ...

    def uids(self) -> frozenset[str]:
        """Of all Scripts that have a state."""
        ...

    async def keep(self, uid: str, state: bytes) -> None:
        """Raises `Transient` when the disk refuses; the state is then what it was before."""
        ...

    def forget(self, uid: str) -> None:
        """At once; durable with the next `flush`."""
        ...

    async def flush(self) -> None:
        """Raises `Transient`; what was forgotten then waits for the next flush."""
        ...

    def close(self) -> None: ...
