"""The devices of an embedded cluster: simulated ones in this process, others behind a broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import orjson

from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.adapters.mqtt import MqttBroker
from reconciler.adapters.mqtt_devices import MqttDevices
from reconciler.adapters.simulator import Bridge, Simulator
from reconciler.controllers.reflecting import Reflector
from reconciler.core import mqtt_twin
from reconciler.core.documents import Document
from reconciler.core.objects import DEVICES_V1BETA1, JsonObject, ObjectKey
from reconciler.core.store import Delta, Store
from reconciler.ports.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Driving:
    """Where devices that are not simulated are, and the namespace of those that name none."""

    broker: MqttBroker
    namespace: str
    count: Callable[[str], None]


class _DeviceDocument(Document):
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(frozen=True, slots=True)
class _Device:
    """What drives devices looks at what is wanted of them; what is reported came from it."""

    spec: bytes
    status: msgspec.Raw = field(compare=False)

    def document(self, key: ObjectKey) -> JsonObject:
        return {
            "metadata": {"namespace": key.namespace, "name": key.name},
            "spec": orjson.loads(self.spec),
            "status": orjson.loads(bytes(self.status)),
        }


def _device(found: _DeviceDocument) -> _Device:
    return _Device(bytes(found.spec), found.status)


@asynccontextmanager
async def simulated(
    cluster: EmbeddedCluster, clock: Clock, driving: Driving | None = None
) -> AsyncIterator[Simulator]:
    """Devices of the protocol `simulated` live, and all hear of what is desired of them."""
    bridge = Bridge(cluster, clock)
    simulator = Simulator(bridge.receive, clock)
    behind = _Behind(cluster, driving, clock) if driving is not None else None

    def observe(deltas: Sequence[Delta[_Device]]) -> None:
        for delta in deltas:
            device = None if delta.new is None else delta.new.document(delta.key)
            if device is None:
                simulator.forget(delta.key)
            else:
                simulator.observe(device)
            if behind is not None:
                behind.observe(delta.key, device)

    store: Store[_Device] = Store()
    reflector = Reflector(
        cluster,
        DEVICES_V1BETA1,
        shape=_DeviceDocument,
        decode=_device,
        store=store,
        clock=clock,
        on_deltas=observe,
    )
    task = asyncio.create_task(reflector.run())
    try:
        yield simulator
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await simulator.close()
        if behind is not None:
            await behind.close()


class _Behind:
    """Devices behind a broker. It hears of us once there is the first of them."""

    def __init__(self, cluster: EmbeddedCluster, driving: Driving, clock: Clock) -> None:
        self._broker = driving.broker
        self._devices = MqttDevices(
            cluster,
            driving.broker.publish,
            clock,
            namespace=driving.namespace,
            count=driving.count,
        )
        self._is_subscribed = False
        self._driving = asyncio.create_task(self._devices.run())
        self._broker.on_connected.append(self._devices.connected)

    def observe(self, key: ObjectKey, device: JsonObject | None) -> None:
        if device is None:
            self._devices.forget(key)
        else:
            self._devices.observe(device)
        if len(self._devices) and not self._is_subscribed:
            self._is_subscribed = True
            for topic_filter in mqtt_twin.FILTERS:
                self._broker.subscribe(topic_filter, 0, self._devices.receive)

    async def close(self) -> None:
        self._driving.cancel()
        await asyncio.gather(self._driving, return_exceptions=True)
        self._broker.on_connected.remove(self._devices.connected)
        for topic_filter in mqtt_twin.FILTERS:
            self._broker.unsubscribe(topic_filter, self._devices.receive)
