"""What is deployed goes before what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

# However much there is to apply, what is said of it waits no longer than this.
PATIENCE_SECONDS = 3.0


class Precedence:
    """While a revision is applied, its statuses and events wait, and while statuses are written,
    their commits to git do; for a bounded time.

    They would compete for the same API server and the same core: a thousand Scripts are live in
    half the time when their statuses come after them, and the statuses come no later.
    """

    def __init__(self) -> None:
        self._applying = _Calm()
        self._telling = _Calm()

    def applying(self) -> AbstractContextManager[None]:
        return self._applying.disturbed()

    def telling(self) -> AbstractContextManager[None]:
        return self._telling.disturbed()

    async def applied(self) -> None:
        """Until nothing is being applied, or patience ends."""
        await self._applying.wait()

    async def told(self) -> None:
        """Until no status is being written either, or patience ends."""
        await self._applying.wait()
        await self._telling.wait()


class _Calm:
    def __init__(self) -> None:
        self._disturbing = 0
        self._calm = asyncio.Event()
        self._calm.set()

    @contextmanager
    def disturbed(self) -> Iterator[None]:
        self._disturbing += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._disturbing -= 1
            if not self._disturbing:
                self._calm.set()

    async def wait(self) -> None:
        if not self._calm.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._calm.wait()
