"""What Scripts remember, in SQLite."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.adapters.database import open_database
from reconciler.errors import ScriptOpsError, Transient

log = logging.getLogger(__name__)

VERSION = 1
SCHEMA = """
CREATE TABLE states (
    uid TEXT PRIMARY KEY,
    data BLOB NOT NULL
) WITHOUT ROWID
"""


@dataclass(slots=True, eq=False)
class _Batch:
    """What is written together. A row of None is removed."""

    rows: dict[str, bytes | None] = field(default_factory=dict)
    is_written: bool = False
    error: sqlite3.Error | None = None


class SqliteScriptStates:
    """Keeps the promises of `ScriptStates`.

    One write is under way at a time, in a thread; all that is to be kept meanwhile is written
    together next, so that a slow disk costs one commit for many Scripts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_database(path, version=VERSION, schema=SCHEMA)
        rows = self._connection.execute("SELECT uid, data FROM states")
        self._states: dict[str, bytes] = {u: d for u, d in rows if isinstance(d, bytes)}
        self._batch = _Batch()
        self._writing = asyncio.Lock()

    def get(self, uid: str) -> bytes:
        return self._states.get(uid, b"")

    def uids(self) -> frozenset[str]:
        return frozenset(self._states)

    async def keep(self, uid: str, state: bytes) -> None:
        batch = self._batch
        batch.rows[uid] = state
        await self._written(batch)
        if batch.rows[uid] is state:
            self._states[uid] = state

    def forget(self, uid: str) -> None:
        self._states.pop(uid, None)
        self._batch.rows[uid] = None

    async def flush(self) -> None:
        if self._batch.rows:
            await self._written(self._batch)

    def close(self) -> None:
        """Write what is left, then close. No write may be under way."""
        try:
            self._write(self._batch.rows)
        except sqlite3.Error:
            log.exception("states not written", extra={"path": str(self._path)})
        finally:
            self._connection.close()

    async def _written(self, batch: _Batch) -> None:
        async with self._writing:
            if not batch.is_written:
                self._batch, batch.is_written = _Batch(), True
                try:
                    await asyncio.to_thread(self._write, batch.rows)
                except sqlite3.Error as error:
                    batch.error = error
                    for uid in (uid for uid, row in batch.rows.items() if row is None):
                        self._batch.rows.setdefault(uid, None)
        if batch.error is not None:
            raise self._unavailable(batch.error) from batch.error

    def _unavailable(self, error: sqlite3.Error) -> ScriptOpsError:
        return Transient(f"{self._path} cannot be written ({error})", reason="StateUnavailable")

    def _write(self, rows: Mapping[str, bytes | None]) -> None:
        with self._connection:
            self._connection.executemany(
                "DELETE FROM states WHERE uid = ?",
                [(uid,) for uid, row in rows.items() if row is None],
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO states VALUES (?, ?)",
                [(uid, row) for uid, row in rows.items() if row is not None],
            )
