"""Where a process is to be killed: the named points of a run's way, and who counts until then.

A process that reaches its point ends itself by SIGKILL, in the middle of the turn of its event
loop: nothing after it happens, as if the power were cut.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self


class Point(StrEnum):
    """In the order in which a run comes by. The values are those that failures are told by."""

    KEPT = "kept, before it waits"
    CLAIMED = "claimed, before it is sent"
    SENT = "sent, before the executor has it"
    RECEIVED = "received, before it is executed"
    EXECUTED = "executed, before its result is sent"
    ANSWERED = "answered, before the result counts"
    # Of those whose outcome is put on record first.
    ACCEPTED = "accepted, before its effects"
    PATCHING = "counted, before devices are patched"
    PATCHED = "patched, before the run has ended"
    TOLD = "in the status, before it is committed"
    PUSHED = "pushed, before that is known"


# Where the executor is, rather than the controller.
OF_EXECUTORS = frozenset({Point.RECEIVED, Point.EXECUTED})
# What happens for many runs together.
OF_ALL = frozenset({Point.TOLD, Point.PUSHED})


@dataclass(frozen=True, slots=True)
class Fate:
    """At `point`, by the `nth` operation of `script` from number `first` on."""

    point: Point
    script: str
    first: int
    nth: int

    @property
    def victim(self) -> str:
        return "executor" if self.point in OF_EXECUTORS else "controller"

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Self:
        found = json.loads(text)
        return cls(Point(found["point"]), found["script"], found["first"], found["nth"])


class Reaper:
    """Counts those that come by, and ends this process when it is time."""

    def __init__(self, fate: Fate | None) -> None:
        self._fate = fate
        self._left = fate.nth if fate is not None else 0
        self._is_close = False

    def passes(self, point: Point, script: str, operation: int | None) -> None:
        """An operation of a Script is at `point`."""
        fate = self._fate
        if fate is None or operation is None or operation < fate.first or script != fate.script:
            return
        self._is_close = True
        if point is fate.point:
            self._count()

    def all_pass(self, point: Point) -> None:
        """What was told of many is at `point`; it counts once one of ours is on its way."""
        if self._fate is not None and self._is_close and point is self._fate.point:
            self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
