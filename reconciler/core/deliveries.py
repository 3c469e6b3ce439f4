"""What becomes of a run that promises something, from before it waits until it is done.

    Kept ──► Started ──► Accepted ──► (done: not kept any more)
      └──────────────────────┘

Kept: on record, and nothing can have come of it yet. Started: sent to an executor as a run that can
act outside (it may fetch), or about to write what it waits for; what came of that is known from its
result only. Accepted: its one outcome is decided; what that asks for may be performed, also again,
until it is done.

Other runs need no Started: until their outcome is accepted nothing of them leaves the sandbox, so
that a start which nobody heard of again has not happened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from reconciler.api.script import Qos
from reconciler.core.runs import Outcome, Run, RunKey, RunResult

# Starts of one run, the first one counted; between them 1, 2, 4 and 8 seconds.
ATTEMPTS: Final = 5
FIRST_REST: Final = 1.0
# Effects that cannot be performed are tried again for as long as it takes; seconds in between.
LONGEST_REST: Final = 30.0

# How runs end that an executor has not begun.
_NOT_BEGUN: Final = frozenset({Outcome.UNAVAILABLE, Outcome.CRASH_LOOP})


class Stage(StrEnum):
    KEPT = "Kept"
    STARTED = "Started"
    ACCEPTED = "Accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A run, how far it is, and its outcome once that is accepted. Its key is the newest start."""

    run: Run
    stage: Stage = Stage.KEPT
    result: RunResult | None = None

    @property
    def is_once(self) -> bool:
        return self.run.qos is Qos.ONLY_ONCE


def recovered(it: Delivery, epoch: int) -> Delivery:
    """What a controller that begins with `epoch` makes of it. A start counts, whatever it did."""
    key = it.run.key
    if it.stage is Stage.ACCEPTED:
        return replace(it, run=replace(it.run, key=key._replace(epoch=epoch)))
    if it.stage is Stage.STARTED:
        moved = replace(it, run=replace(it.run, key=key._replace(epoch=epoch)))
        return _unknown(moved, "the controller ended while it was under way")
    again = RunKey(key.run_id, key.attempt + 1, epoch)
    return replace(it, run=replace(it.run, key=again))


def started(it: Delivery) -> Delivery:
    return replace(it, stage=Stage.STARTED)


def ended(it: Delivery, result: RunResult) -> Delivery | None:
    """An `OnlyOnce` run after `result` was heard of its newest start; None if of another one.

    Accepted, or Kept for its next start. What was accepted before stays, whatever is heard then.
    """
    if it.stage is Stage.ACCEPTED:
        return it
    if result.key != it.run.key:
        return None
    is_lost = result.outcome is Outcome.LOST
    if is_lost and it.stage is Stage.STARTED:
        return _unknown(it, result.message)
    if is_lost or result.outcome in _NOT_BEGUN:
        return again(it) or _accepted(it, result)
    return _accepted(it, result)


def again(it: Delivery) -> Delivery | None:
    """Its next start; None when there were enough."""
    key = it.run.key
    if key.attempt >= ATTEMPTS:
        return None
    return Delivery(run=replace(it.run, key=key._replace(attempt=key.attempt + 1)))


def rest(attempt: int) -> float:
    """Seconds between this start and the next."""
    return FIRST_REST * 2.0 ** (attempt - 1)


def _accepted(it: Delivery, result: RunResult) -> Delivery:
    return replace(it, stage=Stage.ACCEPTED, result=result)


def _unknown(it: Delivery, why: str) -> Delivery:
    message = f"whether it did what it does outside is not known: {why}"
    return _accepted(it, RunResult(key=it.run.key, outcome=Outcome.UNKNOWN, message=message))
