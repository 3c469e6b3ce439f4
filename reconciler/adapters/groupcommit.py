"""Rows that are written together: one commit, and one fsync, for all who wait meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from reconciler.errors import Transient

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Batch(Generic[K, V]):
    """What is written together. A row of None is removed."""

    rows: dict[K, V | None] = field(default_factory=dict)
    is_written: bool = False
    error: sqlite3.Error | None = None


class GroupCommit(Generic[K, V]):
    """Hands rows to `write`, in a thread and one batch at a time; what comes meanwhile is the next.

    Used by one event loop only. `path` is for messages.
    """

    def __init__(self, path: Path, write: Callable[[Mapping[K, V | None]], None]) -> None:
        self._path = path
        self._write = write
        self._writing = asyncio.Lock()
        self.batch: Batch[K, V] = Batch()

    async def keep(self, key: K, value: V) -> bool:
        """Until it is durable. Whether it is the newest still; raises `Transient` if not kept."""
        batch = self.batch
        batch.rows[key] = value
        await self._written(batch)
        return batch.rows[key] is value

    def remove(self, key: K) -> None:
        """At once; durable with the next write."""
        self.batch.rows[key] = None

    async def flush(self) -> None:
        """Raises `Transient`; what was removed then waits for the next write."""
        if self.batch.rows:
            await self._written(self.batch)

    async def alone(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread while nothing is written. Raises `Transient` as `keep` does."""
        async with self._writing:
            try:
                return await asyncio.to_thread(work)
            except sqlite3.Error as error:
                raise self._refused(error) from error

    def write_rest(self) -> None:
        """What is left, by the caller's own thread. No write may be under way."""
        self._write(self.batch.rows)

    async def _written(self, batch: Batch[K, V]) -> None:
        async with self._writing:
            if not batch.is_written:
                self.batch, batch.is_written = Batch(), True
                try:
                    await asyncio.to_thread(self._write, batch.rows)
                except sqlite3.Error as error:
                    batch.error = error
                    for key in (key for key, row in batch.rows.items() if row is None):
                        self.batch.rows.setdefault(key, None)
        if batch.error is not None:
            raise self._refused(batch.error) from batch.error

    def _refused(self, error: sqlite3.Error) -> Transient:
        return Transient(f"{self._path} cannot be written ({error})", reason="StateUnavailable")
