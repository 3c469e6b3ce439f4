"""How often something may be done: a bucket of tokens, as client-go has it for requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` on the long run, up to `burst` at once after a pause."""

    per_second: float
    burst: int


# A small API server takes some 840 writes a second, so this holds back nothing there, and on a
# large one a loop that has gone wrong.
REQUESTS = Rate(1000.0, 2000)


class Bucket:
    """Full at first. Who takes a token that is not there yet has the next one that comes."""

    def __init__(self, rate: Rate, *, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._at = now

    def take(self, now: float) -> float:
        """How long to wait before doing it."""
        gained = max(0.0, now - self._at) * self._rate.per_second
        self._tokens = min(float(self._rate.burst), self._tokens + gained) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate.per_second)

    def give_back(self) -> None:
        """What was taken and waited for is not done after all."""
        self._tokens += 1
