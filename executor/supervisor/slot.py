"""One slot of the pool: a worker process for one namespace, replaced when it dies."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from executor.model import Outcome
from executor.supervisor import codec
from executor.supervisor.process import Process, Reply, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from executor.model import RunResult, ScriptRef
    from executor.supervisor.ledger import Ledger
    from executor.supervisor.queue import Job, Queue

log = logging.getLogger(__name__)

PIPELINE: Final = 2
"""Jobs sent ahead: one in V8, one in the socket, so that the worker never waits for us."""

OPEN_SCRIPTS: Final = 64
"""Isolates one worker holds, least recently used out first; about 2 MB each."""

LOAD_SECONDS: Final = 5.0
"""To compile a source: 10 MB take 0.2 s. Nothing of the guest runs in this time."""

GRACE_SECONDS: Final = 0.05
"""Between the limit of a run and the kill: two crossings, the socket, a busy machine."""

RUN_SHARE_SECONDS: Final = 0.0002
"""What each run of a batch adds to the deadline: ten times what an ordinary run takes."""

MEMORY_SHARE: Final = 0.75
"""Of the memory cap: above it an idle worker is replaced, before a script is blamed for it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """A job on its way: the requests sent for it, each with the time it may take."""

    job: Job
    steps: tuple[tuple[asyncio.Future[Reply], float], ...]
    generation: int


