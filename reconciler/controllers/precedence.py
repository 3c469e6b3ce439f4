"""What is deployed goes before what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

# However much there is to apply, what comes of it waits no longer than this from its beginning:
# a thousand Scripts are applied in less.
PATIENCE_SECONDS = 5.0


class Precedence:
    """While a revision is applied, what it brings waits: Scripts to be made ready, statuses and
    events; and while statuses are written, their commits to git do. For a bounded time.

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
        """Until nothing is being applied, or patience has ended."""
        await self._applying.wait()

    async def told(self) -> None:
        """Until no status is being written either, or patience has ended."""
        await self._applying.wait()
        await self._telling.wait()


class _Calm:
    def __init__(self) -> None:
        self._disturbing = 0
        self._patient_until = 0.0
        self._calm = asyncio.Event()
        self._calm.set()

    @contextmanager
    def disturbed(self) -> Iterator[None]:
        if not self._disturbing:
            self._calm.clear()
            self._patient_until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        self._disturbing += 1
        try:
            yield
        finally:
            self._disturbing -= 1
            if not self._disturbing:
                self._calm.set()

    async def wait(self) -> None:
        if not self._calm.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._patient_until):
                    await self._calm.wait()
