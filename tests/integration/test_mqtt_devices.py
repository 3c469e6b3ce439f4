"""Mappers written for KubeEdge, at a real broker, with devices of an embedded cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from reconciler.adapters import mqtt
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.adapters.mqtt import (
    AT_ONCE,
    MOST_UNACKNOWLEDGED,
    MOST_WAITING,
    BrokerAddress,
    MqttBroker,
)
from reconciler.core.mqtt_twin import FILTERS, MAX_PAYLOAD_BYTES
from reconciler.core.objects import DEVICES_V1BETA1, JsonObject, ObjectKey
from reconciler.main.simulation import Driving, simulated
from reconciler.ports.broker import Received
from tests.support.kube import wait_until
from tests.support.mosquitto import Client, Mapper, Mosquitto, mosquitto

T = TypeVar("T")
THING = ObjectKey("default", "thing")


def device(name: str, *, protocol: str = "modbus") -> dict[str, Any]:
    visitors = {"protocolName": protocol, "configData": {"simulate": "constant", "start": "7"}}
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "deviceModelRef": {"name": "things"},
            "protocol": {"protocolName": protocol},
            "properties": [
                {"name": "temperature", "visitors": visitors},
                {"name": "fan", "visitors": visitors},
            ],
        },
    }


class Home:
    """An embedded cluster whose devices are behind a broker, on a loop in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cluster: EmbeddedCluster) -> None:
        self.loop = loop
        self.cluster = cluster
        self.counts: Counter[str] = Counter()
        self.broker: MqttBroker

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def add(self, *documents: dict[str, Any]) -> None:
        async def create() -> None:
            for document in documents:
                await self.cluster.create(DEVICES_V1BETA1, document, field_manager="a person")

        self.do(create())

    def desire(self, name: str, value: str, key: ObjectKey = THING) -> None:
        patch: list[JsonObject] = [
            {"op": "add", "path": "/spec/properties/1/desired", "value": {"value": value}}
        ]
        assert name == "fan"
        self.do(self.cluster.json_patch(DEVICES_V1BETA1, key, patch, field_manager="somebody"))

    def status(self, key: ObjectKey = THING) -> dict[str, Any]:
        live: Any = self.do(self.cluster.get(DEVICES_V1BETA1, key))
        return dict(live.get("status") or {})

    def twins(self, key: ObjectKey = THING) -> dict[str, dict[str, str]]:
        """Values by property."""
        return {
            twin["propertyName"]: {
                field: twin[field]["value"]
                for field in ("reported", "observedDesired")
                if field in twin
            }
            for twin in self.status(key).get("twins", ())
        }

    def reports(self, expected: str, key: ObjectKey = THING, name: str = "temperature") -> None:
        wait_until(
            lambda: self.twins(key).get(name, {}).get("reported") == expected,
            what=f"{key} reports {expected}",
        )

    def connected(self) -> None:
        """And the broker knows what we want to hear."""
        wait_until(
            lambda: self.broker.is_connected and self.broker.subscribed >= set(FILTERS),
            what="the broker is there",
        )


