"""One slot of the pool: a worker process for one namespace, replaced when it dies."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from executor.model import Isolation, Outcome, ScriptType
from executor.supervisor import codec
from executor.supervisor.flight import Alarm, Flight, Step
from executor.supervisor.ledger import LARGEST_BATCH, SLICE_US
from executor.supervisor.process import Process, Reply, WorkerDied
from executor.supervisor.queue import BATCH_BYTES
from executor.supervisor.reasons import paused, told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from executor.model import RunResult, ScriptRef
    from executor.supervisor.ledger import Ledger
    from executor.supervisor.queue import Job, Queue

log = logging.getLogger(__name__)

PIPELINE: Final = 2
"""Jobs sent ahead: one in V8, one in the socket, so that the worker never waits for us."""

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


class Slot:
    """Serves the queue of a namespace until told to retire. Used by one event loop only."""

    def __init__(
        self,
        *,
        queue: Queue,
        ledger: Ledger,
        process: Callable[[], Awaitable[Process]],
        park: Callable[[Process], bool],
        deliver: Callable[[int, Sequence[RunResult]], None],
        generation: Callable[[], int],
        should_yield: Callable[[Slot], bool],
        has_spare: Callable[[], bool],
        memory_bytes: int,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._fresh_process = process
        self._park = park
        self._deliver = deliver
        self._generation = generation
        self._should_yield = should_yield
        self._has_spare = has_spare
        self._memory_bytes = memory_bytes
        self._process: Process | None = None
        self._flights: deque[Flight] = deque()
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
        """Work until `should_yield`; the worker is parked then, or dead and reaped."""
        try:
            while True:
                yielding = self._should_yield(self)
                if not self._flights:
                    if yielding:
                        self._let_go()
                        return
                    await self._prepare()
                while not yielding and self._has_room():
                    jobs = self._take()
                    if not jobs:
                        break
                    self._send(jobs)
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
        ahead = self._flights[-1].jobs[0].script
        now = asyncio.get_running_loop().time()
        return len(self._flights) < PIPELINE and not self._ledger.is_suspect(ahead, now)

    async def _rest(self) -> None:
        self._wake.clear()
        self.is_idle = True
        self.idle_since = asyncio.get_running_loop().time()
        await self._wake.wait()

    def _let_go(self) -> None:
        """Leave a worker that is good for another turn to whoever parks it."""
        process = self._process
        if process is None or not process.is_alive or self._is_full():
            return
        if self._park(process):
            self._process = None

    def _is_full(self) -> bool:
        return self._resident_bytes > MEMORY_SHARE * self._memory_bytes

    async def _prepare(self) -> None:
        """Have a worker that is alive and not about to be blamed for the memory of others."""
        if self._is_full():
            await self._end_process(Outcome.UNAVAILABLE)
        if self._process is None or not self._process.is_alive:
            await self._end_process(Outcome.UNAVAILABLE)
            self._process = await self._fresh_process()

    async def _end_process(self, sentence: Outcome) -> None:
        process, self._process = self._process, None
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

    # one batch

    def _take(self) -> tuple[Job, ...]:
        """The next job, and those of other scripts that fit into the same batch."""
        first = self._queue.take(self._batch_size)
        if first is None:
            return ()
        now = _now()
        script, ledger = first.script, self._ledger
        left_us = ledger.slice_us(script) - len(first.runs) * ledger.share_us(script)
        if first.loads or not ledger.riders(script, now, SLICE_US):
            return (first,)
        jobs = [first]
        left = LARGEST_BATCH - len(first.runs)
        left_bytes = BATCH_BYTES - first.activation_bytes

        def riders(other: ScriptRef) -> int:
            if not codec.go_together(script, other):
                return 0
            return min(left, ledger.riders(other, now, left_us))

        while left > 0 and left_us > 0 and left_bytes > 0:
            job = self._queue.take(riders, runs_only=True)
            if job is None:
                break
            jobs.append(job)
            left -= len(job.runs)
            left_us -= len(job.runs) * ledger.share_us(job.script)
            left_bytes -= job.activation_bytes
        return tuple(jobs)

    def _send(self, taken: Sequence[Job]) -> None:
        jobs = tuple([job for job in taken if not self._is_known(job)])
        if not jobs:
            return
        process = self._process
        assert process is not None  # noqa: S101 - `_prepare` came before
        first = jobs[0]
        limits = first.script.limits
        wall = limits.wall_time_ms / 1_000 + GRACE_SECONDS
        if first.loads:
            frame = codec.check_frame(first.script, first.source)
            steps = [Step(process.ask(frame), wall, wall)]
        else:
            steps = self._opening(process, jobs)
            share = RUN_SHARE_SECONDS * sum([len(job.runs) for job in jobs])
            answer = process.ask(codec.run_frame(jobs))
            # A budget of processor time as long as the wall's would only blur what is told.
            is_tighter = limits.cpu_time_ms < limits.wall_time_ms
            cpu = limits.cpu_time_ms / 1_000 if is_tighter else wall
            steps.append(Step(answer, wall + share, cpu + share))
        self._flights.append(Flight(jobs, tuple(steps), self._generation()))

    def _is_known(self, job: Job) -> bool:
        """Answer `job` if that takes no worker."""
        problem = self._ledger.verdict(job.script)
        if problem:
            self._answer(job, self._generation(), Outcome.LOAD_FAILED, problem)
        elif job.loads and problem is not None:
            self._answer(job, self._generation(), Outcome.SUCCEEDED, "")
        elif job.runs and (pause := self._ledger.pause(job.script, _now())):
            self._answer(job, self._generation(), Outcome.CRASH_LOOP, paused(pause))
        else:
            return False
        return True

    def _opening(self, process: Process, jobs: Sequence[Job]) -> list[Step]:
        """Have the scripts of `jobs` opened that are not, or that are to be opened anew."""
        opened = process.opened
        names = [(codec.opened_name(job.script), job) for job in jobs]
        # First of all, so that none of them has to go for another.
        missing = [(name, job) for name, job in names if not opened.use(name)]
        if jobs[0].script.isolation is Isolation.STRICT:
            missing = names
        steps = []
        for name, job in missing:
            if opened.use(name) and job.script.isolation is Isolation.SHARED:
                # Another Script of this batch has the same artifact.
                continue
            opened.forget(name)
            drop = [name, *opened.add(name, job.script, job.source)]
            frame = codec.open_frame(job.script, job.source, drop=drop)
            steps.append(Step(process.ask(frame), LOAD_SECONDS, LOAD_SECONDS, job))
        return steps

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
                with Alarm(process, step):
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

    def _accept(self, flight: Flight, replies: Sequence[Reply]) -> None:
        jobs, reply = flight.jobs, replies[-1]
        if (job := jobs[0]).loads:
            self._ledger.judge(job.script, "" if reply.ok else reply.message)
            outcome = Outcome.SUCCEEDED if reply.ok else Outcome.LOAD_FAILED
            self._answer(job, flight.generation, outcome, reply.message)
            return
        refused = {
            step.job: opening.message
            for step, opening in zip(flight.steps, replies, strict=True)
            if step.job is not None and not opening.ok
        }
        if refused:
            self._refuse(flight, refused)
        elif reply.ok:
            self._judge(flight, reply)
        elif len(jobs) == 1 and len(job.runs) == 1:
            self._answer(job, flight.generation, Outcome.UNAVAILABLE, reply.message)
        else:
            self._one_by_one(flight)

    def _refuse(self, flight: Flight, refused: Mapping[Job, str]) -> None:
        """Some of the scripts cannot be opened, so nothing was run; the others are tried again."""
        assert self._process is not None  # noqa: S101 - it has just answered
        for job, message in refused.items():
            self._process.opened.forget(codec.opened_name(job.script))
            self._ledger.judge(job.script, message)
            self._answer(job, flight.generation, Outcome.LOAD_FAILED, message)
        for job in reversed(flight.jobs):
            if job not in refused:
                self._put_back(flight, job, is_next=True)

    def _judge(self, flight: Flight, reply: Reply) -> None:
        jobs = flight.jobs
        runs = [run for job in jobs for run in job.runs]
        share = reply.duration_us / len(runs)
        done = codec.results(reply.body, runs, duration_us=round(share))
        ended = [result for result in done if result.outcome in ENDED]
        if len(done) > 1 and ended and jobs[0].script.type == ScriptType.JS:
            # Runs of one isolate have their memory together: whose it was is found one by one.
            if len(jobs) == 1:
                self._ledger.too_much_at_once(jobs[0].script, len(done))
            self._one_by_one(flight)
            return
        place = 0
        for job in jobs:
            count = len(job.runs)
            if len(jobs) == 1:
                self._ledger.took(job.script, share)
            else:
                self._ledger.took_together(job.script, count, reply.duration_us, share)
            of_job = done[place : place + count]
            if ended and all(result.outcome in ENDED for result in of_job):
                self._ledger.strike(job.script, of_job[-1].message, _now())
            else:
                self._ledger.acquit(job.script)
            place += count
        self._deliver(flight.generation, done)

    def _mourn(self, death: WorkerDied, replies: Sequence[Reply], *, took: float) -> None:
        """The first flight had to do with the death; what was sent behind it had not begun."""
        first, *behind = self._flights
        self._flights.clear()
        of_first = {job.script for job in first.jobs}
        for flight in reversed(behind):
            for job in reversed(flight.jobs):
                self._put_back(flight, job, is_next=job.script not in of_first)
        # What was being opened is one script's; what ran may be the fault of any.
        opening = first.steps[len(replies)].job if len(replies) < len(first.steps) else None
        job = opening or first.jobs[0]
        log.info(
            "worker ended",
            extra={
                "namespace": job.script.namespace,
                "script": job.script.name if opening or len(first.jobs) == 1 else "",
                "outcome": death.outcome.name,
                "reason": str(death),
            },
        )
        if opening is None and len(first.jobs) > 1:
            self._set_apart(first)
            return
        for other in reversed(first.jobs):
            if other is not job:
                self._put_back(first, other, is_next=True)
        self._ledger.suspect(job.script, _now())
        if len(job.runs) > 1 and opening is None:
            if death.outcome is Outcome.OUT_OF_MEMORY:
                self._ledger.too_much_at_once(job.script, len(job.runs))
            self._put_back(first, job, is_next=False)
            return
        reason, outcome = told(death, job.script.limits), death.outcome
        if job.loads:
            reason, outcome = f"loading the script: {reason}", Outcome.LOAD_FAILED
        else:
            if opening is not None:
                reason = f"compiling the script: {reason}"
            self._ledger.strike(job.script, reason, _now())
        self._answer(job, first.generation, outcome, reason, took=took)

    def _one_by_one(self, flight: Flight) -> None:
        if len(flight.jobs) > 1:
            self._set_apart(flight)
            return
        job = flight.jobs[0]
        self._ledger.suspect(job.script, _now())
        self._put_back(flight, job, is_next=True)

    def _set_apart(self, flight: Flight) -> None:
        """Run the jobs again, each without the others: then it is seen whose fault it was."""
        for job in reversed(flight.jobs):
            self._ledger.apart(job.script)
            self._put_back(flight, job, is_next=True)

    def _put_back(self, flight: Flight, job: Job, *, is_next: bool) -> None:
        if flight.generation == self._generation():
            self._queue.put_back(job, is_next=is_next)

    def _answer(
        self, job: Job, generation: int, outcome: Outcome, message: str, *, took: float = 0.0
    ) -> None:
        duration = round(took * 1_000_000)
        self._deliver(generation, job.answered(outcome, message, duration_us=duration))


def _now() -> float:
    return asyncio.get_running_loop().time()
