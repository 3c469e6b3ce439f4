"""One connection to an MQTT broker, made again for as long as it is wanted: MQTT 5, else 3.1.1.

Promised: subscriptions are renewed with each connection; a message of quality of service 1 is
acknowledged after whoever hears it has returned, and comes again where the connection was lost
before. What is held is bounded in both directions: while too much waits to be heard, nothing more
is read from the socket; of what waits to be sent, the oldest is dropped and counted.
Not promised: that what is published arrives, as at quality of service 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

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
KEEPALIVE_SECONDS: Final = 30
CONNECT_SECONDS: Final = 5.0
# How long a broker keeps messages of quality of service 1 for us while we are away.
SESSION_SECONDS: Final = 3600
# Messages that wait to be heard, and to be sent: about a second of what one core can do.
MOST_WAITING: Final = 5_000
# Of quality of service 1, such as wait for a Script to become ready.
MOST_UNACKNOWLEDGED: Final = 256
# So many are heard or sent before others on the event loop have their turn.
AT_ONCE: Final = 32
# Larger messages an MQTT 5 broker keeps to itself: a megabyte, and its topic.
LARGEST_PACKET: Final = 1_048_576 + 66_000
_LARGEST_ID: Final = 268_435_455
_OLD_PROTOCOL: Final = frozenset({"Unsupported protocol version"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where a broker is and who we are to it. `version` is 5 or 4 (3.1.1); 0 tries both."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    version: int = 0

    @property
    def status_topic(self) -> str:
        """Where `online` and, by the last will, `offline` are kept."""
        return f"scriptops/{self.client_id}/status"


@dataclass(slots=True)
class _Subscription:
    number: int
    heard_by: dict[Receive, int] = field(default_factory=dict)

    @property
    def qos(self) -> int:
        return max(self.heard_by.values())


class _Refused(Exception):
    """The broker does not let us in."""


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
        self._connection: _Connection | None = None
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
            except _Refused as error:
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
        connection = _Connection(self, version, self._outgoing, self._count)
        try:
            await connection.connect()
            self._connection = connection
            try:
                await connection.accepted()
            except _Refused as error:
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

    async def hear(self, message: MQTTMessage) -> None:
        """Hand a message to whom it is for."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._count("refused")
            return
        for subscription in self._meant(topic, message.properties):
            known = self._subscriptions.get(subscription)
            if known is None:
                continue
            received = Received(
                subscription, topic, bytes(message.payload), message.qos, bool(message.retain)
            )
            for receive in tuple(known.heard_by):
                try:
                    await receive(received)
                except ScriptOpsError as error:
                    self._count("refused")
                    log.warning(
                        "MQTT message not taken",
                        extra={"subscription": subscription, "reason": error.reason},
                    )

    def _meant(self, topic: str, properties: Properties | None) -> list[str]:
        """For which subscriptions a message came: MQTT 5 brokers tell, and send one for each."""
        numbers = getattr(properties, "SubscriptionIdentifier", None)
        if not numbers:
            return sorted(self._tree.matching(topic))
        found = (self._numbers.get(number, "") for number in numbers)
        return [it for it in found if it and mqtt_filters.matches(mqtt_filters.unshared(it), topic)]

    def _number(self, subscription: str) -> int:
        """The same in each process, for a session may outlive one."""
        digest = hashlib.sha256(subscription.encode("utf-8", "surrogatepass")).digest()
        number = int.from_bytes(digest[:4]) % _LARGEST_ID + 1
        while number in self._numbers:
            number = number % _LARGEST_ID + 1
        return number


