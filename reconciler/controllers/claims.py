"""What a repository says of one object, for whoever keeps it so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reconciler.core import plan
from reconciler.core.objects import Reference
from reconciler.core.repositories import RepositoryRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An object that a revision wants; true until the next await.

    `is_being_applied` while a revision goes out that may write it, `is_pending` while one has yet
    to, and may have to wait. `later` leaves the object to the repository's next reconcile, `wake`
    asks for one.
    """

    record: RepositoryRecord
    repository: plan.Repository
    desired: Mapping[Reference, plan.Desired]
    is_suspended: bool
    is_being_applied: bool
    is_pending: bool
    later: Callable[[], None]
    wake: Callable[[], None]
