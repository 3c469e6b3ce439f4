"""Devices behind a broker that do not do what they are told: told again, on a clock of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.adapters.mqtt_devices import MqttDevices
from reconciler.core import mqtt_twin
from reconciler.core.mqtt_twin import Twin, TwinUpdate
from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from reconciler.ports.broker import Received
from tests.fakes.clock import FakeClock
from tests.integration.test_mqtt_devices import device

THING = ObjectKey("default", "thing")


class Edge:
    """A device of an embedded cluster, and what was published for it: when, and which values."""

    def __init__(self, cluster: EmbeddedCluster, clock: FakeClock) -> None:
        self.cluster = cluster
        self.clock = clock
        self.deltas: list[tuple[float, str]] = []
        self.devices = MqttDevices(
            cluster, self._published, clock, namespace="default", count=lambda _: None
        )

    def _published(self, topic: str, payload: bytes) -> None:
        target = mqtt_twin.parse_topic(topic)
        if target is not None and target.suffix == mqtt_twin.TWIN_DELTA and not target.is_short:
            self.deltas.append((self.clock.monotonic(), orjson.loads(payload)["delta"]["fan"]))

    async def seen(self) -> None:
        """The watch brings the device as it is."""
        self.devices.observe(await self.cluster.get(DEVICES_V1BETA1, THING))

    async def desire(self, value: str) -> None:
        patch: list[Any] = [
            {"op": "add", "path": "/spec/properties/1/desired", "value": {"value": value}}
        ]
        await self.cluster.json_patch(DEVICES_V1BETA1, THING, patch, field_manager="somebody")
        await self.seen()

    async def says(self, suffix: str, payload: bytes) -> None:
        topic = mqtt_twin.topic(THING, suffix)
        left = self.devices.receive(Received("", topic, payload, 0, retain=False))
        if left is not None:
            await left

    async def reports(self, value: str, name: str = "fan") -> None:
        update = TwinUpdate({name: Twin(actual=value)})
        await self.says(mqtt_twin.TWIN_UPDATE, mqtt_twin.encode_update(update, timestamp_ms=0))
        await self.seen()

    async def is_(self, state: str) -> None:
        await self.says(mqtt_twin.STATE_UPDATE, orjson.dumps({"state": state}))


def telling(folder: Path, story: Callable[[Edge], Awaitable[None]]) -> None:
    async def main() -> None:
        clock = FakeClock()
        cluster = await EmbeddedCluster.open(folder / "cluster", clock=clock)
        edge = Edge(cluster, clock)
        running = asyncio.create_task(edge.devices.run())
        try:
            await cluster.create(DEVICES_V1BETA1, device("thing"), field_manager="a person")
            await edge.seen()
            await story(edge)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await cluster.close()

    asyncio.run(main())


def test_a_silent_device_is_told_again_ever_later_what_is_wanted_by_then(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        await edge.desire("on")
        await edge.clock.advance(200)
        assert edge.deltas == [(at, "on") for at in (0, 5, 15, 35, 75, 135, 195)]
        edge.deltas.clear()
        await edge.desire("off")
        await edge.clock.advance(16)
        assert edge.deltas == [(at, "off") for at in (200, 205, 215)]

    telling(tmp_path, story)


def test_a_device_that_does_what_it_is_told_is_told_once(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        await edge.desire("on")
        await edge.reports("on")
        await edge.clock.advance(600)
        assert edge.deltas == [(0, "on")]

    telling(tmp_path, story)


def test_a_device_that_speaks_is_told_with_its_own_messages(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        await edge.desire("on")
        for _ in range(4):
            await edge.clock.advance(3)
            await edge.reports("21", "temperature")
        assert edge.deltas == [(at, "on") for at in (0, 3, 6, 9, 12)]
        await edge.clock.advance(5)
        assert edge.deltas[5:] == [(17, "on")]

    telling(tmp_path, story)


def test_an_offline_device_keeps_its_wish_until_it_returns(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        await edge.is_("offline")
        await edge.desire("on")
        await edge.desire("off")
        edge.deltas.clear()
        await edge.clock.advance(3600)
        assert edge.deltas == []
        await edge.is_("online")
        await edge.clock.advance(6)
        assert edge.deltas == [(3600, "off"), (3605, "off")]

    telling(tmp_path, story)


def test_a_device_that_is_gone_is_told_nothing_more(tmp_path: Path) -> None:
    async def story(edge: Edge) -> None:
        await edge.desire("on")
        edge.devices.forget(THING)
        await edge.clock.advance(600)
        assert edge.deltas == [(0, "on")]

    telling(tmp_path, story)
