"""Runs that wait for what they committed: dispatched again with the replies, and held meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import orjson

from reconciler.controllers.metrics import Metrics
from reconciler.controllers.runnables import InFlight
from reconciler.core import convergence
from reconciler.core.objects import JsonObject, ObjectKey
from reconciler.core.runs import Commit, Dispatch, Pause, RunId
from reconciler.ports.clock import Clock
from reconciler.ports.sessions import ExecutorInfo

log = logging.getLogger(__name__)

# Performs what a run waits for, in so many seconds at most.
Perform = Callable[[InFlight, Sequence[Commit], float], Awaitable[list[JsonObject]]]


@dataclass(slots=True)
class _Paused:
    """`task` brings the replies; once they are there, it waits for an executor until `deadline`."""

    flight: InFlight
    commits: tuple[Commit, ...]
    since: float
    task: asyncio.Task[None] | None = None
    deadline: float = 0.0


class Pauses:
    """Runs between two dispatches. A run is a function of its activation, so it is sent again as it
    was, with the replies; it comes to where it was, and goes on. Used by one event loop only.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        metrics: Metrics,
        wake: Callable[[], None],
        deadline: Callable[[InFlight], float],
    ) -> None:
        """`deadline` is until when an executor has to take a run that can go on."""
        self._clock = clock
        self._wake = wake
        self._deadline = deadline
        self._paused: dict[RunId, _Paused] = {}
        metrics.runs_paused.set_function(self.__len__)
        # UIDs of Scripts whose runs were seen to wait.
        self._patient: set[str] = set()
        # Set by `main`.
        self.perform: Perform

    def __len__(self) -> int:
        return len(self._paused)

    def __iter__(self) -> Iterator[tuple[InFlight, tuple[Commit, ...], float]]:
        """Each run, what it waits for, and since when."""
        for paused in self._paused.values():
            yield paused.flight, paused.commits, paused.since

    @property
    def ready(self) -> int:
        """Runs that can go on as soon as an executor takes them."""
        return sum(it.task is None for it in self._paused.values())

    def is_patient(self, uid: str) -> bool:
        """Whether runs of the Script wait: they go one at a time, in their order."""
        return uid in self._patient

    def forget(self, uid: str) -> None:
        self._patient.discard(uid)

    def begin(self, flight: InFlight, pause: Pause) -> bool:
        """Take over a run from its executor; False when it has waited for as long as it may."""
        flight.replies = pause.replies or flight.replies
        flight.waited_ms = max(flight.waited_ms, pause.waited_ms)
        flight.duration_us += pause.duration_us
        left = (flight.runnable.ref.limits.wait_ms - flight.waited_ms) / 1000
        if left <= 0:
            return False
        self._patient.add(flight.run.uid)
        paused = _Paused(flight, pause.commits, self._clock.now())
        self._paused[flight.run.key.run_id] = paused
        paused.task = asyncio.get_running_loop().create_task(self._bring(paused, left))
        return True

    async def _bring(self, paused: _Paused, seconds: float) -> None:
        flight = paused.flight
        began = self._clock.monotonic()
        try:
            replies = await self.perform(flight, paused.commits, seconds)
        except Exception:
            log.exception("commit lost", extra={"run_id": flight.run.key.run_id})
            replies = [convergence.refusal(it, "Failed", "it was lost") for it in paused.commits]
        flight.waited_ms += round((self._clock.monotonic() - began) * 1000)
        flight.replies = orjson.dumps([*orjson.loads(flight.replies or b"[]"), *replies])
        paused.task = None
        paused.deadline = self._deadline(flight)
        self._wake()

    def give_back(self, flight: InFlight) -> None:
        """An executor was sent it and did not begin it."""
        paused = _Paused(flight, (), self._clock.now(), deadline=self._deadline(flight))
        self._paused[flight.run.key.run_id] = paused

    def take(self, executor: ExecutorInfo, room: int) -> list[tuple[InFlight, Dispatch]]:
        """At most `room` runs that can go on there; they are the caller's from now."""
        taken: list[tuple[InFlight, Dispatch]] = []
        for run_id, paused in list(self._paused.items()):
            ref = paused.flight.runnable.ref
            if len(taken) >= room:
                break
            if paused.task is not None or ref.script_type not in executor.script_types:
                continue
            del self._paused[run_id]
            flight = paused.flight
            activation = with_replies(flight.activation, flight.replies)
            dispatch = Dispatch(ref, ((flight.run.key, activation),), waited_ms=flight.waited_ms)
            taken.append((flight, dispatch))
        return taken

    def overdue(self, now: float) -> list[InFlight]:
        """Those that no executor has taken in time; they are the caller's from now."""
        late = [it.flight for it in self._paused.values() if it.task is None and it.deadline < now]
        for flight in late:
            del self._paused[flight.run.key.run_id]
        return late

    def abandon(self, script: ObjectKey | None = None) -> list[InFlight]:
        """Those of one Script, or all of them, broken off; they are the caller's from now."""
        flights: list[InFlight] = []
        for run_id, paused in list(self._paused.items()):
            if script in {None, paused.flight.run.script}:
                del self._paused[run_id]
                flights.append(paused.flight)
                if paused.task is not None:
                    paused.task.cancel()
        return flights


def with_replies(activation: bytes, replies: bytes) -> bytes:
    """The activation with these replies, a JSON array, in place of any that it has."""
    # Of two members of one name the last one counts.
    return b'%s,"replies":%s}' % (activation.rstrip().removesuffix(b"}"), replies)
