"""Conditions: set so that no impossible pair can be written.

`Ready` is always there; `Reconciling` and `Stalled` only while True, and never both. The time of a
transition moves only when the status of a condition does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from reconciler.api.meta import READY, RECONCILING, STALLED, Condition, ConditionStatus

# A status travels in watches, lists and commits: a message is a sentence, not a log.
MESSAGE_LIMIT = 1024
_ORDER = (READY, RECONCILING, STALLED)


def rfc3339(seconds: float) -> str:
    return _rfc3339(int(seconds))


@lru_cache(maxsize=64)
def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What there is to say of an object as a whole.

    `progress` tells what a Ready that is not True waits for: "Reconciling" for what comes by
    itself, "Stalled" for what a person must do.
    """

    status: ConditionStatus
    reason: str
    message: str
    progress: Literal["", "Reconciling", "Stalled"] = ""


def ready(reason: str, message: str) -> Verdict:
    return Verdict("True", reason, message)


def reconciling(reason: str, message: str) -> Verdict:
    return Verdict("Unknown", reason, message, RECONCILING)


def stalled(reason: str, message: str) -> Verdict:
    return Verdict("False", reason, message, STALLED)


def verdict_of(told: Iterable[Condition]) -> Verdict | None:
    """The verdict that led to these conditions; None where they say nothing of Ready."""
    by_type = {condition.type: condition for condition in told}
    found = by_type.get(READY)
    if found is None:
        return None
    progress: Literal["", "Reconciling", "Stalled"] = ""
    if RECONCILING in by_type:
        progress = RECONCILING
    elif STALLED in by_type:
        progress = STALLED
    return Verdict(found.status, found.reason, found.message, progress)


def conditions(
    verdict: Verdict,
    *,
    previous: Iterable[Condition],
    generation: int,
    now: float,
    others: Mapping[str, tuple[ConditionStatus, str, str]] | None = None,
) -> list[Condition]:
    """The whole list for a status, in a fixed order."""
    wanted: dict[str, tuple[ConditionStatus, str, str]] = {
        READY: (verdict.status, verdict.reason, verdict.message)
    }
    if verdict.progress:
        wanted[verdict.progress] = ("True", verdict.reason, verdict.message)
    wanted.update(others or {})
    before = {condition.type: condition for condition in previous}
    ordered = sorted(wanted, key=lambda t: (_ORDER.index(t) if t in _ORDER else len(_ORDER), t))
    return [_condition(t, *wanted[t], before.get(t), generation, now) for t in ordered]


def _condition(
    type_: str,
    status: ConditionStatus,
    reason: str,
    message: str,
    previous: Condition | None,
    generation: int,
    now: float,
) -> Condition:
    same = previous is not None and previous.status == status and previous.last_transition_time
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=shortened(message),
        observed_generation=generation,
        last_transition_time=previous.last_transition_time if previous and same else rfc3339(now),
    )


def shortened(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
