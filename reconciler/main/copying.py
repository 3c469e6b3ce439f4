"""The copy of the cluster that the controller works from: which kinds there are, held and heard."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.controllers.reflecting import Reflector
from reconciler.controllers.world import World
from reconciler.core.models import ModelRecord, decode_model
from reconciler.core.objects import (
    DEVICE_MODELS_V1ALPHA2,
    DEVICE_MODELS_V1BETA1,
    DEVICE_STATUSES,
    DEVICES_V1ALPHA2,
    DEVICES_V1BETA1,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    Resource,
)
from reconciler.core.repositories import RepositoryRecord, decode_repository
from reconciler.core.scripts import ScriptRecord, decode_script
from reconciler.core.store import Delta
from reconciler.core.twins import (
    DeviceDocument,
    DeviceRecord,
    DeviceStatusDocument,
    DeviceStatusRecord,
    decode_device,
    decode_device_status,
)
from reconciler.errors import ScriptOpsError, Stalled
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster

# How often to look whether kinds that are missing have been installed.
DISCOVERY_SECONDS = 15.0
UNAVAILABLE_SECONDS = 1.0

log = logging.getLogger(__name__)

Start = Callable[[Awaitable[None]], None]


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Who hears of what changed, after the world holds it."""

    repositories: Callable[[Sequence[Delta[RepositoryRecord]]], None]
    scripts: Callable[[Sequence[Delta[ScriptRecord]]], None]
    devices: Callable[[Sequence[Delta[DeviceRecord]]], None]
    models: Callable[[Sequence[Delta[ModelRecord]]], None]
    device_statuses: Callable[[Sequence[Delta[DeviceStatusRecord]]], None]


class ClusterCopy:
    """Keeps `world` equal to the cluster. `served` are the kinds that it served when last asked."""

    def __init__(self, cluster: Cluster, world: World, clock: Clock, listeners: Listeners) -> None:
        self._cluster = cluster
        self._world = world
        self._clock = clock
        self._listeners = listeners
        self.served: frozenset[Resource] = frozenset()

    async def begin(self, start: Start) -> None:
        """Return when all kinds that are served are held completely; `start` keeps them so."""
        await self._discover()
        devices = self._of_devices()
        reflectors = [*self._of_scripts(), *devices]
        for reflector in reflectors:
            start(reflector.run())
        if not devices:
            log.warning("this cluster serves no KubeEdge devices; scripts run without any")
            start(self._wait_for_devices(start))
        for reflector in reflectors:
            await reflector.synced.wait()

    async def _discover(self) -> None:
        """Until the cluster serves our own kinds."""
        told = ""
        while True:
            pause = UNAVAILABLE_SECONDS
            try:
                self.served = await self._cluster.resources()
                if {SCRIPTS, SCRIPT_REPOSITORIES} <= self.served:
                    return
                what = "kinds are missing; run: kubectl apply -f deploy/crds"
                pause = DISCOVERY_SECONDS
            except Stalled:
                raise
            except ScriptOpsError as error:
                what = str(error)
            if what != told:
                log.warning("waiting for the cluster", extra={"why": what})
                told = what
            await self._clock.sleep(pause)

    async def _wait_for_devices(self, start: Start) -> None:
        while True:
            await self._clock.sleep(DISCOVERY_SECONDS)
            with contextlib.suppress(ScriptOpsError):
                self.served = await self._cluster.resources()
                reflectors = self._of_devices()
                if reflectors:
                    for reflector in reflectors:
                        start(reflector.run())
                    return

    def _of_scripts(self) -> list[Reflector[Any, Any]]:
        return [
            Reflector(
                self._cluster,
                SCRIPT_REPOSITORIES,
                shape=dict,
                decode=decode_repository,
                store=self._world.repositories,
                clock=self._clock,
                on_deltas=self._listeners.repositories,
            ),
            Reflector(
                self._cluster,
                SCRIPTS,
                shape=dict,
                decode=decode_script,
                store=self._world.scripts,
                clock=self._clock,
                on_deltas=self._listeners.scripts,
            ),
        ]

    def _of_devices(self) -> list[Reflector[Any, Any]]:
        """Whatever of Device, DeviceModel and DeviceStatus is served, in the newest layout."""
        found: list[Reflector[Any, Any]] = []
        models = self._newest(DEVICE_MODELS_V1BETA1, DEVICE_MODELS_V1ALPHA2)
        if models is not None:
            found.append(
                Reflector(
                    self._cluster,
                    models,
                    shape=dict,
                    decode=decode_model,
                    store=self._world.models,
                    clock=self._clock,
                    on_deltas=self._listeners.models,
                )
            )
        if DEVICE_STATUSES in self.served:
            found.append(
                Reflector(
                    self._cluster,
                    DEVICE_STATUSES,
                    shape=DeviceStatusDocument,
                    decode=decode_device_status,
                    store=self._world.device_statuses,
                    clock=self._clock,
                    on_deltas=self._listeners.device_statuses,
                )
            )
        devices = self._newest(DEVICES_V1BETA1, DEVICES_V1ALPHA2)
        if devices is not None:
            found.append(
                Reflector(
                    self._cluster,
                    devices,
                    shape=DeviceDocument,
                    decode=decode_device,
                    store=self._world.devices,
                    clock=self._clock,
                    on_deltas=self._listeners.devices,
                )
            )
        return found

    def _newest(self, *resources: Resource) -> Resource | None:
        return next((resource for resource in resources if resource in self.served), None)
