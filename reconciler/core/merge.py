"""A manifest merged into a live object whose lists the API server would replace whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from reconciler.core.objects import Json, JsonObject, mapping, sequence
from reconciler.core.patches import add, test

_Differs: TypeAlias = Callable[[Json, Json], bool]
# What rules set in an item of the list. A manifest's counts when the item is made.
RULED: Final = "desired"


def covers(live: Json, wanted: Json) -> bool:
    """Whether `live` says at least what `wanted` says. Lists and scalars must be equal."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            covers(live.get(field), value) for field, value in wanted.items()
        )
    if isinstance(wanted, (list, tuple)):
        return (
            isinstance(live, (list, tuple))
            and len(live) == len(wanted)
            and all(map(covers, live, wanted))
        )
    # True == 1 in Python, and not in JSON.
    return live == wanted and isinstance(live, bool) == isinstance(wanted, bool)


def without_nulls(value: Json) -> Json:
    """The same without members that are null; a null item of a list keeps its place."""
    if isinstance(value, Mapping):
        return {field: without_nulls(v) for field, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [without_nulls(item) for item in value]
    return value


def merge(
    live: JsonObject,
    wanted: JsonObject,
    *,
    list_name: str,
    name_field: str,
    exactly: bool,
) -> tuple[JsonObject, ...]:
    """The JSON patch that makes `live` say what `wanted` says; empty when it does.

    Labels, annotations and the fields of spec are set one by one, `spec.<list_name>` item by item
    under the name in `name_field`; whatever `wanted` does not name stays, and so does `desired` of
    an item that is there. With `exactly` a field must be equal to be left as it is, else it may
    hold more.

    Every index is tested by name, the whole by UID, and by resourceVersion where something is
    added that was not there.
    """
    patch = _Patch(live, _unequal if exactly else _short_of)
    metadata, spec = mapping(wanted.get("metadata")), mapping(wanted.get("spec"))
    patch.fields(("metadata", "labels"), mapping(metadata.get("labels")))
    patch.fields(("metadata", "annotations"), mapping(metadata.get("annotations")))
    if isinstance(live.get("spec"), Mapping):
        patch.fields(("spec",), {f: value for f, value in spec.items() if f != list_name})
        patch.items(("spec", list_name), spec.get(list_name), name_field)
    else:
        patch.fields(("spec",), spec)
    return patch.finished()


def _short_of(live: Json, wanted: Json) -> bool:
    return not covers(live, wanted)


def _unequal(live: Json, wanted: Json) -> bool:
    return not (covers(live, wanted) and covers(wanted, live))


class _Patch:
    """Operations as they are found."""

    def __init__(self, live: JsonObject, differs: _Differs) -> None:
        self._live = live
        self._differs = differs
        self._ops: list[JsonObject] = []
        self._adds_new = False

    def fields(self, path: tuple[str, ...], wanted: JsonObject) -> None:
        """Set members of the object at `path`; its parent is there."""
        live = self._at(path)
        if not isinstance(live, Mapping):
            if wanted:
                self._adds_new = True
                self._ops.append(add(wanted, *path))
            return
        self._ops += [
            add(value, *path, field)
            for field, value in wanted.items()
            if self._differs(live.get(field), value)
        ]

    def items(self, path: tuple[str, ...], wanted: Json, name_field: str) -> None:
        """Set items of the list at `path` by name; its parent is there."""
        live = self._at(path)
        if not isinstance(live, (list, tuple)):
            if sequence(wanted):
                self._adds_new = True
                self._ops.append(add(wanted, *path))
            return
        places: dict[Json, tuple[int, JsonObject]] = {}
        for index, entry in enumerate(live):
            name = mapping(entry).get(name_field)
            if isinstance(name, str):
                places.setdefault(name, (index, mapping(entry)))
        new: list[JsonObject] = []
        for item in map(mapping, sequence(wanted)):
            name = item.get(name_field)
            if name not in places:
                new.append(add(item, *path, "-"))
                continue
            index, entry = places[name]
            changes = [
                add(value, *path, index, field)
                for field, value in item.items()
                if field != RULED and self._differs(entry.get(field), value)
            ]
            if changes:
                self._ops += [test(name, *path, index, name_field), *changes]
        if new:
            self._adds_new = True
            self._ops += new

    def finished(self) -> tuple[JsonObject, ...]:
        if not self._ops:
            return ()
        metadata = mapping(self._live.get("metadata"))
        guards = [test(metadata.get("uid"), "metadata", "uid")]
        if self._adds_new:
            # That something is absent cannot be tested at its own place.
            version = metadata.get("resourceVersion")
            guards.append(test(version, "metadata", "resourceVersion"))
        return (*guards, *self._ops)

    def _at(self, path: tuple[str, ...]) -> Json:
        value: Json = self._live
        for part in path:
            value = mapping(value).get(part)
        return value
