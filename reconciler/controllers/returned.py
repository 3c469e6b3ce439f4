"""Runs that have left the queue and are with no executor: they go before all that waits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace

from reconciler.controllers.deliveries import Deliveries
from reconciler.controllers.executors import Executors
from reconciler.controllers.runnables import NOBODY, InFlight, Runnable
from reconciler.core.objects import ObjectKey
from reconciler.core.runqueue import QUANTUM, RunQueue
from reconciler.core.runs import Run, RunId
from reconciler.ports.sessions import ExecutorInfo


class Returned:
    """Runs that an executor did not begin, those to be run once more, and those of which it had to
    be kept first that they start. Used by one event loop only.
    """

    def __init__(
        self,
        queue: RunQueue,
        executors: Executors,
        *,
        deadline: Callable[[Runnable, int], float],
        wake: Callable[[], None],
        begin: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        """`deadline` is until when an executor has to take a run, with so many in front of it;
        `begin` starts what the caller waits for when it ends.
        """
        self._queue = queue
        self._executors = executors
        self._deadline = deadline
        self._wake = wake
        self._flights: dict[RunId, InFlight] = {}
        self._begin = begin

    def __len__(self) -> int:
        return len(self._flights)

    def __iter__(self) -> Iterator[InFlight]:
        return iter(self._flights.values())

    def unbegun(self, flight: InFlight) -> None:
        """The same attempt, with another executor where there is one."""
        self._put(replace(flight, deadline=self._deadline(flight.runnable, 1)))

    def again(self, flight: InFlight) -> None:
        """Run it once more: what it went by had changed meanwhile, so it has not happened."""
        # As long as all that may be in front of it; with any executor, and as the same try.
        deadline = self._deadline(flight.runnable, QUANTUM)
        self._put(replace(flight, executor=NOBODY, deadline=deadline, tries=flight.tries - 1))

    def noted(self, runnable: Runnable, group: list[Run], deliveries: Deliveries) -> list[Run]:
        """Those that may be sent at once. Of the others it is kept first that they start."""
        first = [
            run
            for run in group
            if deliveries.must_note(run, acts_outside=bool(runnable.of(run).ref.network_allow))
        ]
        if not first:
            return group
        self._begin(self._note(runnable, first, deliveries))
        return [run for run in group if run not in first]

    async def _note(self, runnable: Runnable, runs: list[Run], deliveries: Deliveries) -> None:
        noted = await deliveries.note(runs)
        for run in runs:
            if run not in noted:
                self._queue.done(run.script)
                continue
            deadline = self._deadline(runnable, QUANTUM)
            self._put(InFlight(run=run, runnable=runnable, tries=0, deadline=deadline))
        self._wake()

    def fit_for(self, executor: ExecutorInfo) -> Iterator[InFlight]:
        """All except those that another executor than this one should take."""
        for flight in list(self._flights.values()):
            script_type = flight.runnable.ref.script_type
            if script_type in executor.script_types and (
                flight.executor != executor.id
                or not self._executors.can_run(script_type, but=executor.id)
            ):
                yield flight

    def pop(self, run_id: RunId) -> None:
        self._flights.pop(run_id, None)

    def overdue(self, now: float) -> list[InFlight]:
        """Those that no executor has taken in time."""
        return [flight for flight in self._flights.values() if flight.deadline < now]

    def abandon(self, script: ObjectKey) -> list[InFlight]:
        """Those of one Script; they are the caller's from now."""
        flights = [it for it in self._flights.values() if it.run.script == script]
        for flight in flights:
            del self._flights[flight.run.key.run_id]
        return flights

    def _put(self, flight: InFlight) -> None:
        self._flights[flight.run.key.run_id] = flight
