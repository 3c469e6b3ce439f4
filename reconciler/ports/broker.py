"""A broker of messages, as those see it who subscribe to it and publish there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Received:
    """A message, and the subscription for which it came. `retain`: it is older than that."""

    subscription: str
    topic: str
    payload: bytes
    qos: int
    retain: bool


# A message is acknowledged when this has returned, and what it returns has been awaited. May be
# called again with one that was not.
Receive: TypeAlias = Callable[[Received], Awaitable[None] | None]


class Broker(Protocol):
    """Subscriptions outlive connections; what is published while there is none is lost."""

    def subscribe(self, subscription: str, qos: int, receive: Receive) -> None:
        """Hear what comes for a topic filter, or for `$share/<group>/<topic filter>`.

        Asked again, with another quality of service perhaps, the newest counts.
        """
        ...

    def unsubscribe(self, subscription: str, receive: Receive) -> None:
        """Hear no more of it; one that there is not is none."""
        ...

    def publish(self, topic: str, payload: bytes) -> None:
        """Send at quality of service 0, in the order of calls. Never waits, never raises."""
        ...