class Slot:
    """Serves the queue of a namespace until told to retire. Used by one event loop only."""

    def __init__(
        self,
        *,
        queue: Queue,
        ledger: Ledger,
        process: Callable[[], Awaitable[Process]],
        deliver: Callable[[int, Sequence[RunResult]], None],
        generation: Callable[[], int],
        should_yield: Callable[[Slot], bool],
        has_spare: Callable[[], bool],
        memory_bytes: int,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._fresh_process = process
        self._deliver = deliver
        self._generation = generation
        self._should_yield = should_yield
        self._has_spare = has_spare
        self._memory_bytes = memory_bytes
        self._process: Process | None = None
        self._open: OrderedDict[str, None] = OrderedDict()
        self._flights: deque[_Flight] = deque()
        self._wake = asyncio.Event()
        self._resident_bytes = 0
        self.started = self.idle_since = asyncio.get_running_loop().time()
        self.is_idle = False

    @property
    def has_work(self) -> bool:
        return bool(self._flights) or bool(self._queue)

    def wake(self) -> None:
        """There is work that can be done now, or a reason to retire."""
        self.is_idle = False
        self._wake.set()

    def watch_memory(self) -> None:
        """Kill the worker when it holds more memory than it may."""
        if self._process is None:
            return
        self._resident_bytes = self._process.resident_bytes()
        if self._flights and self._resident_bytes > self._memory_bytes:
            self._process.kill(Outcome.OUT_OF_MEMORY)

    async def serve(self) -> None:
        """Work until `should_yield`; the worker is dead and reaped afterwards."""
        try:
            while True:
                yielding = self._should_yield(self)
                if not self._flights:
                    if yielding:
                        return
                    await self._prepare()
                while not yielding and self._has_room():
                    job = self._queue.take(self._batch_size)
                    if job is None:
                        break
                    self._send(job)
                if self._flights:
                    await self._land()
                elif not self._should_yield(self):
                    await self._rest()
        finally:
            await self._end_process(Outcome.UNAVAILABLE)

    def _has_room(self) -> bool:
        if not self._flights:
            return True
        # Behind a suspect nobody waits: the worker that it may take along is not theirs.
        ahead = self._flights[-1].job.script
        now = asyncio.get_running_loop().time()
        return len(self._flights) < PIPELINE and not self._ledger.is_suspect(ahead, now)

    async def _rest(self) -> None:
        self._wake.clear()
        self.is_idle = True
        self.idle_since = asyncio.get_running_loop().time()
        await self._wake.wait()

    async def _prepare(self) -> None:
        """Have a worker that is alive and not about to be blamed for the memory of others."""
        if self._resident_bytes > MEMORY_SHARE * self._memory_bytes:
            await self._end_process(Outcome.UNAVAILABLE)
        if self._process is None or not self._process.is_alive:
            await self._end_process(Outcome.UNAVAILABLE)
            self._process = await self._fresh_process()

    async def _end_process(self, sentence: Outcome) -> None:
        process, self._process = self._process, None
        self._open.clear()
        self._resident_bytes = 0
        if process is not None:
            process.kill(sentence)
            await process.ended()

    def _batch_size(self, script: ScriptRef) -> int:
        now = asyncio.get_running_loop().time()
        # A suspect may well cost this worker; the others then go on with the one in reserve.
        if self._ledger.is_suspect(script, now) and not self._has_spare():
            return 0
        return self._ledger.batch_size(script, now)

    # one job

    def _send(self, job: Job) -> None:
        problem = self._ledger.verdict(job.script)
        if problem:
            self._answer(job, self._generation(), Outcome.LOAD_FAILED, problem)
            return
        if job.loads and problem is not None:
            self._answer(job, self._generation(), Outcome.SUCCEEDED, "")
            return
        process = self._process
        assert process is not None  # noqa: S101 - `_prepare` came before
        limit = job.script.limits.wall_time_ms / 1_000 + GRACE_SECONDS
        if job.loads:
            steps = [(process.ask(codec.check_frame(job.script, job.source)), limit)]
        else:
            steps = self._opening(process, job)
            seconds = limit + RUN_SHARE_SECONDS * len(job.runs)
            steps.append((process.ask(codec.run_frame(job.script, job.runs)), seconds))
        self._flights.append(_Flight(job, tuple(steps), self._generation()))

    def _opening(self, process: Process, job: Job) -> list[tuple[asyncio.Future[Reply], float]]:
        name = codec.isolate_name(job.script)
        if name in self._open:
            self._open.move_to_end(name)
            return []
        drop = self._open.popitem(last=False)[0] if len(self._open) >= OPEN_SCRIPTS else None
        self._open[name] = None
        frame = codec.open_frame(job.script, job.source, drop=drop)
        return [(process.ask(frame), LOAD_SECONDS)]

    async def _land(self) -> None:
        """Wait for the first job's answers and deal with them, or with the worker's death."""
        flight = self._flights[0]
        process = self._process
        assert process is not None  # noqa: S101 - the flight was sent to it
        replies: list[Reply] = []
        loop = asyncio.get_running_loop()
        try:
            for future, seconds in flight.steps:
                alarm = loop.call_later(seconds, process.kill, Outcome.TIMED_OUT)
                try:
                    replies.append(await future)
                finally:
                    alarm.cancel()
            self._accept(flight, replies)
        except codec.AnswerInvalid:
            await self._end_process(Outcome.CRASHED)
            self._mourn(WorkerDied(Outcome.CRASHED, "the worker answered nonsense"), replies)
        except WorkerDied as death:
            await self._end_process(Outcome.UNAVAILABLE)
            self._mourn(death, replies)
        else:
            self._flights.popleft()

    def _accept(self, flight: _Flight, replies: Sequence[Reply]) -> None:
        job, reply = flight.job, replies[-1]
        if job.loads:
            self._ledger.judge(job.script, "" if reply.ok else reply.message)
            outcome = Outcome.SUCCEEDED if reply.ok else Outcome.LOAD_FAILED
            self._answer(job, flight.generation, outcome, reply.message)
            return
        if not replies[0].ok and len(replies) > 1:
            self._open.pop(codec.isolate_name(job.script), None)
            self._ledger.judge(job.script, replies[0].message)
            self._answer(job, flight.generation, Outcome.LOAD_FAILED, replies[0].message)
        elif reply.ok:
            share = reply.duration_us / len(job.runs)
            done = codec.results(reply.body, job.runs, duration_us=round(share))
            self._ledger.took(job.script, share)
            self._deliver(flight.generation, done)
        elif len(job.runs) == 1:
            self._answer(job, flight.generation, Outcome.UNAVAILABLE, reply.message)
        else:
            self._one_by_one(flight)

    def _mourn(self, death: WorkerDied, replies: Sequence[Reply]) -> None:
        """The first job had to do with the death; what was sent behind it had not begun."""
        first, *behind = self._flights
        self._flights.clear()
        for flight in reversed(behind):
            self._put_back(flight, is_next=flight.job.script != first.job.script)
        job = first.job
        log.info(
            "worker ended",
            extra={
                "namespace": job.script.namespace,
                "script": job.script.name,
                "outcome": death.outcome.name,
                "reason": str(death),
            },
        )
        is_loading = len(replies) < len(first.steps) - 1
        self._ledger.suspect(job.script, asyncio.get_running_loop().time())
        if len(job.runs) > 1 and not is_loading:
            self._put_back(first, is_next=False)
            return
        told = _told(death, job)
        if job.loads:
            self._answer(job, first.generation, Outcome.LOAD_FAILED, f"loading the script: {told}")
        elif is_loading:
            self._answer(job, first.generation, death.outcome, f"compiling the script: {told}")
        else:
            self._answer(job, first.generation, death.outcome, told)

    def _one_by_one(self, flight: _Flight) -> None:
        self._ledger.suspect(flight.job.script, asyncio.get_running_loop().time())
        self._put_back(flight, is_next=True)

    def _put_back(self, flight: _Flight, *, is_next: bool) -> None:
        if flight.generation == self._generation():
            self._queue.put_back(flight.job, is_next=is_next)

    def _answer(self, job: Job, generation: int, outcome: Outcome, message: str) -> None:
        self._deliver(generation, job.answered(outcome, message))


def _told(death: WorkerDied, job: Job) -> str:
    if death.outcome is Outcome.TIMED_OUT:
        return f"it did not finish within {job.script.limits.wall_time_ms} ms"
    return str(death)