@contextlib.contextmanager
def home(folder: Path, port: int, **changes: Any) -> Iterator[Home]:
    """On uvloop, as a controller is."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stop = asyncio.Event()
    is_up: asyncio.Queue[None] = asyncio.Queue()
    homes: list[Home] = []

    async def serve() -> None:
        clock = SystemClock()
        cluster = await EmbeddedCluster.open(folder / "cluster", clock=clock)
        house = Home(loop, cluster)
        homes.append(house)

        def count(what: str) -> None:
            house.counts[what] += 1

        options = {"client_id": mqtt.client_id({"data": str(folder)}), **changes}
        address = BrokerAddress(host="127.0.0.1", port=port, **options)
        house.broker = MqttBroker(address, clock, count=count)
        running = asyncio.create_task(house.broker.run())
        driving = Driving(broker=house.broker, namespace="default", count=count)
        async with simulated(cluster, clock, driving):
            is_up.put_nowait(None)
            await stop.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await cluster.close()

    served = asyncio.run_coroutine_threadsafe(serve(), loop)
    asyncio.run_coroutine_threadsafe(is_up.get(), loop).result(30)
    try:
        yield homes[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        served.result(30)
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.mark.parametrize("version", [pytest.param(5, id="MQTT 5"), pytest.param(4, id="3.1.1")])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("default/thing", id="topics as from 1.16.2 on"),
        pytest.param("thing", id="topics as before"),
    ],
)
def test_a_mapper_of_kubeedge_drives_a_device(
    tmp_path: Path, broker: Mosquitto, version: int, name: str
) -> None:
    with home(tmp_path, broker.port, version=version) as house, Mapper(broker.port, name) as mapper:
        house.add(device("thing"))
        house.connected()
        mapper.says("online")
        wait_until(lambda: house.status().get("state") == "online", what="it is online")
        assert house.status()["lastOnlineTime"].endswith("Z")
        mapper.report("temperature", "21")
        house.reports("21")
        assert mapper.result()["twin"]["temperature"]["actual"]["value"] == "21"
        house.desire("fan", "on")
        mapper.is_told(fan="on")
        mapper.report("fan", "on", type_="string", expected="on")
        house.reports("on", name="fan")
        assert house.twins() == {
            "temperature": {"reported": "21"},
            "fan": {"reported": "on", "observedDesired": "on"},
        }
        twins = mapper.get()["twin"]
        assert {n: (t.get("expected"), t["actual"]["value"]) for n, t in twins.items()} == {
            "temperature": (None, "21"),
            "fan": (twins["fan"]["expected"], "on"),
        }
        assert twins["fan"]["expected"]["value"] == "on"


def test_a_device_is_told_after_each_report_until_it_is_as_wanted(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with (
        home(tmp_path, broker.port) as house,
        Mapper(broker.port, "default/thing") as mapper,
    ):
        house.add(device("thing"))
        house.connected()
        house.desire("fan", "on")
        mapper.is_told(fan="on")
        mapper.forget()
        mapper.report("temperature", "21")
        mapper.is_told(fan="on")
        mapper.report("fan", "on", type_="string")
        house.reports("on", name="fan")
        mapper.forget()
        mapper.report("temperature", "22")
        mapper.result()
        assert [topic for topic, _ in mapper.heard if topic.endswith("delta")] == []


@pytest.mark.parametrize(
    "is_persistent",
    [pytest.param(True, id="with persistence"), pytest.param(False, id="without persistence")],
)
def test_a_broker_that_is_killed_and_comes_back_is_found_again(
    tmp_path: Path, *, is_persistent: bool
) -> None:
    with (
        mosquitto(
            tmp_path / "broker", "allow_anonymous true", is_persistent=is_persistent
        ) as broker,
        home(tmp_path, broker.port) as house,
        Mapper(broker.port, "default/thing") as mapper,
    ):
        house.add(device("thing"))
        house.connected()
        mapper.report("temperature", "21")
        house.reports("21")
        mapper.forget()
        broker.kill()
        wait_until(lambda: not house.broker.is_connected, what="it is seen to be gone")
        house.desire("fan", "on")
        broker.start()
        mapper.resubscribed()
        house.connected()
        mapper.report("temperature", "22")
        house.reports("22")
        mapper.is_told(fan="on")


def test_a_broker_that_is_not_there_yet_is_found_when_it_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    late = Mosquitto(tmp_path / "broker")
    with home(tmp_path, late.port) as house:
        house.add(device("thing"))
        wait_until(lambda: "no MQTT broker, going on without" in caplog.messages, what="it says so")
        late.start()
        try:
            house.connected()
            with Mapper(late.port, "default/thing") as mapper:
                mapper.report("temperature", "21")
                house.reports("21")
        finally:
            late.stop()
    assert caplog.messages[:2] == ["no MQTT broker, going on without", "MQTT broker connected"]


def test_a_thousand_devices_report(tmp_path: Path, broker: Mosquitto) -> None:
    names = [f"thing-{number}" for number in range(1_000)]
    with home(tmp_path, broker.port) as house, Client(broker.port) as mappers:
        house.add(*(device(name) for name in names))
        house.connected()
        wait_until(lambda: house.broker.is_connected, what="it is connected")
        for value in ("20", "21", "22"):
            for name in names:
                mapper_topic = f"$hw/events/device/default/{name}/twin/update"
                mappers.publish(
                    mapper_topic,
                    '{"event_id":"","timestamp":1,"twin":{"temperature":{"actual":'
                    f'{{"value":"{value}","metadata":{{}}}},"metadata":{{"type":"int"}}}}}}}}',
                )
        for name in names:
            house.reports("22", ObjectKey("default", name))
        assert (house.counts["taken"], house.counts["dropped"]) == (3_000, 0)


BROKEN = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"[" * 100_000,
    b'{"twin":' * 2_000,
    b'{"twin":{"temperature":7}}',
    b'{"twin":{"temperature":{"actual":{"value":21}}}}',
    b'{"twin":{"temperature":{"actual":{"value":null}}}}',
    b'{"twin":{"a b":{"actual":{"value":"1"}}}}',
    b'{"twin":{"temperature":{"actual":{"value":"{}"}}}}',
    b'{"twin":{"temperature":{"actual":{"value":"' + b"9" * 600 + b'"}}}}',
    b'{"twin":{"temperature":{"actual":{"value":"x"},"metadata":{"type":"int"}}}}',
    b'{"twin":{"temperature":{"actual":{"value":"1"},"metadata":{"type":["int"]}}}}',
    b'{"twin":{"' + b"n" * 200 + b'":{"actual":{"value":"1"}}}}',
    b'{"event_id":' + b"9" * 1_000 + b',"twin":{"temperature":[]}}',
    b'{"twin":{"temperature":{"actual":{"value":"\\ud800"}}}}',
]


def test_a_hostile_publisher_moves_nothing_and_is_logged_once(
    tmp_path: Path, broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with (
        home(tmp_path, broker.port) as house,
        Client(broker.port) as stranger,
        Mapper(broker.port, "default/thing") as mapper,
    ):
        house.add(device("thing"), device("toy", protocol="simulated"))
        house.connected()
        house.reports("7", ObjectKey("default", "toy"))
        base = "$hw/events/device/default/thing"
        for payload in BROKEN:
            stranger.publish(f"{base}/twin/update", payload)
        for payload in BROKEN:
            stranger.publish(f"{base}/state/update", payload)
        stranger.publish(f"{base}/state/update", '{"state":"on fire"}')
        broken = 2 * len(BROKEN) + 1
        # What MQTT 5 lets us tell the broker: so large a message does not even come.
        stranger.publish(f"{base}/twin/update", b" " * (MAX_PAYLOAD_BYTES + 100_000))
        for number in range(1_000):
            stranger.publish(f"$hw/events/device/default/x{number}/twin/update", "{}")
        stranger.publish("$hw/events/device/default/toy/twin/update", BROKEN[-1])
        toy = '{"twin":{"temperature":{"actual":{"value":"99"}}}}'
        stranger.publish("$hw/events/device/default/toy/twin/update", toy)
        more = ",".join(f'"p{number}":{{"actual":{{"value":"1"}}}}' for number in range(5_000))
        stranger.publish(f"{base}/twin/update", f'{{"twin":{{{more}}}}}')
        mapper.report("temperature", "21")
        house.reports("21")
        # The broker does not order what different clients publish.
        wait_until(
            lambda: (house.counts["unknown"], house.counts["taken"]) >= (1_002, 2),
            what="all was heard",
        )
        assert house.twins() == {"temperature": {"reported": "21"}}
        assert house.twins(ObjectKey("default", "toy"))["temperature"]["reported"] == "7"
        assert "state" not in house.status()
        assert house.counts["rejected"] == broken
        assert (house.counts["unknown"], house.counts["taken"]) == (1_002, 2)
    assert caplog.messages == ["MQTT message rejected"]


def authority(folder: Path) -> None:
    """A CA and a certificate of 127.0.0.1, in PEM files."""
    openssl = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    subprocess.run(
        [
            *(*openssl, "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )


def test_tls_and_a_password_are_spoken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    authority(tmp_path)
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(tmp_path / "users"), "me", "secret"], check=True
    )
    lines = (
        *("allow_anonymous false", f"password_file {tmp_path / 'users'}"),
        *(f"certfile {tmp_path / 'cert.pem'}", f"keyfile {tmp_path / 'key.pem'}"),
    )
    context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    mine = {"username": "me", "tls": context}
    with mosquitto(tmp_path / "broker", *lines) as broker:
        with home(tmp_path / "wrong", broker.port, password="wrong", **mine) as house:
            refused = "the MQTT broker does not let us in"
            wait_until(lambda: refused in caplog.messages, what="it says so")
            assert not house.broker.is_connected
        login = ("me", "secret")
        with (
            home(tmp_path / "right", broker.port, password="secret", **mine) as house,
            Mapper(broker.port, "default/thing", login=login, tls=context) as mapper,
        ):
            house.add(device("thing"))
            house.connected()
            for value in range(200):
                mapper.report("temperature", str(value))
            house.reports("199")
    assert "secret" not in caplog.text


def test_what_a_broker_does_not_take_is_bounded_and_the_oldest_is_dropped(
    tmp_path: Path, broker: Mosquitto
) -> None:
    sent = 60_000
    with home(tmp_path, broker.port) as house, Client(broker.port, "flood") as listener:
        wait_until(lambda: house.broker.is_connected, what="it is connected")

        async def flood() -> None:
            for number in range(sent):
                house.broker.publish("flood", f"{number:01000}".encode())
                if number % 1_000 == 0:
                    await asyncio.sleep(0)

        broker.signal(signal.SIGSTOP)
        try:
            house.do(flood())
            dropped = house.counts["dropped"]
            assert dropped > 0
            assert sent - dropped - house.counts["published"] <= MOST_WAITING
        finally:
            broker.signal(signal.SIGCONT)
        wait_until(
            lambda: bool(listener.heard) and int(listener.heard[-1][1]) == sent - 1,
            what="the newest arrives",
        )


def test_no_more_is_read_than_is_heard(tmp_path: Path, broker: Mosquitto) -> None:
    go = asyncio.Event()

    async def hear(_message: Received) -> None:
        await go.wait()

    most = MOST_WAITING + MOST_UNACKNOWLEDGED + AT_ONCE
    with home(tmp_path, broker.port) as house, Client(broker.port) as flood:
        house.loop.call_soon_threadsafe(house.broker.subscribe, "flood", 0, hear)
        wait_until(lambda: "flood" in house.broker.subscribed, what="it is subscribed")
        for _ in range(2 * most):
            flood.send("flood", b"x")
        wait_until(lambda: house.counts["received"] >= MOST_WAITING, what="enough has come")
        flood.publish("flood", b"x", qos=1)
        assert house.counts["received"] <= most
        house.loop.call_soon_threadsafe(go.set)
        wait_until(lambda: house.counts["received"] > most, what="more is read")


class OldBroker:
    """Before a real broker: it refuses MQTT 5 as one that knows 3.1.1 only does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.refused = 0
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._answer, args=(ours,)))
                self._threads[-1].start()

    def _answer(self, ours: socket.socket) -> None:
        first = ours.recv(4_096)
        if b"MQTT\x05" in first:
            self.refused += 1
            ours.sendall(b"\x20\x02\x00\x01")
            ours.close()
            return
        with ours, socket.create_connection(("127.0.0.1", self._port)) as theirs:
            theirs.sendall(first)
            back = threading.Thread(target=_pump, args=(theirs, ours))
            back.start()
            _pump(ours, theirs)
            back.join()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(10)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def test_a_broker_that_does_not_know_mqtt_5_is_spoken_to_in_3_1_1(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with contextlib.closing(OldBroker(broker.port)) as old, home(tmp_path, old.port) as house:
        house.add(device("thing"))
        house.connected()
        assert old.refused == 1
        with Mapper(broker.port, "default/thing") as mapper:
            mapper.report("temperature", "21")
            house.reports("21")


def test_the_last_will_says_that_it_is_gone(tmp_path: Path, broker: Mosquitto) -> None:
    with Client(broker.port, "scriptops/+/status") as watcher:
        with home(tmp_path, broker.port) as house:
            wait_until(lambda: house.broker.is_connected, what="it is connected")
            topic = house.broker.address.status_topic
            wait_until(lambda: (topic, b"online") in watcher.heard, what="it is online")
        wait_until(lambda: watcher.heard[-1] == (topic, b"offline"), what="it is offline")
