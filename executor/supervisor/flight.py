"""A batch on its way to a worker and back: what was asked, and how long that may take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from executor.model import Outcome
from executor.supervisor.process import OUT_OF_CPU, Process, Reply

if TYPE_CHECKING:
    from executor.supervisor.queue import Job

CPU_LOOK_SECONDS: Final = 0.01
"""Between two looks at the processor time of a run that is about to have used its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A request that was sent, and the time it may take; `job` is whose script it opens."""

    answer: asyncio.Future[Reply]
    wall_seconds: float
    cpu_seconds: float
    job: Job | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """Jobs that are done in one go, and the requests sent for them; the last one does them."""

    jobs: tuple[Job, ...]
    steps: tuple[Step, ...]
    generation: int


class Alarm:
    """Ends the worker when a step takes more time than it may, on the wall or of the processor."""

    def __init__(self, process: Process, step: Step) -> None:
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
