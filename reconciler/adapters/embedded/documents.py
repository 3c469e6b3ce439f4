"""How a document may change: what the writer chooses, and what only the cluster sets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import jsonpatch
import jsonpointer

from reconciler.adapters.embedded import patching
from reconciler.core import objects
from reconciler.core.objects import Json, JsonObject, Resource, mapping
from reconciler.errors import Conflict, ObjectInvalid

SERVED = frozenset(
    {
        objects.SCRIPTS,
        objects.SCRIPT_REPOSITORIES,
        objects.DEVICES_V1BETA1,
        objects.DEVICE_MODELS_V1BETA1,
        objects.SECRETS,
    }
)
# What the CRDs default, so that a new object reads as in progress.
_DEFAULT_STATUS: JsonObject = {"observedGeneration": -1}
# DNS subdomains, as everywhere in Kubernetes.
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SET_BY_CLUSTER = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "selfLink",
)


def new(resource: Resource, given: JsonObject, *, uid: str, now: str) -> dict[str, Json]:
    """The document of a new object. Raises `ObjectInvalid`."""
    check_identity(resource, given)
    meta = dict(mapping(given.get("metadata")))
    if meta.pop("resourceVersion", None):
        raise ObjectInvalid(f"{objects.reference_of(given)}: resourceVersion must not be set")
    for name in _SET_BY_CLUSTER:
        meta.pop(name, None)
    meta |= {"uid": uid, "creationTimestamp": now, "generation": 1}
    document = {**given, "metadata": meta}
    if resource.has_status:
        document["status"] = _DEFAULT_STATUS
    return document


def check_identity(resource: Resource, given: JsonObject) -> None:
    reference = objects.reference_of(given)
    if (given.get("apiVersion"), given.get("kind")) != (resource.api_version, resource.kind):
        raise ObjectInvalid(
            f"{reference}: apiVersion and kind must be {resource.api_version} {resource.kind}"
        )
    if not all(map(_NAME.fullmatch, (reference.namespace, reference.name))):
        raise ObjectInvalid(
            f"{reference}: namespace and name must be lower case letters, digits, '-' and '.'"
        )


def settle(
    resource: Resource, live: JsonObject, wanted: JsonObject, *, status: bool
) -> dict[str, Json]:
    """What becomes of `live` when a writer wants `wanted`; equal to `live` when nothing does.

    A UID or resourceVersion that is not live's raises `Conflict`; a finalizer added to an object
    that is being deleted, or another identity, raises `ObjectInvalid`.
    """
    meta, was = dict(mapping(wanted.get("metadata"))), mapping(live.get("metadata"))
    reference = objects.reference_of(live)
    for name in ("uid", "resourceVersion"):
        if meta.get(name, was.get(name)) != was.get(name):
            raise Conflict(f"{reference} has another {name} now")
        meta[name] = was.get(name)
    if objects.reference_of(wanted) != reference:
        raise ObjectInvalid(f"{reference}: kind, namespace and name cannot change")
    if status and resource.has_status:
        return {**live, "status": wanted.get("status")} if "status" in wanted else dict(live)
    for name in _SET_BY_CLUSTER:
        meta.pop(name, None)
        if name in was:
            meta[name] = was[name]
    added = set(finalizers(wanted)) - set(finalizers(live))
    if added and "deletionTimestamp" in was:
        raise ObjectInvalid(f"{reference} is being deleted and takes no new finalizer")
    settled = {**wanted, "metadata": meta}
    if resource.has_status:
        settled.pop("status", None)
        if "status" in live:
            settled["status"] = live["status"]
    if _counted(resource, settled) != _counted(resource, live):
        meta["generation"] = generation(live) + 1
    return settled


def merge_patched(live: Json, patch: Json) -> Json:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(mapping(live))
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patched(result.get(name), value)
    return result


def json_patched(live: JsonObject, patch: Sequence[JsonObject]) -> JsonObject:
    """RFC 6902. Raises `Conflict` for a failed test, or a path that is gone in a patch that tests;
    `ObjectInvalid` for other paths that are not there and for what is no patch.
    """
    try:
        return patching.applied(live, patch)
    except jsonpatch.JsonPatchTestFailed as error:
        raise Conflict(f"{objects.reference_of(live)}: {error}") from error
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        tests = any(step.get("op") == "test" for step in patch)
        raise (Conflict if tests else ObjectInvalid)(
            f"{objects.reference_of(live)}: {error}"
        ) from error


def deleting(live: JsonObject, *, now: str) -> dict[str, Json]:
    """`live`, marked: it goes when its last finalizer does."""
    meta = {
        **mapping(live.get("metadata")),
        "deletionTimestamp": now,
        "deletionGracePeriodSeconds": 0,
        "generation": generation(live) + 1,
    }
    return {**live, "metadata": meta}


def is_gone(document: JsonObject) -> bool:
    is_marked = "deletionTimestamp" in mapping(document.get("metadata"))
    return is_marked and not finalizers(document)


def finalizers(document: JsonObject) -> tuple[str, ...]:
    listed = objects.sequence(mapping(document.get("metadata")).get("finalizers"))
    return tuple(objects.text(item) for item in listed)


def generation(document: JsonObject) -> int:
    value = mapping(document.get("metadata")).get("generation")
    return value if isinstance(value, int) else 0


def with_reported(live: JsonObject, reported: Mapping[str, JsonObject]) -> dict[str, Json]:
    """`live` with twins merged into `status.twins` by property name; new ones come last."""
    status = mapping(live.get("status"))
    twins = {
        objects.text(mapping(twin).get("propertyName")): mapping(twin)
        for twin in objects.sequence(status.get("twins"))
    }
    for name, twin in reported.items():
        twins[name] = {"propertyName": name, **twins.get(name, {}), **twin}
    return {**live, "status": {**status, "twins": list(twins.values())}}


def _counted(resource: Resource, document: JsonObject) -> dict[str, Json]:
    """The parts whose changes `generation` counts."""
    uncounted = {"metadata", "status"} if resource.has_status else {"metadata"}
    return {name: value for name, value in document.items() if name not in uncounted}
