"""What is said of prunes that wait: for a person, or for the end of a quarantine."""

from __future__ import annotations

from reconciler.api.scriptrepository import PendingPrune
from reconciler.controllers.applying import Applied
from reconciler.controllers.events import Events
from reconciler.core import conditions
from reconciler.core.conditions import Verdict
from reconciler.core.objects import SCRIPT_REPOSITORIES
from reconciler.core.repositories import SHOWN_PROBLEMS, RepositoryRecord

PRUNE_BUDGET_EXCEEDED = "PruneBudgetExceeded"


class Prunes:
    """Tells of each once, however often it is planned."""

    def __init__(self, events: Events) -> None:
        self._events = events
        # The plan that was told of last, by UID of its repository.
        self._told: dict[str, str] = {}

    def tell(self, record: RepositoryRecord, applied: Applied) -> None:
        for step in applied.quarantined:
            message = "it left the repository: suspended, and deleted after prune.quarantine"
            key = step.reference.key
            self._events.warning(step.resource, key, step.uid, "Quarantined", message)
        pending = applied.pending
        if pending is None:
            self._told.pop(record.uid, None)
        elif self._told.get(record.uid) != pending.plan:
            self._told[record.uid] = pending.plan
            message = pending.message(record.key)
            self._events.warning(
                SCRIPT_REPOSITORIES, record.key, record.uid, PRUNE_BUDGET_EXCEEDED, message
            )


def pending_prune(applied: Applied | None) -> PendingPrune | None:
    pending = applied.pending if applied is not None else None
    if pending is None:
        return None
    return PendingPrune(
        plan=pending.plan,
        count=len(pending.references),
        objects=[str(ref) for ref in pending.references[:SHOWN_PROBLEMS]],
    )


def judged(verdict: Verdict, record: RepositoryRecord, applied: Applied | None) -> Verdict:
    """The verdict, unless a plan waits and nothing else is the matter."""
    if applied is None or applied.pending is None or verdict.status != "True":
        return verdict
    return conditions.stalled(PRUNE_BUDGET_EXCEEDED, applied.pending.message(record.key))
