"""What was done to the objects of a repository."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from reconciler.api.scriptrepository import Counts
from reconciler.core.objects import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSet:
    """Objects by what was done to them; each is in one place only.

    `skipped` are those left as they are although git says otherwise.
    """

    created: tuple[Reference, ...] = ()
    configured: tuple[Reference, ...] = ()
    unchanged: tuple[Reference, ...] = ()
    pruned: tuple[Reference, ...] = ()
    skipped: tuple[Reference, ...] = ()

    def without(self, failed: Collection[Reference]) -> ChangeSet:
        """The same with `failed` among the skipped: their steps did not succeed."""
        if not failed:
            return self
        return ChangeSet(
            created=tuple(ref for ref in self.created if ref not in failed),
            configured=tuple(ref for ref in self.configured if ref not in failed),
            unchanged=tuple(ref for ref in self.unchanged if ref not in failed),
            pruned=tuple(ref for ref in self.pruned if ref not in failed),
            skipped=(*self.skipped, *(ref for ref in failed if ref not in self.skipped)),
        )

    def counts(self) -> Counts:
        return Counts(
            created=len(self.created),
            configured=len(self.configured),
            unchanged=len(self.unchanged),
            pruned=len(self.pruned),
            skipped=len(self.skipped),
        )

    @property
    def is_empty(self) -> bool:
        """Whether the cluster was left as it was."""
        return not (self.created or self.configured or self.pruned)

    def __str__(self) -> str:
        """For people: `2 created, 1 configured, 40 unchanged`, without what is zero."""
        counts = self.counts().model_dump()
        return ", ".join(f"{n} {word}" for word, n in counts.items() if n) or "nothing to do"
