"""Runs that are started until one succeeds: `qos: AtLeastOnce`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result
from reconciler.core.objects import ObjectKey
from reconciler.core.runqueue import PER_SCRIPT, EventBytes, RunQueue
from reconciler.core.runs import Outcome, Run, RunId, RunRecord
from reconciler.ports.clock import Clock
from reconciler.ports.journal import Journal

log = logging.getLogger(__name__)

# Starts of one run, the first one counted; between them 1, 2, 4 and 8 seconds.
ATTEMPTS: Final = 5
FIRST_REST: Final = 1.0


class _Place(Enum):
    WRITING = "Writing"
    QUEUED = "Queued"
    RESTING = "Resting"
    PARKED = "Parked"


@dataclass(slots=True)
class _Open:
    run: Run
    place: _Place


class Deliveries:
    """Keeps runs in a journal from before they wait until they have succeeded.

    Promised of a run that was taken: it is started until one start of it succeeds, or `ATTEMPTS`
    have not, or its Script is gone; over crashes of the controller and the executor too. It may be
    started again after a start that succeeded, when the crash fell in between. Runs of a Script
    that is suspended or not ready wait for it. Not promised: an order among runs.
    """

    def __init__(
        self,
        journal: Journal,
        queue: RunQueue,
        *,
        clock: Clock,
        metrics: Metrics,
        wake: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._queue = queue
        self._metrics = metrics
        self._wake = wake
        self._open: dict[RunId, _Open] = {}
        self._count: Counter[ObjectKey] = Counter()
        self._events = EventBytes()
        # Scripts that can run now.
        self._ready: set[ObjectKey] = set()
        self.loop: KeyLoop[RunId] = KeyLoop(
            "Delivery", self._reconcile, clock=clock, metrics=metrics, workers=PER_SCRIPT
        )
        for run in journal.load():
            # Whether it was started is not known, so it counts as if it was; and that is kept
            # before it starts, or a second crash would have the same start again.
            self.take(replace(run, key=run.key._replace(attempt=run.key.attempt + 1)))

    def has_room(self, script: ObjectKey, event: bytes = b"") -> bool:
        return self._count[script] < PER_SCRIPT and self._events.has_room(script, len(event))

    def take(self, run: Run) -> None:
        """It waits once it is kept; while the disk refuses, it is tried again."""
        self._put(run, _Place.WRITING)
        self.loop.add(run.key.run_id)

    async def accept(self, run: Run) -> None:
        """Take it, and return when it is kept. Raises `Transient`; it is then not taken."""
        await self._journal.keep(run)
        self._put(run, _Place.PARKED)
        self._offer(self._open[run.key.run_id])

    def __contains__(self, run: Run) -> bool:
        return run.key.run_id in self._open

    # What becomes of Scripts.

    def resume(self, script: ObjectKey) -> None:
        """It can run now."""
        self._ready.add(script)
        for it in self._of(script):
            if it.place is _Place.PARKED:
                self._offer(it)

    def park(self, script: ObjectKey, dropped: Collection[Run]) -> None:
        """It cannot run for now; `dropped` waited in the queue and do no more."""
        self._ready.discard(script)
        for run in dropped:
            if run.key.run_id in self._open:
                self._open[run.key.run_id].place = _Place.PARKED

    def forget(self, uid: str) -> None:
        """The Script is gone for good."""
        for run_id in [i for i, it in self._open.items() if it.run.uid == uid]:
            self._close(run_id)

    def let_go(self, uid: str) -> None:
        """Another replica sees to the runs of this Script; they stay in the journal."""
        for run_id in [i for i, it in self._open.items() if it.run.uid == uid]:
            self._forget(run_id)

    def keep_only(self, uids: Container[str]) -> None:
        for run_id in [i for i, it in self._open.items() if it.run.uid not in uids]:
            self._close(run_id)

    # What becomes of runs.

    def ended(self, record: RunRecord) -> None:
        it = self._open.get(record.run_id)
        if it is None:
            return
        attempt = it.run.key.attempt
        if record.outcome is Outcome.SUCCEEDED:
            self._close(record.run_id)
        elif attempt >= ATTEMPTS:
            self._metrics.runs_given_up_total.inc()
            log.warning(
                "run given up",
                extra={"run_id": record.run_id, "script": str(record.script), "attempts": attempt},
            )
            self._close(record.run_id)
        else:
            it.run = replace(it.run, key=it.run.key._replace(attempt=attempt + 1))
            it.place = _Place.RESTING
            self.loop.add_after(record.run_id, FIRST_REST * 2.0 ** (attempt - 1))

    async def flush(self) -> None:
        await self._journal.flush()

    async def _reconcile(self, run_id: RunId) -> Result:
        it = self._open.get(run_id)
        if it is None or it.place not in {_Place.WRITING, _Place.RESTING}:
            return Result()
        # A new attempt is kept before it starts too, so that none has a number twice.
        await self._journal.keep(it.run)
        if self._open.get(run_id) is it:
            self._offer(it)
        return Result()

    def _offer(self, it: _Open) -> None:
        if it.run.script not in self._ready:
            it.place = _Place.PARKED
            return
        it.place = _Place.QUEUED
        self._queue.offer(it.run, coalesce=False, must=True)
        self._wake()

    def _of(self, script: ObjectKey) -> list[_Open]:
        return [it for it in self._open.values() if it.run.script == script]

    def _put(self, run: Run, place: _Place) -> None:
        self._open[run.key.run_id] = _Open(run, place)
        self._count[run.script] += 1
        self._events.add(run.script, len(run.event))

    def _close(self, run_id: RunId) -> None:
        self._forget(run_id)
        self._journal.drop(run_id)

    def _forget(self, run_id: RunId) -> None:
        it = self._open.pop(run_id)
        self._count[it.run.script] -= 1
        self._events.add(it.run.script, -len(it.run.event))
