"""Keys that need work: three sets and a schedule, as client-go has them.

Promised: a key added any number of times before it is taken is handed out once; a key added while
it is worked on is handed out again after `done`; no key is handed out twice at once; delays of
one key hold up no other. Not promised: order between keys beyond first come, first served.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K")

# Retries of a key that keeps failing: 0.2, 0.4, ... s, at most one in two minutes. Slower to
# start than client-go's 5 ms, since what fails here is a remote call or a person's file.
BASE_DELAY = 0.2
MAX_DELAY = 120.0
# Stale entries of the schedule that are left in it; sweeping sooner would cost more than they do.
SLACK = 64


@dataclass(slots=True)
class WorkQueue(Generic[K]):
    """Pure; the loop that owns it brings the clock. Belongs to one thread.

    Invariant: everything in `_queue` is in `_dirty` and not in `_processing`.
    """

    _queue: deque[K] = field(default_factory=deque)
    _dirty: set[K] = field(default_factory=set)
    _processing: set[K] = field(default_factory=set)
    # The earliest time wins; entries of `_heap` that do not agree with `_due` are stale.
    _due: dict[K, float] = field(default_factory=dict)
    _heap: list[tuple[float, int, K]] = field(default_factory=list)
    _failures: dict[K, int] = field(default_factory=dict)
    _serial: int = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, key: K) -> None:
        self._due.pop(key, None)
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._queue.append(key)

    def add_after(self, key: K, now: float, delay: float) -> None:
        """Add once `delay` has passed; of several wishes the earliest holds."""
        if delay <= 0:
            self.add(key)
            return
        due = now + delay
        if key in self._dirty or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._serial += 1
        heapq.heappush(self._heap, (due, self._serial, key))
        if len(self._heap) > 2 * len(self._due) + SLACK:
            # Wishes that were overtaken would otherwise stay until their time.
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def add_rate_limited(self, key: K, now: float) -> float:
        """Add after a delay that doubles with each call since the last `forget`; the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(BASE_DELAY * 2.0 ** min(failures, 30), MAX_DELAY)
        self.add_after(key, now, delay)
        return delay

    def forget(self, key: K) -> None:
        self._failures.pop(key, None)

    def get(self, now: float) -> K | None:
        """The next key, now in processing until `done`; None when nothing is due."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                self.add(key)
        if not self._queue:
            return None
        key = self._queue.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        self._processing.discard(key)
        if key in self._dirty:
            self._queue.append(key)

    def next_due(self) -> float | None:
        """When the earliest delayed key becomes due; None when no key is delayed."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
