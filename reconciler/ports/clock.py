"""Time, as one thing that tests can hold still."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """`now` is seconds since the epoch, `monotonic` seconds that never go back."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...
