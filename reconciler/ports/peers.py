"""The other controllers that share the work, as one that asks them on behalf of a client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[bytes, bytes]]


class PeerAnswer(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class Peers(Protocol):
    async def ask(
        self, address: str, *, method: str, target: str, headers: Headers, body: bytes
    ) -> PeerAnswer:
        """What the controller at `address` answers; `target` is path and query as they were sent.

        Raises `Transient` when it does not answer in time, or is not who it should be.
        """
        ...
