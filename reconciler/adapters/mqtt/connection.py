"""One client of paho and its socket, served by the event loop instead of a thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from paho.mqtt.client import MQTTMessage, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.subscribeoptions import SubscribeOptions

from reconciler.adapters.mqtt import packets
from reconciler.adapters.mqtt.client import (
    CONNECT_SECONDS,
    MOST_UNACKNOWLEDGED,
    BrokerAddress,
    Paho,
    Refused,
    properties_of,
)
from reconciler.adapters.mqtt.packets import Message
from reconciler.core import mqtt_filters
from reconciler.errors import ScriptOpsError
from reconciler.ports.clock import Clock

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

log = logging.getLogger(__name__)

# Messages that wait to be heard, and to be sent: about a second of what one core can do.
MOST_WAITING: Final = 5_000
# So many are heard before others on the event loop have their turn.
AT_ONCE: Final = 32
# What is read from the socket, and written to it, in one go.
_BYTES: Final = 65_536


class Connection:
    """From `connect` to `close`; `hear` is told of each message, in their order."""

    def __init__(
        self,
        address: BrokerAddress,
        version: int,
        outgoing: deque[tuple[str, bytes]],
        hear: Callable[[Message], Sequence[asyncio.Future[None]]],
        count: Callable[[str], None],
    ) -> None:
        self._address = address
        self._hear_of = hear
        self._is_v5 = version == MQTTv5
        self._outgoing = outgoing
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._incoming: deque[tuple[Message, int]] = deque()
        # Of quality of service 0; what they wait for is the disk.
        self._hearing: set[asyncio.Future[None]] = set()
        # Of quality of service 1, not acknowledged: no more than the broker lets be in flight.
        self._heard: deque[tuple[int, Sequence[asyncio.Future[None]]]] = deque()
        self._waiting: dict[int, str] = {}
        self.granted: set[str] = set()
        self._come = asyncio.Event()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._descriptor = -1
        self._is_reading = self._is_writing = self._is_sending = False
        # Of what was read and what is written: the packet that is not whole yet.
        self._unread = bytearray()
        self._unsent = b""
        self._client = client = Paho(address, version)
        # Before the descriptor is closed, and another connection has its number.
        client.on_socket_close = lambda *_: self._let_go()
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe

    @property
    def is_accepted(self) -> bool:
        return (
            self._accepted.done()
            and not self._accepted.cancelled()
            and self._accepted.exception() is None
        )

    async def connect(self) -> None:
        """Raises OSError. Names and handshakes block, so a thread does it."""
        connecting = self._loop.run_in_executor(None, self._client.open)
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
        """Raises `Refused`, or OSError where the connection ends or nothing is said."""
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
            tasks |= {task for _, waiting in self._heard for task in waiting} | self._hearing
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
                message, number = self._incoming.popleft()
                waiting = self._hear_of(message)
                for task in waiting:
                    task.add_done_callback(self._done)
                if not message.qos:
                    self._hearing.update(waiting)
                elif waiting or self._heard:
                    self._heard.append((number, waiting))
                else:
                    self._acknowledge(number)
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
        error = None if done.cancelled() else done.exception()
        if error is not None and not isinstance(error, ScriptOpsError):
            if not self._ended.done():
                self._ended.set_exception(error)
            return
        while self._heard and all(it.done() and not it.cancelled() for it in self._heard[0][1]):
            number, _ = self._heard.popleft()
            self._acknowledge(number)

    def _acknowledge(self, number: int) -> None:
        self._client.ack(number, 1)
        self.send_soon()

    def subscribe(self, subscription: str, qos: int, number: int) -> None:
        if self._is_v5:
            properties = properties_of(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=number)
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
            if self._unsent and (sock := self._client.socket()) is not None:
                self._write(sock)
            if not self._unsent:
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
            self._take_apart()

    def _read(self) -> None:
        sock = self._client.socket()
        if sock is None:
            return
        try:
            data = sock.recv(_BYTES)
            # TLS takes more from the socket than it gives: of that the event loop knows nothing.
            while isinstance(sock, ssl.SSLSocket) and sock.pending():
                data += sock.recv(_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            data = b""
        if not data:
            self._client.take(b"")
            return
        self._unread += data
        self._take_apart()

    def _take_apart(self) -> None:
        """All packets that are whole: messages for us, and the others for paho."""
        data, at, is_v5 = self._unread, 0, self._is_v5
        while len(self._incoming) < MOST_WAITING:
            found = packets.extent(data, at)
            if found is None or found.end > len(data):
                break
            try:
                message = (
                    packets.decode_plain(data, at, found, is_v5=is_v5)
                    if packets.is_plain(data[at])
                    else None
                )
            except UnicodeDecodeError:
                self._count("received")
                self._count("refused")
            else:
                if message is None:
                    self._client.take(bytes(data[at : found.end]))
                else:
                    self._came(message, 0)
            at = found.end
        del data[:at]
        if self._client.want_write():
            self.send_soon()
        if len(self._incoming) >= MOST_WAITING and self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._descriptor)

    def _came(self, message: Message, number: int) -> None:
        self._count("received")
        self._incoming.append((message, number))
        self._come.set()

    def _send(self) -> None:
        self._is_sending = False
        client = self._client
        while self._unsent or client.want_write() or self._outgoing:
            sock = client.socket()
            if sock is None:
                return
            if not self._unsent and client.want_write():
                client.loop_write()
                if client.want_write():
                    break
            elif self._unsent or self.is_accepted:
                if not self._write(sock):
                    break
            else:
                break
        is_full = bool(self._unsent) or client.want_write()
        self._watch_writable(wanted=is_full)

    def _write(self, sock: SocketLike) -> bool:
        """Some of what waits, many messages at once; whether the socket takes more."""
        waiting = bytearray(self._unsent)
        while self._outgoing and len(waiting) < _BYTES:
            topic, payload = self._outgoing.popleft()
            try:
                waiting += packets.encode_plain(topic, payload, is_v5=self._is_v5)
            except ValueError:  # a topic that is none
                self._count("dropped")
                continue
            self._count("published")
        try:
            sent = sock.send(waiting) if waiting else 0
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        except OSError:
            # To read tells the same, and it is there that it is dealt with.
            self._outgoing.clear()
            waiting.clear()
            sent = 0
        self._unsent = bytes(waiting[sent:])
        return not self._unsent

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
            self._accepted.set_exception(Refused(str(reason)))
        else:
            self._accepted.set_result(None)

    def _on_disconnect(self, _c: object, _u: object, _f: object, reason: Any, _p: object) -> None:
        if not self._ended.done():
            self._ended.set_exception(OSError(f"the connection ended: {reason}"))

    def _on_message(self, _client: object, _userdata: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._count("received")
            self._count("refused")
            if message.qos:
                self._acknowledge(message.mid)
            return
        numbers = tuple(getattr(message.properties, "SubscriptionIdentifier", ()) or ())
        content = bytes(message.payload)
        came = Message(topic, content, message.qos, bool(message.retain), numbers)
        self._came(came, message.mid)

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
