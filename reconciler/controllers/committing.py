"""Commits that runs wait for: written, followed by watch, and driven again on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from reconciler.controllers.effects import DesiredWriter
from reconciler.controllers.events import Events
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.runnables import InFlight
from reconciler.controllers.world import World
from reconciler.core import convergence
from reconciler.core.convergence import Goal, Standing
from reconciler.core.objects import SCRIPTS, JsonObject, ObjectKey
from reconciler.core.runs import Commit, Run
from reconciler.core.twins import DeviceRecord
from reconciler.ports.clock import Clock

# KubeEdge sends an object again every 5 s, and compares versions every 5 s: sooner would be noise.
# Doubled each time.
FIRST_DRIVE: Final = 5.0
# Devices that have left Scripts waiting; of more, some are told twice.
MOST_MISSED: Final = 10_000


async def _always(_run: Run) -> bool:
    return True


class Commits:
    """Performs what runs wait for, and tells how far it got.

    A PATCH that the API server accepts is not a command that arrived. So the device is watched,
    never asked, until its values are where the run wants them, and written anew with growing pauses
    until then: the same values, under a new version. Used by one event loop only.
    """

    def __init__(
        self, world: World, writer: DesiredWriter, events: Events, *, clock: Clock, metrics: Metrics
    ) -> None:
        self._world = world
        self._writer = writer
        self._events = events
        self._clock = clock
        self._metrics = metrics
        # Who waits for news of which device.
        self._waiters: dict[ObjectKey, set[asyncio.Event]] = {}
        # Scripts, by UID, and devices that have left them waiting: an event says so once.
        self._missed: set[tuple[str, ObjectKey]] = set()
        # Whether a run may act before its outcome is known; `main` knows who says.
        self.may_act: Callable[[Run], Awaitable[bool]] = _always

    def changed(self, device: ObjectKey) -> None:
        """A watch has brought something new of a device."""
        for waiter in self._waiters.get(device, ()):
            waiter.set()

    async def perform(
        self, flight: InFlight, commits: Sequence[Commit], seconds: float
    ) -> list[JsonObject]:
        """The replies to `commits`, `seconds` after they are written at the latest.

        Never raises for what one of them met.
        """
        return await asyncio.gather(*(self._one(flight, commit, seconds) for commit in commits))

    async def _one(self, flight: InFlight, commit: Commit, seconds: float) -> JsonObject:
        if not await self.may_act(flight.run):
            self._count(commit, "failed")
            return convergence.refusal(commit, "Failed", "it is not known to have begun")
        effects = await self._writer.perform(flight, commit.writes)
        flight.changed += tuple(effects.changed)
        flight.unchanged += tuple(effects.unchanged)
        flight.refused += tuple(effects.refused)
        flight.outranked += tuple(effects.outranked)
        flight.warnings += tuple(effects.warnings)
        if effects.refused:
            code = "Failed" if effects.failed else "Denied"
            self._count(commit, "failed" if effects.failed else "refused")
            return convergence.refusal(commit, code, effects.message)
        seconds = min(seconds, commit.timeout_ms / 1000) if commit.timeout_ms else seconds
        began = self._clock.monotonic()
        standing = Standing(commit.qos)
        for key, accepted in effects.accepted.items():
            goal = Goal(
                run_id=flight.run.key.run_id,
                qos=commit.qos,
                values=accepted.values,
                before=accepted.before,
                version=accepted.version,
            )
            standing = await self._follow(flight, key, goal, began + seconds)
            self._tell(flight, key, commit, standing)
        taken = self._clock.monotonic() - began
        self._metrics.commit_seconds.observe(taken)
        self._count(commit, "reached" if standing.reached >= commit.qos else "not_converged")
        return convergence.reply(commit, standing, ms=round(taken * 1000))

    def _tell(self, flight: InFlight, key: ObjectKey, commit: Commit, standing: Standing) -> None:
        run = flight.run
        pair = (run.uid, key)
        if standing.reached >= commit.qos:
            self._missed.discard(pair)
        elif pair not in self._missed:
            if len(self._missed) >= MOST_MISSED:
                self._missed.clear()
            self._missed.add(pair)
            message = flight.environment.text(f"{key.name}: {standing.message}")
            self._events.warning(SCRIPTS, run.script, run.uid, "NotConverged", message)

    def _count(self, commit: Commit, result: str) -> None:
        self._metrics.commits_total.labels(str(commit.qos), result).inc()

    async def _follow(
        self, flight: InFlight, key: ObjectKey, goal: Goal, deadline: float
    ) -> Standing:
        """Until the goal is reached or given up, or the time is over."""
        news = asyncio.Event()
        self._waiters.setdefault(key, set()).add(news)
        try:
            pause = FIRST_DRIVE
            drive_at = self._clock.monotonic() + pause
            while True:
                news.clear()
                standing = self._standing(self._writer.current(key), goal)
                now = self._clock.monotonic()
                if standing.is_over or now >= deadline:
                    return standing
                if now >= drive_at:
                    pause *= 2
                    drive_at = now + pause
                    if standing.missing:
                        self._metrics.redrives_total.inc()
                        await self._writer.drive_again(key, flight, partial(self._left, goal))
                    continue
                await self._hear(news, min(deadline, drive_at) - now)
        finally:
            self._waiters[key].discard(news)
            if not self._waiters[key]:
                del self._waiters[key]

    def _standing(self, device: DeviceRecord | None, goal: Goal) -> Standing:
        return convergence.judge(goal, device, self._world.model(device) if device else None)

    def _left(self, goal: Goal, device: DeviceRecord) -> Mapping[str, str]:
        return {name: goal.values[name] for name in self._standing(device, goal).missing}

    async def _hear(self, news: asyncio.Event, seconds: float) -> None:
        """Until there is news, or so long."""
        heard = asyncio.ensure_future(news.wait())
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({heard, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            heard.cancel()
            timer.cancel()
