"""The loop around a work queue: takes keys, reconciles them, reacts to how that ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result, react
from reconciler.core.workqueue import WorkQueue
from reconciler.ports.clock import Clock

log = logging.getLogger(__name__)

K = TypeVar("K")


class KeyLoop(Generic[K]):
    """Runs `reconcile(key)` for every key that was added, `workers` at once, each key alone.

    `add` and `add_after` may be called at any time from the event loop; what arrives while a key
    is being worked on is handed out again afterwards. An error of one key touches no other.
    """

    def __init__(
        self,
        kind: str,
        reconcile: Callable[[K], Awaitable[Result]],
        *,
        clock: Clock,
        metrics: Metrics,
        workers: int = 1,
    ) -> None:
        self._kind = kind
        self._reconcile = reconcile
        self._clock = clock
        self._metrics = metrics
        self._workers = workers
        self._queue: WorkQueue[K] = WorkQueue()
        self._wake = asyncio.Event()
        self._busy = 0

    def add(self, key: K) -> None:
        self._queue.add(key)
        self._wake.set()

    def add_after(self, key: K, delay: float) -> None:
        self._queue.add_after(key, self._clock.monotonic(), delay)
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is being worked on and nothing is due; delayed keys do not count."""
        return not self._busy and not len(self._queue)

    async def run(self) -> None:
        """Until cancelled."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._wake.clear()
                while self._busy < self._workers:
                    key = self._queue.get(self._clock.monotonic())
                    if key is None:
                        break
                    self._busy += 1
                    task = asyncio.create_task(self._work(key))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                await self._sleep_until_due()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _sleep_until_due(self) -> None:
        due = self._queue.next_due() if self._busy < self._workers else None
        if due is None:
            await self._wake.wait()
            return
        timer = asyncio.ensure_future(self._clock.sleep(max(due - self._clock.monotonic(), 0)))
        waker = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((timer, waker), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Not awaited: a cancellation that comes meanwhile must end this loop too.
            timer.cancel()
            waker.cancel()

    async def _work(self, key: K) -> None:
        try:
            self._react(key, await self._attempt(key))
        finally:
            self._queue.done(key)
            self._busy -= 1
            self._wake.set()

    async def _attempt(self, key: K) -> Result | BaseException:
        try:
            return await self._reconcile(key)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                # The loop ends. Should it run again, the key was not finished.
                self._queue.add(key)
                raise
            # Something that the reconcile waited for was cancelled: its error, not our end.
            return error
        except Exception as error:  # noqa: BLE001 - `react` is where every error is decided on
            return error

    def _react(self, key: K, ended: Result | BaseException) -> None:
        reaction = react(ended)
        self._metrics.reconcile_total.labels(self._kind, reaction.result).inc()
        if reaction.level > logging.DEBUG:
            log.log(
                reaction.level,
                "reconcile ended",
                extra={
                    "kind": self._kind,
                    "key": str(key),
                    "result": reaction.result,
                    "reason": reaction.reason,
                    "error": "" if isinstance(ended, Result) else str(ended),
                },
                exc_info=ended if reaction.traceback and isinstance(ended, BaseException) else None,
            )
        if reaction.backoff:
            self._queue.add_rate_limited(key, self._clock.monotonic())
        else:
            self._queue.forget(key)
            if reaction.delay is not None:
                self._queue.add_after(key, self._clock.monotonic(), reaction.delay.total_seconds())
