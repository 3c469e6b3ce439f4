"""What a reconcile's end means for its key: the one place where errors become reactions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from reconciler.errors import ScriptOpsError, Stalled, Waiting


@dataclass(frozen=True, slots=True)
class Result:
    """A reconcile that ended well; `requeue_after` asks for another look without a change."""

    requeue_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Reaction:
    """`delay` None with `backoff` False: the key rests until something adds it again."""

    result: str
    reason: str
    level: int
    delay: timedelta | None = None
    backoff: bool = False
    traceback: bool = False


RESULTS = ("success", "requeue", "waiting", "stalled", "error")


def react(ended: Result | BaseException) -> Reaction:
    match ended:
        case Result(requeue_after=None):
            return Reaction("success", "", logging.DEBUG)
        case Result(requeue_after=delay):
            return Reaction("requeue", "", logging.DEBUG, delay=delay)
        case Waiting():
            return Reaction("waiting", ended.reason, logging.INFO, delay=ended.requeue_after)
        case Stalled():
            return Reaction("stalled", ended.reason, logging.WARNING)
        case ScriptOpsError():
            return Reaction("error", ended.reason, logging.WARNING, backoff=True)
        case _:
            return Reaction("error", "InternalError", logging.ERROR, backoff=True, traceback=True)
