"""Runs that are due by the clock: at the times of a `cron`, and when a condition has held."""

from __future__ import annotations

import logging
from datetime import timedelta
from math import inf

from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result
from reconciler.controllers.triggering import Triggering
from reconciler.core.conditions import rfc3339
from reconciler.core.cron import Schedule
from reconciler.core.ledger import WhyNot
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause
from reconciler.core.triggers import Subscription
from reconciler.ports.clock import Clock

log = logging.getLogger(__name__)

# A clock that is put forward is noticed within this; one that is put back repeats nothing.
LOOK_SECONDS = 60.0


class Schedules:
    """Looks at each Script when something of it is due.

    Promised of schedules: a tick leads to one wish at most, also over a restart. A tick whose time
    passed while the Script could not run, or nobody was there, is missed and counted, unless the
    Script has a `startingDeadline` that reaches back so far: the newest then leads to a run. A
    Script that is new, or whose spec or artifact has changed, has missed nothing. While a wish
    waits, the next tick joins it.
    """

    def __init__(self, triggering: Triggering, *, clock: Clock, metrics: Metrics) -> None:
        self._triggering = triggering
        self._clock = clock
        self._metrics = metrics
        # By UID: the generation and digest looked at, and up to when ticks are decided on.
        self._since: dict[ObjectKey, tuple[tuple[str, int, str], float]] = {}
        self.loop: KeyLoop[ObjectKey] = KeyLoop(
            "Schedule", self._reconcile, clock=clock, metrics=metrics
        )

    def changed(self, script: ObjectKey) -> None:
        """It can run now, as it is now; or it cannot any more."""
        subscription = self._triggering.index.get(script)
        if script in self._since or (
            subscription is not None and (subscription.schedule or subscription.gate)
        ):
            self.loop.add(script)

    async def _reconcile(self, script: ObjectKey) -> Result:
        subscription = self._triggering.index.get(script)
        again_at = self._triggering.look(script)
        now = self._clock.now()
        if subscription is None or subscription.schedule is None:
            self._since.pop(script, None)
        else:
            again_at = min(again_at, await self._tick(subscription, subscription.schedule, now))
        if again_at == inf:
            return Result()
        return Result(timedelta(seconds=min(max(again_at - now, 0.0), LOOK_SECONDS)))

    async def _tick(self, subscription: Subscription, schedule: Schedule, now: float) -> float:
        """Decide on what is due; when to look again."""
        script = subscription.key
        version = (subscription.uid, subscription.generation, subscription.digest)
        known, since = self._since.get(script, (None, 0.0))
        if known != version:
            found = self._triggering.ticked(subscription)
            if found is None:
                await self._triggering.tick(subscription, now, runs=False)
            since = found or now
            self._since[script] = version, since
        look = schedule.look(since=since, now=now)
        if look.tick is not None:
            await self._triggering.tick(subscription, look.tick, runs=not look.is_missed)
            self._since[script] = version, look.tick
            self._metrics.ticks_total.labels("missed" if look.is_missed else "due").inc()
            if look.is_missed:
                self._triggering.note(script, WhyNot.MISSED, Cause.CRON, rfc3339(look.tick))
                log.warning(
                    "tick missed", extra={"script": str(script), "due": look.tick, "now": now}
                )
        return look.again_at
