"""Work side by side, a little at first: what cannot succeed is then not tried a thousand times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconciler.errors import ScriptOpsError


class SlowStart:
    """Places for work: one, then two, four and so on up to `most` while it succeeds.

    Each failure takes a place away again, down to one. As with a Deployment's Pods, a quota that
    is used up or a right that is missing costs a few refused requests at a time; unlike there, all
    of the work is done, for one object that fails says nothing of the others.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 1
        self._places = asyncio.Semaphore(1)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        await self._places.acquire()
        try:
            yield
        except ScriptOpsError:
            if self._open == 1:
                self._places.release()
            else:
                self._open -= 1
            raise
        except BaseException:
            self._places.release()
            raise
        self._places.release()
        if self._open < self._most:
            self._open += 1
            self._places.release()
