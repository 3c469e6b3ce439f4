"""Records of who leads what, in a store that all candidates share."""

from __future__ import annotations

from typing import Protocol

from reconciler.core.leases import Lease


class Leases(Protocol):
    """By name. A write is taken by nobody but who has seen the newest record.

    A call that fails may have been carried out all the same.
    """

    async def read(self, name: str) -> Lease | None:
        """None where there is none. Raises `Transient`, or `Forbidden` when we may not."""
        ...

    async def write(self, name: str, lease: Lease) -> Lease:
        """Replace the record of `lease.version`, or make the first one where that is empty.

        Returns it with its new version. Raises `Conflict` when the newest is another, or there is
        one already; `Transient` and `Forbidden` as `read`. Not promised: what becomes of a write
        to a record that somebody deleted; nobody else's is lost by it.
        """
        ...
