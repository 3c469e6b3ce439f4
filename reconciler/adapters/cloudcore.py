"""KubeEdge's cloudcore, played: it takes what edge nodes report and writes it to a cluster.

What it writes, and what it gets wrong, is `core.kubeedge`'s. It is a `TwinStore` of the simulator's
`Bridge`, which is the edge node.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from reconciler.core import kubeedge
from reconciler.core.kubeedge import Release, Twins
from reconciler.core.objects import DEVICE_STATUSES, JsonObject, ObjectKey, Resource, mapping
from reconciler.core.twins import DeviceRecord, Layout, decode_device
from reconciler.errors import Conflict, ObjectExists, ObjectNotFound, ScriptOpsError
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster

MANAGER: Final = "cloudcore"
# About what a mapper takes to close a device and to open it again.
_SETTING_UP_SECONDS: Final = 0.2
# Of one device that wait to be written, while the cluster is slow.
_MOST_REPORTS: Final = 100

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Device:
    """`record` and `twins` are what was seen last, which may be older than what is."""

    record: DeviceRecord
    twins: Twins = field(default_factory=dict)
    is_status_known: bool = False
    # Until when it is being set up again, by the monotonic clock.
    deaf_until: float = 0.0
    reports: deque[Mapping[str, JsonObject]] = field(default_factory=deque)
    is_writing: bool = False


class CloudCore:
    """One event loop. `count` hears `written`, `unwritten` and `lost` for each report."""

    def __init__(
        self, cluster: Cluster, release: Release, clock: Clock, *, count: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._release = release
        self._clock = clock
        self._count = count
        self._devices: dict[ObjectKey, _Device] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def observe(self, device: JsonObject) -> DeviceRecord:
        """A Device as it was seen. Raises `ObjectInvalid`."""
        record = decode_device(device)
        known = self._devices.get(record.key)
        if known is None or known.record.uid != record.uid:
            known = self._devices[record.key] = _Device(record)
        known.record = record
        if self._release.layout is not Layout.SPLIT:
            known.twins = kubeedge.remembered(known.twins, device)
        return record

    def forget(self, key: ObjectKey) -> None:
        self._devices.pop(key, None)

    def report_twins(
        self,
        resource: Resource,  # noqa: ARG002 - the parameter is the port's
        key: ObjectKey,
        reported: Mapping[str, JsonObject],
    ) -> None:
        """Take the twins, to write them, or what comes of them, one report after the other.

        `resource` is passed over: where twins are is the release's. Not promised: that they are
        written; edge nodes are not told either. Raises `ObjectNotFound`.
        """
        known = self._devices.get(key)
        if known is None:
            raise ObjectNotFound(f"Device {key} is not there")
        if len(known.reports) == _MOST_REPORTS:
            known.reports.popleft()
            self._count("lost")
        known.reports.append(reported)
        if not known.is_writing:
            known.is_writing = True
            task = asyncio.get_running_loop().create_task(self._work_off(known))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Stop; what is not written yet is lost."""
        for task in self._writing:
            task.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _work_off(self, known: _Device) -> None:
        while known.reports:
            try:
                self._count(await self._take(known, known.reports.popleft()))
            except ScriptOpsError as error:
                self._count("lost")
                log.warning(
                    "report lost", extra={"key": str(known.record.key), "reason": error.reason}
                )
        known.is_writing = False

    async def _take(self, known: _Device, reported: Mapping[str, JsonObject]) -> str:
        """What became of a report."""
        if self._clock.monotonic() < known.deaf_until:
            return "lost"
        if self._release.layout is Layout.SPLIT and not known.is_status_known:
            await self._see_status(known)
        of = kubeedge.properties(known.record)
        twins = kubeedge.reported(known.twins, reported, of, self._release)
        if twins is None:
            return "unwritten"
        known.twins = twins
        await self._write(known)
        if self._release.stops_at_report:
            known.deaf_until = self._clock.monotonic() + _SETTING_UP_SECONDS
        return "written"

    async def _write(self, known: _Device) -> None:
        layout, key = self._release.layout, known.record.key
        resource = DEVICE_STATUSES if layout is Layout.SPLIT else layout.resource
        patch: dict[str, JsonObject] = {"status": {"twins": list(known.twins.values())}}
        if layout is not Layout.V1ALPHA2 or self._release.overwrites_desired:
            await self._cluster.merge_patch(resource, key, patch, field_manager=MANAGER)
            return
        while True:
            live = await self._cluster.get(resource, key)
            version = mapping(live.get("metadata")).get("resourceVersion")
            twins = kubeedge.remembered(known.twins, live)
            patch = {
                "metadata": {"resourceVersion": version},
                "status": {"twins": [*twins.values()]},
            }
            try:
                await self._cluster.merge_patch(resource, key, patch, field_manager=MANAGER)
            except Conflict:
                continue
            return

    async def _see_status(self, known: _Device) -> None:
        """Make the DeviceStatus, where nobody did."""
        record = known.record
        metadata: JsonObject = {
            "namespace": record.key.namespace,
            "name": record.key.name,
            "ownerReferences": [
                {
                    "apiVersion": record.layout.resource.api_version,
                    "kind": "Device",
                    "name": record.key.name,
                    "uid": record.uid,
                    "controller": True,
                }
            ],
        }
        document: JsonObject = {
            "apiVersion": DEVICE_STATUSES.api_version,
            "kind": "DeviceStatus",
            "metadata": metadata,
            "spec": {},
        }
        try:
            await self._cluster.create(DEVICE_STATUSES, document, field_manager=MANAGER)
        except ObjectExists:
            live = await self._cluster.get(DEVICE_STATUSES, record.key)
            known.twins = kubeedge.remembered(known.twins, live)
        known.is_status_known = True
