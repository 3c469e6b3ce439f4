"""Devices of the protocol `simulated`, alive beside an embedded cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.adapters.simulator import Bridge, Simulator
from reconciler.controllers.reflecting import Reflector
from reconciler.core.objects import DEVICES_V1BETA1, JsonObject
from reconciler.core.store import Delta, Store
from reconciler.ports.clock import Clock


@asynccontextmanager
async def simulated(cluster: EmbeddedCluster, clock: Clock) -> AsyncIterator[Simulator]:
    """Devices of the protocol `simulated` live, and hear of what is desired of them."""
    bridge = Bridge(cluster, clock)
    simulator = Simulator(bridge.receive, clock)

    def observe(deltas: Sequence[Delta[JsonObject]]) -> None:
        for delta in deltas:
            if delta.new is None:
                simulator.forget(delta.key)
            else:
                simulator.observe(delta.new)

    store: Store[JsonObject] = Store()
    reflector = Reflector(
        cluster,
        DEVICES_V1BETA1,
        shape=dict,
        decode=lambda obj: obj,
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
