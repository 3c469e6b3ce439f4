"""What waits for one namespace: its scripts take turns, each with its runs in order.

No I/O and no clock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from executor.model import RunResult

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from executor.model import Outcome, RunKey, RunRequest, ScriptRef, Work

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Activations of one batch; a batch is one frame and one string inside V8."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What a worker does in one go: runs of one script, or checks asked for by `loads`."""

    script: ScriptRef
    source: bytes
    runs: tuple[RunRequest, ...] = ()
    loads: tuple[RunKey, ...] = ()

    @property
    def activation_bytes(self) -> int:
        return sum([len(run.activation) for run in self.runs])

    def answered(
        self, outcome: Outcome, message: str, *, duration_us: int = 0
    ) -> tuple[RunResult, ...]:
        """The same answer to all that is asked here."""
        return (
            *(RunResult(run.key, outcome, message, duration_us=duration_us) for run in self.runs),
            *(RunResult(key, outcome, message, load=True) for key in self.loads),
        )


@dataclass(slots=True)
class _Waiting:
    source: bytes
    runs: deque[RunRequest] = field(default_factory=deque)
    loads: deque[RunKey] = field(default_factory=deque)


class Queue:
    """The work of one namespace. A script that has had its turn goes behind the others."""

    def __init__(self) -> None:
        self._scripts: OrderedDict[ScriptRef, _Waiting] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._scripts)

    def put(self, work: Work, source: bytes) -> None:
        waiting = self._of(work.script, source)
        waiting.runs.extend(work.runs)
        if work.load is not None:
            waiting.loads.append(work.load)

    def put_back(self, job: Job, *, is_next: bool) -> None:
        """Return a job that did not happen; its runs are again the first of their script.

        The script has the next turn, or the last one.
        """
        waiting = self._of(job.script, job.source)
        waiting.runs.extendleft(reversed(job.runs))
        waiting.loads.extendleft(reversed(job.loads))
        self._scripts.move_to_end(job.script, last=not is_next)

    def take(
        self, batch_size: Callable[[ScriptRef], int], *, runs_only: bool = False
    ) -> Job | None:
        """The next job: all loads of the script whose turn it is, else some of its runs.

        A script with a batch size of 0, or with loads if only runs are wanted, is passed over, and
        keeps its turn.
        """
        for script, waiting in self._scripts.items():
            if runs_only and waiting.loads:
                continue
            if size := batch_size(script):
                return self._taken(script, waiting, size)
        return None

    def _taken(self, script: ScriptRef, waiting: _Waiting, size: int) -> Job:
        if waiting.loads:
            job = Job(script, waiting.source, loads=tuple(waiting.loads))
            waiting.loads.clear()
        else:
            job = Job(script, waiting.source, runs=_batch(waiting.runs, size))
        if waiting.runs:
            self._scripts.move_to_end(script)
        else:
            del self._scripts[script]
        return job

    def drop(self, keys: Collection[RunKey]) -> None:
        """Forget these; the others stay in their order."""
        for script, waiting in list(self._scripts.items()):
            waiting.runs = deque(run for run in waiting.runs if run.key not in keys)
            waiting.loads = deque(load for load in waiting.loads if load not in keys)
            if not waiting.runs and not waiting.loads:
                del self._scripts[script]

    def clear(self) -> None:
        self._scripts.clear()

    def _of(self, script: ScriptRef, source: bytes) -> _Waiting:
        waiting = self._scripts.get(script)
        if waiting is None:
            waiting = self._scripts[script] = _Waiting(source)
        return waiting


def _batch(runs: deque[RunRequest], limit: int) -> tuple[RunRequest, ...]:
    batch = [runs.popleft()]
    size = len(batch[0].activation)
    while runs and len(batch) < limit and size + len(runs[0].activation) <= BATCH_BYTES:
        run = runs.popleft()
        size += len(run.activation)
        batch.append(run)
    return tuple(batch)
