"""The cluster: objects with resourceVersions, listed, watched, applied and patched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, overload

from reconciler.core.drift import FieldOwner
from reconciler.core.objects import JsonObject, ObjectKey, Reference, Resource

D = TypeVar("D")


class WatchEvent(NamedTuple, Generic[D]):
    """One line of a watch. A BOOKMARK's object holds only `metadata.resourceVersion`.

    `ERROR` never appears: errors are raised.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: D


@dataclass(frozen=True, slots=True)
class Page(Generic[D]):
    """Part of a list. `resource_version` is the list's, equal on all pages of one list."""

    items: Sequence[D]
    resource_version: str
    continue_token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent:
    """What `kubectl describe` shows under Events. `regarding` must exist, `uid` is its UID."""

    regarding: Reference
    api_version: str
    uid: str
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class Cluster(Protocol):
    """A Kubernetes API server, or the embedded store that promises the same here.

    Promised by every implementation:

    - `resourceVersion` of an object changes with every write that changed it, and with no other.
    - A watch from the resourceVersion of a list misses nothing after it; when it no longer can, it
      raises `Expired` (before or between events).
    - Writes to one object are atomic; `metadata.generation` rises with every change of spec. Where
      the resource has a status subresource, a write of the main resource leaves status alone and
      the other way round; where it has none, generation rises with status changes too.
    - `apply` is server-side apply: fields given are set and owned by `field_manager`; fields that
      this manager set before and now leaves out are removed; all others stay.
    - A delete of an object with finalizers only marks it; it goes when the last finalizer does.

    Not promised: that resourceVersions can be compared, order between different objects, that
    bookmarks come, or that a DELETED event holds the newest state.

    Errors, all methods: `ClusterUnavailable`, `Throttled`, `Forbidden`; others as said. Every call
    ends in bounded time. All results are fresh objects that the caller may keep, none may be
    changed in place.
    """

    def acting_as(self, account: ObjectKey) -> Cluster:
        """The same cluster, asked with the rights of a ServiceAccount and no others.

        It is open as long as this one. Raises `Stalled` with reason ServiceAccountsNotServed where
        there are none.
        """
        ...

    async def resources(self) -> frozenset[Resource]:
        """Which of the kinds in `core.objects` this cluster serves now."""
        ...

    @overload
    async def list_page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        resource_version: str = "",
        limit: int = 500,
        continue_token: str | None = None,
    ) -> Page[JsonObject]: ...

    @overload
    async def list_page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        resource_version: str = "",
        limit: int = 500,
        continue_token: str | None = None,
        shape: type[D],
    ) -> Page[D]: ...

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
        """One page of the objects of a kind, in all namespaces where `namespace` is None.

        `resource_version` is "" for the newest, or a version the answer must not be older than.
        `shape` is a `core.documents.Document` with the fields that the caller reads, or `dict` for
        whole objects. Raises `Expired` when the continue token is too old, `ObjectNotFound` when
        the kind is not served.
        """
        ...

    @overload
    async def watch(
        self,
        resource: Resource,
        *,
        hear: Callable[[Sequence[WatchEvent[JsonObject]]], None],
        resource_version: str,
        timeout: timedelta,
        namespace: str | None = None,
    ) -> None: ...

    @overload
    async def watch(
        self,
        resource: Resource,
        *,
        hear: Callable[[Sequence[WatchEvent[D]]], None],
        resource_version: str,
        timeout: timedelta,
        namespace: str | None = None,
        shape: type[D],
    ) -> None: ...

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
        """Call `hear` with changes after `resource_version`, in batches as they arrive.

        Returns after `timeout`, also when the peer has fallen silent (then shortly after). `hear`
        is quick; what it raises ends the watch and is raised here. `shape` as for a list. Raises
        `Expired`, `ObjectNotFound`.
        """
        ...

    async def get(self, resource: Resource, key: ObjectKey) -> JsonObject:
        """Raises `ObjectNotFound`."""
        ...

    async def get_owned(
        self, resource: Resource, key: ObjectKey
    ) -> tuple[JsonObject, tuple[FieldOwner, ...]]:
        """The object, and who set which of its fields. Raises `ObjectNotFound`.

        Of a field that several have set to the same value each is told, of one that was set anew
        the newest only; nobody owns what was removed.
        """
        ...

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str
    ) -> JsonObject:
        """Raises `ObjectExists`, `ObjectInvalid`, and `ObjectNotFound` without its namespace."""
        ...

    async def apply(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, force: bool = False
    ) -> JsonObject:
        """Create or change an object by server-side apply of its main resource.

        Raises `Conflict` when another manager owns a field and `force` is not set, `ObjectInvalid`.
        """
        ...

    async def merge_patch(
        self,
        resource: Resource,
        key: ObjectKey,
        patch: JsonObject,
        *,
        field_manager: str,
        status: bool = False,
    ) -> JsonObject:
        """RFC 7386, of `/status` where `status` is set (and the resource has it).

        A `metadata.resourceVersion` or `metadata.uid` in the patch is a precondition. Raises
        `Conflict`, `ObjectNotFound`, `ObjectInvalid`.
        """
        ...

    async def json_patch(
        self,
        resource: Resource,
        key: ObjectKey,
        patch: Sequence[JsonObject],
        *,
        field_manager: str,
        status: bool = False,
    ) -> JsonObject:
        """RFC 6902. A `test` that fails raises `Conflict` and changes nothing."""
        ...

    async def delete(self, resource: Resource, key: ObjectKey, *, uid: str) -> None:
        """Delete the object that has this UID; one that is gone, or is another, is no error."""
        ...

    async def emit(self, event: ClusterEvent) -> None:
        """Record an event; repeats of the same are counted, not multiplied. Best effort."""
        ...

    async def close(self) -> None: ...
