"""The values each Script last evaluated, in SQLite."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import orjson

from reconciler.adapters.database import open_database
from reconciler.errors import Transient
from reconciler.ports.state import Evaluation

log = logging.getLogger(__name__)

VERSION = 2
SCHEMA = """
CREATE TABLE evaluations (
    uid TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    digest TEXT NOT NULL,
    data BLOB NOT NULL,
    ticked REAL NOT NULL DEFAULT 0,
    gate BLOB NOT NULL DEFAULT X'6E756C6C'
) WITHOUT ROWID
"""
CHANGES = (
    """
ALTER TABLE evaluations ADD COLUMN ticked REAL NOT NULL DEFAULT 0;
ALTER TABLE evaluations ADD COLUMN gate BLOB NOT NULL DEFAULT X'6E756C6C'
""",
)


class SqliteEvaluations:
    """Keeps the promises of `Evaluations`.

    What is put must not be changed afterwards: it is turned into JSON when it is flushed, in a
    thread. One flush runs at a time; the event loop never waits for the disk, except in `close`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_database(path, version=VERSION, schema=SCHEMA, changes=CHANGES)
        self._pending: dict[str, Evaluation | None] = {}
        self._writing = asyncio.Lock()

    def load(self) -> Mapping[str, Evaluation]:
        found: dict[str, Evaluation] = {}
        damaged = 0
        for row in self._connection.execute(
            "SELECT uid, generation, digest, data, ticked, gate FROM evaluations"
        ):
            evaluation = _from_row(*row[1:])
            if evaluation is None:
                damaged += 1
            else:
                found[row[0]] = evaluation
        if damaged:
            log.error("damaged evaluations left out", extra={"count": damaged})
        return found

    def put(self, uid: str, evaluation: Evaluation) -> None:
        self._pending[uid] = evaluation

    def remove(self, uid: str) -> None:
        self._pending[uid] = None

    async def flush(self) -> None:
        """Raises `Transient` when the disk refuses; what was put then waits for the next flush."""
        async with self._writing:
            batch, self._pending = self._pending, {}
            if not batch:
                return
            try:
                await asyncio.to_thread(self._write, batch)
            except sqlite3.Error as error:
                self._pending = batch | self._pending
                raise Transient(
                    f"{self._path} cannot be written ({error})", reason="StateUnavailable"
                ) from error

    def close(self) -> None:
        """Write what is left, then close. No flush may be running."""
        try:
            self._write(self._pending)
        except sqlite3.Error:
            log.exception("evaluations lost", extra={"path": str(self._path)})
        finally:
            self._connection.close()

    def _write(self, batch: Mapping[str, Evaluation | None]) -> None:
        with self._connection:
            self._connection.executemany(
                "DELETE FROM evaluations WHERE uid = ?",
                [(uid,) for uid, evaluation in batch.items() if evaluation is None],
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        uid,
                        it.generation,
                        it.digest,
                        orjson.dumps(it.values, default=dict),
                        it.ticked,
                        orjson.dumps(it.gate, default=dict),
                    )
                    for uid, it in batch.items()
                    if it is not None
                ],
            )


def _from_row(
    generation: object, digest: object, data: object, ticked: object, gate: object
) -> Evaluation | None:
    """An evaluation, or None where the row holds anything else."""
    if not (isinstance(generation, int) and isinstance(digest, str) and isinstance(data, bytes)):
        return None
    if not isinstance(ticked, float) or not isinstance(gate, bytes):
        return None
    try:
        values, kept = orjson.loads(data), orjson.loads(gate)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(values, dict) or not all(map(_is_twin, values.values())):
        return None
    return Evaluation(generation, digest, values, ticked, kept)


def _is_twin(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
