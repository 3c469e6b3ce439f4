"""Documents on disk: one SQLite file, one writing thread, many writes to a commit."""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from reconciler.errors import Stalled

FILE = "cluster.db"
LOCK = "cluster.lock"
# The number that SCHEMA sets: raised with every change that older programs cannot read.
FORMAT = 1
# Nobody else writes; who reads does not block. What still does after this is a fault.
BUSY_SECONDS = 1.0
SCHEMA = """
BEGIN;
CREATE TABLE object (
    kind TEXT, namespace TEXT, name TEXT, version INTEGER NOT NULL,
    document BLOB NOT NULL, owners BLOB NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE newest (version INTEGER NOT NULL);
INSERT INTO newest VALUES (0);
PRAGMA user_version = 1;
COMMIT;
"""


class Row(NamedTuple):
    """One object as it is from `version` on; without `document` it is gone."""

    kind: str
    namespace: str
    name: str
    version: int
    document: bytes | None
    owners: bytes = b"{}"


class Journal:
    """`write` returns at once; `written` is called, in the thread, when it is on disk.

    Writes become durable in the order they were given; a commit holds all that came in during the
    one before. After a failure nothing more is written until `resume`: what was given since was
    meant for a state that the disk does not have.
    """

    def __init__(
        self,
        folder: Path,
        *,
        written: Callable[[int], None],
        failed: Callable[[Exception], None],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        self._lock = _locked(folder)
        self._connection = _opened(folder)
        self._written = written
        self._failed = failed
        self._waiting: queue.SimpleQueue[tuple[int, Row] | None] = queue.SimpleQueue()
        self._intact = threading.Event()
        self._intact.set()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._ticket = 0
        self._void = 0

    def start(self) -> None:
        self._thread.start()

    def load(self) -> tuple[int, list[Row]]:
        """The newest version ever written, and all objects. Not while writes are on their way."""
        return _load(self._connection)

    @property
    def last_ticket(self) -> int:
        return self._ticket

    def write(self, row: Row) -> int:
        """The ticket by which `written` tells that this row, and all before it, are on disk."""
        self._ticket += 1
        self._waiting.put((self._ticket, row))
        return self._ticket

    def resume(self) -> None:
        """Write again, from the state that `load` gives; what was given until now is void."""
        self._void = self._ticket
        self._intact.set()

    def close(self) -> None:
        """Write what was given, then let go of the file. Blocks for as long as the disk does."""
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._connection.close()
        os.close(self._lock)

    def _run(self) -> None:
        open_ended = True
        while open_ended:
            batch = [self._waiting.get(), *self._at_hand()]
            open_ended = None not in batch
            is_intact = self._intact.is_set()
            entries = [entry for entry in batch if entry is not None and entry[0] > self._void]
            if not entries or not is_intact:
                continue
            try:
                self._commit([row for _, row in entries])
            except sqlite3.Error as error:
                self._intact.clear()
                self._failed(type(error)(f"{self._path}: {error}"))
            else:
                self._written(entries[-1][0])

    def _at_hand(self) -> Iterator[tuple[int, Row] | None]:
        while True:
            try:
                yield self._waiting.get_nowait()
            except queue.Empty:
                return

    def _commit(self, rows: Sequence[Row]) -> None:
        with self._connection as connection:
            connection.execute("BEGIN")
            # Only the newest state of an object is worth writing.
            newest = {row[:3]: row for row in rows}
            connection.executemany(
                "INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?, ?)",
                [row for row in newest.values() if row.document is not None],
            )
            connection.executemany(
                "DELETE FROM object WHERE kind = ? AND namespace = ? AND name = ?",
                [row[:3] for row in newest.values() if row.document is None],
            )
            connection.execute(
                "UPDATE newest SET version = max(version, ?)", (max(row.version for row in rows),)
            )


def snapshot(folder: Path) -> tuple[int, list[Row]]:
    """What is on disk now, whoever writes it. Raises `Stalled` where there is nothing to read."""
    try:
        with closing(
            sqlite3.connect(f"{(folder / FILE).absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            return _load(connection)
    except sqlite3.Error as error:
        raise Stalled(
            f"{folder} holds no state that can be read ({error}); start scriptops on it once",
            reason="StateUnavailable",
        ) from error


def _load(connection: sqlite3.Connection) -> tuple[int, list[Row]]:
    connection.execute("BEGIN")
    try:
        (newest,) = connection.execute("SELECT version FROM newest").fetchone()
        return newest, [Row(*row) for row in connection.execute("SELECT * FROM object")]
    finally:
        connection.rollback()


def _locked(folder: Path) -> int:
    lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Stalled(
            f"another scriptops writes to {folder}; stop it, or choose another data folder",
            reason="StateInUse",
        ) from error
    return lock


def _opened(folder: Path) -> sqlite3.Connection:
    path = folder / FILE
    # Secrets are among the documents: nobody else reads them.
    path.touch(mode=0o600)
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL, the default of many, loses the last commits with the power.
        connection.execute("PRAGMA synchronous = FULL")
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found == 0:
            connection.executescript(SCHEMA)
    except sqlite3.Error as error:
        raise Stalled(
            f"{path} cannot be read ({error}); move it away to begin anew from git",
            reason="StateDamaged",
        ) from error
    if found > FORMAT:
        raise Stalled(
            f"{path} was written by a newer scriptops; run that version, or move the file away",
            reason="StateTooNew",
        )
    return connection
