"""The `Cluster` port over a Kubernetes API server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from reconciler.adapters.kube.access import KubeAccess
from reconciler.adapters.kube.events import MERGE_PATCH, Recorder
from reconciler.adapters.kube.failures import FieldsInvalid, PatchRefused
from reconciler.adapters.kube.leases import KubeLeases
from reconciler.adapters.kube.ownership import owners_of
from reconciler.adapters.kube.preconditions import as_json_patch, uid_of
from reconciler.adapters.kube.reading import Lines, page_of
from reconciler.adapters.kube.transport import Transport
from reconciler.core import objects
from reconciler.core.drift import FieldOwner
from reconciler.core.objects import Json, JsonObject, ObjectKey, Resource, mapping, sequence, text
from reconciler.errors import Conflict, ObjectNotFound
from reconciler.ports.cluster import ClusterEvent, Page, WatchEvent

KNOWN = frozenset(
    {
        objects.SCRIPTS,
        objects.SCRIPT_REPOSITORIES,
        objects.DEVICES_V1BETA1,
        objects.DEVICES_V1ALPHA2,
        objects.DEVICE_MODELS_V1BETA1,
        objects.DEVICE_MODELS_V1ALPHA2,
        objects.DEVICE_STATUSES,
        objects.SECRETS,
    }
)
# Beyond the time the server was asked to end a watch by, a silent one is given up.
WATCH_GRACE = timedelta(seconds=15)
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class KubeCluster:
    """See `reconciler.ports.cluster.Cluster` for what is promised."""

    def __init__(self, transport: Transport, *, watch_grace: timedelta = WATCH_GRACE) -> None:
        self._watch_grace = watch_grace
        self._transport = transport
        self._recorder = Recorder(transport)

    def access(self, *, audience: str) -> KubeAccess:
        """Whose tokens for `audience` are, and what they may do; for as long as this is open."""
        return KubeAccess(self._transport, audience=audience)

    def leases(self, *, namespace: str) -> KubeLeases:
        """Those of `namespace`, for as long as this is open; nothing else holds up a renewal."""
        return KubeLeases(self._transport.in_front(), namespace)

    def acting_as(self, account: ObjectKey) -> KubeCluster:
        user = f"system:serviceaccount:{account.namespace}:{account.name}"
        return KubeCluster(self._transport.impersonating(user), watch_grace=self._watch_grace)

    async def resources(self) -> frozenset[Resource]:
        versions = sorted({(resource.group, resource.version) for resource in KNOWN})
        served = await asyncio.gather(*(self._served(*version) for version in versions))
        return frozenset().union(*served)

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
        query = {"limit": str(limit)}
        if continue_token:
            query["continue"] = continue_token
        elif resource_version:
            query |= {
                "resourceVersion": resource_version,
                "resourceVersionMatch": "NotOlderThan",
            }
        path = _path(resource, namespace)
        answer = page_of(
            await self._transport.read("GET", path, query=query), shape, doing=f"list {path}"
        )
        if not resource.group and shape is dict:
            # Built-in kinds do not say what they are inside a list.
            identity = {"apiVersion": resource.api_version, "kind": resource.kind}
            return replace(answer, items=[{**identity, **item} for item in answer.items])
        return answer

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
        path = _path(resource, namespace)
        seconds = timeout.total_seconds()
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        await self._transport.stream(
            path,
            query=query,
            seconds=seconds + self._watch_grace.total_seconds(),
            hear=Lines(shape, hear, doing=f"watch {path}"),
        )

    async def get(self, resource: Resource, key: ObjectKey) -> JsonObject:
        return await self._transport.call("GET", _path(resource, key.namespace, key.name))

    async def get_owned(
        self, resource: Resource, key: ObjectKey
    ) -> tuple[JsonObject, tuple[FieldOwner, ...]]:
        live = await self.get(resource, key)
        return live, owners_of(live)

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str
    ) -> JsonObject:
        return await self._transport.call(
            "POST",
            _path(resource, objects.key_of(obj).namespace),
            query={"fieldManager": field_manager},
            body=obj,
        )

    async def apply(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, force: bool = False
    ) -> JsonObject:
        try:
            return await self._apply(resource, obj, field_manager, force=force)
        except FieldsInvalid as error:
            emptied = [cause.field for cause in error.causes if '"null"' in cause.message]
            if not emptied or len(emptied) < len(error.causes):
                raise
            # Servers up to 1.20 turn a map into null when an apply takes its last entry away, and
            # then refuse the null. Taking the map away first leads to the same result.
            if not await self._remove(resource, objects.key_of(obj), emptied, field_manager):
                raise
        return await self._apply(resource, obj, field_manager, force=force)

    async def merge_patch(
        self,
        resource: Resource,
        key: ObjectKey,
        patch: JsonObject,
        *,
        field_manager: str,
        status: bool = False,
    ) -> JsonObject:
        uid = uid_of(patch)
        if status and resource.has_status and uid:
            return await self._patch_status_of(resource, key, uid, patch, field_manager)
        return await self._patch(
            resource, key, patch, MERGE_PATCH, field_manager=field_manager, status=status
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
        body = list(patch)
        try:
            return await self._patch(
                resource, key, body, JSON_PATCH, field_manager=field_manager, status=status
            )
        except PatchRefused as error:
            # A failed test and a path that is not there are told in the same words. Whoever tests
            # reads, so with a test in it either means that live has moved.
            if any(step.get("op") == "test" for step in body):
                raise Conflict(str(error)) from error
            raise

    async def delete(self, resource: Resource, key: ObjectKey, *, uid: str) -> None:
        body: JsonObject = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        try:
            await self._transport.call(
                "DELETE", _path(resource, key.namespace, key.name), body=body
            )
        except (ObjectNotFound, Conflict):
            return

    async def emit(self, event: ClusterEvent) -> None:
        await self._recorder.emit(event)

    async def close(self) -> None:
        await self._transport.close()

    async def _served(self, group: str, version: str) -> frozenset[Resource]:
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        try:
            answer = await self._transport.call("GET", path)
        except ObjectNotFound:
            return frozenset()
        names = {text(mapping(item).get("name")) for item in sequence(answer.get("resources"))}
        return frozenset(
            resource
            for resource in KNOWN
            if (resource.group, resource.version) == (group, version) and resource.plural in names
        )

    async def _apply(
        self, resource: Resource, obj: JsonObject, field_manager: str, *, force: bool
    ) -> JsonObject:
        key = objects.key_of(obj)
        return await self._transport.call(
            "PATCH",
            _path(resource, key.namespace, key.name),
            query={"fieldManager": field_manager, "force": str(force).lower()},
            body=obj,
            content_type=APPLY_PATCH,
        )

    async def _patch(
        self,
        resource: Resource,
        key: ObjectKey,
        body: Json,
        content_type: str,
        *,
        field_manager: str,
        status: bool,
    ) -> JsonObject:
        path = _path(resource, key.namespace, key.name)
        return await self._transport.call(
            "PATCH",
            f"{path}/status" if status and resource.has_status else path,
            query={"fieldManager": field_manager},
            body=body,
            content_type=content_type,
        )

    async def _patch_status_of(
        self, resource: Resource, key: ObjectKey, uid: str, patch: JsonObject, field_manager: str
    ) -> JsonObject:
        """One request as a rule; three where the status lacks what the patch builds on."""
        steps = as_json_patch(uid, patch.get("status"))
        try:
            return await self._patch(
                resource, key, steps, JSON_PATCH, field_manager=field_manager, status=True
            )
        except PatchRefused:
            meta = mapping((await self.get(resource, key)).get("metadata"))
        if meta.get("uid") != uid:
            raise Conflict(f"{resource.kind} {key} is another object now, not {uid}")
        body = {**patch, "metadata": {"resourceVersion": meta.get("resourceVersion")}}
        return await self._patch(
            resource, key, body, MERGE_PATCH, field_manager=field_manager, status=True
        )

    async def _remove(
        self, resource: Resource, key: ObjectKey, fields: Sequence[str], field_manager: str
    ) -> bool:
        """Take `fields` off the live object, unless it moves meanwhile; False: none is there."""
        live = await self.get(resource, key)
        patch: dict[str, Json] = {}
        for field in fields:
            *parents, last = field.split(".")
            holder: Json = live
            for parent in parents:
                holder = mapping(holder).get(parent)
            if last in mapping(holder):
                patch = _nested(patch, [*parents, last])
        if not patch:
            return False
        version = mapping(live.get("metadata")).get("resourceVersion")
        patch["metadata"] = {**mapping(patch.get("metadata")), "resourceVersion": version}
        await self.merge_patch(resource, key, patch, field_manager=field_manager)
        return True


def _nested(patch: Mapping[str, Json], path: Sequence[str]) -> dict[str, Json]:
    """`patch` with null at `path`."""
    first, *rest = path
    return {**patch, first: _nested(mapping(patch.get(first)), rest) if rest else None}


def _path(resource: Resource, namespace: str | None, name: str | None = None) -> str:
    group = "/apis/" + resource.group if resource.group else "/api"
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace and resource.namespaced else ""
    tail = f"/{quote(name, safe='')}" if name is not None else ""
    return f"{group}/{resource.version}{scope}/{resource.plural}{tail}"
