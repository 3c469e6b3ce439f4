"""Programs that watch Devices and say what an event costs them in CPU.

    python -m tests.bench.watchers NAME KUBECONFIG NAMESPACE WARM EVENTS

Each prints "ready" when its watch stands, passes over the first WARM events, and prints the seconds
of CPU, user and system, that its process spends per event over the next EVENTS.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import importlib
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any
from urllib.parse import urlsplit

import orjson
import uvloop
import yaml

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.kube import connect
from reconciler.controllers.reflecting import Reflector
from reconciler.controllers.world import World
from reconciler.core import chains, triggers
from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from reconciler.core.store import Delta
from reconciler.core.triggers import Subscription, TriggerIndex
from reconciler.core.twins import DeviceDocument, DeviceRecord, decode_device

DEVICES = "/apis/devices.kubeedge.io/v1beta1"


@dataclass
class Meter:
    """Counts events; calls `done` with the seconds per event when it has seen enough."""

    warm: int
    events: int
    done: Callable[[float], None]
    seen: int = 0
    began: float = field(default=0.0)

    def count(self, more: int = 1) -> None:
        before, self.seen = self.seen, self.seen + more
        if before < self.warm <= self.seen:
            self.began = process_time()
            self.warm = self.seen
        elif before < self.warm + self.events <= self.seen:
            self.done((process_time() - self.began) / (self.seen - self.warm))


class Server:
    """What a kubeconfig says of the one server in it."""

    def __init__(self, kubeconfig: str) -> None:
        config = yaml.safe_load(Path(kubeconfig).read_text())
        cluster = config["clusters"][0]["cluster"]
        self.url: str = cluster["server"]
        self.ca: str | None = cluster.get("certificate-authority")
        self.token: str = config["users"][0]["user"]["token"]

    def connection(self) -> http.client.HTTPConnection:
        address = urlsplit(self.url)
        assert address.hostname is not None
        if address.scheme == "http":
            return http.client.HTTPConnection(address.hostname, address.port)
        trust = ssl.create_default_context(cafile=self.ca)
        return http.client.HTTPSConnection(address.hostname, address.port, context=trust)


def ready() -> None:
    print("ready", flush=True)


def bare(kubeconfig: str, namespace: str, warm: int, events: int) -> None:
    """The least that reads a watch: a blocking socket, one parsed document after another."""
    server = Server(kubeconfig)
    connection = server.connection()
    path = f"{DEVICES}/namespaces/{namespace}/devices"
    headers = {"Authorization": f"Bearer {server.token}"}
    connection.request("GET", f"{path}?limit=1", headers=headers)
    version = orjson.loads(connection.getresponse().read())["metadata"]["resourceVersion"]
    meter = Meter(warm, events, print)
    target = f"{path}?watch=true&resourceVersion={version}&timeoutSeconds=590"
    connection.request("GET", target, headers=headers)
    response = connection.getresponse()
    ready()
    for line in response:
        orjson.loads(line)
        meter.count()
        if meter.seen >= warm + events:
            break
    connection.close()


class Listener:
    """What the controller does with a changed device, up to the wish for a run.

    Every device has one Script that reads it.
    """

    def __init__(self, world: World, namespace: str) -> None:
        self.world = world
        self.index = TriggerIndex()
        self.evaluated: dict[ObjectKey, dict[str, str]] = {}
        self.namespace = namespace
        self.wishes = 0

    def subscribe(self) -> None:
        for device in self.world.devices:
            self.index.put(
                Subscription(
                    key=ObjectKey(device.key.namespace, f"reads-{device.key.name}"),
                    uid=f"uid-{device.key.name}",
                    generation=1,
                    digest="",
                    reads=frozenset({device.key.name}),
                    read_change=True,
                    run_on_deploy=False,
                )
            )

    def hear(self, deltas: Sequence[Delta[DeviceRecord]]) -> None:
        for delta in deltas:
            record = self.world.device(delta.key)
            if record is None:
                continue
            for subscription in self.index.readers(delta.key):
                before = self.evaluated.get(subscription.key, {})
                if chains.change(record, before, {}, script=subscription.key.name, now=0.0).links:
                    self.evaluated[subscription.key] = triggers.known_values(record)
                    self.wishes += 1


async def reflect(kubeconfig: str, namespace: str, warm: int, events: int) -> None:
    """All that the controller does, from the socket to the wish for a run."""
    cluster = await connect(kubeconfig=kubeconfig)
    world = World()
    done = asyncio.get_running_loop().create_future()
    meter = Meter(warm, events, done.set_result)
    listener = Listener(world, namespace)

    def hear(deltas: Sequence[Delta[DeviceRecord]]) -> None:
        listener.hear(deltas)
        if reflector.synced.is_set():
            meter.count(len(deltas))

    reflector = Reflector(
        cluster,
        DEVICES_V1BETA1,
        shape=DeviceDocument,
        decode=decode_device,
        store=world.devices,
        clock=SystemClock(),
        on_deltas=hear,
        namespace=namespace,
    )
    task = asyncio.create_task(reflector.run())
    await reflector.synced.wait()
    listener.subscribe()
    ready()
    print(await done)
    assert listener.wishes >= warm + events, listener.wishes
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await cluster.close()


def ours(kubeconfig: str, namespace: str, warm: int, events: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(reflect(kubeconfig, namespace, warm, events))


def with_kopf(kubeconfig: str, namespace: str, warm: int, events: int) -> None:
    """A kopf operator with one handler of raw events, which does nothing but count."""
    kopf: Any = importlib.import_module("kopf")
    server = Server(kubeconfig)
    assert server.ca is not None
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> Any:
        return kopf.ConnectionInfo(
            server=server.url,
            ca_data=base64.b64encode(Path(server.ca or "").read_bytes()),
            scheme="Bearer",
            token=server.token,
        )

    async def operate() -> None:
        done = asyncio.get_running_loop().create_future()
        meter = Meter(warm, events, done.set_result)

        @kopf.on.event("devices.kubeedge.io", "v1beta1", "devices", registry=registry)
        async def changed(type: str | None, **_: Any) -> None:  # noqa: A002 - kopf's name
            if type is not None:
                meter.count()

        stop, begun = asyncio.Event(), asyncio.Event()
        operator = asyncio.create_task(
            kopf.operator(
                registry=registry,
                standalone=True,
                namespaces=[namespace],
                stop_flag=stop,
                ready_flag=begun,
            )
        )
        await begun.wait()
        ready()
        print(await done, flush=True)
        stop.set()
        await operator

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(operate())


WATCHERS = {"bare": bare, "ours": ours, "kopf": with_kopf}


if __name__ == "__main__":
    name, kubeconfig, namespace, warm, events = sys.argv[1:]
    WATCHERS[name](kubeconfig, namespace, int(warm), int(events))
