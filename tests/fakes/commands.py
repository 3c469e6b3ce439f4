"""Commands, remembered as they came in."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.api.scriptrepository import Rollback
from reconciler.core.objects import ObjectKey, Reference
from reconciler.errors import ScriptOpsError


@dataclass
class FakeCommands:
    """Keeps the promises of `Commands`; `refusal` is raised by all of them."""

    refusal: ScriptOpsError | None = None
    changes: bool = True
    given: list[tuple[object, ...]] = field(default_factory=list)

    async def reconcile(self, repository: ObjectKey) -> str:
        self._take("reconcile", repository)
        return "2026-01-01T00:00:00.000000+00:00"

    async def suspend(self, reference: Reference, *, suspend: bool) -> bool:
        self._take("suspend" if suspend else "resume", reference)
        return self.changes

    async def rollback(self, repository: ObjectKey, wish: str) -> Rollback:
        self._take("rollback", repository, wish)
        return Rollback(revision="1" * 40, quarantined="2" * 40)

    async def unroll(self, repository: ObjectKey) -> bool:
        self._take("unroll", repository)
        return self.changes

    async def approve(self, repository: ObjectKey, plan: str) -> None:
        self._take("approve", repository, plan)

    def _take(self, *what: object) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.given.append(what)
