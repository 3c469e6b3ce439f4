"""Simulated devices: mappers in this process that speak KubeEdge's twin messages, and their edge.

`Simulator` plays the mappers of all Devices whose protocol is `simulated`; `Bridge` plays the edge
node and the cloud behind it, and writes what devices report into a store. They meet only in the
topics and payloads of `core.mqtt_twin`, so that a broker with real mappers can stand between them.

How a property behaves is said in `visitors.configData`, see `core.simulation`.
`start` is the first value where nothing has been reported yet; otherwise a property goes on from
what was. Not promised: that a value in between is ever seen; what is reported is state, not events.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Protocol, TypeAlias

from reconciler.core import mqtt_twin
from reconciler.core.mqtt_twin import Message, Twin, TwinUpdate
from reconciler.core.objects import (
    DEVICES_V1BETA1,
    JsonObject,
    ObjectKey,
    Resource,
    key_of,
    mapping,
    sequence,
    text,
)
from reconciler.core.runs import Scalar
from reconciler.core.simulation import PROTOCOL, Behaviour, as_text, behaviour
from reconciler.errors import ObjectNotFound, ScriptOpsError
from reconciler.ports.clock import Clock

log = logging.getLogger(__name__)

# After the point: finer than most sensors are.
_NOISE_DIGITS: Final = 3


class TwinStore(Protocol):
    """Where reported twins go; the embedded cluster."""

    def report_twins(
        self, resource: Resource, key: ObjectKey, reported: Mapping[str, JsonObject]
    ) -> None:
        """Merge twins by property name, as `mqtt_twin.reported_twins` gives them.

        Raises `ObjectNotFound`.
        """
        ...


class Bridge:
    """The edge node, and the cloud's way from it: takes twin updates, stores what they report.

    Called from the event loop. A message is taken whole or rejected whole.
    """

    def __init__(self, store: TwinStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def receive(self, topic: str, payload: bytes) -> Message | None:
        """Take one message; the answer, topic and payload, or None where an edge says nothing.

        A rejection is an answer, never an exception. Raises what the store raises.
        """
        target = mqtt_twin.parse_topic(topic)
        if target is None or target.suffix != mqtt_twin.TWIN_UPDATE:
            return None
        answer = mqtt_twin.topic(
            target.device, mqtt_twin.TWIN_UPDATE_RESULT, is_short=target.is_short
        )
        timestamp_ms = int(self._clock.now() * 1000)
        try:
            update = self.take(target.device, payload, timestamp_ms)
        except mqtt_twin.TwinMessageInvalid as error:
            log.info(
                "twin update rejected", extra={"key": str(target.device), "reason": str(error)}
            )
            return answer, mqtt_twin.encode_rejection(error, timestamp_ms=timestamp_ms)
        return answer, mqtt_twin.encode_result(update, timestamp_ms=timestamp_ms)

    def take(
        self,
        device: ObjectKey,
        payload: bytes,
        timestamp_ms: int,
        *,
        properties: Container[str] | None = None,
    ) -> TwinUpdate:
        """Store what an update reports, where they are given of these `properties` only.

        Raises `TwinMessageInvalid`, and what the store raises.
        """
        update = mqtt_twin.decode_update(payload)
        reported = mqtt_twin.reported_twins(update, timestamp_ms=timestamp_ms)
        if properties is not None:
            reported = {n: twin for n, twin in reported.items() if n in properties}
        if not reported:
            return update
        try:
            self._store.report_twins(DEVICES_V1BETA1, device, reported)
        except ObjectNotFound as error:
            raise mqtt_twin.TwinMessageInvalid(
                "update rejected due to the device is not existed", code=404
            ) from error
        return update


@dataclass(slots=True)
class _Property:
    """A property that lives. `desired` is the one last seen, empty where there is none."""

    behaviour: Behaviour
    value: str
    desired: str = ""
    rising: bool = True
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def advance(self) -> None:
        """Move on by one step, from wherever the value is now."""
        if self.behaviour.simulate == "toggle":
            self.value = "false" if self.value == "true" else "true"
        elif self.behaviour.simulate == "ramp":
            self._climb()

    def _climb(self) -> None:
        low, high, step = self.behaviour.low, self.behaviour.high, self.behaviour.step
        try:
            value = Decimal(self.value)
        except InvalidOperation:
            value = low
        if value >= high:
            self.rising = False
        elif value <= low:
            self.rising = True
        value = min(value + step, high) if self.rising else max(value - step, low)
        self.value = format(value, "f")

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()


Publish: TypeAlias = Callable[[str, bytes], Awaitable[object]]


class Simulator:
    """The mappers of all simulated Devices. One event loop, no threads.

    `observe` and `forget` are fed from a watch and never wait; what they set in motion ends with
    `close`.
    """

    def __init__(
        self, publish: Publish, clock: Clock, *, chance: random.Random | None = None
    ) -> None:
        self._chance = chance or random.Random()  # noqa: S311 - no secret
        self._publish = publish
        self._clock = clock
        self._devices: dict[ObjectKey, dict[str, _Property]] = {}

    def observe(self, device: JsonObject) -> None:
        """A Device as it is now, in the v1beta1 layout; others than simulated ones are left alone.

        Seeing the same again, or a report of ours come back, changes nothing.
        """
        key = key_of(device)
        spec = mapping(device.get("spec"))
        if mapping(spec.get("protocol")).get("protocolName") != PROTOCOL:
            self.forget(key)
            return
        known = self._devices.setdefault(key, {})
        wanted = {
            text(item.get("name")): item
            for item in map(mapping, sequence(spec.get("properties")))
            if item.get("name")
        }
        for name in known.keys() - wanted.keys():
            known.pop(name).stop()
        for name, item in wanted.items():
            self._observe_property(key, name, item, _reported(device, name))

    def forget(self, key: ObjectKey) -> None:
        """The Device is gone; nothing more is reported for it."""
        for prop in self._devices.pop(key, {}).values():
            prop.stop()

    async def set(self, key: ObjectKey, name: str, value: Scalar) -> None:
        """Move a property by hand and report it; a ramp goes on from there.

        Returns when the report has been taken. Raises `ObjectNotFound` for a property that is not
        simulated.
        """
        prop = self._devices.get(key, {}).get(name)
        if prop is None:
            raise ObjectNotFound(f"Device {key} has no simulated property {name}")
        prop.value = as_text(value)
        await self._report(key, name, prop)

    async def close(self) -> None:
        """Stop all; returns when nothing runs any more."""
        tasks = [
            task
            for properties in self._devices.values()
            for prop in properties.values()
            for task in prop.tasks
        ]
        for key in tuple(self._devices):
            self.forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _observe_property(self, key: ObjectKey, name: str, item: JsonObject, reported: str) -> None:
        known = self._devices[key]
        config = mapping(mapping(item.get("visitors")).get("configData"))
        try:
            wanted = behaviour(config)
        except ValueError as error:
            if (prop := known.pop(name, None)) is not None:
                prop.stop()
            log.warning(
                "property not simulated",
                extra={"key": str(key), "property": name, "reason": str(error)},
            )
            return
        desired = text(mapping(item.get("desired")).get("value"))
        prop = known.get(name)
        if prop is None or prop.behaviour != wanted:
            if prop is not None:
                prop.stop()
                reported = prop.value
            prop = known[name] = _Property(wanted, reported or wanted.start)
            self._start(prop, self._live(key, name, prop))
        if wanted.simulate == "follow" and desired and desired != prop.desired:
            prop.desired = desired
            self._start(prop, self._follow(key, name, prop, desired))

    def _start(self, prop: _Property, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        prop.tasks.add(task)
        task.add_done_callback(prop.tasks.discard)

    async def _live(self, key: ObjectKey, name: str, prop: _Property) -> None:
        if prop.value:
            await self._try_report(key, name, prop)
        while prop.behaviour.every_ms:
            await self._clock.sleep(prop.behaviour.every_ms / 1000)
            prop.advance()
            await self._try_report(key, name, prop)

    async def _follow(self, key: ObjectKey, name: str, prop: _Property, desired: str) -> None:
        await self._clock.sleep(prop.behaviour.delay_ms / 1000)
        if prop.desired == desired:  # else a newer one is on its way
            prop.value = desired
            await self._try_report(key, name, prop)

    async def _try_report(self, key: ObjectKey, name: str, prop: _Property) -> None:
        try:
            await self._report(key, name, prop)
        except ScriptOpsError as error:  # a report lost is lost, as at quality of service 0
            log.warning("report lost", extra={"key": str(key), "reason": error.reason})

    async def _report(self, key: ObjectKey, name: str, prop: _Property) -> None:
        if prop.behaviour.dropout and self._chance.random() < prop.behaviour.dropout:
            return
        twin = Twin(expected=prop.desired or None, actual=self._measured(prop))
        await self._publish(
            mqtt_twin.topic(key, mqtt_twin.TWIN_UPDATE),
            mqtt_twin.encode_update(
                TwinUpdate({name: twin}), timestamp_ms=int(self._clock.now() * 1000)
            ),
        )

    def _measured(self, prop: _Property) -> str:
        """The value, as far off as its noise lets it be."""
        noise = prop.behaviour.noise
        if not noise:
            return prop.value
        try:
            exact = Decimal(prop.value)
        except InvalidOperation:
            return prop.value
        off = noise * Decimal(str(self._chance.uniform(-1, 1)))
        return format(exact + round(off, _NOISE_DIGITS), "f")


def _reported(device: JsonObject, name: str) -> str:
    """What the device reported last, empty where nothing is known."""
    for twin in map(mapping, sequence(mapping(device.get("status")).get("twins"))):
        if twin.get("propertyName") == name:
            return text(mapping(twin.get("reported")).get("value"))
    return ""
