"""Tokens and rights, as a test deals them out."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.core.access import Caller, Right
from reconciler.errors import Transient


@dataclass
class FakeAccess:
    """Keeps the promises of `Access` for the tokens and rights that it was given.

    `asked` is what it was asked, in order; while `is_gone` it can say nothing.
    """

    callers: dict[str, Caller] = field(default_factory=dict)
    rights: set[tuple[str, Right]] = field(default_factory=set)
    is_gone: bool = False
    asked: list[object] = field(default_factory=list)

    def know(self, token: str, *rights: Right) -> Caller:
        """A token of somebody who may do this."""
        caller = self.callers[token] = Caller(f"owner of {token}")
        self.rights |= {(caller.name, right) for right in rights}
        return caller

    async def identify(self, token: str, *, peer: str = "") -> Caller | None:
        self._ask(token)
        return self.callers.get(token)

    async def allows(self, caller: Caller, right: Right) -> bool:
        self._ask(right)
        return (caller.name, right) in self.rights

    def _ask(self, what: object) -> None:
        self.asked.append(what)
        if self.is_gone:
            raise Transient("nobody can say", reason="AccessUnavailable")
