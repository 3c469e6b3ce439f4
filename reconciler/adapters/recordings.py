"""Recordings in SQLite."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sqlite3
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import orjson

from reconciler.adapters.database import open_database
from reconciler.core import recordings
from reconciler.core.objects import JsonObject
from reconciler.core.recordings import Recording
from reconciler.core.runs import RunId
from reconciler.errors import Stalled, Transient

log = logging.getLogger(__name__)

VERSION: Final = 1
SCHEMA: Final = """
CREATE TABLE recordings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL,
    uid TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX recordings_run ON recordings (run);
CREATE INDEX recordings_uid ON recordings (uid, id);
CREATE INDEX recordings_script ON recordings (namespace, name, id);
CREATE INDEX recordings_digest ON recordings (digest);
CREATE TABLE artifacts (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, data BLOB NOT NULL)
"""

# Runs of one Script.
KEEP: Final = 20
# Of all Scripts together, compressed. An ordinary one has 600 bytes: 20 each of 20,000 Scripts.
MAX_BYTES: Final = 256 * 1024 * 1024
# A run with more than this is left out: its event or devices are no ordinary ones.
MAX_RECORDING: Final = 256 * 1024
# What waits to be written. A ring that is full of what was never written loses its oldest.
MAX_PENDING: Final = 32 * 1024 * 1024
# Rows of one flush. A row costs the event loop's thread nothing and this process about 80 µs, so a
# flush a second of this many is 4 % of a core however many runs there are.
FLUSH_ROWS: Final = 500
# Artifacts that no recording names any more are looked for this often.
SWEEP_FLUSHES: Final = 60
KEY_BYTES: Final = 32


class SqliteRecordings:
    """Keeps the promises of `Recordings`.

    The event loop only appends to memory; JSON, compression and SQLite run in a thread, one at a
    time. `artifact` finds the bytes of a digest and is called from the event loop.
    """

    def __init__(
        self,
        folder: Path,
        artifact: Callable[[str], bytes | None],
        *,
        keep: int = KEEP,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._path = folder / "recordings.db"
        self._connection = open_database(self._path, version=VERSION, schema=SCHEMA)
        # Losing the last second with the power is what is promised anyway; no flush waits for the
        # disk.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._key = _key(folder / "recordings.key")
        self._find = artifact
        self._keep = keep
        self._max_bytes = max_bytes
        self._using = asyncio.Lock()
        # By UID, the one that has waited longest for a flush first.
        self._pending: OrderedDict[str, deque[Recording]] = OrderedDict()
        self._pending_bytes = 0
        # What a flush has taken and not yet written; still to be read.
        self._writing: list[Recording] = []
        self._known = {row[0] for row in self._connection.execute("SELECT digest FROM artifacts")}
        self._bytes = self._measured()
        self._flushes = 0

    def put(self, recording: Recording) -> bool:
        size = recording.size
        if size > MAX_RECORDING:
            return False
        ring = self._pending.get(recording.uid)
        if ring is None:
            ring = self._pending[recording.uid] = deque()
        elif len(ring) >= self._keep:
            self._pending_bytes -= ring.popleft().size
        if self._pending_bytes + size > MAX_PENDING:
            return False
        ring.append(recording)
        self._pending_bytes += size
        return True

    async def get(self, run_id: RunId) -> JsonObject | None:
        for recording in self._unwritten():
            if recording.record.run_id == run_id:
                return self._document(recording)
        rows = await self._query(
            "SELECT data FROM recordings WHERE run = ? ORDER BY id DESC LIMIT 1", (run_id,)
        )
        return next(iter(rows), None)

    async def newest(
        self, *, namespace: str | None, script: str | None, limit: int
    ) -> Sequence[JsonObject]:
        unwritten = sorted(
            (
                it
                for it in self._unwritten()
                if namespace in {None, it.ref.key.namespace} and script in {None, it.ref.key.name}
            ),
            key=lambda it: it.record.finished_at,
            reverse=True,
        )[:limit]
        found = [self._document(recording) for recording in unwritten]
        where, values = "", list[str | int]()
        for column, value in (("namespace", namespace), ("name", script)):
            if value is not None:
                where += f" AND {column} = ?"
                values.append(value)
        known = {document["id"] for document in found}
        rows = await self._query(
            f"SELECT data FROM recordings WHERE 1{where} ORDER BY id DESC LIMIT ?",  # noqa: S608 - two fixed names
            (*values, limit),
        )
        return [*found, *(row for row in rows if row["id"] not in known)][:limit]

    async def artifact(self, digest: str) -> bytes | None:
        held = self._find(digest)
        if held is not None:
            return held
        async with self._using:
            row = await asyncio.to_thread(self._artifact_row, digest)
        return None if row is None else zlib.decompress(row[0])

    async def flush(self) -> None:
        async with self._using:
            self._writing = self._taken(FLUSH_ROWS)
            self._flushes += 1
            if not self._writing and self._flushes % SWEEP_FLUSHES:
                return
            artifacts = self._artifacts(self._writing)
            try:
                await asyncio.to_thread(self._write, self._writing, artifacts)
            except sqlite3.Error as error:
                # Recordings are a help, not a promise: what the disk refuses is not kept.
                raise Transient(
                    f"{self._path} cannot be written ({error})", reason="StateUnavailable"
                ) from error
            finally:
                self._writing = []

    def close(self) -> None:
        try:
            rest = self._taken(None)
            self._write(rest, self._artifacts(rest))
        except sqlite3.Error:
            log.exception("recordings lost", extra={"path": str(self._path)})
        finally:
            self._connection.close()

    # Memory.

    def _unwritten(self) -> list[Recording]:
        return [*self._writing, *(it for ring in self._pending.values() for it in ring)]

    def _document(self, recording: Recording) -> JsonObject:
        document: JsonObject = orjson.loads(recordings.encoded(recording, key=self._key))
        return document

    def _taken(self, limit: int | None) -> list[Recording]:
        """Whole rings, the longest waiting first, until there are `limit` recordings or more."""
        taken: list[Recording] = []
        while self._pending and (limit is None or len(taken) < limit):
            _, ring = self._pending.popitem(last=False)
            taken.extend(ring)
        self._pending_bytes -= sum(it.size for it in taken)
        return taken

    def _artifacts(self, taken: Sequence[Recording]) -> dict[str, bytes]:
        missing = {it.ref.digest for it in taken} - self._known
        found = {digest: self._find(digest) for digest in missing}
        return {digest: content for digest, content in found.items() if content is not None}

    # The disk.

    async def _query(self, sql: str, values: Sequence[str | int]) -> Sequence[JsonObject]:
        def rows() -> list[JsonObject]:
            found = self._connection.execute(sql, values).fetchall()
            return [orjson.loads(zlib.decompress(data)) for (data,) in found]

        async with self._using:
            try:
                return await asyncio.to_thread(rows)
            except (sqlite3.Error, zlib.error, orjson.JSONDecodeError) as error:
                raise Transient(
                    f"{self._path} cannot be read ({error})", reason="StateUnavailable"
                ) from error

    def _artifact_row(self, digest: str) -> tuple[bytes] | None:
        row: tuple[bytes] | None = self._connection.execute(
            "SELECT data FROM artifacts WHERE digest = ?", (digest,)
        ).fetchone()
        return row

    def _write(self, taken: Sequence[Recording], artifacts: dict[str, bytes]) -> None:
        # Each statement gives the interpreter to the event loop, so rows are made one by one.
        with self._connection as connection:
            for recording in taken:
                data = zlib.compress(recordings.encoded(recording, key=self._key), 1)
                key = recording.ref.key
                connection.execute(
                    "INSERT INTO recordings (run, uid, namespace, name, digest, size, data)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        recording.record.run_id,
                        recording.uid,
                        key.namespace,
                        key.name,
                        recording.ref.digest,
                        len(data),
                        data,
                    ),
                )
                self._bytes += len(data)
            for digest, content in artifacts.items():
                data = zlib.compress(content, 1)
                connection.execute(
                    "INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?)", (digest, len(data), data)
                )
                self._known.add(digest)
                self._bytes += len(data)
            for uid in {recording.uid for recording in taken}:
                self._trim(connection, uid)
            if self._bytes > self._max_bytes:
                self._shrink(connection)
            elif self._flushes % SWEEP_FLUSHES == 0:
                self._sweep(connection)

    def _trim(self, connection: sqlite3.Connection, uid: str) -> None:
        oldest = connection.execute(
            "SELECT id FROM recordings WHERE uid = ? ORDER BY id DESC LIMIT 1 OFFSET ?",
            (uid, self._keep),
        ).fetchone()
        if oldest is not None:
            gone = connection.execute(
                "DELETE FROM recordings WHERE uid = ? AND id <= ? RETURNING size", (uid, *oldest)
            ).fetchall()
            self._bytes -= sum(size for (size,) in gone)

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """The newest stay, up to nine tenths of what is allowed, so that this happens seldom."""
        (artifacts,) = connection.execute("SELECT coalesce(sum(size), 0) FROM artifacts").fetchone()
        connection.execute(
            "DELETE FROM recordings WHERE id <= ("
            " SELECT max(id) FROM"
            " (SELECT id, sum(size) OVER (ORDER BY id DESC) AS total FROM recordings)"
            " WHERE total > ?)",
            (max(self._max_bytes * 9 // 10 - artifacts, 0),),
        )
        self._sweep(connection)

    def _sweep(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "DELETE FROM artifacts WHERE digest NOT IN (SELECT digest FROM recordings)"
        )
        self._known = {row[0] for row in connection.execute("SELECT digest FROM artifacts")}
        self._bytes = self._measured()

    def _measured(self) -> int:
        (total,) = self._connection.execute(
            "SELECT (SELECT coalesce(sum(size), 0) FROM recordings)"
            " + (SELECT coalesce(sum(size), 0) FROM artifacts)"
        ).fetchone()
        return int(total)


def _key(path: Path) -> bytes:
    """The key of stand-ins, made at the first start. Whoever has it can try guesses of secrets."""
    try:
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
                new.write(secrets.token_bytes(KEY_BYTES))
        except FileExistsError:
            pass
        key = path.read_bytes()
        if len(key) == KEY_BYTES:
            return key
        # Cut short by a crash or a full disk: what it hid stays hidden under a new one.
        path.unlink()
        return _key(path)
    except OSError as error:
        raise Stalled(
            f"{path} cannot be opened ({error}); make sure that its folder can be written",
            reason="StateUnavailable",
        ) from error
