"""The loop that keeps a copy of one kind: it lists and watches as `core.reflector` says."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Generic, TypeVar, assert_never

from reconciler.core import reflector
from reconciler.core.documents import Document
from reconciler.core.objects import JsonObject, ObjectKey, Resource
from reconciler.core.reflector import Failure
from reconciler.core.store import Delta, Entry, Identity, Store, identity_of, is_older
from reconciler.errors import (
    Expired,
    ObjectNotFound,
    ScriptOpsError,
    Throttled,
)
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster, WatchEvent

D = TypeVar("D", bound=JsonObject | Document)
T = TypeVar("T")

# 500 objects of 3 KB: a page takes about 20 ms of CPU to read, so other loops get their turn.
PAGE_ITEMS = 500

log = logging.getLogger(__name__)


def _no_report(key: ObjectKey, error: ScriptOpsError) -> None:
    """Whoever does not ask for reports has them in the log."""


class Reflector(Generic[D, T]):
    """Keeps `store` equal to what the cluster holds of `resource`, as decoded by `decode`.

    Objects come in `shape`: a `Document` with the fields that `decode` reads, or a `dict`.

    `on_deltas` hears of every difference, in the order it was put into the store, after it was; it
    must be quick, and what it raises ends the loop. `decode` raises `ScriptOpsError` for an object
    that it cannot read: that object keeps the record it had, if any, `on_undecodable` hears of it,
    and nothing else is held up. `synced` is set once the store holds a complete list.

    Belongs to one event loop. Not promised: that equal records are told apart; an object whose new
    version decodes to an equal record is no delta.
    """

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource,
        *,
        shape: type[D],
        decode: Callable[[D], T],
        store: Store[T],
        clock: Clock,
        on_deltas: Callable[[Sequence[Delta[T]]], None],
        on_undecodable: Callable[[ObjectKey, ScriptOpsError], None] = _no_report,
        namespace: str | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._cluster = cluster
        self._resource = resource
        self._decode = decode
        self._store = store
        self._clock = clock
        self._on_deltas = on_deltas
        self._on_undecodable = on_undecodable
        self._shape = shape
        self._namespace = namespace
        self._chance = chance
        self._read: dict[ObjectKey, Entry[T]] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        state, effects = reflector.start()
        while True:
            event: reflector.Event = reflector.Rested()
            for effect in effects:
                match effect:
                    case reflector.List():
                        event = await self._list(effect)
                    case reflector.Replace():
                        self._replace()
                    case reflector.Watch():
                        state, event = await self._watch(state, effect)
                    case reflector.Rest(seconds):
                        await self._clock.sleep(seconds)
                    case _:
                        assert_never(effect)
            state, effects = self._step(state, event)

    def _step(self, state: reflector.State, event: reflector.Event) -> reflector.Step:
        return reflector.step(state, event, self._clock.monotonic(), chance=self._chance())

    async def _list(self, asked: reflector.List) -> reflector.PageRead | reflector.Failed:
        if asked.continue_token is None:
            self._read = {}
        try:
            page = await self._cluster.list_page(
                self._resource,
                namespace=self._namespace,
                resource_version=asked.resource_version,
                limit=PAGE_ITEMS,
                continue_token=asked.continue_token,
                shape=self._shape,
            )
        except ScriptOpsError as error:
            return self._failed("list", error)
        for item in page.items:
            self._take_listed(item)
        return reflector.PageRead(page.resource_version, page.continue_token)

    async def _watch(
        self, state: reflector.State, asked: reflector.Watch
    ) -> tuple[reflector.State, reflector.Ended | reflector.Failed]:
        newest: str | None = None

        def hear(batch: Sequence[WatchEvent[D]]) -> None:
            nonlocal newest
            version = self._take_changes(batch)
            if newest is None or (version and not is_older(version, newest)):
                newest = version

        event: reflector.Ended | reflector.Failed = reflector.Ended()
        try:
            await self._cluster.watch(
                self._resource,
                hear=hear,
                resource_version=asked.resource_version,
                timeout=timedelta(seconds=asked.seconds),
                namespace=self._namespace,
                shape=self._shape,
            )
        except ScriptOpsError as error:
            event = self._failed("watch", error)
        if newest is not None:
            # Once for the whole watch: only its end asks where it had come to.
            state, _ = self._step(state, reflector.Moved(newest))
        return state, event

    def _take_listed(self, obj: D) -> None:
        identity = identity_of(obj)
        held = self._store.entry(identity.key)
        if held is not None and held[:2] != identity[1:]:
            entry = self._decoded(identity, obj)
            # What cannot be read keeps its record, unless that was another object's.
            held = held if entry is None and held.uid == identity.uid else entry
        elif held is None:
            held = self._decoded(identity, obj)
        if held is not None:
            self._read[identity.key] = held

    def _take_changes(self, batch: Sequence[WatchEvent[D]]) -> str:
        """Put a batch into the store; the version that it leads to."""
        deltas: list[Delta[T]] = []
        version = ""
        for kind, obj in batch:
            identity = identity_of(obj)
            version = identity.resource_version
            if kind == "BOOKMARK":
                continue
            if kind == "DELETED":
                deltas += self._store.remove(identity)
            elif self._store.is_news(identity):
                entry = self._decoded(identity, obj)
                if entry is not None:
                    deltas += self._store.put(identity.key, entry)
        self._tell(deltas)
        return version

    def _replace(self) -> None:
        read, self._read = self._read, {}
        self._tell(self._store.replace(read))
        self.synced.set()

    def _tell(self, deltas: Sequence[Delta[T]]) -> None:
        if deltas:
            self._on_deltas(deltas)

    def _decoded(self, identity: Identity, obj: D) -> Entry[T] | None:
        try:
            record = self._decode(obj)
        except ScriptOpsError as error:
            log.warning(
                "object not understood",
                extra={"kind": self._resource.kind, "key": str(identity.key), "error": str(error)},
            )
            self._on_undecodable(identity.key, error)
            return None
        return Entry(identity.uid, identity.resource_version, record)

    def _failed(self, doing: str, error: ScriptOpsError) -> reflector.Failed:
        log.warning(
            "reflector interrupted",
            extra={
                "resource": str(self._resource),
                "doing": doing,
                "reason": error.reason,
                "error": str(error),
            },
        )
        match error:
            case Expired():
                return reflector.Failed(Failure.EXPIRED)
            case ObjectNotFound():
                return reflector.Failed(Failure.ABSENT)
            case Throttled(retry_after=timedelta() as asked):
                return reflector.Failed(Failure.THROTTLED, asked.total_seconds())
            case Throttled():
                return reflector.Failed(Failure.THROTTLED)
            case _:
                return reflector.Failed(Failure.OTHER)
