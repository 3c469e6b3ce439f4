"""Answers about tokens and rights, kept for a moment, so that a page or a sensor costs little."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, TypeVar

from cachetools import TTLCache

from reconciler.core.access import Caller, Right
from reconciler.errors import Transient
from reconciler.ports.access import Access
from reconciler.ports.clock import Clock

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

# A token that was revoked, or a right that was taken, counts this much longer at most.
KEPT_SECONDS: Final = 10.0
# Of each kind; a stranger's tokens push out others' answers and nothing more.
MOST_KEPT: Final = 4096
# At a time. What asks for us shares the cluster's connections with all that a controller does.
MOST_ASKED: Final = 8
MOST_WAITING: Final = 256


class KeptAccess:
    """`Access` with the answers of another for `KEPT_SECONDS`; failures are not kept.

    The same question is asked once at a time. Tokens themselves are not kept, only their hashes.
    """

    def __init__(self, inner: Access, *, clock: Clock) -> None:
        self._inner = inner
        self._callers: TTLCache[bytes, Caller | None] = TTLCache(
            MOST_KEPT, KEPT_SECONDS, timer=clock.monotonic
        )
        self._verdicts: TTLCache[tuple[Caller, Right], bool] = TTLCache(
            MOST_KEPT, KEPT_SECONDS, timer=clock.monotonic
        )
        self._asked: dict[Hashable, asyncio.Future[Any]] = {}
        self._places = asyncio.Semaphore(MOST_ASKED)

    async def identify(self, token: str) -> Caller | None:
        key = hashlib.sha256(token.encode()).digest()
        return await self._answer(self._callers, key, lambda: self._inner.identify(token))

    async def allows(self, caller: Caller, right: Right) -> bool:
        key = (caller, right)
        return await self._answer(self._verdicts, key, lambda: self._inner.allows(caller, right))

    async def _answer(self, kept: TTLCache[K, T], key: K, ask: Callable[[], Awaitable[T]]) -> T:
        with contextlib.suppress(KeyError):
            return kept[key]
        task = self._asked.get(key)
        if task is None:
            if len(self._asked) >= MOST_WAITING:
                raise Transient("too many ask at once who they are", reason="AccessUnavailable")
            task = self._asked[key] = asyncio.ensure_future(self._ask(kept, key, ask))
            task.add_done_callback(lambda done: self._answered(key, done))
        # One client that goes away must not take the answer from the others.
        answer: T = await asyncio.shield(task)
        return answer

    def _answered(self, key: Hashable, done: asyncio.Future[Any]) -> None:
        del self._asked[key]
        if not done.cancelled():
            done.exception()  # for those who wait; of whom there may be none left

    async def _ask(self, kept: TTLCache[K, T], key: K, ask: Callable[[], Awaitable[T]]) -> T:
        async with self._places:
            answer = await ask()
        kept[key] = answer
        return answer
