"""Runs that promise something, in SQLite."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reconciler.adapters import journaled
from reconciler.adapters.database import open_database
from reconciler.adapters.groupcommit import GroupCommit
from reconciler.core.deliveries import Delivery
from reconciler.core.runs import RunId
from reconciler.errors import Fenced, Transient
from reconciler.ports.clock import Clock
from reconciler.ports.journal import RETENTION

log = logging.getLogger(__name__)

VERSION = 2
_SECOND = """
CREATE TABLE epochs (
    shard INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL
);
CREATE TABLE ended (
    id TEXT PRIMARY KEY,
    until REAL NOT NULL
) WITHOUT ROWID
"""
SCHEMA = f"""
CREATE TABLE runs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    data BLOB NOT NULL,
    event BLOB NOT NULL
);
{_SECOND}
"""


def one_shard(_namespace: str) -> int:
    return 0


def _nobody(_delivery: Delivery) -> None:
    """There are no others."""


class SqliteJournal:
    """Keeps the promises of `Journal`.

    One write is under way at a time, in a thread; all that comes meanwhile is written together
    next: many runs cost one commit, and one fsync. The file is ours alone while it is open, so
    that what it holds can be known from memory.
    """

    def __init__(
        self, path: Path, *, clock: Clock, shard_of: Callable[[str], int] = one_shard
    ) -> None:
        # Nobody else writes here.
        self.on_found: Callable[[Delivery], None] = _nobody
        self._path = path
        self._clock = clock
        self._shard_of = shard_of
        self._connection = open_database(path, version=VERSION, schema=SCHEMA, changes=(_SECOND,))
        self._epochs: dict[int, int] = dict(
            self._connection.execute("SELECT shard, epoch FROM epochs").fetchall()
        )
        self._ended: dict[RunId, float] = dict(
            self._connection.execute("SELECT id, until FROM ended ORDER BY until").fetchall()
        )
        # Outcomes that are accepted of runs that are not done, and which runs have keys.
        self._accepted: dict[RunId, Delivery] = {}
        self._keyed: set[RunId] = set()
        self._commits: GroupCommit[RunId, Delivery] = GroupCommit(path, self._write)

    async def claim(self, shard: int, *, at_least: int = 1) -> int:
        epoch = max(self._epochs.get(shard, 0) + 1, at_least)
        await self._commits.alone(lambda: self._claim(shard, epoch))
        self._epochs[shard] = epoch
        return epoch

    async def load(self, shard: int) -> Sequence[Delivery]:
        await self._commits.flush()
        rows = await self._commits.alone(
            lambda: self._connection.execute(
                "SELECT id, data, event FROM runs ORDER BY number"
            ).fetchall()
        )
        every = [journaled.decode(*row) for row in rows]
        if None in every:
            log.error("damaged runs left out", extra={"count": every.count(None)})
        found = [
            it
            for it in every
            if it is not None and self._shard_of(it.run.script.namespace) == shard
        ]
        self._accepted.update((it.run.key.run_id, it) for it in found if it.result is not None)
        self._keyed.update(it.run.key.run_id for it in found if it.run.is_keyed)
        return found

    async def keep(self, delivery: Delivery) -> None:
        self._fence(delivery)
        if delivery.run.is_keyed:
            self._keyed.add(delivery.run.key.run_id)
        await self._commits.keep(delivery.run.key.run_id, delivery)

    async def accept(self, delivery: Delivery) -> Delivery:
        self._fence(delivery)
        run_id = delivery.run.key.run_id
        first = self._accepted.setdefault(run_id, delivery)
        try:
            await self._commits.keep(run_id, first)
        except Transient:
            self._accepted.pop(run_id, None)
            raise
        return first

    def drop(self, run_id: RunId) -> None:
        self._accepted.pop(run_id, None)
        if run_id in self._keyed:
            self._keyed.discard(run_id)
            now = self._clock.now()
            # The oldest first.
            while self._ended and next(iter(self._ended.values())) <= now:
                del self._ended[next(iter(self._ended))]
            self._ended[run_id] = now + RETENTION.total_seconds()
        self._commits.remove(run_id)

    async def has_ended(self, run_id: RunId) -> bool:
        return self._ended.get(run_id, 0.0) > self._clock.now()

    async def flush(self) -> None:
        await self._commits.flush()

    async def close(self) -> None:
        try:
            await self._commits.flush()
        except Transient:
            log.exception("journal not written", extra={"path": str(self._path)})
        finally:
            self._connection.close()

    def _fence(self, delivery: Delivery) -> None:
        shard = self._shard_of(delivery.run.script.namespace)
        newest, epoch = self._epochs.get(shard, 0), delivery.run.key.epoch
        if epoch < newest:
            raise Fenced(f"shard {shard} was claimed again: epoch {epoch}, now {newest}")

    def _claim(self, shard: int, epoch: int) -> None:
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO epochs VALUES (?, ?)", (shard, epoch))

    def _write(self, rows: Mapping[RunId, Delivery | None]) -> None:
        gone = [run_id for run_id, it in rows.items() if it is None]
        until = [(run_id, self._ended.get(run_id)) for run_id in gone]
        with self._connection:
            self._connection.executemany("DELETE FROM runs WHERE id = ?", [(it,) for it in gone])
            self._connection.executemany(
                "INSERT INTO runs (id, data, event) VALUES (?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET data = excluded.data",
                [
                    (run_id, journaled.encode(it), it.run.event)
                    for run_id, it in rows.items()
                    if it is not None
                ],
            )
            ended = [row for row in until if row[1] is not None]
            if ended:
                self._connection.executemany("INSERT OR REPLACE INTO ended VALUES (?, ?)", ended)
                self._connection.execute("DELETE FROM ended WHERE until <= ?", (self._clock.now(),))
