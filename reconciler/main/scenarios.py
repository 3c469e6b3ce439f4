"""Simulated mappers at a broker: what drives a controller as many real devices would."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, Final

import orjson

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.mqtt import MqttBroker
from reconciler.adapters.simulator import Simulator
from reconciler.core import mqtt_scenario, mqtt_twin
from reconciler.core.mqtt_scenario import Scenario
from reconciler.core.objects import JsonObject, key_of, mapping
from reconciler.errors import Stalled
from reconciler.main import brokers
from reconciler.ports.broker import Received
from reconciler.ports.clock import Clock
from reconciler.settings import Address

log = logging.getLogger(__name__)

# Devices begin spread over so long, that they do not all speak at once ever after.
_SPREAD_SECONDS: Final = 1.0
_SLICES: Final = 100
_DELTAS: Final = f"$hw/events/device/+/+/{mqtt_twin.TWIN_DELTA}"


async def simulate(scenario: Path, address: Address, config: Path | None) -> None:
    """Until cancelled. Raises `Stalled` for files that are no good."""
    devices, who = _who(scenario)
    clock = SystemClock()
    counts: Counter[str] = Counter()
    broker = brokers.connection(
        address, config, who, clock, count=lambda what: counts.update((what,))
    )
    mappers = _Mappers(devices, broker, clock)
    try:
        await broker.run()
    finally:
        await mappers.close()
        log.info("simulated", extra={"devices": len(devices), **counts})


def _who(scenario: Path) -> tuple[list[JsonObject], dict[str, str]]:
    """The devices, and what tells this scenario from others."""
    return read(scenario).devices, {"scenario": str(scenario.absolute())}


def read(scenario: Path) -> Scenario:
    """Raises `Stalled` with what to mend."""
    try:
        content = scenario.read_bytes()
    except OSError as error:
        raise Stalled(
            f"{scenario} cannot be read ({error.strerror})", reason="ScenarioInvalid"
        ) from error
    return mqtt_scenario.read(PurePosixPath(scenario), content)


class _Mappers:
    """They begin anew with each connection, so that what was missed is told."""

    def __init__(self, devices: list[JsonObject], broker: MqttBroker, clock: Clock) -> None:
        self._devices: dict[Any, dict[str, Any]] = {key_of(it): dict(it) for it in devices}
        self._broker = broker
        self._clock = clock
        self._simulator = Simulator(self._publish, clock)
        self._beginning: asyncio.Task[None] | None = None
        broker.subscribe(_DELTAS, 0, self._receive)
        broker.on_connected.append(self._connected)

    async def close(self) -> None:
        if self._beginning is not None:
            self._beginning.cancel()
            await asyncio.gather(self._beginning, return_exceptions=True)
        await self._simulator.close()

    async def _publish(self, topic: str, payload: bytes) -> None:
        self._broker.publish(topic, payload)

    def _connected(self) -> None:
        if self._beginning is not None:
            self._beginning.cancel()
        self._beginning = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        each = max(len(self._devices) // _SLICES, 1)
        for number, (key, device) in enumerate(self._devices.items()):
            self._simulator.forget(key)
            self._simulator.observe(device)
            if number % each == each - 1:
                await self._clock.sleep(_SPREAD_SECONDS / _SLICES)

    async def _receive(self, message: Received) -> None:
        """What is wanted of a device; of others, and of what is no delta, nothing."""
        target = mqtt_twin.parse_topic(message.topic)
        device = self._devices.get(target.device) if target is not None else None
        if device is None:
            return
        try:
            delta = mapping(mapping(orjson.loads(message.payload)).get("delta"))
        except orjson.JSONDecodeError:
            return
        spec = device["spec"]
        properties = [
            {**it, "desired": {"value": delta[it["name"]]}} if it["name"] in delta else it
            for it in spec["properties"]
        ]
        device["spec"] = {**spec, "properties": properties}
        self._simulator.observe(device)
