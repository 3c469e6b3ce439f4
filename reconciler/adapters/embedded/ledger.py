"""From memory to disk to the watches, in this order and in the order of the changes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from reconciler.adapters.embedded.history import Change
from reconciler.adapters.embedded.journal import Journal, Row
from reconciler.core.objects import ObjectKey
from reconciler.errors import ClusterUnavailable

# The most that what is written behind can be behind on disk.
BEHIND_SECONDS = 1.0

log = logging.getLogger(__name__)


class _Unpublished(NamedTuple):
    ticket: int
    kind: str
    change: Change


class Ledger:
    """Publishes a change when all changes before it are durable, and itself, unless it may lag.

    Without a journal everything counts as durable at once. When the disk fails, what was not
    durable is taken back: `reload` gets what the disk holds, and writers `ClusterUnavailable`.
    Belongs to one event loop.
    """

    def __init__(
        self,
        *,
        publish: Callable[[str, Change], None],
        current: Callable[[str, ObjectKey], Row | None],
        reload: Callable[[list[Row]], None],
    ) -> None:
        self._publish = publish
        self._current = current
        self._reload = reload
        self._journal: Journal | None = None
        self._durable = 0
        self._unpublished: deque[_Unpublished] = deque()
        self._writers: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._behind: dict[tuple[str, ObjectKey], None] = {}
        self._flushing: asyncio.TimerHandle | None = None

    def begin(self, journal: Journal) -> None:
        self._journal = journal
        journal.start()

    def write(self, row: Row, change: Change | None = None) -> int:
        """Make `row` durable, then tell of `change`; the ticket to await `durable` with."""
        ticket = self._journal.write(row) if self._journal is not None else 0
        if change is not None:
            self._queue(ticket, row.kind, change)
        return ticket

    def write_behind(self, kind: str, key: ObjectKey, change: Change) -> None:
        """Tell of `change` in its turn; what the object is then becomes durable within a second."""
        if self._journal is None:
            self._queue(0, kind, change)
            return
        self._behind[kind, key] = None
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            self._flushing = loop.call_later(BEHIND_SECONDS, self._flush)
        self._queue(self._journal.last_ticket, kind, change)

    async def durable(self, ticket: int) -> None:
        """Raises `ClusterUnavailable` when the disk refused."""
        if ticket > self._durable:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writers.append((ticket, done))
            await done

    async def close(self) -> None:
        """Everything given is durable when this returns; nothing is, of what is given later."""
        self._flush()
        journal, self._journal = self._journal, None
        if journal is not None:
            await asyncio.to_thread(journal.close)

    def written(self, ticket: int) -> None:
        self._durable = ticket
        self._tell()
        while self._writers and self._writers[0][0] <= ticket:
            _, done = self._writers.popleft()
            if not done.done():
                done.set_result(None)

    def lost(self, error: Exception) -> None:
        log.error("cluster state not written, taken back", extra={"error": str(error)})
        writers, self._writers = self._writers, deque()
        for _, done in writers:
            if not done.done():
                done.set_exception(ClusterUnavailable(f"the disk refused a write: {error}"))
        self._unpublished.clear()
        self._behind.clear()
        if self._journal is not None:
            self._durable = self._journal.last_ticket
            _, rows = self._journal.load()
            self._reload(rows)
            self._journal.resume()

    def _queue(self, ticket: int, kind: str, change: Change) -> None:
        self._unpublished.append(_Unpublished(ticket, kind, change))
        self._tell()

    def _tell(self) -> None:
        while self._unpublished and self._unpublished[0].ticket <= self._durable:
            _, kind, change = self._unpublished.popleft()
            self._publish(kind, change)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        behind, self._behind = self._behind, {}
        for kind, key in behind:
            row = self._current(kind, key)
            if row is not None:
                self.write(row)
