"""Runs that have to be started until one succeeds, in SQLite."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from reconciler.adapters.database import open_database
from reconciler.adapters.groupcommit import GroupCommit
from reconciler.core.objects import Json, ObjectKey, mapping, sequence, text
from reconciler.core.runs import Cause, Run, RunId, RunKey

log = logging.getLogger(__name__)

VERSION = 1
SCHEMA = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    data BLOB NOT NULL,
    event BLOB NOT NULL
)
"""


class SqliteJournal:
    """Keeps the promises of `Journal`.

    One write is under way at a time, in a thread; all that comes meanwhile is written together
    next: many runs cost one commit, and one fsync.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_database(path, version=VERSION, schema=SCHEMA)
        self._commits: GroupCommit[RunId, Run] = GroupCommit(path, self._write)

    def load(self) -> Sequence[Run]:
        rows = self._connection.execute("SELECT id, data, event FROM runs ORDER BY number")
        found = [(run_id, _from_row(run_id, data, event)) for run_id, data, event in rows]
        damaged = [run_id for run_id, run in found if run is None]
        if damaged:
            log.error("damaged runs left out", extra={"count": len(damaged)})
        return [run for _, run in found if run is not None]

    async def keep(self, run: Run) -> None:
        await self._commits.keep(run.key.run_id, run)

    def drop(self, run_id: RunId) -> None:
        self._commits.remove(run_id)

    async def flush(self) -> None:
        await self._commits.flush()

    def close(self) -> None:
        """Write what is left, then close. No write may be under way."""
        try:
            self._commits.write_rest()
        except sqlite3.Error:
            log.exception("journal not written", extra={"path": str(self._path)})
        finally:
            self._connection.close()

    def _write(self, rows: Mapping[RunId, Run | None]) -> None:
        with self._connection:
            self._connection.executemany(
                "DELETE FROM runs WHERE id = ?",
                [(run_id,) for run_id, run in rows.items() if run is None],
            )
            self._connection.executemany(
                "INSERT INTO runs (id, data, event) VALUES (?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET data = excluded.data",
                [(run_id, _data(run), run.event) for run_id, run in rows.items() if run],
            )


def _data(run: Run) -> bytes:
    return orjson.dumps(
        {
            "attempt": run.key.attempt,
            "epoch": run.key.epoch,
            "namespace": run.script.namespace,
            "name": run.script.name,
            "uid": run.uid,
            "cause": run.cause.value,
            "createdAt": run.created_at,
            "devices": sorted(run.devices),
            "isCanary": run.is_canary,
            "depth": run.depth,
            "chain": run.chain,
        }
    )


def _from_row(run_id: object, data: object, event: object) -> Run | None:
    """A run, or None where the row holds anything else."""
    if not (isinstance(run_id, str) and isinstance(data, bytes) and isinstance(event, bytes)):
        return None
    try:
        found: Mapping[str, Json] = mapping(orjson.loads(data))
        attempt, epoch, created_at = found["attempt"], found["epoch"], found["createdAt"]
        # Earlier versions did not keep it.
        depth = found.get("depth", 0)
        if not (
            isinstance(attempt, int)
            and isinstance(epoch, int)
            and isinstance(depth, int)
            and isinstance(created_at, int | float)
        ):
            return None
        return Run(
            key=RunKey(RunId(run_id), attempt, epoch),
            script=ObjectKey(text(found["namespace"]), text(found["name"])),
            uid=text(found["uid"]),
            cause=Cause(text(found["cause"])),
            created_at=float(created_at),
            devices=frozenset(map(text, sequence(found["devices"]))),
            event=event,
            is_canary=found["isCanary"] is True,
            depth=depth,
            chain=RunId(text(found.get("chain"))),
        )
    except (orjson.JSONDecodeError, KeyError, ValueError):
        return None
