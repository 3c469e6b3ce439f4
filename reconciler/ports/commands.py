"""What a person may ask of a running controller beyond a run: a look now, a pause, an approval."""

from __future__ import annotations

from typing import Protocol

from reconciler.api.scriptrepository import Rollback
from reconciler.core.objects import ObjectKey, Reference


class Commands(Protocol):
    """Each is one write to the object itself, so that whoever may write it can do without us.

    Raises `ObjectNotFound`, what the cluster raises, and as said.
    """

    async def reconcile(self, repository: ObjectKey) -> str:
        """Ask for a reconcile at once; what `status.lastHandledReconcileAt` says when it ended.

        Raises `Stalled` with reason Suspended for a repository that is.
        """
        ...

    async def suspend(self, reference: Reference, *, suspend: bool) -> bool:
        """Suspend or resume a Script or ScriptRepository; whether that was a change.

        Raises `Stalled` with reason OwnedByGit where the Script's manifest says otherwise, and with
        reason Quarantined for a Script that left its repository.
        """
        ...

    async def rollback(self, repository: ObjectKey, wish: str) -> Rollback:
        """Hold what the newest revision has changed as an earlier one has it.

        `wish` is a commit of `status.history` or the beginning of one, empty for the one before.
        Raises `Stalled` with reason NoSuchRevision.
        """
        ...

    async def unroll(self, repository: ObjectKey) -> bool:
        """End a rollback: the branch counts as it is. Whether there was one."""
        ...

    async def approve(self, repository: ObjectKey, plan: str) -> None:
        """Let the plan that waits go on. Raises `Stalled` with reason NoSuchPlan for any other."""
        ...
