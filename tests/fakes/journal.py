"""A journal that outlives the controllers of a test, not the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reconciler.core.deliveries import Delivery
from reconciler.core.runs import RunId
from reconciler.errors import Fenced, Transient
from reconciler.ports.clock import Clock
from reconciler.ports.journal import RETENTION


class FakeJournal:
    """Keeps the promises of `Journal` as far as memory goes; `before` is what a crash left.

    While it `is_full` it refuses, as a disk does. While it `loses_drops`, what was dropped is found
    again after a crash.
    """

    def __init__(
        self,
        before: FakeJournal | None = None,
        *,
        clock: Clock,
        shard_of: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self.deliveries: dict[RunId, Delivery] = dict(before.deliveries) if before else {}
        self.epochs: dict[int, int] = before.epochs if before else {}
        self.ended: dict[RunId, float] = before.ended if before else {}
        self.on_found: Callable[[Delivery], None] = lambda _: None
        self.is_full = False
        self.loses_drops = False
        self._clock = clock
        self._shard_of = shard_of

    async def claim(self, shard: int, *, at_least: int = 1) -> int:
        self._refuse()
        self.epochs[shard] = max(self.epochs.get(shard, 0) + 1, at_least)
        return self.epochs[shard]

    async def load(self, shard: int) -> Sequence[Delivery]:
        return [it for it in self.deliveries.values() if self._shard(it) == shard]

    async def keep(self, delivery: Delivery) -> None:
        self._refuse()
        if delivery.run.key.epoch < self.epochs.get(self._shard(delivery), 0):
            raise Fenced("claimed again")
        self.deliveries[delivery.run.key.run_id] = delivery

    async def accept(self, delivery: Delivery) -> Delivery:
        known = self.deliveries.get(delivery.run.key.run_id)
        if known is not None and known.result is not None:
            return known
        await self.keep(delivery)
        return delivery

    def drop(self, run_id: RunId) -> None:
        if self.loses_drops:
            return
        gone = self.deliveries.pop(run_id, None)
        if gone is not None and gone.run.is_keyed:
            self.ended[run_id] = self._clock.now() + RETENTION.total_seconds()

    async def has_ended(self, run_id: RunId) -> bool:
        return self.ended.get(run_id, 0.0) > self._clock.now()

    async def flush(self) -> None:
        """All is where it belongs already."""

    async def close(self) -> None:
        """Nothing to write."""

    def _shard(self, delivery: Delivery) -> int:
        return self._shard_of(delivery.run.script.namespace)

    def _refuse(self) -> None:
        if self.is_full:
            raise Transient("no space is left", reason="StateUnavailable")
