"""What did not lead to a run, and why: counted for each Script, with the newest of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause


class WhyNot(StrEnum):
    """Why something that could have led to a run of its own did not."""

    UNCHANGED = "Unchanged"
    ECHO = "Echo"
    LOOP = "Loop"
    FILTERED = "Filtered"
    PENDING = "Pending"
    DEBOUNCED = "Debounced"
    THROTTLED = "Throttled"
    COALESCED = "Coalesced"
    QUEUE_FULL = "QueueFull"
    DROPPED = "Dropped"
    MISSED = "Missed"
    SUSPENDED = "Suspended"
    NOT_READY = "NotReady"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS: Final[Mapping[WhyNot, str]] = MappingProxyType(
    {
        WhyNot.UNCHANGED: "a device reported, but no other value than the Script was last run for",
        WhyNot.ECHO: "a device took over what the Script itself had set",
        WhyNot.LOOP: "Scripts set each other off without end; see executePolicy.loop",
        WhyNot.FILTERED: "no condition of executePolicy.when asks for a run at these values",
        WhyNot.PENDING: "a condition holds, and has to hold for longer",
        WhyNot.DEBOUNCED: "another change came within executePolicy.debounce",
        WhyNot.THROTTLED: "a run began less than executePolicy.throttle ago; the next is for both",
        WhyNot.COALESCED: "it joined a run that was waiting for the same reason",
        WhyNot.QUEUE_FULL: "too many runs of the Script waited already",
        WhyNot.DROPPED: "it waited when the Script was changed, suspended or removed",
        WhyNot.MISSED: "its time passed while it could not start; see startingDeadline",
        WhyNot.SUSPENDED: "the Script is suspended",
        WhyNot.NOT_READY: "the Script is not ready to run",
    }
)


@dataclass(frozen=True, slots=True)
class Entry:
    """How often, and the newest: when (seconds since the epoch), and of which device or tick."""

    count: int
    last_at: float
    detail: str


class Ledger:
    """Since this process began; as large as there are Scripts. Belongs to one thread."""

    def __init__(self) -> None:
        self._entries: dict[ObjectKey, dict[tuple[WhyNot, Cause], Entry]] = {}

    def note(
        self,
        script: ObjectKey,
        why: WhyNot,
        cause: Cause,
        at: float,
        detail: str = "",
    ) -> None:
        entries = self._entries.setdefault(script, {})
        before = entries.get((why, cause))
        entries[why, cause] = Entry(1 if before is None else before.count + 1, at, detail)

    def of(self, script: ObjectKey) -> Mapping[tuple[WhyNot, Cause], Entry]:
        return self._entries.get(script, {})

    def forget(self, script: ObjectKey) -> None:
        self._entries.pop(script, None)
