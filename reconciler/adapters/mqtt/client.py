"""paho, told who we are and what we want of a broker."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, Final

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

KEEPALIVE_SECONDS: Final = 30
CONNECT_SECONDS: Final = 5.0
# How long a broker keeps messages of quality of service 1 for us while we are away.
SESSION_SECONDS: Final = 3600
# Of quality of service 1, such as wait for a Script to become ready.
MOST_UNACKNOWLEDGED: Final = 256
# Larger messages an MQTT 5 broker keeps to itself: a megabyte, and its topic.
LARGEST_PACKET: Final = 1_048_576 + 66_000


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


class Refused(Exception):
    """The broker does not let us in."""


class Paho(Client):
    """paho, which is given the packets that it is to read, and writes when it is asked to."""

    def __init__(self, address: BrokerAddress, version: int) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            clean_session=None if version == MQTTv5 else False,
            protocol=MQTTProtocolVersion(version),
            manual_ack=True,
            reconnect_on_failure=False,
        )
        self.connect_timeout = CONNECT_SECONDS
        if address.username is not None:
            self.username_pw_set(address.username, address.password)
        if address.tls is not None:
            self.tls_set_context(address.tls)
        self.will_set(address.status_topic, "offline", qos=1, retain=True)
        # Without it packets are written at once, and would get in between those written beside.
        self.on_socket_register_write = lambda *_: None
        self._address = address
        self._given = bytearray()
        self._is_over = False

    def open(self) -> None:
        """Raises OSError. Names and handshakes block."""
        options: dict[str, Any] = {}
        if self.protocol == MQTTv5:
            properties = properties_of(
                PacketTypes.CONNECT,
                SessionExpiryInterval=SESSION_SECONDS,
                MaximumPacketSize=LARGEST_PACKET,
                ReceiveMaximum=MOST_UNACKNOWLEDGED,
            )
            options = {"clean_start": False, "properties": properties}
        self.connect(self._address.host, self._address.port, keepalive=KEEPALIVE_SECONDS, **options)

    def take(self, packet: bytes) -> None:
        """Read these bytes; none is the end of the connection."""
        self._given += packet
        self._is_over = not packet
        self.loop_read()

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho has no public place for this: what it would ask its socket for, it asks for here.
        if not self._given and not self._is_over:
            raise BlockingIOError
        taken = bytes(self._given[:bufsize])
        del self._given[:bufsize]
        return taken


def properties_of(packet: int, **values: int) -> Properties:
    made = Properties(packet)  # type: ignore[no-untyped-call]  # paho has not typed this one
    for name, value in values.items():
        setattr(made, name, value)
    return made
