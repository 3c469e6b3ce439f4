"""The executors that are connected, and what each can still take."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.controllers.metrics import Metrics
from reconciler.core.runs import ExecutorId, RunId
from reconciler.ports.sessions import ExecutorInfo

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Executor:
    info: ExecutorInfo
    credit: int = 0
    draining: bool = False


class Executors:
    """Counts credit: how many runs an executor has asked for and was not sent yet.

    One that drains has none any more, and is there until it is disconnected. Used by one event
    loop only.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._known: dict[ExecutorId, Executor] = {}

    def __iter__(self) -> Iterator[Executor]:
        return iter(self._known.values())

    def connected(self, executor: ExecutorInfo) -> None:
        self._known[executor.id] = Executor(executor)
        who = {"executor": executor.name, "identity": executor.identity}
        log.info("executor connected", extra=who)
        self._metrics.executors.set(len(self._known))

    def credited(self, executor: ExecutorId, credit: int) -> bool:
        """Whether it takes any."""
        known = self._known.get(executor)
        if known is None or known.draining:
            return False
        known.credit += credit
        return True

    def draining(self, executor: ExecutorId) -> bool:
        """Whether it is there: it takes no more."""
        known = self._known.get(executor)
        if known is None:
            return False
        known.credit = 0
        known.draining = True
        return True

    def disconnected(self, executor: ExecutorId, reason: str) -> bool:
        """Whether it was there."""
        gone = self._known.pop(executor, None)
        if gone is None:
            return False
        log.info("executor disconnected", extra={"executor": gone.info.name, "reason": reason})
        self._metrics.executors.set(len(self._known))
        return True

    def can_run(self, script_type: str, *, but: ExecutorId | None = None) -> bool:
        """Whether any of them, except one, has the engine and takes runs."""
        return any(
            script_type in e.info.script_types and not e.draining and e.info.id != but
            for e in self._known.values()
        )

    @property
    def most_credit_first(self) -> list[Executor]:
        """Those that take runs now, in the order that spreads runs over them."""
        with_credit = (e for e in self._known.values() if e.credit > 0)
        return sorted(with_credit, key=lambda e: -e.credit)

    def tell_credit(self) -> None:
        self._metrics.executor_credit.set(sum(e.credit for e in self._known.values()))

    def tell_foreign(self, executor: ExecutorId, run_id: RunId) -> None:
        """An executor that answers for another is mistaken, or not what it says."""
        known = self._known.get(executor)
        told = {} if known is None else {"executor": known.info.name}
        who = "" if known is None else known.info.identity
        extra = {**told, "identity": who, "run_id": run_id}
        log.warning("result of a run of another executor", extra=extra)
