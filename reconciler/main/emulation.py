"""KubeEdge, played at a cluster: cloudcore, an edge node, and mappers of a scenario's devices."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reconciler.adapters import kube
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.cloudcore import CloudCore
from reconciler.adapters.simulator import Bridge, Simulator
from reconciler.controllers.reflecting import Reflector
from reconciler.core.mqtt_scenario import Scenario
from reconciler.core.objects import JsonObject, ObjectKey, key_of, mapping, sequence, text
from reconciler.core.store import Delta, Store
from reconciler.core.twins import DeviceRecord
from reconciler.errors import ObjectInvalid
from reconciler.main.scenarios import read
from reconciler.ports.clock import Clock

log = logging.getLogger(__name__)


async def emulate(scenario: Path, kubeconfig: Path | None, context: str | None) -> None:
    """Until cancelled. Raises `Stalled` for files that are no good."""
    wanted = read(scenario)
    clock = SystemClock()
    counts: Counter[str] = Counter()
    path = str(kubeconfig) if kubeconfig else None
    cluster = await kube.connect(kubeconfig=path, context=context)
    cloud = CloudCore(cluster, wanted.release, clock, count=lambda what: counts.update((what,)))
    edge = _Edge(wanted, cloud, clock)
    store: Store[JsonObject] = Store()
    reflector = Reflector(
        cluster,
        wanted.release.layout.resource,
        shape=dict,
        decode=lambda obj: obj,
        store=store,
        clock=clock,
        on_deltas=edge.see,
    )
    try:
        await reflector.run()
    finally:
        await edge.close()
        await cloud.close()
        await cluster.close()
        log.info("simulated", extra={"devices": len(wanted.devices), **counts})


class _Edge:
    """What the edge node, and cloudcore's own copy, come to know of the cluster, and when."""

    def __init__(self, scenario: Scenario, cloud: CloudCore, clock: Clock) -> None:
        self._devices = {key_of(it): it for it in scenario.devices}
        self._delay, self._loss = scenario.delay, scenario.loss
        self._cloud = cloud
        self._clock = clock
        self._simulator = Simulator(Bridge(cloud, clock).receive, clock)
        # On their way: of each device the newest only, as the cloud's queues hold them.
        self._newest: dict[ObjectKey, JsonObject] = {}
        self._ways: set[asyncio.Task[None]] = set()
        self._told: dict[ObjectKey, dict[str, str]] = {}

    def see(self, deltas: Sequence[Delta[JsonObject]]) -> None:
        for delta in deltas:
            if delta.key not in self._devices:
                continue
            if delta.new is None:
                self._forget(delta.key)
                continue
            is_on_its_way = delta.key in self._newest
            self._newest[delta.key] = delta.new
            if not is_on_its_way:
                way = asyncio.get_running_loop().create_task(self._bring(delta.key))
                self._ways.add(way)
                way.add_done_callback(self._ways.discard)

    async def close(self) -> None:
        for way in self._ways:
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)
        await self._simulator.close()

    def _forget(self, key: ObjectKey) -> None:
        self._newest.pop(key, None)
        self._told.pop(key, None)
        self._cloud.forget(key)
        self._simulator.forget(key)

    async def _bring(self, key: ObjectKey) -> None:
        await self._clock.sleep(self._delay)
        if (device := self._newest.pop(key, None)) is None:
            return
        try:
            record = self._cloud.observe(device)
        except ObjectInvalid as error:
            log.warning("device not simulated", extra={"key": str(key), "reason": str(error)})
            return
        desired = {twin.name: twin.desired for twin in record.twins if twin.desired is not None}
        known = self._told.get(key)
        if desired == known:
            return
        self._told[key] = desired
        if known is None or random.random() >= self._loss:  # noqa: S311 - no secret
            self._simulator.observe(_as_seen(self._devices[key], record))


def _as_seen(device: JsonObject, record: DeviceRecord) -> JsonObject:
    """A device of the scenario, with what the cluster's says is desired and was reported."""
    spec = mapping(device.get("spec"))
    properties: list[JsonObject] = []
    for item in map(mapping, sequence(spec.get("properties"))):
        twin = record.twin(text(item.get("name")))
        desired = twin.desired if twin is not None else None
        properties.append({**item, "desired": {"value": desired}} if desired is not None else item)
    twins: list[JsonObject] = [
        {"propertyName": twin.name, "reported": {"value": twin.reported}}
        for twin in record.twins
        if twin.reported is not None
    ]
    return {**device, "spec": {**spec, "properties": properties}, "status": {"twins": twins}}
