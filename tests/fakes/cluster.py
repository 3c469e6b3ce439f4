"""A cluster in memory that fails on demand: the embedded adapter behind a fault injector."""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.drift import FieldOwner
from reconciler.core.objects import JsonObject, ObjectKey, Resource
from reconciler.errors import Forbidden
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import ClusterEvent, Page, WatchEvent


class Call(NamedTuple):
    """`detail` is the resourceVersion of a list or watch, else the key."""

    method: str
    resource: Resource
    detail: str


class FakeCluster:
    """Keeps the promises of `Cluster` except where told not to.

    `fail(method, *errors)` makes the next calls raise, one each; a watch raises when it is first
    read. `fail(..., forever=True)` keeps raising the last one until `heal`. `answer_pages` are
    given, or raised, instead of real pages. `silence` makes watches, open ones too, tell nothing until their
    timeout by the clock, as a half-open connection does, and `watch_only_batches` scripts what the
    next watch yields before it ends. Watches end by `clock`.
    """

    def __init__(self, clock: Clock) -> None:
        self.real = EmbeddedCluster(clock=clock)
        self.calls: list[Call] = []
        self.emitted: list[ClusterEvent] = []
        # Who did what to which kind, of what was not done as ourselves.
        self.acted: list[tuple[str, str, str]] = []
        self._clock = clock
        self._errors: defaultdict[str, deque[Exception]] = defaultdict(deque)
        self._lasting: dict[str, Exception] = {}
        self._pages: deque[Page | Exception] = deque()
        self._batches: deque[Sequence[Sequence[WatchEvent]]] = deque()
        self._is_silent = False
        self._account = ""
        self._refused: set[tuple[str, str]] = set()
        self._broken: asyncio.Future[None] | None = None

    def fail(self, method: str, *errors: Exception, forever: bool = False) -> None:
        self._errors[method].extend(errors)
        if forever:
            self._lasting[method] = errors[-1]

    def heal(self) -> None:
        self._errors.clear()
        self._lasting.clear()
        self._is_silent = False

    def answer_pages(self, *pages: Page | Exception) -> None:
        self._pages.extend(pages)

    def watch_only_batches(self, *batches: Sequence[WatchEvent]) -> None:
        self._batches.append(batches)

    def silence(self) -> None:
        self._is_silent = True

    def break_watches(self, error: Exception) -> None:
        """End every open watch with `error`."""
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)
        self._broken = None

    def count(self, *methods: str) -> int:
        return sum(call.method in methods for call in self.calls)

    def acting_as(self, account: ObjectKey) -> FakeCluster:
        other = copy.copy(self)
        other._account = str(account)
        return other

    def refuse(self, account: ObjectKey, method: str) -> None:
        """As RBAC does what it does not grant."""
        self._refused.add((str(account), method))

    async def resources(self) -> frozenset[Resource]:
        return await self.real.resources()

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
        self._enter("list_page", resource, resource_version)
        if self._pages:
            page = self._pages.popleft()
            if isinstance(page, Exception):
                raise page
            return page
        return await self.real.list_page(
            resource,
            namespace=namespace,
            resource_version=resource_version,
            limit=limit,
            continue_token=continue_token,
            shape=shape,
        )

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
        self._enter("watch", resource, resource_version)
        if self._batches:
            for batch in self._batches.popleft():
                hear(batch)
            return

        if self._broken is None:
            self._broken = asyncio.get_running_loop().create_future()
        broken = self._broken

        def while_it_holds(batch: Sequence[WatchEvent[Any]]) -> None:
            if not self._is_silent and not broken.done():
                hear(batch)

        ends = asyncio.ensure_future(self._clock.sleep(timeout.total_seconds()))
        watching = asyncio.ensure_future(
            self.real.watch(
                resource,
                hear=while_it_holds,
                resource_version=resource_version,
                timeout=timeout,
                namespace=namespace,
                shape=shape,
            )
        )
        waiting: set[asyncio.Future[Any]] = {watching, ends, broken}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                broken.result()
            if watching.done():
                watching.result()
        finally:
            ends.cancel()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def get(self, resource: Resource, key: ObjectKey) -> JsonObject:
        self._enter("get", resource, str(key))
        return await self.real.get(resource, key)

    async def get_owned(
        self, resource: Resource, key: ObjectKey
    ) -> tuple[JsonObject, tuple[FieldOwner, ...]]:
        self._enter("get_owned", resource, str(key))
        return await self.real.get_owned(resource, key)

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str
    ) -> JsonObject:
        self._enter("create", resource, "")
        return await self.real.create(resource, obj, field_manager=field_manager)

    async def apply(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, force: bool = False
    ) -> JsonObject:
        self._enter("apply", resource, "")
        return await self.real.apply(resource, obj, field_manager=field_manager, force=force)

    async def merge_patch(
        self,
        resource: Resource,
        key: ObjectKey,
        patch: JsonObject,
        *,
        field_manager: str,
        status: bool = False,
    ) -> JsonObject:
        self._enter("merge_patch", resource, str(key))
        return await self.real.merge_patch(
            resource, key, patch, field_manager=field_manager, status=status
        )

    async def json_patch(
        self,
        resource: Resource,
        key: ObjectKey,
        patch: Sequence[JsonObject],
        *,
        field_manager: str,
        status: bool = False,
    ) -> JsonObject:
        self._enter("json_patch", resource, str(key))
        return await self.real.json_patch(
            resource, key, patch, field_manager=field_manager, status=status
        )

    async def delete(self, resource: Resource, key: ObjectKey, *, uid: str) -> None:
        self._enter("delete", resource, str(key))
        await self.real.delete(resource, key, uid=uid)

    def report_twins(
        self, resource: Resource, key: ObjectKey, reported: Mapping[str, JsonObject]
    ) -> None:
        self.real.report_twins(resource, key, reported)

    async def emit(self, event: ClusterEvent) -> None:
        self.emitted.append(event)
        await self.real.emit(event)

    async def close(self) -> None:
        await self.real.close()

    def _enter(self, method: str, resource: Resource, detail: str) -> None:
        self.calls.append(Call(method, resource, detail))
        if self._account:
            self.acted.append((self._account, method, resource.kind))
        if (self._account, method) in self._refused:
            raise Forbidden(f"{self._account} may not {method} {resource}")
        if self._errors[method]:
            raise self._errors[method].popleft()
        if method in self._lasting:
            raise self._lasting[method]
