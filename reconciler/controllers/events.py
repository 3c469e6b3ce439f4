"""Kubernetes events: what `kubectl describe` shows of transitions, few and useful."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from reconciler.api.meta import READY, RUNS_SUCCEEDING, Condition
from reconciler.core.objects import ObjectKey, Reference, Resource
from reconciler.errors import ScriptOpsError
from reconciler.ports.cluster import Cluster, ClusterEvent

log = logging.getLogger(__name__)

# Events are for people: when more than these wait, the newest are dropped and counted in the log.
BACKLOG = 1000


class Events:
    """Best effort, in order, never in the way: `transition` returns at once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._backlog: asyncio.Queue[ClusterEvent] = asyncio.Queue(BACKLOG)

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

    def _tell(self, resource: Resource, key: ObjectKey, uid: str, condition: Condition) -> None:
        event = ClusterEvent(
            regarding=Reference(resource.kind, *key),
            api_version=resource.api_version,
            uid=uid,
            type="Warning" if condition.status == "False" else "Normal",
            reason=condition.reason,
            message=condition.message or condition.reason,
        )
        try:
            self._backlog.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("event dropped", extra={"key": str(key), "reason": condition.reason})

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            event = await self._backlog.get()
            try:
                await self._cluster.emit(event)
            except ScriptOpsError as error:
                log.debug("event not recorded", extra={"reason": error.reason})
