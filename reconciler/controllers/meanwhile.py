"""What devices reported while nobody was surely there to run for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from reconciler.core import triggers
from reconciler.core.objects import ObjectKey
from reconciler.core.twins import DeviceRecord
from reconciler.ports.clock import Clock

# About 30 MB of changes; beyond, the oldest are forgotten, as if they had been run for.
MOST_CHANGES: Final = 100_000


class Meanwhile:
    """Values as they were before each change of the last `seconds`.

    Every replica hears of all devices. One that begins to lead does not know what the one before
    has run for, but when that was surely there: what has changed since is looked at anew. `missed`
    is what devices of shards that are led reported before the first of those changes. Belongs to
    the event loop.
    """

    def __init__(self, clock: Clock, *, shard_of: Callable[[str], int], seconds: float) -> None:
        self._clock = clock
        self._shard_of = shard_of
        self._seconds = seconds
        self._now: dict[ObjectKey, Mapping[str, str]] = {}
        self._changes: deque[tuple[float, ObjectKey, Mapping[str, str]]] = deque(
            maxlen=MOST_CHANGES
        )
        self._led: set[int] = set()
        self.missed: dict[ObjectKey, Mapping[str, str]] = {}

    def changed(self, device: DeviceRecord) -> None:
        """A device as it is now."""
        values = triggers.known_values(device)
        before = self._now.get(device.key)
        if before == values:
            return
        self._now[device.key] = values
        if before is None:
            return
        self._changes.append((self._clock.monotonic(), device.key, before))
        self._forget()
        if self._shard_of(device.key.namespace) in self._led:
            # Its Scripts may not have been taken up yet.
            self.missed.setdefault(device.key, before)

    def gone(self, device: ObjectKey) -> None:
        self._now.pop(device, None)
        self.missed.pop(device, None)

    def begin(self, shard: int, *, since: float) -> None:
        """It is led; somebody else surely did at `since`, by our monotonic clock."""
        self.end(shard)
        self._led.add(shard)
        for at, device, values in self._changes:
            if at >= since and self._shard_of(device.namespace) == shard:
                self.missed.setdefault(device, values)

    def end(self, shard: int) -> None:
        self._led.discard(shard)
        for device in [it for it in self.missed if self._shard_of(it.namespace) == shard]:
            del self.missed[device]

    def _forget(self) -> None:
        oldest = self._clock.monotonic() - self._seconds
        while self._changes and self._changes[0][0] < oldest:
            self._changes.popleft()
