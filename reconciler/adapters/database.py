"""A SQLite file of ours: its schema version, its durability, and what happens on damage."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from reconciler.errors import Stalled

log = logging.getLogger(__name__)

# A second process on the same file is told so after this long.
LOCK_SECONDS = 1.0


def open_database(
    path: Path, *, version: int, schema: str, changes: Sequence[str] = ()
) -> sqlite3.Connection:
    """The database at `path`, made with `schema` when new; a commit that returned is on disk.

    `changes` lead from each version to the next, from the first on. The connection holds the file
    alone until it is closed. It may be used from any thread, by one at a time. A file that SQLite
    calls damaged is set aside as `<name>.damaged` and begun anew. Raises `Stalled` when a newer
    version of this program wrote it, or when it cannot be opened.
    """
    try:
        try:
            return _open(path, version, schema, changes)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            log.exception("database damaged, set aside and begun anew", extra={"path": str(path)})
            _set_aside(path)
            return _open(path, version, schema, changes)
    except (sqlite3.Error, OSError) as error:
        raise Stalled(
            f"{path} cannot be opened ({error}); make sure that its folder can be written and that "
            "no other controller uses it",
            reason="StateUnavailable",
        ) from error


def _open(path: Path, version: int, schema: str, changes: Sequence[str]) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=LOCK_SECONDS, check_same_thread=False)
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        # WAL's default, NORMAL, may lose the last commits with the power.
        connection.execute("PRAGMA synchronous = FULL")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > version:
            raise Stalled(
                f"{path} was written by a newer scriptops (schema {found}, this one knows "
                f"{version}); run that version, or move the file away",
                reason="StateTooNew",
            )
        steps = (schema,) if found == 0 else changes[found - 1 :]
        if steps:
            script = "; ".join(steps)
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {version}; COMMIT;")
        undo.pop_all()
    return connection


def _set_aside(path: Path) -> None:
    path.replace(path.with_name(path.name + ".damaged"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
