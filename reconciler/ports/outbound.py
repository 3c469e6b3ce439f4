"""Requests to others: forges, and whoever is notified."""

from __future__ import annotations

from typing import Protocol

from reconciler.core.outgoing import Reply, Request


class Outbound(Protocol):
    """Speaks to the host that an operator named, and to no other: redirects are not followed.

    Over https to the internet and private networks, over http to the latter only; to this machine
    only where it is named as such.
    """

    async def post(self, request: Request) -> Reply:
        """Ends within seconds, whatever the other side does.

        Raises `ReceiverUnavailable` where there is no answer, `Forbidden` for an address that may
        not be spoken to.
        """
        ...

    async def close(self) -> None: ...
