"""A merge patch that is for one UID, where the server would not look at it.

A UID in a merge patch of `/status` is ignored by API servers, so a late status would land on an
object that was deleted and made again. As a JSON patch it can be tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.core.objects import Json, JsonObject, mapping


def uid_of(patch: JsonObject) -> str | None:
    """The UID that `patch` is for, when nothing else in it says which object it means."""
    meta = mapping(patch.get("metadata"))
    uid = meta.get("uid")
    return uid if isinstance(uid, str) and not meta.get("resourceVersion") else None


def as_json_patch(uid: str, status: Json) -> list[JsonObject]:
    """Does to the object with `uid` what merging `status` does, or fails.

    It fails, changing nothing, for another UID, and also where a map to merge into or a field to
    remove is not there: that has to be found out by reading.
    """
    return [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        *_steps("/status", status),
    ]


def _steps(path: str, value: Json) -> Iterator[JsonObject]:
    if isinstance(value, Mapping):
        # Fails unless it is a map; where it is none, or missing, merging would make it one.
        for name, child in value.items():
            yield from _steps(f"{path}/{name.replace('~', '~0').replace('/', '~1')}", child)
        if not value:
            yield {"op": "test", "path": path, "value": {}}
    elif value is None:
        yield {"op": "remove", "path": path}
    else:
        yield {"op": "add", "path": path, "value": value}
