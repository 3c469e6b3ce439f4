"""From waiting runs to executors and back: who runs what, and what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from reconciler.controllers.deliveries import Deliveries
from reconciler.controllers.environments import Environments
from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.memory import Memory
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.pauses import Pauses
from reconciler.controllers.runnables import InFlight, Runnable
from reconciler.controllers.shadowing import Shadows
from reconciler.controllers.triggering import Triggering, new_run_id
from reconciler.controllers.world import World
from reconciler.core import activation
from reconciler.core.environment import Environment
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

# On top of a run's own wall time: a full batch before it, a worker to be replaced, the way there
# and back. An executor that is heard of but does not answer is given up after this.
ANSWER_GRACE = 60.0
# How often runs in flight are looked through for such.
SWEEP_SECONDS = 5.0
# An executor that cannot run something (shutting down, no such engine) leaves it to another.
UNAVAILABLE_ATTEMPTS = 3
# What one run may read, as JSON. A message to an executor holds at most four times as much.
MAX_ACTIVATION = 8 * 1024 * 1024

# (namespace, digest): what is loaded, because a worker serves one namespace.
LoadKey = tuple[str, str]


@dataclass(slots=True)
class _Executor:
    info: ExecutorInfo
    credit: int = 0
    draining: bool = False
    # What it could not load just now; not asked of it again before the next sweep.
    refused: set[LoadKey] = field(default_factory=set)


class _Load(NamedTuple):
    key: LoadKey
    executor: ExecutorId
    deadline: float


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
        self._world = world
        self._queue = queue
        self._sessions = sessions
        self._memory = memory
        self._environments = environments
        self._clock = clock
        self._metrics = metrics
        self._leadership = leadership
        self._executors: dict[ExecutorId, _Executor] = {}
        self._runnables: dict[ObjectKey, Runnable] = {}
        self._in_flight: dict[RunId, InFlight] = {}
        self._loads: dict[LoadKey, ScriptRef] = {}
        self._loading: dict[RunId, _Load] = {}
        # Runs that an executor did not begin; they go before all that waits.
        self._returned: dict[RunId, InFlight] = {}
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
        for flights in (self._in_flight, self._returned):
            for run_id in [i for i, f in flights.items() if f.run.script == script]:
                del flights[run_id]
                self._queue.done(script)
        for _ in self.pauses.abandon(script):
            self._queue.done(script)

    def running(self, script: ObjectKey) -> Runnable | None:
        return self._runnables.get(script)

    def load(self, ref: ScriptRef) -> None:
        """Ask an executor to fetch and load an artifact; `on_loaded` tells how that went."""
        self._loads.setdefault((ref.key.namespace, ref.digest), ref)
        self.wake()

    def can_run(self, script_type: str) -> bool:
        return self._others_can_run(script_type, but=None)

    @property
    def executors(self) -> Sequence[ExecutorInfo]:
        return tuple(e.info for e in self._executors.values())

    @property
    def in_flight(self) -> int:
        return len(self._in_flight) + len(self._returned) + len(self.pauses)

    def in_flight_of(self, script: ObjectKey) -> int:
        paused = (flight for flight, _, _ in self.pauses)
        flights = (*self._in_flight.values(), *self._returned.values(), *paused)
        return sum(flight.run.script == script for flight in flights)

    # What sessions say.

    def connected(self, executor: ExecutorInfo) -> None:
        self._executors[executor.id] = _Executor(executor)
        who = {"executor": executor.name, "identity": executor.identity}
        log.info("executor connected", extra=who)
        self._metrics.executors.set(len(self._executors))
        self.on_executors()

    def credited(self, executor: ExecutorId, credit: int) -> None:
        known = self._executors.get(executor)
        if known is not None and not known.draining:
            known.credit += credit
            self.wake()

    def draining(self, executor: ExecutorId) -> None:
        """It takes no more; what it holds may still come back."""
        if executor in self._executors:
            self._executors[executor].credit = 0
            self._executors[executor].draining = True
            self.on_executors()

    def disconnected(self, executor: ExecutorId, reason: str) -> None:
        gone = self._executors.pop(executor, None)
        if gone is None:
            return
        log.info("executor disconnected", extra={"executor": gone.info.name, "reason": reason})
        self._metrics.executors.set(len(self._executors))
        self._loading = {i: load for i, load in self._loading.items() if load.executor != executor}
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
                self._finish_load(executor, result)
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
            self._tell_foreign(executor, key.run_id)
        return None

    def _tell_foreign(self, executor: ExecutorId, run_id: RunId) -> None:
        """An executor that answers for another is mistaken, or not what it says."""
        known = self._executors.get(executor)
        told = {} if known is None else {"executor": known.info.name}
        who = "" if known is None else known.info.identity
        extra = {**told, "identity": who, "run_id": run_id}
        log.warning("result of a run of another executor", extra=extra)

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
                [
                    *(f for f in self._returned.values() if f.deadline < now),
                    *self.pauses.overdue(now),
                ],
                Outcome.UNAVAILABLE,
                "no executor could run it",
            )
            self.shadows.sweep()
            for executor in self._executors.values():
                executor.refused.clear()
            for run_id, load in list(self._loading.items()):
                if load.deadline < now:
                    del self._loading[run_id]
                    self._refused(load)
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
        if self._loads or self._returned or waits:
            # The one with most credit first, which spreads runs over executors.
            for executor in sorted(self._executors.values(), key=lambda e: -e.credit):
                if executor.credit > 0:
                    self._fill(executor)
        self._metrics.run_queue_depth.set(len(self._queue))
        self._metrics.executor_credit.set(sum(e.credit for e in self._executors.values()))

    def _fill(self, executor: _Executor) -> None:
        dispatches = self._load_dispatches(executor)
        dispatches += self._resumed(executor, executor.credit - len(dispatches))
        dispatches += self._second_tries(executor, executor.credit - len(dispatches))
        groups = self._queue.take(
            executor.credit - len(dispatches),
            blocked=_Blocked(self._runnables, executor.info.script_types, self._environments),
            single=_Single(self._runnables, self._is_single),
        )
        for group in (part for whole in groups for part in self._by_version(self._noted(whole))):
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

    def _load_dispatches(self, executor: _Executor) -> list[Dispatch]:
        asked = {load.key for load in self._loading.values()} | executor.refused
        dispatches: list[Dispatch] = []
        for key, ref in self._loads.items():
            if len(dispatches) >= executor.credit:
                break
            if key in asked or ref.script_type not in executor.info.script_types:
                continue
            load = RunKey(new_run_id(), 1, self._leadership.epoch(key[0]))
            deadline = self._clock.monotonic() + ANSWER_GRACE
            self._loading[load.run_id] = _Load(key, executor.info.id, deadline)
            dispatches.append(Dispatch(ref, (), load))
        return dispatches

    def _resumed(self, executor: _Executor, room: int) -> list[Dispatch]:
        """Runs that have what they waited for: as they were sent before, with the replies."""
        dispatches: list[Dispatch] = []
        for flight, dispatch in self.pauses.take(executor.info, room):
            flight.executor = executor.info.id
            flight.deadline = self._deadline(flight.runnable, 1)
            self._in_flight[flight.run.key.run_id] = flight
            dispatches.append(dispatch)
        return dispatches

    def _second_tries(self, executor: _Executor, room: int) -> list[Dispatch]:
        """Runs that came back, except those that another executor than this one should take."""
        dispatches: list[Dispatch] = []
        if not self._returned:
            return dispatches
        busy = {f.run.script for f in self._in_flight.values()} | self._ended.keys()
        for flight in list(self._returned.values()):
            script_type = flight.runnable.ref.script_type
            if len(dispatches) >= room:
                break
            # What it is sent with now may be another version than it came back from.
            if not self._environments.are_ready(self._runnables.get(flight.run.script)):
                continue
            if script_type not in executor.info.script_types or (
                flight.executor == executor.info.id
                and self._others_can_run(script_type, but=executor.info.id)
            ):
                continue
            if self._is_single(flight.runnable):
                if flight.run.script in busy:
                    continue
                busy.add(flight.run.script)
            del self._returned[flight.run.key.run_id]
            dispatch = self._dispatch(executor, [flight.run], tries=flight.tries + 1)
            if dispatch is not None:
                dispatches.append(dispatch)
        return dispatches

    def _others_can_run(self, script_type: str, *, but: ExecutorId | None) -> bool:
        return any(
            script_type in e.info.script_types and not e.draining and e.info.id != but
            for e in self._executors.values()
        )

    def _dispatch(
        self, executor: _Executor, group: list[Run], *, tries: int = 1
    ) -> Dispatch | None:
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
            state = self._memory.of(run.uid)
            accepted = self.deliveries.outcome(run)
            if accepted is not None:
                self._finish(InFlight(run=run, runnable=runnable, state=state), accepted)
                continue
            now = self._clock.now()
            environment = self._environments.of(runnable)
            data = self._activation(run, runnable, state, now, environment)
            flight = InFlight(
                run=run,
                runnable=runnable,
                executor=executor.info.id,
                deadline=self._deadline(runnable, len(group)),
                tries=tries,
                state=state,
                activation=data,
                environment=environment,
            )
            if runnable.candidate is not None and runnable.candidate.share is None:
                tried = runnable.candidate.runnable
                others = self._environments.of(tried)
                told = self._activation(run, tried, state, now, others)
                flight.environment = environment.hiding(others)
                flight.shadow_activation = told if len(told) <= MAX_ACTIVATION else b""
            if len(data) > MAX_ACTIVATION:
                message = f"its event and the devices it reads are more than {MAX_ACTIVATION} bytes"
                self._finish(flight, _failed(flight, Outcome.DENIED, message))
                continue
            self._in_flight[run.key.run_id] = flight
            runs.append((run.key, data))
        return Dispatch(runnable.ref, tuple(runs)) if runnable is not None and runs else None

    def _noted(self, group: list[Run]) -> list[Run]:
        """Those that may be sent at once. Of the others it is kept first that they start."""
        runnable = self._runnables.get(group[0].script)
        if runnable is None:
            return group
        first = [
            run
            for run in group
            if self.deliveries.must_note(run, acts_outside=bool(runnable.of(run).ref.network_allow))
        ]
        if not first:
            return group
        self._begin(self._note(runnable, first))
        return [run for run in group if run not in first]

    async def _note(self, runnable: Runnable, runs: list[Run]) -> None:
        noted = await self.deliveries.note(runs)
        for run in runs:
            if run not in noted:
                self._queue.done(run.script)
                continue
            flight = InFlight(run=run, runnable=runnable, tries=0)
            flight.deadline = self._deadline(runnable, QUANTUM)
            self._returned[run.key.run_id] = flight
        self.wake()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _by_version(self, group: list[Run]) -> list[list[Run]]:
        """Runs of one Script as they go together: those of each version."""
        if not group:
            return []
        runnable = self._runnables.get(group[0].script)
        if runnable is None or runnable.candidate is None:
            return [group]
        parts: dict[str, list[Run]] = {}
        for run in group:
            parts.setdefault(runnable.of(run).version, []).append(run)
        return list(parts.values())

    def _deadline(self, runnable: Runnable, runs: int) -> float:
        limits = runnable.ref.limits
        wall = limits.wall_time_ms / 1000
        if runnable.ref.network_allow:
            # It is run again after each wait, and its last wait may have been just begun.
            wall *= 1 + limits.fetches
        waits = limits.wait_ms / 1000 if runnable.ref.network_allow else 0.0
        return self._clock.monotonic() + ANSWER_GRACE + wall * (runs + 1) + waits

    def _activation(
        self, run: Run, runnable: Runnable, state: bytes, now: float, environment: Environment
    ) -> bytes:
        namespace = run.script.namespace
        return activation.build(
            run,
            runnable.spec,
            device=lambda name: self._world.device(ObjectKey(namespace, name)),
            model=self._world.model,
            now=now,
            state=state,
            secrets=environment.values,
        )

    def _is_single(self, runnable: Runnable) -> bool:
        uid = runnable.uid
        fetches = runnable.is_fetching
        return self._memory.is_single(uid, is_fetching=fetches) or self.pauses.is_patient(uid)

    def _return(self, flight: InFlight) -> None:
        """The same attempt, with another executor where there is one."""
        run_id = flight.run.key.run_id
        del self._in_flight[run_id]
        if flight.replies:
            # What it has asked for is done: it may only go on from there.
            flight.tries += 1
            self.pauses.give_back(flight)
            self.wake()
            return
        self._returned[run_id] = replace(flight, deadline=self._deadline(flight.runnable, 1))
        self.wake()

    def _again(self, flight: InFlight) -> None:
        """Run it once more: what it went by had changed meanwhile, so it has not happened."""
        # As long as all that may be in front of it; with any executor, and as the same try.
        deadline = self._deadline(flight.runnable, QUANTUM)
        self._returned[flight.run.key.run_id] = replace(
            flight, executor=ExecutorId(""), deadline=deadline, tries=flight.tries - 1
        )

    def _give_up(self, flights: Sequence[InFlight], outcome: Outcome, why: str) -> None:
        for flight in flights:
            self._finish(flight, _failed(flight, outcome, why))

    def _finish(self, flight: InFlight, result: RunResult) -> None:
        self._in_flight.pop(flight.run.key.run_id, None)
        self._returned.pop(flight.run.key.run_id, None)
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

    async def _hand_on(self, script: ObjectKey, ended: deque[tuple[InFlight, RunResult]]) -> None:
        """One after the other: of two writes to one property the later one stays."""
        while ended:
            flight, result = ended[0]
            if self._memory.is_stale(flight.run.uid, flight.state, result):
                self._again(flight)
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

    def _finish_load(self, executor: ExecutorId, result: RunResult) -> None:
        asked = self._loading.get(result.key.run_id)
        if asked is None or asked.executor != executor:
            self._metrics.stale_results_total.inc()
            return
        del self._loading[result.key.run_id]
        if result.outcome is Outcome.UNAVAILABLE:
            # Stays in `_loads`: for another executor at once, for this one after the next sweep.
            self._refused(asked)
            self.wake()
            return
        self._loads.pop(asked.key, None)
        self.on_loaded(*asked.key, result)

    def _refused(self, load: _Load) -> None:
        if load.executor in self._executors:
            self._executors[load.executor].refused.add(load.key)


def _failed(flight: InFlight, outcome: Outcome, message: str) -> RunResult:
    return RunResult(key=flight.run.key, outcome=outcome, message=message)


class _Single:
    """The Scripts whose runs go one at a time, as the container `RunQueue.take` asks."""

    def __init__(
        self, runnables: dict[ObjectKey, Runnable], is_single: Callable[[Runnable], bool]
    ) -> None:
        self._runnables = runnables
        self._is_single = is_single

    def __contains__(self, script: object) -> bool:
        runnable = self._runnables.get(script) if isinstance(script, ObjectKey) else None
        return runnable is not None and self._is_single(runnable)


class _Blocked:
    """The Scripts an executor has no engine for, and those that wait for a part of their
    environment, as the container `RunQueue.take` asks.
    """

    def __init__(
        self,
        runnables: dict[ObjectKey, Runnable],
        script_types: frozenset[str],
        environments: Environments,
    ) -> None:
        self._runnables = runnables
        self._script_types = script_types
        self._environments = environments

    def __contains__(self, script: object) -> bool:
        runnable = self._runnables.get(script) if isinstance(script, ObjectKey) else None
        if runnable is None:
            return False
        is_other = not runnable.script_types <= self._script_types
        return is_other or not self._environments.are_ready(runnable)
