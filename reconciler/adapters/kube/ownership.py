"""Who set which field, out of an object's managedFields."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core.drift import FieldOwner, Path
from reconciler.core.objects import Json, JsonObject, mapping, sequence, text


def owners_of(obj: JsonObject) -> tuple[FieldOwner, ...]:
    """One for each manager and way of writing; what was written to subresources is left out."""
    entries = map(mapping, sequence(mapping(obj.get("metadata")).get("managedFields")))
    return tuple(
        FieldOwner(text(entry.get("manager")), frozenset(_paths(entry.get("fieldsV1"), ())))
        for entry in entries
        if not entry.get("subresource")
    )


def _paths(fields: Json, path: Path) -> Iterator[Path]:
    """Leaves of a FieldsV1. An item of a list counts as the list."""
    below = [
        (name.removeprefix("f:"), child)
        for name, child in mapping(fields).items()
        if name.startswith("f:")
    ]
    if not below and path:
        yield path
    for name, child in below:
        yield from _paths(child, (*path, name))