class _Connection:
    """One client of paho and its socket, served by the event loop instead of a thread."""

    def __init__(
        self,
        broker: MqttBroker,
        version: int,
        outgoing: deque[tuple[str, bytes]],
        count: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._address = broker.address
        self._is_v5 = version == MQTTv5
        self._outgoing = outgoing
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._incoming: deque[MQTTMessage] = deque()
        # Of quality of service 0; what they wait for is the disk.
        self._hearing: set[asyncio.Future[None]] = set()
        # Of quality of service 1, not acknowledged: no more than the broker lets be in flight.
        self._heard: deque[tuple[MQTTMessage, asyncio.Future[None]]] = deque()
        self._waiting: dict[int, str] = {}
        self.granted: set[str] = set()
        self._come = asyncio.Event()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._descriptor = -1
        self._is_reading = self._is_writing = self._is_sending = False
        self._client = self._made(MQTTProtocolVersion(version))

    @property
    def is_accepted(self) -> bool:
        return (
            self._accepted.done()
            and not self._accepted.cancelled()
            and self._accepted.exception() is None
        )

    def _made(self, version: MQTTProtocolVersion) -> Client:
        address = self._address
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            clean_session=None if self._is_v5 else False,
            protocol=version,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_SECONDS
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        if address.tls is not None:
            client.tls_set_context(address.tls)
        client.will_set(address.status_topic, "offline", qos=1, retain=True)
        # Before the descriptor is closed, and another connection has its number.
        client.on_socket_close = lambda *_: self._let_go()
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        return client

    async def connect(self) -> None:
        """Raises OSError. Names and handshakes block, so a thread does it."""
        options: dict[str, Any] = {}
        if self._is_v5:
            properties = _properties(
                PacketTypes.CONNECT,
                SessionExpiryInterval=SESSION_SECONDS,
                MaximumPacketSize=LARGEST_PACKET,
                ReceiveMaximum=MOST_UNACKNOWLEDGED,
            )
            options = {"clean_start": False, "properties": properties}
        host, port = self._address.host, self._address.port
        connecting = self._loop.run_in_executor(
            None,
            lambda: self._client.connect(host, port, keepalive=KEEPALIVE_SECONDS, **options),
        )
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # The thread goes on; what it opens is closed.
            await asyncio.gather(connecting, return_exceptions=True)
            raise
        sock = self._client.socket()
        if sock is None:
            raise OSError("the broker closed the connection")
        self._descriptor = sock.fileno()
        self._read_on()
        self._send()

    async def accepted(self) -> None:
        """Raises `_Refused`, or OSError where the connection ends or nothing is said."""
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.wait((self._accepted, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if self._accepted.done():
            await self._accepted
        else:
            await self._ended

    async def serve(self, clock: Clock) -> None:
        """Until the connection ends: hear messages in their order. Raises what ended it."""
        self._client.publish(self._address.status_topic, "online", qos=0, retain=True)
        self.send_soon()
        tasks: set[asyncio.Future[None]] = {
            asyncio.ensure_future(self._hear()),
            asyncio.ensure_future(self._keep(clock)),
        }
        try:
            done, _ = await asyncio.wait({*tasks, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            tasks |= {task for _, task in self._heard} | self._hearing
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, clock: Clock) -> None:
        while True:
            await clock.sleep(1.0)
            self._client.loop_misc()
            self.send_soon()

    async def _hear(self) -> None:
        while True:
            await self._come.wait()
            for _ in range(min(len(self._incoming), AT_ONCE)):
                message = self._incoming.popleft()
                task = asyncio.ensure_future(self._broker.hear(message))
                if message.qos:
                    self._heard.append((message, task))
                else:
                    self._hearing.add(task)
                task.add_done_callback(self._done)
            while len(self._hearing) >= MOST_UNACKNOWLEDGED:
                await asyncio.wait(self._hearing, return_when=asyncio.FIRST_COMPLETED)
            if not self._incoming:
                self._come.clear()
            if len(self._incoming) < MOST_WAITING // 2:
                self._read_on()
            await asyncio.sleep(0)

    def _done(self, done: asyncio.Future[None]) -> None:
        """Acknowledge what was heard, in the order in which it came, as the protocol asks."""
        self._hearing.discard(done)
        if not done.cancelled() and (error := done.exception()) is not None:
            if not self._ended.done():
                self._ended.set_exception(error)
            return
        while self._heard and self._heard[0][1].done() and not self._heard[0][1].cancelled():
            message, _ = self._heard.popleft()
            self._client.ack(message.mid, message.qos)
            self.send_soon()

    def subscribe(self, subscription: str, qos: int, number: int) -> None:
        if self._is_v5:
            properties = _properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=number)
            is_shared = subscription != mqtt_filters.unshared(subscription)
            # What is retained comes once, not again with each connection; never to a group.
            options = SubscribeOptions(qos=qos, retainHandling=(2 if is_shared else 1))
            _, mid = self._client.subscribe(subscription, options=options, properties=properties)
        else:
            _, mid = self._client.subscribe(subscription, qos)
        if mid is not None:
            self._waiting[mid] = subscription
        self.send_soon()

    def unsubscribe(self, subscription: str) -> None:
        self._client.unsubscribe(subscription)
        self.granted.discard(subscription)
        self.send_soon()

    def send_soon(self) -> None:
        """Send what waits, once for all that is published in this turn of the event loop."""
        if not self._is_sending and not self._is_writing:
            self._is_sending = True
            self._loop.call_soon(self._send)

    def close(self) -> None:
        """End it; a connection that still stands is taken leave of, without the last will."""
        if self.is_accepted and not self._ended.done():
            self._client.publish(self._address.status_topic, "offline", qos=0, retain=True)
            self._client.disconnect()
            self._client.loop_write()
        self._let_go()
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()
        for future in (self._ended, self._accepted):
            if not future.cancel() and not future.cancelled():
                future.exception()  # heard of, or not needed any more

    # The socket.

    def _read_on(self) -> None:
        if not self._is_reading and self._descriptor >= 0:
            self._is_reading = True
            self._loop.add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        self._client.loop_read()
        # TLS takes more from the socket than one packet: of that the event loop knows nothing.
        while isinstance(sock := self._client.socket(), ssl.SSLSocket) and sock.pending():
            self._client.loop_read()
        if self._client.want_write():
            self.send_soon()
        if len(self._incoming) >= MOST_WAITING and self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._descriptor)

    def _send(self) -> None:
        self._is_sending = False
        client, outgoing = self._client, self._outgoing
        while client.want_write() or outgoing:
            if not client.want_write() and self.is_accepted:
                topic, payload = outgoing.popleft()
                try:
                    client.publish(topic, payload)
                except ValueError:  # a topic that is none
                    self._count("dropped")
                    continue
                self._count("published")
            if client.socket() is None:
                return
            client.loop_write()
            if client.want_write():
                break
        self._watch_writable(wanted=client.want_write())

    def _watch_writable(self, *, wanted: bool) -> None:
        if self._descriptor < 0 or wanted == self._is_writing:
            return
        self._is_writing = wanted
        if wanted:
            self._loop.add_writer(self._descriptor, self._send)
        else:
            self._loop.remove_writer(self._descriptor)

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._descriptor = -1
            self._is_reading = self._is_writing = False

    # What paho calls.

    def _on_connect(self, _c: object, _u: object, _f: object, reason: Any, _p: object) -> None:
        if self._accepted.done():
            return
        if reason.is_failure:
            self._accepted.set_exception(_Refused(str(reason)))
        else:
            self._accepted.set_result(None)

    def _on_disconnect(self, _c: object, _u: object, _f: object, reason: Any, _p: object) -> None:
        if not self._ended.done():
            self._ended.set_exception(OSError(f"the connection ended: {reason}"))

    def _on_message(self, _client: object, _userdata: object, message: MQTTMessage) -> None:
        self._count("received")
        self._incoming.append(message)
        self._come.set()

    def _on_subscribe(
        self, _c: object, _u: object, mid: int, reasons: list[Any], _p: object
    ) -> None:
        subscription = self._waiting.pop(mid, "")
        if not any(reason.is_failure for reason in reasons):
            self.granted.add(subscription)
        else:
            self.granted.discard(subscription)
            log.warning(
                "the MQTT broker refuses a subscription",
                extra={"subscription": subscription, "reason": str(reasons[0])},
            )


def _properties(packet: int, **values: int) -> Properties:
    made = Properties(packet)  # type: ignore[no-untyped-call]  # paho has not typed this one
    for name, value in values.items():
        setattr(made, name, value)
    return made


def client_id(parts: Mapping[str, str]) -> str:
    """A name that stays the same over restarts, so that the broker knows our session again."""
    told = "\0".join(f"{name}={parts[name]}" for name in sorted(parts))
    return f"scriptops-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
