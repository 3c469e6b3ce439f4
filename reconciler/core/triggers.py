"""Which Scripts a changed device concerns.

A change is a change of *value*: resourceVersions and timestamps move with every report, and a
value that is unknown says nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from reconciler.api.script import Qos
from reconciler.core.cron import Schedule
from reconciler.core.gating import Gate
from reconciler.core.objects import ObjectKey
from reconciler.core.twins import DeviceRecord

# Reported values of one device by property, the known ones only.
Values = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A Script that can run: valid, loaded, not suspended."""

    key: ObjectKey
    uid: str
    generation: int
    digest: str
    # Names of Devices, in the Script's namespace.
    reads: frozenset[str]
    read_change: bool
    run_on_deploy: bool
    # Of `reads`, those whose runs another version has: they are not joined with the others'.
    canaries: frozenset[str] = frozenset()
    schedule: Schedule | None = None
    gate: Gate | None = None
    # It runs for what it has set itself too, and every circle with it in it may go on.
    may_loop: bool = False
    qos: Qos = Qos.AT_MOST_ONCE

    @property
    def is_kept(self) -> bool:
        """Whether its runs are in a journal until they are done."""
        return self.qos is not Qos.AT_MOST_ONCE


class TriggerIndex:
    """Subscriptions by Script, and by the devices they read. Belongs to one thread."""

    def __init__(self) -> None:
        self._by_script: dict[ObjectKey, Subscription] = {}
        self._by_device: dict[ObjectKey, dict[ObjectKey, Subscription]] = {}

    def __len__(self) -> int:
        return len(self._by_script)

    def put(self, subscription: Subscription) -> None:
        self.remove(subscription.key)
        self._by_script[subscription.key] = subscription
        if subscription.read_change:
            for name in subscription.reads:
                device = ObjectKey(subscription.key.namespace, name)
                self._by_device.setdefault(device, {})[subscription.key] = subscription

    def remove(self, script: ObjectKey) -> None:
        old = self._by_script.pop(script, None)
        if old is None or not old.read_change:
            return
        for name in old.reads:
            device = ObjectKey(script.namespace, name)
            readers = self._by_device[device]
            del readers[script]
            if not readers:
                del self._by_device[device]

    def get(self, script: ObjectKey) -> Subscription | None:
        return self._by_script.get(script)

    def readers(self, device: ObjectKey) -> Collection[Subscription]:
        """Scripts that run when this device changes."""
        readers = self._by_device.get(device)
        return readers.values() if readers else ()

    def all(self) -> Collection[Subscription]:
        return self._by_script.values()


def known_values(device: DeviceRecord) -> dict[str, str]:
    return {twin.name: twin.reported for twin in device.twins if twin.reported is not None}
