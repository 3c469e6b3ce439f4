"""A broker in memory: what is subscribed to, and messages by hand."""

from __future__ import annotations

from reconciler.ports.broker import Receive, Received


class FakeBroker:
    """Keeps the promises of `Broker`; `deliver` is what a broker would send for a subscription."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, dict[Receive, int]] = {}
        self.published: list[tuple[str, bytes]] = []

    def subscribe(self, subscription: str, qos: int, receive: Receive) -> None:
        self.subscriptions.setdefault(subscription, {})[receive] = qos

    def unsubscribe(self, subscription: str, receive: Receive) -> None:
        heard_by = self.subscriptions.get(subscription, {})
        heard_by.pop(receive, None)
        if not heard_by:
            self.subscriptions.pop(subscription, None)

    def publish(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, payload))

    @property
    def asked(self) -> dict[str, int]:
        """Quality of service by subscription."""
        return {it: max(heard_by.values()) for it, heard_by in self.subscriptions.items()}

    async def deliver(self, subscription: str, topic: str, payload: bytes, qos: int = 0) -> None:
        """Returns when the message would be acknowledged."""
        for receive in tuple(self.subscriptions.get(subscription, ())):
            left = receive(Received(subscription, topic, payload, qos, retain=False))
            if left is not None:
                await left
