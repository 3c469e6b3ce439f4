"""Devices whose mappers speak KubeEdge's topics to a broker: this is the edge node they talk to.

What they report of the properties that a Device has goes into the store; what is wanted of them
goes out as delta, when it changes, after each of their updates while they differ, with each new
connection to the broker, when they come back, and again with growing pauses while they are silent.
One that says that it is offline is left in peace; what is wanted of it waits, the newest of it.
Promised: no message of anybody raises, and a broken one is logged once for each device. Not
promised: that each value in between is seen, in either direction; it is state, not events.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from reconciler.adapters.simulator import Bridge, TwinStore
from reconciler.core import mqtt_twin, redriving
from reconciler.core.conditions import rfc3339
from reconciler.core.mqtt_twin import DeviceTopic, Twin, TwinMessageInvalid, TwinUpdate
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
from reconciler.core.redriving import Drive
from reconciler.core.simulation import PROTOCOL
from reconciler.errors import ObjectNotFound
from reconciler.ports.broker import Received
from reconciler.ports.clock import Clock

log = logging.getLogger(__name__)

# `lastOnlineTime` of a device that says again and again that it is online.
ONLINE_SECONDS: Final = 60.0
_ONLINE: Final = frozenset({"online", "ok"})
_OFFLINE: Final = "offline"
# How often devices that are to be told again are looked for.
LOOK_SECONDS: Final = 1.0


class DeviceStore(TwinStore, Protocol):
    """The embedded cluster."""

    async def merge_patch(
        self,
        resource: Resource,
        key: ObjectKey,
        patch: JsonObject,
        *,
        field_manager: str,
        status: bool = False,
    ) -> JsonObject:
        """Raises `ObjectNotFound`."""
        ...


@dataclass(slots=True)
class _Device:
    """Twins by property; `is_short` once its mapper has told in which form it names topics."""

    twins: dict[str, Twin] = field(default_factory=dict)
    is_short: bool | None = None
    state: str = ""
    online_at: float = 0.0
    is_told: bool = False


class MqttDevices:
    """All Devices but the simulated ones. One event loop, no threads.

    `observe` and `forget` are fed from a watch and never wait. `namespace` is that of devices
    whose mapper names none. `count` hears taken, rejected and unknown.
    """

    def __init__(
        self,
        store: DeviceStore,
        publish: Callable[[str, bytes], None],
        clock: Clock,
        *,
        namespace: str,
        count: Callable[[str], None],
    ) -> None:
        self._store = store
        self._bridge = Bridge(store, clock)
        self._publish = publish
        self._clock = clock
        self._namespace = namespace
        self._count = count
        self._devices: dict[ObjectKey, _Device] = {}
        # Those that are not as they are wanted.
        self._drives: dict[ObjectKey, Drive] = {}

    async def run(self) -> None:
        """Tell devices again that are not as they are wanted; until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            now = self._clock.monotonic()
            for key, drive in list(self._drives.items()):
                device = self._devices[key]
                if drive.at <= now and device.state != _OFFLINE:
                    self._drives[key] = redriving.driven(drive, now)
                    self._publish_delta(key, device)

    def __len__(self) -> int:
        return len(self._devices)

    def observe(self, device: JsonObject) -> None:
        """A Device as it is now, in the v1beta1 layout."""
        key = key_of(device)
        spec = mapping(device.get("spec"))
        if mapping(spec.get("protocol")).get("protocolName") == PROTOCOL:
            self.forget(key)
            return
        known = self._devices.get(key)
        if known is None:
            known = _Device(state=text(mapping(device.get("status")).get("state")))
            self._devices[key] = known
        reported = _reported(device)
        before, known.twins = known.twins, {}
        is_changed = False
        for item in map(mapping, sequence(spec.get("properties"))):
            name = text(item.get("name"))
            desired = self._sendable(
                key, known, name, text(mapping(item.get("desired")).get("value"))
            )
            old = before.get(name)
            # What was heard since counts more than what comes back of it through the watch.
            actual = reported.get(name) if old is None or old.actual is None else old.actual
            known.twins[name] = Twin(expected=desired, actual=actual)
            is_changed |= desired != (old.expected if old is not None else None)
        if is_changed:
            self._drives.pop(key, None)
            self._send_delta(key, known)
        elif not self._differs(known):
            self._drives.pop(key, None)

    def forget(self, key: ObjectKey) -> None:
        """The Device is gone, or is not driven from here any more."""
        self._devices.pop(key, None)
        self._drives.pop(key, None)

    def connected(self) -> None:
        """Mappers may have missed what is wanted: it is said again."""
        for key, device in self._devices.items():
            self._send_delta(key, device)

    def receive(self, message: Received) -> Awaitable[None] | None:
        """What a mapper, or anybody, published."""
        target = mqtt_twin.parse_topic(message.topic, self._namespace)
        device = self._devices.get(target.device) if target is not None else None
        if target is None or device is None:
            self._count("unknown")
            if target is not None and target.suffix == mqtt_twin.TWIN_UPDATE:
                error = TwinMessageInvalid(
                    "update rejected due to the device is not existed", code=404
                )
                self._answer(target, mqtt_twin.encode_rejection(error, timestamp_ms=self._now_ms()))
            return None
        left: Awaitable[None] | None = None
        try:
            match target.suffix:
                case mqtt_twin.TWIN_UPDATE:
                    self._update(target, device, message.payload)
                case mqtt_twin.TWIN_GET:
                    self._get(target, device, message.payload)
                case mqtt_twin.STATE_UPDATE:
                    left = self._state(target, device, *mqtt_twin.decode_state(message.payload))
                case _:
                    return None
        except TwinMessageInvalid as error:
            self._reject(target, device, error)
            return None
        device.is_short = target.is_short
        self._count("taken")
        return left

    def _update(self, target: DeviceTopic, device: _Device, payload: bytes) -> None:
        now_ms = self._now_ms()
        update = self._bridge.take(target.device, payload, now_ms, properties=device.twins)
        for name, twin in update.twins.items():
            if twin is not None and twin.actual is not None and name in device.twins:
                device.twins[name] = replace(device.twins[name], actual=twin.actual)
        self._answer(target, mqtt_twin.encode_result(update, timestamp_ms=now_ms))
        device.is_short = target.is_short
        self._send_delta(target.device, device)

    def _get(self, target: DeviceTopic, device: _Device, payload: bytes) -> None:
        twins = TwinUpdate(device.twins, mqtt_twin.decode_get(payload))
        self._answer(target, mqtt_twin.encode_update(twins, timestamp_ms=self._now_ms()))

    async def _state(self, target: DeviceTopic, device: _Device, state: str, event_id: str) -> None:
        now = self._clock.now()
        is_online = state in _ONLINE
        if state != device.state or (is_online and now - device.online_at >= ONLINE_SECONDS):
            if is_online:
                device.online_at = now
            status = {"state": state}
            if is_online:
                status["lastOnlineTime"] = rfc3339(now)
            try:
                await self._store.merge_patch(
                    DEVICES_V1BETA1, target.device, {"status": status}, field_manager="mqtt"
                )
            except ObjectNotFound:  # gone, and the watch has not said so yet
                self.forget(target.device)
                return
            returns = device.state == _OFFLINE
            device.state = state
            if returns:
                self._drives.pop(target.device, None)
                self._send_delta(target.device, device)
        answer = mqtt_twin.encode_state_result(
            target.device,
            state,
            event_id=event_id,
            timestamp_ms=self._now_ms(),
            last_online=rfc3339(device.online_at) if device.online_at else "",
        )
        self._answer(target, answer)

    def _reject(self, target: DeviceTopic, device: _Device, error: TwinMessageInvalid) -> None:
        self._count("rejected")
        self._tell(target.device, device, "MQTT message rejected", str(error))
        if target.suffix == mqtt_twin.TWIN_UPDATE:
            self._answer(target, mqtt_twin.encode_rejection(error, timestamp_ms=self._now_ms()))

    def _tell(self, key: ObjectKey, device: _Device, what: str, why: str) -> None:
        """Once for each device: who sends one broken message sends thousands."""
        if not device.is_told:
            device.is_told = True
            log.warning(what, extra={"key": str(key), "reason": why})

    def _sendable(self, key: ObjectKey, device: _Device, name: str, value: str) -> str | None:
        """A mapper sends back what is wanted with what it reports, and both would be rejected."""
        if not value:
            return None
        try:
            mqtt_twin.check_value(name, value)
        except TwinMessageInvalid as error:
            self._tell(key, device, "desired value not sent", str(error))
            return None
        return value

    def _send_delta(self, key: ObjectKey, device: _Device) -> None:
        """Tell it now what is wanted, and again later, if anything is."""
        if not self._publish_delta(key, device):
            self._drives.pop(key, None)
            return
        now = self._clock.monotonic()
        drive = self._drives.get(key)
        self._drives[key] = redriving.begun(now) if drive is None else redriving.heard(drive, now)

    def _differs(self, device: _Device) -> bool:
        return any(it.expected not in {None, it.actual} for it in device.twins.values())

    def _publish_delta(self, key: ObjectKey, device: _Device) -> bool:
        delta = mqtt_twin.encode_delta(device.twins, timestamp_ms=self._now_ms())
        if delta is None:
            return False
        # Until a mapper has spoken, its form is not known; nobody listens to the other one.
        forms = (device.is_short,) if device.is_short is not None else (False, True)
        for is_short in forms:
            if not is_short or key.namespace == self._namespace:
                topic = mqtt_twin.topic(key, mqtt_twin.TWIN_DELTA, is_short=is_short)
                self._publish(topic, delta)
        return True

    def _answer(self, target: DeviceTopic, payload: bytes) -> None:
        topic = mqtt_twin.topic(target.device, f"{target.suffix}/result", is_short=target.is_short)
        self._publish(topic, payload)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _reported(device: JsonObject) -> dict[str, str]:
    """Values that are known: one without a timestamp was never reported."""
    twins = map(mapping, sequence(mapping(device.get("status")).get("twins")))
    found: dict[str, str] = {}
    for twin in twins:
        reported = mapping(twin.get("reported"))
        if mapping(reported.get("metadata")).get("timestamp"):
            found[text(twin.get("propertyName"))] = text(reported.get("value"))
    return found
