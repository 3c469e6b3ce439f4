"""How far a repository has come with a commit; told to whoever has to tell others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from reconciler.api.scriptrepository import Rollback
from reconciler.core import conditions
from reconciler.core.conditions import Verdict
from reconciler.core.objects import ObjectKey
from reconciler.core.repositories import RepositoryRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`verdict` is None where the commit has been read and nothing more.

    `written` are Scripts that were created or changed, with the digests of their manifests.
    """

    record: RepositoryRecord
    commit: str
    verdict: Verdict | None = None
    written: Mapping[ObjectKey, str] = field(default_factory=dict)
    is_change: bool = False


def of_commit(verdict: Verdict, held: int, rollback: Rollback | None) -> Verdict:
    """The verdict on the commit itself: one that a rollback holds back in part is not deployed."""
    if not held or rollback is None or verdict.status != "True":
        return verdict
    good = rollback.revision[:10]
    return conditions.stalled("RolledBack", f"rolled back: {held} files stay as {good} has them")


Listener: TypeAlias = Callable[[Progress], None]
