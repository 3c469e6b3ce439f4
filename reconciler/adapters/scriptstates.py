"""What Scripts remember, in SQLite."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from reconciler.adapters.database import open_database
from reconciler.adapters.groupcommit import GroupCommit

log = logging.getLogger(__name__)

VERSION = 1
SCHEMA = """
CREATE TABLE states (
    uid TEXT PRIMARY KEY,
    data BLOB NOT NULL
) WITHOUT ROWID
"""


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
        self._commits: GroupCommit[str, bytes] = GroupCommit(path, self._write)

    def get(self, uid: str) -> bytes:
        return self._states.get(uid, b"")

    def uids(self) -> frozenset[str]:
        return frozenset(self._states)

    async def keep(self, uid: str, state: bytes) -> None:
        if await self._commits.keep(uid, state):
            self._states[uid] = state

    def forget(self, uid: str) -> None:
        self._states.pop(uid, None)
        self._commits.remove(uid)

    async def flush(self) -> None:
        await self._commits.flush()

    def close(self) -> None:
        """Write what is left, then close. No write may be under way."""
        try:
            self._commits.write_rest()
        except sqlite3.Error:
            log.exception("states not written", extra={"path": str(self._path)})
        finally:
            self._connection.close()

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
