"""What leaves git leaves the cluster: how soon, and how much of it at once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from reconciler.api.scriptrepository import PrunePolicy
from reconciler.core.objects import ObjectKey, Reference
from reconciler.core.plan import Plan, Prune, Quarantine, Skip, SkipReason, Step

# Objects named in a message; the status lists more of them.
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Pending:
    """A plan beyond the limits. Its hash is of the very objects that would go, by UID."""

    plan: str
    references: tuple[Reference, ...]
    limit: str

    def message(self, repository: ObjectKey) -> str:
        count = len(self.references)
        names = ", ".join(map(str, self.references[:SHOWN]))
        more = f" and {count - SHOWN} more" if count > SHOWN else ""
        return (
            f"{count} objects left git, more than {self.limit} allows, and stay: {names}{more}; "
            f"bring them back, or let exactly these go with: scriptops approve "
            f"{repository.name} {self.plan} -n {repository.namespace}"
        )


def limited(
    plan: Plan, policy: PrunePolicy, owned: Callable[[str], int]
) -> tuple[Plan, Pending | None]:
    """The plan without what goes beyond the limits, and that, unless it has been approved.

    All that would go waits, not only what is too much: which of them are meant nobody can tell.
    `owned` says how many objects of a kind the repository has now. What is in quarantine has
    passed here before.
    """
    leaving = [step for step in plan.steps if _leaves(step)]
    limit = _exceeded(leaving, policy, owned)
    if not limit:
        return plan, None
    pending = Pending(digest(leaving), tuple(step.reference for step in leaving), limit)
    if policy.approve == pending.plan:
        return plan, None
    message = f"{{}} stays: it is part of plan {pending.plan}, beyond {limit}"
    steps = tuple(
        Skip(s.reference, SkipReason.PRUNE_BUDGET, message.format(s.reference)) if _leaves(s) else s
        for s in plan.steps
    )
    return replace(plan, steps=steps), pending


def digest(leaving: Iterable[Step]) -> str:
    """Equal exactly for the same objects; another of the same name has another UID."""
    lines = sorted(
        f"{step.reference} {step.uid}" for step in leaving if isinstance(step, Prune | Quarantine)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _leaves(step: Step) -> bool:
    return isinstance(step, Quarantine) or (isinstance(step, Prune) and not step.was_quarantined)


def _exceeded(leaving: list[Step], policy: PrunePolicy, owned: Callable[[str], int]) -> str:
    """The limit that these go beyond, in words; empty when they do not."""
    if policy.max_count is not None and len(leaving) > policy.max_count:
        return f"prune.maxCount {policy.max_count}"
    if policy.max_percent is not None:
        for kind, count in Counter(step.reference.kind for step in leaving).items():
            if count * 100 > policy.max_percent * owned(kind):
                return f"prune.maxPercent {policy.max_percent}"
    return ""
