"""Kubernetes events: what `kubectl describe` shows of transitions, few and useful."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from reconciler.api.meta import READY, RUNS_SUCCEEDING, Condition
from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.precedence import Precedence
from reconciler.core.objects import ObjectKey, Reference, Resource
from reconciler.errors import ScriptOpsError
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster, ClusterEvent

log = logging.getLogger(__name__)

# Events are for people, who read a few of them. When ten thousand Scripts are deployed, an event
# for each would cost the API server as much as the Scripts: beyond this many that wait, those which
# say that all is well are dropped, and beyond the second number all are.
NORMAL_BACKLOG = 50
WARNING_BACKLOG = 1000
# One after the other at most this often: a twentieth of what a small API server writes.
PACE_SECONDS = 0.05


class Events:
    """Best effort, in order, never in the way: `transition` returns at once."""

    def __init__(
        self,
        cluster: Cluster,
        precedence: Precedence,
        *,
        clock: Clock,
        metrics: Metrics,
        leadership: Leadership = ALONE,
    ) -> None:
        self._cluster = cluster
        self._leadership = leadership
        self._precedence = precedence
        self._clock = clock
        self._metrics = metrics
        self._backlog: deque[ClusterEvent] = deque()
        self._news = asyncio.Event()
        # Told of each transition, whether or not there is room for its event.
        self.listeners: list[Callable[[Resource, ObjectKey, str, Condition], None]] = []

    @property
    def idle(self) -> bool:
        """Whether all that was told is recorded, or was dropped."""
        return not self._news.is_set()

    def transition(
        self,
        resource: Resource,
        key: ObjectKey,
        uid: str,
        before: Sequence[Condition],
        after: Sequence[Condition],
    ) -> None:
        """Tell of Ready and RunsSucceeding where their status or reason changed."""
        old = {c.type: (c.status, c.reason) for c in before}
        for condition in after:
            if condition.type not in {READY, RUNS_SUCCEEDING}:
                continue
            before_it = old.get(condition.type)
            if before_it is None and condition.type == RUNS_SUCCEEDING:
                # A first run that goes well is no news.
                before_it = ("True", condition.reason)
            if before_it == (condition.status, condition.reason):
                continue
            self._tell(resource, key, uid, condition)
            for listener in self.listeners:
                listener(resource, key, uid, condition)

    def warning(
        self, resource: Resource, key: ObjectKey, uid: str, reason: str, message: str
    ) -> None:
        """Tell of what goes wrong beside what conditions speak of."""
        self._put(
            ClusterEvent(
                regarding=Reference(resource.kind, *key),
                api_version=resource.api_version,
                uid=uid,
                type="Warning",
                reason=reason,
                message=message,
            )
        )

    def _tell(self, resource: Resource, key: ObjectKey, uid: str, condition: Condition) -> None:
        self._put(
            ClusterEvent(
                regarding=Reference(resource.kind, *key),
                api_version=resource.api_version,
                uid=uid,
                type="Warning" if condition.status == "False" else "Normal",
                reason=condition.reason,
                message=condition.message or condition.reason,
            )
        )

    def _put(self, event: ClusterEvent) -> None:
        room = NORMAL_BACKLOG if event.type == "Normal" else WARNING_BACKLOG
        if len(self._backlog) >= room:
            self._metrics.dropped_total.labels("event").inc()
            log.debug("event dropped", extra={"key": str(event.regarding), "reason": event.reason})
            return
        self._backlog.append(event)
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            while self._backlog:
                await self._precedence.told()
                event = self._backlog.popleft()
                try:
                    async with self._leadership.writing(event.regarding.namespace):
                        await self._cluster.emit(event)
                except ScriptOpsError as error:
                    log.debug("event not recorded", extra={"reason": error.reason})
                await self._clock.sleep(PACE_SECONDS)
            self._news.clear()
