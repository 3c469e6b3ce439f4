"""JSON patch operations (RFC 6902), as values."""

from __future__ import annotations

from functools import lru_cache

from reconciler.core.objects import Json, JsonObject


# The same few properties are written again and again.
@lru_cache(maxsize=4096)
def pointer(*path: str | int) -> str:
    """A JSON pointer (RFC 6901); `~` and `/` inside a part are escaped."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def test(value: Json, *path: str | int) -> JsonObject:
    """Fail the whole patch unless `path` holds `value`."""
    return {"op": "test", "path": pointer(*path), "value": value}


def add(value: Json, *path: str | int) -> JsonObject:
    """Set a member, replacing the one that is there; `-` as last part appends to a list.

    The parent must exist, or the whole patch fails.
    """
    return {"op": "add", "path": pointer(*path), "value": value}
