"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

# How often the loop is let round so that woken tasks, and those that they wake, come to rest.
# Tasks that wait for threads or sockets need a wait of their own.
ROUNDS = 50


class FakeClock:
    """Keeps the promises of `Clock`; sleepers wake in the order of their deadlines.

    `monotonic` starts at 0 and `now` at `start`; both move together. Serves one event loop at a
    time, or none.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        self._elapsed = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), future))
        await future

    @property
    def sleepers(self) -> int:
        """How many tasks sleep now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move time on, stopping at each deadline until those who were woken have come to rest.

        A loop that sleeps one second at a time therefore turns ten times in `advance(10)`.
        """
        await self.settle()
        end = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            deadline, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue
            self._elapsed = max(self._elapsed, deadline)
            future.set_result(None)
            await self.settle()
        self._elapsed = end
        await self.settle()

    def jump(self, seconds: float) -> None:
        """Move time on for code that sleeps nowhere; refuses to pass over a sleeper."""
        end = self._elapsed + seconds
        if any(deadline <= end and not future.done() for deadline, _, future in self._sleepers):
            raise AssertionError("somebody sleeps: await advance() instead")
        self._elapsed = end

    async def settle(self) -> None:
        """Let every task that can go on do so, without moving time."""
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
