"""Artifacts that executors are asked to load, before any run of them is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from reconciler.controllers.leading import Leadership
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.runnables import ANSWER_GRACE
from reconciler.controllers.triggering import new_run_id
from reconciler.core.runs import (
    Dispatch,
    ExecutorId,
    Outcome,
    RunId,
    RunKey,
    RunResult,
    ScriptRef,
)
from reconciler.ports.clock import Clock
from reconciler.ports.sessions import ExecutorInfo

# (namespace, digest): what is loaded, because a worker serves one namespace.
LoadKey = tuple[str, str]


class _Load(NamedTuple):
    key: LoadKey
    executor: ExecutorId
    deadline: float


class Loading:
    """Asks one executor at a time for each artifact, until one says how loading it went.

    One that goes away, does not answer in time or has no engine leaves it to another. Used by one
    event loop only.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        metrics: Metrics,
        leadership: Leadership,
        wake: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._leadership = leadership
        self._wake = wake
        self._wanted: dict[LoadKey, ScriptRef] = {}
        self._asked: dict[RunId, _Load] = {}
        # What executors could not load just now; not asked of them again before the next sweep.
        self._refused: dict[ExecutorId, set[LoadKey]] = {}

    def __len__(self) -> int:
        """Artifacts of which it is not known yet how loading them went."""
        return len(self._wanted)

    def want(self, ref: ScriptRef) -> None:
        self._wanted.setdefault((ref.key.namespace, ref.digest), ref)
        self._wake()

    def take(self, executor: ExecutorInfo, credit: int) -> list[Dispatch]:
        """At most `credit` requests, which are asked of this executor from now."""
        dispatches: list[Dispatch] = []
        if not self._wanted:
            return dispatches
        asked = {load.key for load in self._asked.values()}
        asked |= self._refused.get(executor.id, set())
        for key, ref in self._wanted.items():
            if len(dispatches) >= credit:
                break
            if key in asked or ref.script_type not in executor.script_types:
                continue
            load = RunKey(new_run_id(), 1, self._leadership.epoch(key[0]))
            deadline = self._clock.monotonic() + ANSWER_GRACE
            self._asked[load.run_id] = _Load(key, executor.id, deadline)
            dispatches.append(Dispatch(ref, (), load))
        return dispatches

    def finished(self, executor: ExecutorId, result: RunResult) -> LoadKey | None:
        """What this is the result of, and nobody else is asked for; None for anything else."""
        asked = self._asked.get(result.key.run_id)
        if asked is None or asked.executor != executor:
            self._metrics.stale_results_total.inc()
            return None
        del self._asked[result.key.run_id]
        if result.outcome is Outcome.UNAVAILABLE:
            # Stays wanted: of another executor at once, of this one after the next sweep.
            self._refuse(asked)
            self._wake()
            return None
        self._wanted.pop(asked.key, None)
        return asked.key

    def lost(self, executor: ExecutorId) -> None:
        """The executor went away."""
        self._refused.pop(executor, None)
        self._asked = {i: load for i, load in self._asked.items() if load.executor != executor}

    def sweep(self) -> None:
        """Ask again for what was refused, and others for what is not answered."""
        now = self._clock.monotonic()
        self._refused.clear()
        for run_id, load in list(self._asked.items()):
            if load.deadline < now:
                del self._asked[run_id]
                self._refuse(load)

    def _refuse(self, load: _Load) -> None:
        self._refused.setdefault(load.executor, set()).add(load.key)
