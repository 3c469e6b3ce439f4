"""Runs that have to be started until one succeeds, in SQLite."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from reconciler.adapters.database import open_database
from reconciler.core.objects import Json, ObjectKey, mapping, sequence, text
from reconciler.core.runs import Cause, Run, RunId, RunKey
from reconciler.errors import Transient

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


@dataclass(slots=True)
class _Batch:
    """What is written together: the run of each id, None for one that goes."""

    rows: dict[RunId, Run | None] = field(default_factory=dict)
    is_written: bool = False
    error: sqlite3.Error | None = None


class SqliteJournal:
    """Keeps the promises of `Journal`.

    One write is under way at a time, in a thread; all that comes meanwhile is written together
    next: many runs cost one commit, and one fsync.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_database(path, version=VERSION, schema=SCHEMA)
        self._batch = _Batch()
        self._writing = asyncio.Lock()

    def load(self) -> Sequence[Run]:
        rows = self._connection.execute("SELECT id, data, event FROM runs ORDER BY number")
        found = [(run_id, _from_row(run_id, data, event)) for run_id, data, event in rows]
        damaged = [run_id for run_id, run in found if run is None]
        if damaged:
            log.error("damaged runs left out", extra={"count": len(damaged)})
        return [run for _, run in found if run is not None]

    async def keep(self, run: Run) -> None:
        batch = self._batch
        batch.rows[run.key.run_id] = run
        await self._written(batch)

    def drop(self, run_id: RunId) -> None:
        self._batch.rows[run_id] = None

    async def flush(self) -> None:
        if self._batch.rows:
            await self._written(self._batch)

    def close(self) -> None:
        """Write what is left, then close. No write may be under way."""
        try:
            self._write(self._batch.rows)
        except sqlite3.Error:
            log.exception("journal not written", extra={"path": str(self._path)})
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
                    for run_id in (run_id for run_id, run in batch.rows.items() if run is None):
                        self._batch.rows.setdefault(run_id, None)
        if batch.error is not None:
            raise Transient(
                f"{self._path} cannot be written ({batch.error})", reason="StateUnavailable"
            ) from batch.error

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
        }
    )


def _from_row(run_id: object, data: object, event: object) -> Run | None:
    """A run, or None where the row holds anything else."""
    if not (isinstance(run_id, str) and isinstance(data, bytes) and isinstance(event, bytes)):
        return None
    try:
        found: Mapping[str, Json] = mapping(orjson.loads(data))
        attempt, epoch, created_at = found["attempt"], found["epoch"], found["createdAt"]
        if not (
            isinstance(attempt, int)
            and isinstance(epoch, int)
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
        )
    except (orjson.JSONDecodeError, KeyError, ValueError):
        return None
