"""What happened lately to the objects of a kind, for watches to read at their own pace."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal, NamedTuple

from reconciler.errors import Expired

# A watch that has fallen this far behind lists again; at 3 KB each this is 12 MB for a kind.
EVENTS = 4096


class Change(NamedTuple):
    """`document` is JSON: a reader parses its own copy, and what nobody reads is never parsed."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    namespace: str
    document: bytes


class History:
    """The last changes of a kind, in order of version. Belongs to one event loop."""

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._changes: list[Change] = []
        self._moved = asyncio.Event()

    def add(self, change: Change) -> None:
        self._changes.append(change)
        if len(self._changes) >= 2 * EVENTS:
            self._floor = self._changes[EVENTS - 1].version
            del self._changes[:EVENTS]
        self._wake()

    def after(self, version: int) -> Sequence[Change]:
        """All changes after `version`. Raises `Expired` when some of them are forgotten."""
        if version < self._floor:
            raise Expired(
                f"resourceVersion {version} is too old, changes are kept from {self._floor}"
            )
        return self._changes[bisect_right(self._changes, version, key=lambda c: c.version) :]

    def forget(self, floor: int) -> None:
        """Make everybody list again who has not seen `floor`."""
        self._floor = floor
        self._changes = []
        self._wake()

    @property
    def moved(self) -> asyncio.Event:
        """Set with the next change; ask for it before reading."""
        return self._moved

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
