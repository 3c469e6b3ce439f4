"""From waiting runs to executors and back: who runs what, and what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace

from reconciler.controllers.deliveries import Deliveries
from reconciler.controllers.environments import Environments
from reconciler.controllers.executors import Executor, Executors
from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.loading import Loading
from reconciler.controllers.memory import Memory
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.pauses import Pauses
from reconciler.controllers.preparing import MAX_ACTIVATION, Preparing
from reconciler.controllers.returned import Returned
from reconciler.controllers.runnables import InFlight, Runnable, Those, answer_seconds
from reconciler.controllers.shadowing import Shadows
from reconciler.controllers.triggering import Triggering
from reconciler.controllers.world import World
from reconciler.core.objects import ObjectKey
from reconciler.core.runqueue import QUANTUM, RunQueue
from reconciler.core.runs import (
    Dispatch,
    ExecutorId,
    Outcome,
    Pause,
    Run,
    RunId,
    RunKey,
    RunResult,
    ScriptRef,
)
from reconciler.ports.clock import Clock
from reconciler.ports.sessions import ExecutorInfo, SessionServer

log = logging.getLogger(__name__)

# How often runs in flight are looked through for such.
SWEEP_SECONDS = 5.0
# An executor that cannot run something (shutting down, no such engine) leaves it to another.
UNAVAILABLE_ATTEMPTS = 3


class Dispatcher:
    """Sends runs to executors that have credit, and hands each result on exactly once.

    A result counts only while its run id, attempt and epoch are in flight with the executor that
    sent it. A run whose executor is lost ends as `Lost`: it may have run or not, and is not
    repeated. One that an executor says it did not begin is given to another. The runs of one
    Script do not overlap: results are handed on one at a time, in the order in which they came,
    and more is dispatched when the effects of all that was in flight are done. A run that went by
    what its Script does not remember so any more is run again instead of being handed on. One that
    waits for what it has committed is with no executor meanwhile; it is in flight all the same.
    """

    def __init__(
        self,
        world: World,
        queue: RunQueue,
        sessions: SessionServer,
        memory: Memory,
        environments: Environments,
        *,
        clock: Clock,
        metrics: Metrics,
        leadership: Leadership = ALONE,
    ) -> None:
        self._queue = queue
        self._sessions = sessions
        self._memory = memory
        self._environments = environments
        self._clock = clock
        self._metrics = metrics
        self._leadership = leadership
        self._executors = Executors(metrics)
        self._runnables: dict[ObjectKey, Runnable] = {}
        self._in_flight: dict[RunId, InFlight] = {}
        self._loading = Loading(clock=clock, metrics=metrics, leadership=leadership, wake=self.wake)
        self._preparing = Preparing(world, memory, environments, clock)
        self._returned = Returned(
            queue, self._executors, deadline=self._deadline, wake=self.wake, begin=self._begin
        )
        self.shadows = Shadows(world, clock=clock, metrics=metrics, leadership=leadership)
        self.pauses = Pauses(
            clock=clock,
            metrics=metrics,
            wake=self.wake,
            deadline=lambda flight: self._deadline(flight.runnable, QUANTUM),
        )
        # Results by Script that are not handed on yet.
        self._ended: dict[ObjectKey, deque[tuple[InFlight, RunResult]]] = {}
        self._pump_is_due = False
        self._tasks: set[asyncio.Task[None]] = set()
        # Set by `main`, which knows both ends.
        self.triggering: Triggering
        self.deliveries: Deliveries
        self.on_finished: Callable[[InFlight, RunResult], Awaitable[None]]
        self.on_loaded: Callable[[str, str, RunResult], None]
        self.on_executors: Callable[[], None]

    # What Scripts are to be run.

    def put(self, script: ObjectKey, runnable: Runnable) -> None:
        self._runnables[script] = runnable

    def remove(self, script: ObjectKey) -> None:
        gone = self._runnables.pop(script, None)
        if gone is not None:
            self.pauses.forget(gone.uid)

    def let_go(self, script: ObjectKey) -> None:
        """Another replica runs it from now on: what its runs in flight answer is dropped."""
        self.remove(script)
        flying = [i for i, f in self._in_flight.items() if f.run.script == script]
        for run_id in flying:
            del self._in_flight[run_id]
        for _ in (*flying, *self._returned.abandon(script), *self.pauses.abandon(script)):
            self._queue.done(script)

    def running(self, script: ObjectKey) -> Runnable | None:
        return self._runnables.get(script)

    def load(self, ref: ScriptRef) -> None:
        """Ask an executor to fetch and load an artifact; `on_loaded` tells how that went."""
        self._loading.want(ref)

    def can_run(self, script_type: str) -> bool:
        return self._executors.can_run(script_type)

    @property
    def executors(self) -> Sequence[ExecutorInfo]:
        return tuple(e.info for e in self._executors)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight) + len(self._returned) + len(self.pauses)

    def in_flight_of(self, script: ObjectKey) -> int:
        paused = (flight for flight, _, _ in self.pauses)
        flights = (*self._in_flight.values(), *self._returned, *paused)
        return sum(flight.run.script == script for flight in flights)

    # What sessions say.

    def connected(self, executor: ExecutorInfo) -> None:
        self._executors.connected(executor)
        self.on_executors()

    def credited(self, executor: ExecutorId, credit: int) -> None:
        if self._executors.credited(executor, credit):
            self.wake()

    def draining(self, executor: ExecutorId) -> None:
        """It takes no more; what it holds may still come back."""
        if self._executors.draining(executor):
            self.on_executors()

    def disconnected(self, executor: ExecutorId, reason: str) -> None:
        if not self._executors.disconnected(executor, reason):
            return
        self._loading.lost(executor)
        self.shadows.lost(executor)
        self._give_up(
            [f for f in self._in_flight.values() if f.executor == executor],
            Outcome.LOST,
            "the executor went away while the run was in flight",
        )
        self.on_executors()
        self.wake()

    def finished(self, executor: ExecutorId, results: Sequence[RunResult]) -> None:
        for result in results:
            if result.load:
                loaded = self._loading.finished(executor, result)
                if loaded is not None:
                    self.on_loaded(*loaded, result)
                continue
            if self.shadows.finished(executor, result):
                continue
            flight = self._flying(executor, result.key)
            if flight is None:
                continue
            if result.outcome is Outcome.UNAVAILABLE and flight.tries < UNAVAILABLE_ATTEMPTS:
                self._return(flight)
                continue
            self._finish(flight, result)

    def paused(self, executor: ExecutorId, pauses: Sequence[Pause]) -> None:
        for pause in pauses:
            if self.shadows.paused(executor, pause):
                self.wake()
                continue
            flight = self._flying(executor, pause.key)
            if flight is None:
                continue
            if self.pauses.begin(flight, pause):
                del self._in_flight[pause.key.run_id]
                continue
            waited = flight.runnable.ref.limits.wait_ms
            message = f"it waited for more than {waited} ms for its devices"
            self._finish(flight, _failed(flight, Outcome.TIMED_OUT, message))

    def _flying(self, executor: ExecutorId, key: RunKey) -> InFlight | None:
        """The run that an executor speaks of, if it is in flight there."""
        flight = self._in_flight.get(key.run_id)
        if (
            flight is not None
            and flight.executor == executor
            and flight.run.key == key
            # After a pause this may be heard of before it is known who leads by now.
            and self._leadership.leads(flight.run.script.namespace)
        ):
            return flight
        self._metrics.stale_results_total.inc()
        if flight is not None and flight.executor != executor:
            self._executors.tell_foreign(executor, key.run_id)
        return None

    # Loops.

    async def sweep(self) -> None:
        """Give up what executors that are there do not answer; until cancelled."""
        while True:
            await self._clock.sleep(SWEEP_SECONDS)
            now = self._clock.monotonic()
            self._give_up(
                [f for f in self._in_flight.values() if f.deadline < now],
                Outcome.LOST,
                "the executor did not answer in time",
            )
            self._give_up(
                [*self._returned.overdue(now), *self.pauses.overdue(now)],
                Outcome.UNAVAILABLE,
                "no executor could run it",
            )
            self.shadows.sweep()
            self._loading.sweep()
            self.wake()

    async def drained(self) -> None:
        """Break off what runs wait for; until the effects of all that has ended are done."""
        waiting = self.pauses.abandon()
        self._give_up(waiting, Outcome.LOST, "the controller ended while the run waited")
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        """Dispatch soon: once for all that happens in this turn of the event loop."""
        if not self._pump_is_due:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        waits = len(self._queue) or len(self.shadows) or self.pauses.ready
        if len(self._loading) or self._returned or waits:
            for executor in self._executors.most_credit_first:
                self._fill(executor)
        self._metrics.run_queue_depth.set(len(self._queue))
        self._executors.tell_credit()

    def _fill(self, executor: Executor) -> None:
        dispatches = self._loading.take(executor.info, executor.credit)
        dispatches += self._resumed(executor, executor.credit - len(dispatches))
        dispatches += self._second_tries(executor, executor.credit - len(dispatches))
        groups = self._queue.take(
            executor.credit - len(dispatches),
            blocked=Those(
                self._runnables, lambda it: self._is_blocked(it, executor.info.script_types)
            ),
            single=Those(self._runnables, self._is_single),
        )
        for group in (part for whole in groups for part in self._sent_together(whole)):
            dispatch = self._dispatch(executor, group)
            if dispatch is not None:
                dispatches.append(dispatch)
        used = sum(len(d.runs) or 1 for d in dispatches)
        dispatches += self.shadows.take(executor.info, executor.credit - used)
        if not dispatches:
            return
        executor.credit -= sum(len(d.runs) or 1 for d in dispatches)
        if not self._sessions.send(executor.info.id, dispatches):
            for key in (key for dispatch in dispatches for key, _ in dispatch.runs):
                if key.run_id in self._in_flight:
                    self._return(self._in_flight[key.run_id])
            self.disconnected(executor.info.id, "the session is closing")

    def _resumed(self, executor: Executor, room: int) -> list[Dispatch]:
        """Runs that have what they waited for: as they were sent before, with the replies."""
        dispatches: list[Dispatch] = []
        for flight, dispatch in self.pauses.take(executor.info, room):
            flight.executor = executor.info.id
            flight.deadline = self._deadline(flight.runnable, 1)
            self._in_flight[flight.run.key.run_id] = flight
            dispatches.append(dispatch)
        return dispatches

    def _second_tries(self, executor: Executor, room: int) -> list[Dispatch]:
        """Runs that came back, except those that another executor than this one should take."""
        dispatches: list[Dispatch] = []
        if not self._returned:
            return dispatches
        busy = {f.run.script for f in self._in_flight.values()} | self._ended.keys()
        for flight in self._returned.fit_for(executor.info):
            if len(dispatches) >= room:
                break
            # What it is sent with now may be another version than it came back from.
            if not self._environments.are_ready(self._runnables.get(flight.run.script)):
                continue
            if self._is_single(flight.runnable):
                if flight.run.script in busy:
                    continue
                busy.add(flight.run.script)
            self._returned.pop(flight.run.key.run_id)
            dispatch = self._dispatch(executor, [flight.run], tries=flight.tries + 1)
            if dispatch is not None:
                dispatches.append(dispatch)
        return dispatches

    def _dispatch(self, executor: Executor, group: list[Run], *, tries: int = 1) -> Dispatch | None:
        runnable = self._runnables.get(group[0].script)
        if runnable is not None:
            runnable = runnable.of(group[0])
        runs: list[tuple[RunKey, bytes]] = []
        for run in group:
            if runnable is None or runnable.uid != run.uid:
                # Its Script went, or was made anew, while it waited.
                self._queue.done(run.script)
                self.wake()
                continue
            if not runs:
                self.triggering.dispatched(run)
            accepted = self.deliveries.outcome(run)
            if accepted is not None:
                state = self._memory.of(run.uid)
                self._finish(InFlight(run=run, runnable=runnable, state=state), accepted)
                continue
            flight = self._preparing.flight(run, runnable)
            flight.executor = executor.info.id
            flight.deadline = self._deadline(runnable, len(group))
            flight.tries = tries
            if len(flight.activation) > MAX_ACTIVATION:
                message = f"its event and the devices it reads are more than {MAX_ACTIVATION} bytes"
                self._finish(flight, _failed(flight, Outcome.DENIED, message))
                continue
            self._in_flight[run.key.run_id] = flight
            runs.append((run.key, flight.activation))
        return Dispatch(runnable.ref, tuple(runs)) if runnable is not None and runs else None

    def _sent_together(self, group: list[Run]) -> list[list[Run]]:
        """Of these runs of one Script those that may be sent at once, by their version."""
        runnable = self._runnables.get(group[0].script)
        if runnable is None:
            return [group]
        return runnable.by_version(self._returned.noted(runnable, group, self.deliveries))

    def _deadline(self, runnable: Runnable, runs: int) -> float:
        return self._clock.monotonic() + answer_seconds(runnable, runs)

    def _is_single(self, runnable: Runnable) -> bool:
        uid = runnable.uid
        fetches = runnable.is_fetching
        return self._memory.is_single(uid, is_fetching=fetches) or self.pauses.is_patient(uid)

    def _is_blocked(self, runnable: Runnable, script_types: frozenset[str]) -> bool:
        """Whether the executor has no engine for it, or a part of its environment is missing."""
        is_other = not runnable.script_types <= script_types
        return is_other or not self._environments.are_ready(runnable)

    def _return(self, flight: InFlight) -> None:
        """Its executor did not begin it."""
        del self._in_flight[flight.run.key.run_id]
        if flight.replies:
            # What it has asked for is done: it may only go on from there.
            flight.tries += 1
            self.pauses.give_back(flight)
        else:
            self._returned.unbegun(flight)
        self.wake()

    def _give_up(self, flights: Sequence[InFlight], outcome: Outcome, why: str) -> None:
        for flight in flights:
            self._finish(flight, _failed(flight, outcome, why))

    def _finish(self, flight: InFlight, result: RunResult) -> None:
        self._in_flight.pop(flight.run.key.run_id, None)
        self._returned.pop(flight.run.key.run_id)
        if flight.replies:
            # An executor tells of the replies that it brought itself, and of these with them.
            result = replace(
                result,
                replies=result.replies or flight.replies,
                duration_us=result.duration_us + flight.duration_us,
            )
        ended = self._ended.setdefault(flight.run.script, deque())
        ended.append((flight, result))
        if not result.state:
            # It will be handed on, whatever those before it did.
            self.deliveries.expect(flight.run, result)
        if len(ended) == 1:
            self._begin(self._hand_on(flight.run.script, ended))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_on(self, script: ObjectKey, ended: deque[tuple[InFlight, RunResult]]) -> None:
        """One after the other: of two writes to one property the later one stays."""
        while ended:
            flight, result = ended[0]
            if self._memory.is_stale(flight.run.uid, flight.state, result):
                self._returned.again(flight)
                ended.popleft()
                continue
            try:
                await self.on_finished(flight, result)
                self.shadows.wish(flight, result)
            except Exception:
                log.exception("result lost", extra={"run_id": flight.run.key.run_id})
            ended.popleft()
            self._queue.done(script)
        del self._ended[script]
        self.wake()


def _failed(flight: InFlight, outcome: Outcome, message: str) -> RunResult:
    return RunResult(key=flight.run.key, outcome=outcome, message=message)
