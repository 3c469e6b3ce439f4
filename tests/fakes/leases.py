"""Leases in memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from reconciler.core.leases import Lease
from reconciler.errors import ClusterUnavailable, Conflict


class FakeLeases:
    """Keeps the promises of `Leases`; `away` is a store that does not answer."""

    def __init__(self) -> None:
        self.records: dict[str, Lease] = {}
        self.away = False
        self._versions = count(1)

    async def read(self, name: str) -> Lease | None:
        self._answer()
        return self.records.get(name)

    async def write(self, name: str, lease: Lease) -> Lease:
        self._answer()
        known = self.records.get(name)
        if lease.version != (known.version if known is not None else ""):
            raise Conflict(f"lease {name} is another by now")
        written = self.records[name] = replace(lease, version=str(next(self._versions)))
        return written

    def _answer(self) -> None:
        if self.away:
            raise ClusterUnavailable("the store is away")
