"""Which part of the work this controller does, where several share it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from math import inf
from typing import Final, TypeVar

from reconciler.controllers.metrics import Metrics
from reconciler.core import leases as machine
from reconciler.core.leases import State, Timing
from reconciler.core.shards import shard_of
from reconciler.errors import ClusterUnavailable, Conflict, NotLeading, ScriptOpsError
from reconciler.ports.clock import Clock
from reconciler.ports.leases import Leases

log = logging.getLogger(__name__)
T = TypeVar("T")

# Between two tries to get ready for what was won.
AGAIN_SECONDS: Final = 1.0
# Added to each rest of who does not lead, as a share of it at most: candidates that began together
# do not go on together.
JITTER: Final = 0.5
# Rests before a renewal was seen in which its writer may not have been at work any more.
MARGIN: Final = 3.0


class Leadership:
    """Of the only controller there is: it leads everything, always."""

    def __init__(self) -> None:
        # By shard; what a journal gave us when we began there.
        self._claimed: dict[int, int] = {}

    def shard(self, namespace: str) -> int:  # noqa: ARG002 - the same everywhere
        return 0

    def leads(self, namespace: str) -> bool:  # noqa: ARG002 - the same everywhere
        """Whether it may start runs and write for `namespace` now."""
        return True

    def claimed(self, shard: int, epoch: int) -> None:
        """A journal knows us by this number from now on, and refuses lower ones."""
        self._claimed[shard] = epoch

    def epoch(self, namespace: str) -> int:
        """Of the leadership there; higher than that of any other leader before."""
        return self._claimed.get(self.shard(namespace), 1)

    def elsewhere(self, namespace: str) -> str | None:  # noqa: ARG002 - the same everywhere
        """None where it leads; else the web address of who does, empty when nobody is known."""
        return None

    def start(self, address: str) -> None:
        """Be a candidate; the others find who leads at `address`."""

    async def stop(self) -> None:
        """Let go of everything, so that others can take it at once."""

    def writing(self, namespace: str) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - the same
        """Around each write. Raises `NotLeading` instead of beginning one that we may not make,
        and from one that is still under way when we may not any more.
        """
        return nullcontext()


ALONE: Final = Leadership()


def _nothing(_shard: int) -> None:
    """Nobody asks."""


async def _ready(_shard: int, _epoch: int) -> None:
    """Nothing has to be fetched."""


class Leading(Leadership):
    """Of one replica of several: a candidate for every shard of the namespaces.

    Promised: while no clock runs 1.5 times as fast as another, no two replicas lead a shard at the
    same time, whatever is slow, paused or cut off; `leads` turns False by our own clock before
    another may begin. `prepare` has returned before we lead, `on_gained` is called when we do and
    `on_lost` when we do not any more. Not promised: that a write which left us is not late: what
    it does is fenced where it arrives, by what it tests and by its epoch.
    """

    def __init__(
        self,
        leases: Leases,
        *,
        me: str,
        shards: int,
        clock: Clock,
        metrics: Metrics,
        timing: Timing = machine.USUAL,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__()
        self._leases = leases
        self._clock = clock
        self._metrics = metrics
        self._timing = timing
        self._chance = chance
        self._states = [State(me=me, timing=timing) for _ in range(shards)]
        # Epochs of what is led, and what is being made ready for it.
        self._led: dict[int, int] = {}
        self._preparing: dict[int, tuple[int, asyncio.Task[None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._told = [""] * shards
        # When whoever led before was surely there, and when we were ourselves.
        self._unled_since = [-inf] * shards
        self._lost_at = [-inf] * shards
        self._shard_of: dict[str, int] = {}
        # Set by `main`.
        self.prepare: Callable[[int, int], Awaitable[None]] = _ready
        self.on_gained: Callable[[int], None] = _nothing
        self.on_lost: Callable[[int], None] = _nothing

    def shard(self, namespace: str) -> int:
        found = self._shard_of.get(namespace)
        if found is None:
            found = self._shard_of[namespace] = shard_of(namespace, len(self._states))
        return found

    def leads(self, namespace: str) -> bool:
        shard = self.shard(namespace)
        return shard in self._led and self._left(shard) > 0

    def epoch(self, namespace: str) -> int:
        shard = self.shard(namespace)
        return max(self._claimed.get(shard, 0), self._states[shard].epoch)

    def elsewhere(self, namespace: str) -> str | None:
        if self.leads(namespace):
            return None
        state = self._states[self.shard(namespace)]
        lease = state.lease
        return lease.address if lease is not None and lease.holder != state.me else ""

    @asynccontextmanager
    async def writing(self, namespace: str) -> AsyncIterator[None]:
        if not self.leads(namespace):
            raise NotLeading(f"another replica may lead namespace {namespace} by now")
        try:
            async with asyncio.timeout(self._left(self.shard(namespace))):
                yield
        except TimeoutError as error:
            raise NotLeading(f"namespace {namespace} was lost while it was written to") from error

    def unled_since(self, shard: int) -> float:
        """When somebody surely led before we did, by our monotonic clock."""
        return self._unled_since[shard]

    # The campaign.

    def start(self, address: str) -> None:
        for shard, state in enumerate(self._states):
            self._states[shard] = machine.named(state, address)
            self._tasks.append(asyncio.create_task(self._campaign(shard)))

    async def stop(self) -> None:
        tasks = [*self._tasks, *(task for _, task in self._preparing.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*map(self._let_go, range(len(self._states))))

    async def _let_go(self, shard: int) -> None:
        self._states[shard], free = machine.let_go(self._states[shard])
        self._judge(shard)
        if free is None:
            return
        try:
            await self._within(self._timing.retry, self._leases.write(_name(shard), free))
        except ScriptOpsError as error:
            log.info("lease not let go", extra={"shard": shard, "reason": error.reason})

    async def _campaign(self, shard: int) -> None:
        await self._clock.sleep(self._timing.retry * self._chance())
        while True:
            try:
                await self._round(shard)
                self._tell(shard, "")
            except ScriptOpsError as error:
                self._states[shard] = machine.doubted(self._states[shard])
                self._tell(shard, str(error))
            self._judge(shard)
            await self._clock.sleep(self._rest(shard))
            self._judge(shard)

    async def _round(self, shard: int) -> None:
        name, left = _name(shard), self._left(shard)
        if left <= 0 or not self._states[shard].is_read:
            await self._read(shard)
        asked_at, left = self._clock.monotonic(), self._left(shard)
        wish = machine.wanted(self._states[shard], asked_at)
        if wish is None:
            return
        if left <= 0:
            self._unled_since[shard] = self._last_led(shard)
        seconds = left if left > 0 else self._timing.renew
        try:
            written = await self._within(seconds, self._leases.write(name, wish))
        except Conflict:
            # Another was faster, or this is what we wrote ourselves and never heard of.
            self._states[shard] = machine.doubted(self._states[shard])
            await self._read(shard)
        else:
            now = self._clock.monotonic()
            self._states[shard] = machine.wrote(self._states[shard], written, asked_at, now)

    def _last_led(self, shard: int) -> float:
        state = self._states[shard]
        if state.lease is None:
            return -inf
        if state.lease.holder == state.me:
            return self._lost_at[shard]
        # It was renewed, or let go, up to a rest before that was seen; and it is let go last.
        return state.seen_at - MARGIN * self._timing.retry

    async def _read(self, shard: int) -> None:
        left = self._left(shard)
        seconds = left if left > 0 else self._timing.renew
        found = await self._within(seconds, self._leases.read(_name(shard)))
        self._states[shard] = machine.saw(self._states[shard], found, self._clock.monotonic())

    async def _within(self, seconds: float, asking: Awaitable[T]) -> T:
        asked = asyncio.ensure_future(asking)
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait((asked, timer), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise ClusterUnavailable(f"no answer about leases within {seconds:.1f} s")
            return asked.result()
        finally:
            asked.cancel()
            timer.cancel()

    def _left(self, shard: int) -> float:
        return self._states[shard].until - self._clock.monotonic()

    def _rest(self, shard: int) -> float:
        left = self._left(shard)
        if left > 0:
            return min(self._timing.retry, left)
        return self._timing.retry * (1 + JITTER * self._chance())

    def _judge(self, shard: int) -> None:
        """Act on what has become of it."""
        state = self._states[shard]
        epoch = state.epoch if self._left(shard) > 0 else None
        if shard in self._led and self._led[shard] != epoch:
            self._lose(shard)
        if shard in self._preparing and self._preparing[shard][0] != epoch:
            self._preparing.pop(shard)[1].cancel()
        if epoch is not None and shard not in self._led and shard not in self._preparing:
            self._preparing[shard] = epoch, asyncio.create_task(self._prepare(shard))

    async def _prepare(self, shard: int) -> None:
        while True:
            try:
                await self.prepare(shard, self._states[shard].epoch)
                break
            except ScriptOpsError as error:
                self._tell(shard, str(error))
                await self._clock.sleep(AGAIN_SECONDS)
        self._preparing.pop(shard, None)
        if self._left(shard) > 0:
            epoch = self._led[shard] = self._states[shard].epoch
            self._metrics.shards_led.set(len(self._led))
            log.info("shard gained", extra={"shard": shard, "epoch": epoch})
            self.on_gained(shard)

    def _lose(self, shard: int) -> None:
        epoch = self._led.pop(shard)
        self._lost_at[shard] = self._clock.monotonic()
        self._metrics.shards_led.set(len(self._led))
        log.info("shard lost", extra={"shard": shard, "epoch": epoch})
        self.on_lost(shard)

    def _tell(self, shard: int, why: str) -> None:
        if why and why != self._told[shard]:
            log.warning("lease not to be had", extra={"shard": shard, "why": why})
        self._told[shard] = why


def _name(shard: int) -> str:
    return f"scriptops-shard-{shard}"
