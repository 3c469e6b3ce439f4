"""Events for `kubectl describe`: repeats are counted in one object, not multiplied."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from datetime import UTC, datetime

import orjson

from reconciler.adapters.kube.transport import Transport
from reconciler.core.objects import JsonObject
from reconciler.errors import ObjectExists, ObjectNotFound, ScriptOpsError
from reconciler.ports.cluster import ClusterEvent

# The server forgets events after an hour; at most 20 different ones a second stay countable so.
REMEMBERED = 4096
# A repeat within this time is counted here and told with the next one: 6 writes a minute at most.
REPEAT_SECONDS = 10.0
MESSAGE_CHARACTERS = 1024
COMPONENT = "scriptops"
MERGE_PATCH = "application/merge-patch+json"

log = logging.getLogger(__name__)


class _Told:
    __slots__ = ("count", "first", "written")

    def __init__(self, first: str) -> None:
        self.first = first
        self.count = 0
        self.written = float("-inf")


class Recorder:
    """Writes events, best effort: a fault is logged at DEBUG and forgotten."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._told: OrderedDict[str, _Told] = OrderedDict()

    async def emit(self, event: ClusterEvent) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = _name(event)
        told = self._told.setdefault(name, _Told(now))
        self._told.move_to_end(name)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        told.count += 1
        moment = asyncio.get_running_loop().time()
        if moment - told.written < REPEAT_SECONDS:
            return
        told.written = moment
        try:
            await self._write(event, name, told, now)
        except ScriptOpsError as error:
            log.debug("event lost", extra={"reason": error.reason, "error": str(error)})

    async def _write(self, event: ClusterEvent, name: str, told: _Told, now: str) -> None:
        folder = f"/api/v1/namespaces/{event.regarding.namespace}/events"
        repeat: JsonObject = {"count": told.count, "lastTimestamp": now}
        if told.count > 1:
            try:
                await self._patch(f"{folder}/{name}", repeat)
            except ObjectNotFound:
                told.count, told.first = 1, now
            else:
                return
        document = _document(event, name, told, now)
        try:
            await self._transport.call("POST", folder, body=document)
        except ObjectExists:
            # Told before a restart of ours; its count goes on from what we know.
            await self._patch(f"{folder}/{name}", repeat)

    async def _patch(self, path: str, patch: JsonObject) -> None:
        await self._transport.call("PATCH", path, body=patch, content_type=MERGE_PATCH)


def _name(event: ClusterEvent) -> str:
    """Equal for repeats, also after a restart."""
    told = orjson.dumps([event.uid, event.type, event.reason, event.message])
    digest = hashlib.sha256(told).hexdigest()[:16]
    return f"{event.regarding.name[:200]}.{digest}"


def _document(event: ClusterEvent, name: str, told: _Told, now: str) -> JsonObject:
    regarding = event.regarding
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": regarding.namespace},
        "involvedObject": {
            "apiVersion": event.api_version,
            "kind": regarding.kind,
            "namespace": regarding.namespace,
            "name": regarding.name,
            "uid": event.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:MESSAGE_CHARACTERS],
        "count": told.count,
        "firstTimestamp": told.first,
        "lastTimestamp": now,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
    }
