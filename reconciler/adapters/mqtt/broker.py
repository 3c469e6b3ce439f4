"""One connection to an MQTT broker, made again for as long as it is wanted: MQTT 5, else 3.1.1.

Promised: subscriptions are renewed with each connection; a message of quality of service 1 is
acknowledged after whoever hears it has returned, and comes again where the connection was lost
before. What is held is bounded in both directions: while too much waits to be heard, nothing more
is read from the socket; of what waits to be sent, the oldest is dropped and counted.
Not promised: that what is published arrives, as at quality of service 0.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from paho.mqtt.client import MQTTv5, MQTTv311

from reconciler.adapters.mqtt.client import BrokerAddress, Refused
from reconciler.adapters.mqtt.connection import MOST_WAITING, Connection
from reconciler.adapters.mqtt.packets import Message
from reconciler.core import mqtt_filters
from reconciler.errors import ScriptOpsError
from reconciler.ports.broker import Receive, Received
from reconciler.ports.clock import Clock

log = logging.getLogger(__name__)

# A broker that is away is asked for after one second, then ever later, up to half a minute, and by
# a part at random, so that not all who lost it come back at once.
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
# A connection that held for so long was a good one: the next pause is short again.
GOOD_SECONDS: Final = 10.0
_LARGEST_ID: Final = 268_435_455
_OLD_PROTOCOL: Final = frozenset({"Unsupported protocol version"})


@dataclass(slots=True)
class _Subscription:
    number: int
    heard_by: dict[Receive, int] = field(default_factory=dict)

    @property
    def qos(self) -> int:
        return max(self.heard_by.values())


class MqttBroker:
    """Keeps what `ports.broker.Broker` promises. Belongs to one event loop; `run` serves it.

    `count` hears of what became of messages: received, published, dropped, refused.
    """

    def __init__(
        self, address: BrokerAddress, clock: Clock, *, count: Callable[[str], None]
    ) -> None:
        self.address = address
        self._clock = clock
        self._count = count
        self._subscriptions: dict[str, _Subscription] = {}
        self._numbers: dict[int, str] = {}
        self._tree = mqtt_filters.Subscriptions()
        self._outgoing: deque[tuple[str, bytes]] = deque()
        self._connection: Connection | None = None
        self._version = address.version
        self._said = ""
        # Called when a connection has been made and subscriptions are asked for.
        self.on_connected: list[Callable[[], None]] = []

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_accepted

    @property
    def subscribed(self) -> frozenset[str]:
        """Subscriptions that the broker has granted on this connection."""
        return frozenset(self._connection.granted) if self._connection is not None else frozenset()

    def subscribe(self, subscription: str, qos: int, receive: Receive) -> None:
        known = self._subscriptions.get(subscription)
        before = known.qos if known is not None else None
        if known is None:
            known = _Subscription(self._number(subscription))
            self._subscriptions[subscription] = known
            self._numbers[known.number] = subscription
            self._tree.add(subscription)
        known.heard_by[receive] = qos
        if known.qos != before and self._connection is not None and self.is_connected:
            self._connection.subscribe(subscription, known.qos, known.number)

    def unsubscribe(self, subscription: str, receive: Receive) -> None:
        known = self._subscriptions.get(subscription)
        if known is None or known.heard_by.pop(receive, None) is None or known.heard_by:
            return
        del self._subscriptions[subscription], self._numbers[known.number]
        self._tree.remove(subscription)
        if self._connection is not None and self.is_connected:
            self._connection.unsubscribe(subscription)

    def publish(self, topic: str, payload: bytes) -> None:
        if not self.is_connected:
            self._count("dropped")
            return
        if len(self._outgoing) >= MOST_WAITING:
            self._outgoing.popleft()
            self._count("dropped")
        self._outgoing.append((topic, payload))
        if self._connection is not None:
            self._connection.send_soon()

    async def run(self) -> None:
        """Be connected until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = self._clock.monotonic()
            try:
                await self._serve()
            except (OSError, ValueError) as error:
                self._say("no MQTT broker, going on without", error, logging.INFO)
            except Refused as error:
                self._say("the MQTT broker does not let us in", error, logging.WARNING)
            if self._clock.monotonic() - began > GOOD_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await self._clock.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _say(self, what: str, error: Exception, level: int) -> None:
        """Once for each way in which it fails, until it works."""
        if what != self._said:
            self._said = what
            where = f"{self.address.host}:{self.address.port}"
            reason = str(error) or type(error).__name__
            log.log(level, what, extra={"mqtt": where, "reason": reason})

    async def _serve(self) -> None:
        """One connection, from its beginning to its end. Raises what ended it."""
        version = self._version or int(MQTTv5)
        connection = Connection(
            self.address, version, self._outgoing, hear=self.hear, count=self._count
        )
        try:
            await connection.connect()
            self._connection = connection
            try:
                await connection.accepted()
            except Refused as error:
                if self._version or str(error) not in _OLD_PROTOCOL:
                    raise
                self._version = int(MQTTv311)
                return
            self._version = version
            self._said = ""
            log.info(
                "MQTT broker connected",
                extra={
                    "mqtt": f"{self.address.host}:{self.address.port}",
                    "version": "5" if version == MQTTv5 else "3.1.1",
                },
            )
            for subscription, known in self._subscriptions.items():
                connection.subscribe(subscription, known.qos, known.number)
            for tell in self.on_connected:
                tell()
            await connection.serve(self._clock)
        finally:
            self._connection = None
            self._outgoing.clear()
            connection.close()

    def hear(self, message: Message) -> Sequence[asyncio.Future[None]]:
        """Hand a message to whom it is for; what is left to be waited for."""
        waiting: list[asyncio.Future[None]] = []
        for subscription in self._meant(message):
            known = self._subscriptions.get(subscription)
            if known is None:
                continue
            received = Received(
                subscription, message.topic, message.payload, message.qos, message.retain
            )
            for receive in tuple(known.heard_by):
                try:
                    left = receive(received)
                except ScriptOpsError as error:
                    self._not_taken(subscription, error)
                    continue
                if left is not None:
                    task = asyncio.ensure_future(left)
                    task.add_done_callback(partial(self._done, subscription))
                    waiting.append(task)
        return waiting

    def _done(self, subscription: str, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), ScriptOpsError):
            self._not_taken(subscription, error)

    def _not_taken(self, subscription: str, error: ScriptOpsError) -> None:
        self._count("refused")
        log.warning(
            "MQTT message not taken",
            extra={"subscription": subscription, "reason": error.reason},
        )

    def _meant(self, message: Message) -> list[str]:
        """For which subscriptions a message came: MQTT 5 brokers tell, and send one for each."""
        if not message.numbers:
            return sorted(self._tree.matching(message.topic))
        found = (self._numbers.get(number, "") for number in message.numbers)
        return [
            it
            for it in found
            if it and mqtt_filters.matches(mqtt_filters.unshared(it), message.topic)
        ]

    def _number(self, subscription: str) -> int:
        """The same in each process, for a session may outlive one."""
        digest = hashlib.sha256(subscription.encode("utf-8", "surrogatepass")).digest()
        number = int.from_bytes(digest[:4]) % _LARGEST_ID + 1
        while number in self._numbers:
            number = number % _LARGEST_ID + 1
        return number


def client_id(parts: Mapping[str, str]) -> str:
    """A name that stays the same over restarts, so that the broker knows our session again."""
    told = "\0".join(f"{name}={parts[name]}" for name in sorted(parts))
    return f"scriptops-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
