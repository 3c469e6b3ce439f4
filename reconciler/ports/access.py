"""Who a token belongs to, and what they may ask: the answers of whoever keeps tokens and rights."""

from __future__ import annotations

from typing import Protocol

from reconciler.core.access import Caller, Right


class Access(Protocol):
    """Answers are as of now, or no older than `controllers.access` says where they are kept.

    Raises `Transient` with reason `AccessUnavailable` when nobody can say: then it is no.
    """

    async def identify(self, token: str) -> Caller | None:
        """Whose token it is; None for one that is not known, not for us, expired or revoked."""
        ...

    async def allows(self, caller: Caller, right: Right) -> bool:
        """Whether somebody whom `identify` named may do this."""
        ...
