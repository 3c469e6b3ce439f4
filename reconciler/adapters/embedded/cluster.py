"""The `Cluster` port in one process."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson

from reconciler.adapters.embedded import documents, ownership
from reconciler.adapters.embedded.history import Change, History
from reconciler.adapters.embedded.journal import Journal, Row, snapshot
from reconciler.adapters.embedded.ledger import Ledger
from reconciler.core.drift import FieldOwner
from reconciler.core.objects import (
    Json,
    JsonObject,
    ObjectKey,
    Reference,
    Resource,
    key_of,
    mapping,
)
from reconciler.errors import (
    Conflict,
    Expired,
    Forbidden,
    ObjectExists,
    ObjectInvalid,
    ObjectNotFound,
    Stalled,
)
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import ClusterEvent, Page, WatchEvent

# etcd's limit: what is refused elsewhere is refused here.
DOCUMENT_BYTES = 1_500_000
# Added to the version at every start, so that none is used twice: versions that were given out and
# not written in the last second before a crash are fewer than this.
VERSIONS_SKIPPED = 1_000_000
# Lists that are read page by page keep what they began with; the oldest of more than these expire.
OPEN_LISTS = 16
EVENTS_KEPT = 1000

Validate = Callable[[Resource, JsonObject], None]


class _Held(NamedTuple):
    uid: str
    version: int
    document: bytes
    owners: bytes


@dataclass(frozen=True, slots=True)
class CountedEvent:
    event: ClusterEvent
    count: int
    first: float
    last: float


def _accept(resource: Resource, document: JsonObject) -> None:
    """What is valid is for whoever opens the cluster to say."""


class EmbeddedCluster:
    """See `reconciler.ports.cluster.Cluster` for what is promised.

    A write that returned survives a loss of power; watches tell of it no sooner. What
    `report_twins` was given is at most a second behind on disk. When the disk fails, what was not
    durable is taken back, its writers get `ClusterUnavailable` and watches `Expired`.

    Belongs to one event loop. One process writes to a folder at a time; others may open it
    read-only, and then see the state of that moment.
    """

    def __init__(self, *, clock: Clock, validate: Validate = _accept) -> None:
        """An empty cluster that lives as long as this object."""
        self._clock = clock
        self._validate = validate
        self._is_read_only = False
        self._version = VERSIONS_SKIPPED
        self._kinds: dict[str, dict[ObjectKey, _Held]] = {_kind(r): {} for r in documents.SERVED}
        self._histories = {kind: History(self._version) for kind in self._kinds}
        self._lists: OrderedDict[str, tuple[int, Sequence[bytes]]] = OrderedDict()
        self._events: OrderedDict[ClusterEvent, CountedEvent] = OrderedDict()
        self._ledger = Ledger(
            publish=lambda kind, change: self._histories[kind].add(change),
            current=self._row,
            reload=lambda rows: self._restore(self._version, rows),
        )

    @classmethod
    async def open(
        cls, folder: Path, *, clock: Clock, validate: Validate = _accept, read_only: bool = False
    ) -> EmbeddedCluster:
        """The cluster kept in `folder`. Raises `Stalled` when it is in use, or cannot be read."""
        cluster = cls(clock=clock, validate=validate)
        cluster._is_read_only = read_only
        if read_only:
            cluster._restore(*await asyncio.to_thread(snapshot, folder))
            return cluster
        loop = asyncio.get_running_loop()
        journal = await asyncio.to_thread(
            Journal,
            folder,
            written=lambda ticket: _tell(loop, cluster._ledger.written, ticket),
            failed=lambda error: _tell(loop, cluster._ledger.lost, error),
        )
        cluster._restore(*await asyncio.to_thread(journal.load))
        cluster._ledger.begin(journal)
        return cluster

    def acting_as(self, account: ObjectKey) -> EmbeddedCluster:
        raise Stalled(
            f"there is no ServiceAccount {account}: the embedded cluster knows none, nor rights; "
            "remove spec.serviceAccountName",
            reason="ServiceAccountsNotServed",
        )

    async def resources(self) -> frozenset[Resource]:
        return documents.SERVED

    async def list_page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        resource_version: str = "",
        limit: int = 500,
        continue_token: str | None = None,
        shape: type[Any] = dict,
    ) -> Page[Any]:
        held = self._objects(resource)
        if continue_token:
            version, remaining = self._lists.pop(continue_token, (0, ()))
            if not version:
                raise Expired("the continue token is too old, list again")
        else:
            version = self._version
            if resource_version and _number(resource_version) > version:
                raise Expired(f"resourceVersion {resource_version} has not been reached here")
            remaining = [
                held[key].document
                for key in sorted(held)
                if namespace is None or key.namespace == namespace
            ]
        token = None
        if 0 < limit < len(remaining):
            token = uuid.uuid4().hex
            self._lists[token] = (version, remaining[limit:])
            if len(self._lists) > OPEN_LISTS:
                self._lists.popitem(last=False)
            remaining = remaining[:limit]
        items = [msgspec.json.decode(document, type=shape) for document in remaining]
        return Page(items, str(version), token)

    async def watch(
        self,
        resource: Resource,
        *,
        hear: Callable[[Sequence[WatchEvent[Any]]], None],
        resource_version: str,
        timeout: timedelta,
        namespace: str | None = None,
        shape: type[Any] = dict,
    ) -> None:
        self._objects(resource)
        history = self._histories[_kind(resource)]
        deadline = asyncio.get_running_loop().time() + timeout.total_seconds()
        seen = _number(resource_version)
        if seen > self._version:
            raise Expired(f"resourceVersion {resource_version} has not been reached here")
        while True:
            moved = history.moved
            changes = history.after(seen)
            if changes:
                seen = changes[-1].version
            events = [
                WatchEvent(change.type, msgspec.json.decode(change.document, type=shape))
                for change in changes
                if namespace is None or change.namespace == namespace
            ]
            if events:
                hear(events)
                # Others get their turn, as they would while a network is waited for.
                await asyncio.sleep(0)
                continue
            try:
                async with asyncio.timeout_at(deadline):
                    await moved.wait()
            except TimeoutError:
                return

    async def get(self, resource: Resource, key: ObjectKey) -> JsonObject:
        return mapping(orjson.loads(self._held(resource, key).document))

    async def get_owned(
        self, resource: Resource, key: ObjectKey
    ) -> tuple[JsonObject, tuple[FieldOwner, ...]]:
        held = self._held(resource, key)
        return mapping(orjson.loads(held.document)), tuple(
            FieldOwner(name.rpartition("/")[0], fields)
            for name, fields in sorted(_owners(held.owners).items())
        )

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str
    ) -> JsonObject:
        key = key_of(obj)
        if key in self._objects(resource):
            raise ObjectExists(f"{resource.kind} {key} already exists")
        document = documents.new(resource, obj, uid=str(uuid.uuid4()), now=self._now())
        owners = ownership.updated({}, document, {}, manager=field_manager)
        return await self._write(resource, key, None, document, _packed(owners))

    async def apply(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, force: bool = False
    ) -> JsonObject:
        documents.check_identity(resource, obj)
        key = key_of(obj)
        held = self._objects(resource).get(key)
        if held is None and mapping(obj.get("metadata")).get("uid"):
            raise Conflict(f"{resource.kind} {key} is gone; there is none of that UID")
        given = {n: v for n, v in obj.items() if n != "status" or not resource.has_status}
        if held is None:
            document = documents.new(resource, given, uid=str(uuid.uuid4()), now=self._now())
            owners: ownership.Owners = {f"{field_manager}/Apply": ownership.fields(given)}
            return await self._write(resource, key, None, document, _packed(owners))
        live = orjson.loads(held.document)
        merged, owners = ownership.apply(
            live, _owners(held.owners), given, manager=field_manager, force=force
        )
        settled = documents.settle(resource, live, merged, status=False)
        return await self._write(resource, key, live, settled, _packed(owners))

    async def merge_patch(
        self,
        resource: Resource,
        key: ObjectKey,
        patch: JsonObject,
        *,
        field_manager: str,
        status: bool = False,
    ) -> JsonObject:
        held = self._held(resource, key)
        live = orjson.loads(held.document)
        wanted = mapping(documents.merge_patched(live, patch))
        return await self._update(resource, key, held, live, wanted, field_manager, status=status)

    async def json_patch(
        self,
        resource: Resource,
        key: ObjectKey,
        patch: Sequence[JsonObject],
        *,
        field_manager: str,
        status: bool = False,
    ) -> JsonObject:
        held = self._held(resource, key)
        live = orjson.loads(held.document)
        wanted = documents.json_patched(live, patch)
        return await self._update(resource, key, held, live, wanted, field_manager, status=status)

    async def delete(self, resource: Resource, key: ObjectKey, *, uid: str) -> None:
        held = self._objects(resource).get(key)
        if held is None or held.uid != uid:
            return
        live = orjson.loads(held.document)
        if "deletionTimestamp" not in live["metadata"]:
            marked = documents.deleting(live, now=self._now())
            await self._write(resource, key, live, marked, held.owners)

    def report_twins(
        self, resource: Resource, key: ObjectKey, reported: Mapping[str, JsonObject]
    ) -> None:
        """Merge reported twins into `status.twins` by property name, as the cloud does.

        Watches hear of it at once; on disk it is within a second. Raises `ObjectNotFound`.
        """
        self._check_writable()
        held = self._held(resource, key)
        live = orjson.loads(held.document)
        wanted = documents.with_reported(live, reported)
        settled = documents.settle(resource, live, wanted, status=False)
        if settled == live:
            return
        version, body = self._stamp(resource, key, settled)[1:]
        kind = _kind(resource)
        self._kinds[kind][key] = held._replace(version=version, document=body)
        self._ledger.write_behind(kind, key, Change(version, "MODIFIED", key.namespace, body))

    async def emit(self, event: ClusterEvent) -> None:
        now = self._clock.now()
        told = self._events.pop(event, None)
        self._events[event] = (
            CountedEvent(event, 1, now, now)
            if told is None
            else CountedEvent(event, told.count + 1, told.first, now)
        )
        if len(self._events) > EVENTS_KEPT:
            self._events.popitem(last=False)

    def events(self, regarding: Reference) -> tuple[CountedEvent, ...]:
        """What was emitted about an object since the start, newest last."""
        return tuple(e for e in self._events.values() if e.event.regarding == regarding)

    async def close(self) -> None:
        """Everything given is durable when this returns."""
        self._is_read_only = True
        await self._ledger.close()

    # Writing.

    async def _update(
        self,
        resource: Resource,
        key: ObjectKey,
        held: _Held,
        live: JsonObject,
        wanted: JsonObject,
        field_manager: str,
        *,
        status: bool,
    ) -> JsonObject:
        settled = documents.settle(resource, live, wanted, status=status)
        before = _owners(held.owners)
        owners = ownership.updated(live, settled, before, manager=field_manager)
        packed = held.owners if owners is before else _packed(owners)
        return await self._write(resource, key, live, settled, packed)

    async def _write(
        self,
        resource: Resource,
        key: ObjectKey,
        live: JsonObject | None,
        document: dict[str, Json],
        packed: bytes,
    ) -> JsonObject:
        """Make `document` the object's state; it is durable when this returns."""
        self._check_writable()
        if document == live:
            self._own(resource, key, packed)
            return document
        if "deletionTimestamp" not in mapping(document["metadata"]):
            # What became invalid must still be possible to remove.
            self._validate(resource, document)
        kind = _kind(resource)
        written, version, body = self._stamp(resource, key, document)
        if documents.is_gone(written):
            del self._kinds[kind][key]
            row = Row(kind, *key, version, None)
            change = Change(version, "DELETED", key.namespace, body)
        else:
            uid = str(mapping(written["metadata"])["uid"])
            self._kinds[kind][key] = _Held(uid, version, body, packed)
            row = Row(kind, *key, version, body, packed)
            change = Change(version, "MODIFIED" if live else "ADDED", key.namespace, body)
        await self._ledger.durable(self._ledger.write(row, change))
        return written

    def _stamp(
        self, resource: Resource, key: ObjectKey, document: Mapping[str, Json]
    ) -> tuple[JsonObject, int, bytes]:
        """`document` with the next version, that version, and its JSON."""
        version = self._version + 1
        meta = {**mapping(document["metadata"]), "resourceVersion": str(version)}
        stamped = {**document, "metadata": meta}
        body = orjson.dumps(stamped)
        if len(body) > DOCUMENT_BYTES:
            raise ObjectInvalid(f"{resource.kind} {key} is larger than {DOCUMENT_BYTES} bytes")
        self._version = version
        return stamped, version, body

    def _own(self, resource: Resource, key: ObjectKey, owners: bytes) -> None:
        """Owners alone are no new version."""
        held = self._held(resource, key)
        if held.owners != owners:
            kind = _kind(resource)
            self._kinds[kind][key] = held._replace(owners=owners)
            self._ledger.write(Row(kind, *key, held.version, held.document, owners))

    def _row(self, kind: str, key: ObjectKey) -> Row | None:
        held = self._kinds[kind].get(key)
        return held and Row(kind, *key, held.version, held.document, held.owners)

    def _restore(self, newest: int, rows: Sequence[Row]) -> None:
        self._version = newest + VERSIONS_SKIPPED
        self._lists.clear()
        for held in self._kinds.values():
            held.clear()
        for kind, namespace, name, version, document, owners in rows:
            if kind in self._kinds and document is not None:
                uid = orjson.loads(document)["metadata"]["uid"]
                key = ObjectKey(namespace, name)
                self._kinds[kind][key] = _Held(uid, version, document, owners)
        for history in self._histories.values():
            history.forget(self._version)

    # Reading.

    def _objects(self, resource: Resource) -> dict[ObjectKey, _Held]:
        if resource not in documents.SERVED:
            raise ObjectNotFound(f"{resource} is not served here")
        return self._kinds[_kind(resource)]

    def _held(self, resource: Resource, key: ObjectKey) -> _Held:
        held = self._objects(resource).get(key)
        if held is None:
            raise ObjectNotFound(f"{resource.kind} {key} not found")
        return held

    def _check_writable(self) -> None:
        if self._is_read_only:
            raise Forbidden("this data folder is open for reading only; stop the other scriptops")

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _kind(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}"


def _number(resource_version: str) -> int:
    if not resource_version.isdecimal():
        raise Expired(f"{resource_version!r} is no resourceVersion of this cluster")
    return int(resource_version)


# Objects of one kind have mostly the same owners.
@lru_cache(maxsize=1024)
def _owners(packed: bytes) -> ownership.Owners:
    return {
        name: frozenset(tuple(path) for path in paths)
        for name, paths in orjson.loads(packed).items()
    }


def _packed(owners: ownership.Owners) -> bytes:
    return orjson.dumps({name: sorted(paths) for name, paths in sorted(owners.items())})


def _tell(loop: asyncio.AbstractEventLoop, hear: Callable[..., None], what: object) -> None:
    """Call `hear` in the loop from another thread; a loop that is gone has nobody to tell."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(hear, what)
