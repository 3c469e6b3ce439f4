"""What was asked, begun and effected, held against what was promised of it.

An operation is one request of one run; its number is what the run writes into the world, so that
the world itself says what took effect, and in what order. The check counts and compares; it knows
no system, so it cannot be mistaken in the same way as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from reconciler.api.script import Qos


class Fault(StrEnum):
    # Accepted, and nothing of it is in the world.
    LOST = "lost"
    # In the world more often than its promise allows.
    DUPLICATED = "duplicated"
    # In the world, or begun, though nobody asked for it or it was refused.
    UNEXPECTED = "unexpected"
    # Begun more often than its promise allows.
    REPEATED = "repeated"
    # In the world without having been begun.
    UNFOUNDED = "unfounded"


class Start(NamedTuple):
    """An executor began this attempt of a run for an operation, under this epoch."""

    operation: int
    run_id: str
    attempt: int
    epoch: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What outsiders saw of the runs of one Script, until nothing was open any more.

    `accepted` were answered with yes, `refused` with no; of `unanswered` nobody knows. `effects`
    are in the order of the world; a value that was in it already has left no trace. `undecided`
    are those of which the system said that it does not know, or that it gave up: it lost none of
    these in silence.
    """

    accepted: Collection[int] = ()
    refused: Collection[int] = ()
    unanswered: Collection[int] = ()
    starts: Sequence[Start] = ()
    effects: Sequence[int] = ()
    undecided: Collection[int] = field(default=())


class Verdict(NamedTuple):
    fault: Fault
    operation: int


def faults(history: History, qos: Qos) -> list[Verdict]:
    """All that is wrong, by operation; empty where every promise of `qos` was kept."""
    return sorted(set(_faults(history, qos)), key=lambda it: (it.operation, it.fault))


def _faults(history: History, qos: Qos) -> Iterator[Verdict]:
    asked = {*history.accepted, *history.unanswered}
    effects = Counter(history.effects)
    begun = Counter(start.operation for start in history.starts)
    for operation in (effects.keys() | begun.keys()) - asked:
        yield Verdict(Fault.UNEXPECTED, operation)
    for operation, count in effects.items():
        if not begun[operation]:
            yield Verdict(Fault.UNFOUNDED, operation)
        elif count > (begun[operation] if qos is Qos.AT_LEAST_ONCE else 1):
            yield Verdict(Fault.DUPLICATED, operation)
    # One request is one run, and an attempt of it begins once.
    for start, count in Counter(history.starts).items():
        if count > 1:
            yield Verdict(Fault.REPEATED, start.operation)
    runs = Counter(operation for operation, _ in {start[:2] for start in history.starts})
    for operation, count in runs.items():
        if count > 1:
            yield Verdict(Fault.REPEATED, operation)
    if qos is Qos.AT_MOST_ONCE:
        for operation, count in begun.items():
            if count > 1:
                yield Verdict(Fault.REPEATED, operation)
    else:
        for operation in {*history.accepted} - effects.keys() - {*history.undecided}:
            yield Verdict(Fault.LOST, operation)
