"""How far a repository has come with a commit; told to whoever has to tell others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from reconciler.api.scriptrepository import Counts, Rollback
from reconciler.core import conditions
from reconciler.core.changeset import ChangeSet
from reconciler.core.conditions import Verdict
from reconciler.core.objects import ObjectKey
from reconciler.core.problems import Problem
from reconciler.core.repositories import RepositoryRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`verdict` is None where the commit has been read and nothing more.

    `written` are Scripts that were created or changed, with the digests of their manifests.
    `counts` are None for a commit that could not be read.
    """

    record: RepositoryRecord
    commit: str
    verdict: Verdict | None = None
    written: Mapping[ObjectKey, str] = field(default_factory=dict)
    is_change: bool = False
    counts: Counts | None = None
    problems: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """A revision that was taken in. `published` counts artifacts whose bytes are new."""

    key: ObjectKey
    revision: str
    changes: ChangeSet
    published: int
    problems: tuple[Problem, ...]
    seconds: float

    def __str__(self) -> str:
        """For people: `2 created, 40 unchanged, 1 artifact published`."""
        if not self.published:
            return str(self.changes)
        what = f"{self.published} artifact{'s' if self.published > 1 else ''} published"
        return what if self.changes == ChangeSet() else f"{self.changes}, {what}"


def of_commit(verdict: Verdict, held: int, rollback: Rollback | None) -> Verdict:
    """The verdict on the commit itself: one that a rollback holds back in part is not deployed."""
    if not held or rollback is None or verdict.status != "True":
        return verdict
    good = rollback.revision[:10]
    return conditions.stalled("RolledBack", f"rolled back: {held} files stay as {good} has them")


Listener: TypeAlias = Callable[[Progress], None]
