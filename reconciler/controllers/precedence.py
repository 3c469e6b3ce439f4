"""What is deployed goes before what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

# However much there is to apply, what is said of it waits no longer than this.
PATIENCE_SECONDS = 3.0


class Precedence:
    """While a revision is applied, statuses, events and status commits wait, for a bounded time.

    They would compete for the same API server and the same core: a thousand Scripts are live in
    half the time when their statuses come after them, and the statuses come no later.
    """

    def __init__(self) -> None:
        self._applying = 0
        self._calm = asyncio.Event()
        self._calm.set()

    @contextmanager
    def applying(self) -> Iterator[None]:
        self._applying += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._applying -= 1
            if not self._applying:
                self._calm.set()

    async def calm(self) -> None:
        """Until nothing is being applied, or patience ends."""
        if not self._calm.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._calm.wait()
