"""Answers about tokens and rights, kept for a moment, so that a page or a sensor costs little."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, TypeVar

from cachetools import TTLCache

from reconciler.core.access import Caller, Right
from reconciler.errors import Transient
from reconciler.ports.access import Access
from reconciler.ports.clock import Clock

T = TypeVar("T")

# A token that was revoked, or a right that was taken, counts this much longer at most.
KEPT_SECONDS: Final = 10.0
# Of each kind; a stranger's tokens push out other strangers' and nothing more.
MOST_KEPT: Final = 4096
# Whose token was good so lately does not wait behind strangers when its answer has expired.
ACQUAINTED_SECONDS: Final = 3600.0
# At a time, by strangers and by others each. What asks for us shares the cluster's connections with
# all that a controller does.
MOST_ASKED: Final = 8
MOST_WAITING: Final = 256
# Of these, from one address: a flood leaves room for who comes from elsewhere.
MOST_FROM_ONE: Final = 64


class _Desk:
    """Where so many are served at a time, and so many wait."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(MOST_ASKED)
        self.asked: dict[Hashable, asyncio.Future[Any]] = {}


class KeptAccess:
    """`Access` with the answers of another for `KEPT_SECONDS`; failures are not kept.

    The same question is asked once at a time. Tokens themselves are not kept, only their hashes.
    Strangers, whose tokens were not good of late, wait for each other and for nobody else; raises
    `Transient` for more of them than may wait, at all or from one address.
    """

    def __init__(self, inner: Access, *, clock: Clock) -> None:
        self._inner = inner
        self._callers: TTLCache[bytes, Caller] = self._cache(KEPT_SECONDS, clock)
        self._refused: TTLCache[bytes, None] = self._cache(KEPT_SECONDS, clock)
        self._verdicts: TTLCache[tuple[Caller, Right], bool] = self._cache(KEPT_SECONDS, clock)
        self._acquainted: TTLCache[bytes, None] = self._cache(ACQUAINTED_SECONDS, clock)
        self._strangers, self._others = _Desk(), _Desk()
        self._from: Counter[str] = Counter()

    @staticmethod
    def _cache(seconds: float, clock: Clock) -> TTLCache[Any, Any]:
        return TTLCache(MOST_KEPT, seconds, timer=clock.monotonic)

    async def identify(self, token: str, *, peer: str = "") -> Caller | None:
        """Whose token it is, that came from the address `peer`."""
        key = hashlib.sha256(token.encode()).digest()
        with contextlib.suppress(KeyError):
            return self._callers[key]
        with contextlib.suppress(KeyError):
            return self._refused[key]
        if key in self._acquainted:
            return await self._ask(self._others, key, self._identified(key, token))
        if self._from[peer] >= MOST_FROM_ONE:
            raise _too_many()
        self._from[peer] += 1
        try:
            return await self._ask(self._strangers, key, self._identified(key, token))
        finally:
            self._from[peer] -= 1
            if not self._from[peer]:
                del self._from[peer]

    async def allows(self, caller: Caller, right: Right) -> bool:
        key = (caller, right)
        with contextlib.suppress(KeyError):
            return self._verdicts[key]
        return await self._ask(self._others, key, self._judged(caller, right))

    def _identified(self, key: bytes, token: str) -> Callable[[], Awaitable[Caller | None]]:
        async def ask() -> Caller | None:
            caller = await self._inner.identify(token)
            if caller is None:
                self._refused[key] = None
                self._callers.pop(key, None)
                self._acquainted.pop(key, None)
            else:
                self._callers[key] = caller
                self._acquainted[key] = None
            return caller

        return ask

    def _judged(self, caller: Caller, right: Right) -> Callable[[], Awaitable[bool]]:
        async def ask() -> bool:
            answer = self._verdicts[caller, right] = await self._inner.allows(caller, right)
            return answer

        return ask

    async def _ask(self, desk: _Desk, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        task = desk.asked.get(key)
        if task is None:
            if len(desk.asked) >= MOST_WAITING:
                raise _too_many()

            async def in_turn() -> T:
                async with desk.places:
                    return await ask()

            task = desk.asked[key] = asyncio.ensure_future(in_turn())
            task.add_done_callback(lambda done: _answered(desk, key, done))
        # One client that goes away must not take the answer from the others.
        answer: T = await asyncio.shield(task)
        return answer


def _answered(desk: _Desk, key: Hashable, done: asyncio.Future[Any]) -> None:
    del desk.asked[key]
    if not done.cancelled():
        done.exception()  # for those who wait; of whom there may be none left


def _too_many() -> Transient:
    return Transient("too many ask at once who they are", reason="AccessUnavailable")
