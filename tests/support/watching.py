"""A watch as an iterator, for tests that look at one batch after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from reconciler.core.objects import Resource
from reconciler.ports.cluster import Cluster, WatchEvent


async def batches(
    cluster: Cluster, resource: Resource, **options: Any
) -> AsyncIterator[Sequence[WatchEvent[Any]]]:
    """Ends, or raises, as the watch does, after what it told; `options` are those of `watch`."""
    told: asyncio.Queue[Sequence[WatchEvent[Any]] | None] = asyncio.Queue()
    watching = asyncio.ensure_future(cluster.watch(resource, hear=told.put_nowait, **options))
    watching.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (batch := await told.get()) is not None:
            yield batch
        await watching
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
