"""A real MQTT broker on loopback, ended by process id, and a mapper of KubeEdge that talks to it."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support.kube import free_port, wait_until

PROGRAM = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") or "mosquitto"


@dataclass
class Mosquitto:
    """One broker and its port, which it has again after a restart. `lines` go into its config."""

    folder: Path
    lines: tuple[str, ...] = ("allow_anonymous true",)
    is_persistent: bool = False
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "mosquitto.conf"
        kept = ("persistence true", f"persistence_location {self.folder}/", "autosave_interval 1")
        lines = (
            f"listener {self.port} 127.0.0.1",
            # Otherwise it becomes another user, who may not read here.
            f"user {getpass.getuser()}",
            # Otherwise it drops what a busy machine is slow to take.
            "max_queued_messages 0",
            *(kept if self.is_persistent else ()),
            *self.lines,
        )
        config.write_text("\n".join(lines) + "\n")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-c", str(config)], stdout=log, stderr=subprocess.STDOUT
            )
        wait_until(self._listens, what="mosquitto listens")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    @property
    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text()


@contextlib.contextmanager
def mosquitto(folder: Path, *lines: str, is_persistent: bool = False) -> Iterator[Mosquitto]:
    broker = Mosquitto(folder, lines or ("allow_anonymous true",), is_persistent=is_persistent)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


class Client:
    """paho in a thread of its own: somebody else at the broker. It comes back by itself."""

    def __init__(
        self,
        port: int,
        *filters: str,
        version: int = 4,
        login: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        qos: int = 0,
    ) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._filters = filters
        self._qos = qos
        self._subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion(version)
        )
        self._client.reconnect_delay_set(0.1, 0.2)  # type: ignore[arg-type]  # paho takes floats
        self._client.on_connect = lambda *_: self._subscribe()
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _c, _u, m: self.heard.append((m.topic, bytes(m.payload)))
        if login is not None:
            self._client.username_pw_set(*login)
        if tls is not None:
            self._client.tls_set_context(tls)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10), "the broker lets us in"

    def _subscribe(self) -> None:
        self._client.subscribe([(it, self._qos) for it in self._filters or ("nothing/at/all",)])

    def publish(
        self, topic: str, payload: bytes | str, *, qos: int = 0, retain: bool = False
    ) -> None:
        self._client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(30)

    def send(self, topic: str, payload: bytes) -> None:
        """Not waited for."""
        self._client.publish(topic, payload)

    def resubscribed(self) -> None:
        """Wait until it is back after a broker went."""
        assert self._subscribed.wait(30)

    def forget(self) -> None:
        self._subscribed.clear()
        self.heard.clear()

    def hears(self, topic: str, *, what: str = "") -> Any:
        """The newest JSON on `topic`, once there is one."""

        def look() -> bytes | None:
            return next((p for t, p in reversed(self.heard) if t == topic), None)

        return json.loads(wait_until(look, what=what or f"a message on {topic}"))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # paho closes its pair of sockets when it goes, which callbacks that know us would put off.
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None
        del self._client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Mapper(Client):
    """What mappers of KubeEdge write and read, byte for byte as Go's encoder makes it.

    `device` is `<namespace>/<name>`, or the name alone as before KubeEdge 1.16.2.
    """

    def __init__(self, port: int, device: str, **options: Any) -> None:
        self.base = f"$hw/events/device/{device}"
        answers = ("twin/update/delta", "twin/update/result", "twin/get/result")
        filters = (f"{self.base}/{it}" for it in (*answers, "state/update/result"))
        super().__init__(port, *filters, **options)

    def report(self, name: str, value: str, *, type_: str = "int", expected: str = "") -> None:
        """As mappers-go's CreateMessageTwinUpdate; some send what is wanted back with it."""
        wanted = f'"expected":{{"value":"{expected}","metadata":{{}}}},' if expected else ""
        self.publish(
            f"{self.base}/twin/update",
            f'{{"event_id":"","timestamp":{_now()},"twin":{{"{name}":{{{wanted}'
            f'"actual":{{"value":"{value}","metadata":{{}}}},"metadata":{{"type":"{type_}"}}}}}}}}',
        )

    def get(self) -> Any:
        self.publish(f"{self.base}/twin/get", f'{{"event_id":"","timestamp":{_now()}}}')
        return self.hears(f"{self.base}/twin/get/result")

    def says(self, state: str) -> None:
        self.publish(
            f"{self.base}/state/update",
            f'{{"event_id":"","timestamp":{_now()},"state":"{state}"}}',
        )

    def delta(self) -> Any:
        return self.hears(f"{self.base}/twin/update/delta")["delta"]

    def result(self) -> Any:
        return self.hears(f"{self.base}/twin/update/result")

    def is_told(self, **delta: str) -> None:
        wait_until(
            lambda: any(
                json.loads(payload)["delta"] == delta
                for topic, payload in tuple(self.heard)
                if topic.endswith("/delta")
            ),
            what=f"a delta of {delta}",
        )


def _now() -> int:
    return int(time.time() * 1000)
