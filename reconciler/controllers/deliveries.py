"""Runs that promise something: `qos: AtLeastOnce` and `OnlyOnce`."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass
from enum import Enum

from reconciler.api.script import Qos
from reconciler.controllers.leading import Leadership
from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result
from reconciler.core import deliveries as delivery
from reconciler.core.deliveries import Delivery, Stage
from reconciler.core.objects import ObjectKey
from reconciler.core.runqueue import PER_SCRIPT, EventBytes, RunQueue
from reconciler.core.runs import Outcome, Run, RunId, RunRecord, RunResult
from reconciler.errors import Fenced, Transient
from reconciler.ports.clock import Clock
from reconciler.ports.journal import RETENTION, Journal

log = logging.getLogger(__name__)


# Runs with keys that promise no more; about 20 MB at most.
REMEMBERED = 100_000


class _Place(Enum):
    WRITING = "Writing"
    QUEUED = "Queued"
    RESTING = "Resting"
    PARKED = "Parked"


@dataclass(slots=True)
class _Open:
    delivery: Delivery
    place: _Place
    # The outcome that is being accepted.
    accepting: asyncio.Future[RunResult | None] | None = None
    # How often its effects could not be performed.
    failures: int = 0

    @property
    def run(self) -> Run:
        return self.delivery.run


class Deliveries:
    """Keeps runs in a journal from before they wait until they are done.

    Promised of a run that was taken: it is done once, or its Script is gone; over crashes of the
    controller and the executor too. `AtLeastOnce`: it is started until one start succeeds, or
    `ATTEMPTS` have not; it may be started again after one that succeeded, when a crash fell in
    between. `OnlyOnce`: one outcome of it is accepted, on record before any of its effects, which
    are then performed until all are; where nobody can know what a start has done outside, that
    outcome is `Unknown`. Runs of a Script that is suspended or not ready wait for it. Not
    promised: an order among runs.
    """

    def __init__(
        self,
        journal: Journal,
        queue: RunQueue,
        leadership: Leadership,
        *,
        clock: Clock,
        metrics: Metrics,
        wake: Callable[[], None],
    ) -> None:
        self._journal = journal
        journal.on_found = self._found
        self._clock = clock
        self._queue = queue
        self._leadership = leadership
        self._metrics = metrics
        self._wake = wake
        self._open: dict[RunId, _Open] = {}
        self._count: Counter[ObjectKey] = Counter()
        self._events = EventBytes()
        # Done, and not surely known to be after a crash.
        self._closing: set[RunId] = set()
        # Runs with keys that are not kept, the oldest first, and until when they are known.
        self._remembered: dict[RunId, float] = {}
        # Scripts that can run now.
        self._ready: set[ObjectKey] = set()
        self.loop: KeyLoop[RunId] = KeyLoop(
            "Delivery", self._reconcile, clock=clock, metrics=metrics, workers=PER_SCRIPT
        )

    # Whose runs these are.

    async def lead(self, shard: int = 0, *, at_least: int = 1) -> None:
        """Begin to work for a shard, with what whoever did before has left. Raises `Transient`.

        Our epoch there is `at_least` that of who says that it is ours.
        """
        epoch = await self._journal.claim(shard, at_least=at_least)
        for run_id, held in list(self._open.items()):
            if self._leadership.shard(held.run.script.namespace) == shard:
                self._remove(run_id)
        self._leadership.claimed(shard, epoch)
        for found in await self._journal.load(shard):
            # Whether it was started is not known, so it counts as if it was; and that is kept
            # before it starts, or a second crash would have the same start again.
            it = delivery.recovered(found, epoch)
            self._put(it, _Place.WRITING)
            if found.stage is Stage.ACCEPTED:
                self._offer(self._open[it.run.key.run_id])
            else:
                self.loop.add(it.run.key.run_id)

    def has_room(self, script: ObjectKey, event: bytes = b"") -> bool:
        return self._count[script] < PER_SCRIPT and self._events.has_room(script, len(event))

    def take(self, run: Run) -> None:
        """It waits once it is kept; while the disk refuses, it is tried again."""
        self._put(Delivery(run=run), _Place.WRITING)
        self.loop.add(run.key.run_id)

    async def accept(self, run: Run) -> None:
        """Take it, and return when it is kept. Raises `Transient` and `Fenced`; it is then not."""
        await self._journal.keep(Delivery(run=run))
        self._put(Delivery(run=run), _Place.PARKED)
        self._offer(self._open[run.key.run_id])

    async def knows(self, run_id: RunId) -> bool:
        """Whether a run with a key is under way, or has ended within `RETENTION`.

        Raises `Transient`.
        """
        until = self._remembered.get(run_id, 0.0)
        is_known = run_id in self._open or until > self._clock.monotonic()
        return is_known or await self._journal.has_ended(run_id)

    def remember(self, run_id: RunId) -> None:
        """A run with a key that is not kept, for as long as this process lives."""
        now = self._clock.monotonic()
        while self._remembered and (
            len(self._remembered) >= REMEMBERED or next(iter(self._remembered.values())) <= now
        ):
            del self._remembered[next(iter(self._remembered))]
        self._remembered[run_id] = now + RETENTION.total_seconds()

    def __contains__(self, run: Run) -> bool:
        return run.key.run_id in self._open

    def is_undone(self, run_id: RunId) -> bool:
        """Whether its effects may be performed again, now or after a crash."""
        it = self._open.get(run_id)
        return it.delivery.is_once if it is not None else run_id in self._closing

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
            self._remove(run_id)

    def keep_only(self, uids: Container[str]) -> None:
        for run_id in [i for i, it in self._open.items() if it.run.uid not in uids]:
            self._close(run_id)

    # What becomes of starts.

    def must_note(self, run: Run, *, acts_outside: bool) -> bool:
        """Whether `note` comes before its start."""
        it = self._open.get(run.key.run_id)
        return (
            acts_outside
            and it is not None
            and it.delivery.is_once
            and it.delivery.stage is Stage.KEPT
        )

    async def note(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Keep that they start; those of them that may. The others wait here."""
        noted = await asyncio.gather(*(self.note_act(run) for run in runs))
        started = [run for run, is_noted in zip(runs, noted, strict=True) if is_noted]
        for it in (self._open.get(run.key.run_id) for run in runs if run not in started):
            if it is not None:
                it.place = _Place.RESTING
                self.loop.add_after(it.run.key.run_id, delivery.FIRST_REST)
        return started

    async def note_act(self, run: Run) -> bool:
        """Keep that it may have done something before its outcome is known; False if not kept."""
        it = self._open.get(run.key.run_id)
        if it is None or not it.delivery.is_once or it.delivery.stage is not Stage.KEPT:
            # Of a run that promises no more, or is noted; not of one that is not ours any more.
            return it is not None or run.qos is not Qos.ONLY_ONCE
        noted = delivery.started(it.delivery)
        try:
            await self._journal.keep(noted)
        except Fenced:
            self._lose(run.key.run_id)
            return False
        except Transient as error:
            log.warning("start not kept", extra={"run_id": run.key.run_id, "error": str(error)})
            return False
        it.delivery = noted
        return self._open.get(run.key.run_id) is it

    def outcome(self, run: Run) -> RunResult | None:
        """What was accepted of it: then it is not started, and what that asks for is performed."""
        it = self._open.get(run.key.run_id)
        return it.delivery.result if it is not None else None

    def expect(self, run: Run, result: RunResult) -> None:
        """`decide` will be asked: begin to keep what it will say, beside others that come now."""
        it = self._open.get(run.key.run_id)
        if it is not None and it.delivery.is_once and it.accepting is None:
            it.accepting = asyncio.ensure_future(self._decide(it, result))

    async def decide(self, run: Run, result: RunResult) -> RunResult | None:
        """The outcome to perform, count and tell; None if that is not for now, or not for us."""
        it = self._open.get(run.key.run_id)
        if it is None:
            return None if run.qos is Qos.ONLY_ONCE else result
        if not it.delivery.is_once:
            return result
        self.expect(run, result)
        accepting, it.accepting = it.accepting, None
        return await accepting if accepting is not None else None

    def is_to_repeat(self, run: Run) -> bool:
        """Whether its effects are performed until they are done. If not done: `perform_later`."""
        it = self._open.get(run.key.run_id)
        return it is not None and it.delivery.is_once

    def perform_later(self, run: Run) -> None:
        it = self._open[run.key.run_id]
        it.failures += 1
        it.place = _Place.RESTING
        pause = min(delivery.rest(it.failures), delivery.LONGEST_REST)
        self.loop.add_after(run.key.run_id, pause)

    def ended(self, record: RunRecord) -> None:
        it = self._open.get(record.run_id)
        if it is None:
            return
        if it.delivery.is_once or record.outcome is Outcome.SUCCEEDED:
            self._close(record.run_id)
            return
        self._start_again(it, delivery.again(it.delivery))

    async def flush(self) -> None:
        closing = tuple(self._closing)
        await self._journal.flush()
        self._closing.difference_update(closing)

    async def _decide(self, it: _Open, result: RunResult) -> RunResult | None:
        run_id = it.run.key.run_id
        was_accepted = it.delivery.stage is Stage.ACCEPTED
        after = delivery.ended(it.delivery, result)
        if after is None:
            self._metrics.stale_results_total.inc()
            return None
        if after.stage is not Stage.ACCEPTED:
            self._start_again(it, after)
            return None
        if was_accepted:
            return after.result
        try:
            it.delivery = await self._journal.accept(after)
        except Fenced:
            self._lose(run_id)
            return None
        except Transient as error:
            # Not on record yet, so nothing of it may be performed.
            log.warning("outcome not kept", extra={"run_id": run_id, "error": str(error)})
            it.delivery, it.place = after, _Place.WRITING
            self.loop.add_after(run_id, delivery.FIRST_REST)
            return None
        return it.delivery.result

    def _start_again(self, it: _Open, after: Delivery | None) -> None:
        run_id, attempt = it.run.key.run_id, it.run.key.attempt
        if after is None:
            self._metrics.runs_given_up_total.inc()
            log.warning(
                "run given up",
                extra={"run_id": run_id, "script": str(it.run.script), "attempts": attempt},
            )
            self._close(run_id)
            return
        it.delivery, it.place = after, _Place.RESTING
        self.loop.add_after(run_id, delivery.rest(attempt))

    async def _reconcile(self, run_id: RunId) -> Result:
        it = self._open.get(run_id)
        if it is None or it.place not in {_Place.WRITING, _Place.RESTING}:
            return Result()
        try:
            if it.delivery.stage is not Stage.ACCEPTED:
                # A new attempt is kept before it starts too, so that none has a number twice.
                await self._journal.keep(it.delivery)
            elif it.place is _Place.WRITING:
                it.delivery = await self._journal.accept(it.delivery)
        except Fenced:
            self._lose(run_id)
        if self._open.get(run_id) is it:
            self._offer(it)
        return Result()

    def _found(self, found: Delivery) -> None:
        """Somebody who led before us has kept it since, or does not know yet that we do."""
        run = found.run
        if run.key.run_id not in self._open:
            epoch = self._leadership.epoch(run.script.namespace)
            self._put(delivery.recovered(found, epoch), _Place.WRITING)
            self.loop.add(run.key.run_id)

    def _offer(self, it: _Open) -> None:
        if it.run.script not in self._ready:
            it.place = _Place.PARKED
            return
        it.place = _Place.QUEUED
        self._queue.offer(it.run, coalesce=False, must=True)
        self._wake()

    def _of(self, script: ObjectKey) -> list[_Open]:
        return [it for it in self._open.values() if it.run.script == script]

    def _put(self, kept: Delivery, place: _Place) -> None:
        run = kept.run
        self._open[run.key.run_id] = _Open(kept, place)
        self._count[run.script] += 1
        self._events.add(run.script, len(run.event))

    def _close(self, run_id: RunId) -> None:
        if self._open[run_id].delivery.is_once:
            self._closing.add(run_id)
        self._remove(run_id)
        self._journal.drop(run_id)

    def _lose(self, run_id: RunId) -> None:
        """Somebody else has it now."""
        log.warning("run left to a newer epoch", extra={"run_id": run_id})
        self._remove(run_id)

    def _remove(self, run_id: RunId) -> None:
        it = self._open.pop(run_id)
        self._count[it.run.script] -= 1
        self._events.add(it.run.script, -len(it.run.event))
