"""One slot of the pool: a worker process for one namespace, replaced when it dies."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from executor.model import Isolation, Outcome, ScriptType
from executor.supervisor import codec
from executor.supervisor.ledger import LARGEST_BATCH
from executor.supervisor.process import OUT_OF_CPU, OUT_OF_HEAP, Process, Reply, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from executor.model import RunResult, ScriptRef
    from executor.supervisor.ledger import Ledger, Pause
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


ENDED: Final = frozenset({Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY})
"""What an engine may say of a run that it had to end itself, without the death of the worker."""

CPU_LOOK_SECONDS: Final = 0.01
"""Between two looks at the processor time of a run that is about to have used its own."""


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A request that was sent, and the time it may take."""

    answer: asyncio.Future[Reply]
    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """A job on its way: the requests sent for it."""

    job: Job
    steps: tuple[_Step, ...]
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
        if self._ledger.pause(script, now) is not None:
            # They are only told so.
            return LARGEST_BATCH
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
        if job.runs and (pause := self._ledger.pause(job.script, _now())):
            self._answer(job, self._generation(), Outcome.CRASH_LOOP, _paused(pause))
            return
        process = self._process
        assert process is not None  # noqa: S101 - `_prepare` came before
        limits = job.script.limits
        wall = limits.wall_time_ms / 1_000 + GRACE_SECONDS
        if job.loads:
            steps = [_Step(process.ask(codec.check_frame(job.script, job.source)), wall, wall)]
        else:
            steps = self._opening(process, job)
            share = RUN_SHARE_SECONDS * len(job.runs)
            answer = process.ask(codec.run_frame(job.script, job.runs))
            # A budget of processor time as long as the wall's would only blur what is told.
            is_tighter = limits.cpu_time_ms < limits.wall_time_ms
            cpu = limits.cpu_time_ms / 1_000 if is_tighter else wall
            steps.append(_Step(answer, wall + share, cpu + share))
        self._flights.append(_Flight(job, tuple(steps), self._generation()))

    def _opening(self, process: Process, job: Job) -> list[_Step]:
        name = codec.isolate_name(job.script)
        drop: str | None = None
        if name in self._open:
            self._open.move_to_end(name)
            if job.script.isolation is Isolation.SHARED:
                return []
            drop = name
        elif len(self._open) >= OPEN_SCRIPTS:
            drop = self._open.popitem(last=False)[0]
        self._open[name] = None
        frame = codec.open_frame(job.script, job.source, drop=drop)
        return [_Step(process.ask(frame), LOAD_SECONDS, LOAD_SECONDS)]

    async def _land(self) -> None:
        """Wait for the first job's answers and deal with them, or with the worker's death."""
        flight = self._flights[0]
        process = self._process
        assert process is not None  # noqa: S101 - the flight was sent to it
        replies: list[Reply] = []
        begun = _now()
        try:
            for step in flight.steps:
                begun = _now()
                with _Alarm(process, step):
                    replies.append(await step.answer)
            self._accept(flight, replies)
        except codec.AnswerInvalid:
            await self._end_process(Outcome.CRASHED)
            death = WorkerDied(Outcome.CRASHED, "the worker answered nonsense")
            self._mourn(death, replies, took=_now() - begun)
        except WorkerDied as death:
            took = _now() - begun
            await self._end_process(Outcome.UNAVAILABLE)
            self._mourn(death, replies, took=took)
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
            ended = [result for result in done if result.outcome in ENDED]
            if len(done) > 1 and ended and job.script.type == ScriptType.JS:
                # Runs of one isolate have their memory together: whose it was is found one by one.
                self._ledger.too_much_at_once(job.script, len(done))
                self._one_by_one(flight)
                return
            self._ledger.took(job.script, share)
            if len(ended) == len(done):
                self._ledger.strike(job.script, ended[-1].message, _now())
            else:
                self._ledger.acquit(job.script)
            self._deliver(flight.generation, done)
        elif len(job.runs) == 1:
            self._answer(job, flight.generation, Outcome.UNAVAILABLE, reply.message)
        else:
            self._one_by_one(flight)

    def _mourn(self, death: WorkerDied, replies: Sequence[Reply], *, took: float) -> None:
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
        self._ledger.suspect(job.script, _now())
        if len(job.runs) > 1 and not is_loading:
            if death.outcome is Outcome.OUT_OF_MEMORY:
                self._ledger.too_much_at_once(job.script, len(job.runs))
            self._put_back(first, is_next=False)
            return
        told, outcome = _told(death, job), death.outcome
        if job.loads:
            told, outcome = f"loading the script: {told}", Outcome.LOAD_FAILED
        else:
            if is_loading:
                told = f"compiling the script: {told}"
            self._ledger.strike(job.script, told, _now())
        self._answer(job, first.generation, outcome, told, took=took)

    def _one_by_one(self, flight: _Flight) -> None:
        self._ledger.suspect(flight.job.script, asyncio.get_running_loop().time())
        self._put_back(flight, is_next=True)

    def _put_back(self, flight: _Flight, *, is_next: bool) -> None:
        if flight.generation == self._generation():
            self._queue.put_back(flight.job, is_next=is_next)

    def _answer(
        self, job: Job, generation: int, outcome: Outcome, message: str, *, took: float = 0.0
    ) -> None:
        duration = round(took * 1_000_000)
        self._deliver(generation, job.answered(outcome, message, duration_us=duration))


class _Alarm:
    """Ends the worker when a step takes more time than it may, on the wall or of the processor."""

    def __init__(self, process: Process, step: _Step) -> None:
        self._process = process
        self._step = step

    def __enter__(self) -> None:
        loop, step = asyncio.get_running_loop(), self._step
        self._wall = loop.call_later(step.wall_seconds, self._process.kill, Outcome.TIMED_OUT)
        self._cpu: asyncio.TimerHandle | None = None
        # Scripts have one thread: they cannot use more of the processor than of the wall's time.
        if step.cpu_seconds < step.wall_seconds:
            self._cpu_end = self._process.cpu_seconds() + step.cpu_seconds
            self._cpu = loop.call_later(step.cpu_seconds, self._look)

    def __exit__(self, *_: object) -> None:
        self._wall.cancel()
        if self._cpu is not None:
            self._cpu.cancel()

    def _look(self) -> None:
        left = self._cpu_end - self._process.cpu_seconds()
        if left <= 0:
            self._process.kill(Outcome.TIMED_OUT, OUT_OF_CPU)
        else:
            loop = asyncio.get_running_loop()
            self._cpu = loop.call_later(max(left, CPU_LOOK_SECONDS), self._look)


def _told(death: WorkerDied, job: Job) -> str:
    limits = job.script.limits
    match death.outcome:
        case Outcome.TIMED_OUT if str(death) == OUT_OF_CPU:
            return f"it used more than {limits.cpu_time_ms} ms of processor time"
        case Outcome.TIMED_OUT:
            return f"it did not finish within {limits.wall_time_ms} ms"
        case Outcome.OUT_OF_MEMORY if str(death) == OUT_OF_HEAP:
            return f"it used more than {limits.heap_bytes / (1 << 20):g} MiB of memory"
        case _:
            return str(death)


def _paused(pause: Pause) -> str:
    again = datetime.now(UTC) + timedelta(seconds=pause.seconds)
    return (
        f"not run: its last {pause.strikes} runs were ended, the last because {pause.reason}; "
        f"it is tried again after {again:%Y-%m-%dT%H:%M:%SZ}"
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
