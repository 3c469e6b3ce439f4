"""What a change of the repository changes: objects, artifacts, and who writes which device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import PurePosixPath
from typing import NamedTuple

from reconciler.core import layout
from reconciler.core.admission import Desired
from reconciler.core.objects import Json, JsonObject, ObjectKey, Reference, mapping, text
from reconciler.core.problems import escape
from reconciler.core.uses import Capability

# By which the items of a list are told apart, where all have it.
_NAMES = ("name", "propertyName")


class Field(NamedTuple):
    """A place that differs; None where there was, or will be, nothing."""

    pointer: str
    before: Json
    after: Json


class Changed(NamedTuple):
    """An object on both sides; None where it is not wanted there."""

    reference: Reference
    before: Desired | None
    after: Desired | None

    @property
    def fields(self) -> tuple[Field, ...]:
        """The places that differ, where it is on both sides."""
        if self.before is None or self.after is None:
            return ()
        return tuple(_fields(self.before.document, self.after.document, ""))


class Writers(NamedTuple):
    """Scripts that write one property of a Device; `property` "" is any of them."""

    device: ObjectKey
    property: str
    before: tuple[str, ...]
    after: tuple[str, ...]


def objects(
    before: Mapping[Reference, Desired],
    after: Mapping[Reference, Desired],
    *,
    held: AbstractSet[Reference] = frozenset(),
) -> tuple[Changed, ...]:
    """Objects that come, go or change. What is `held` is left as it is, so it does not go."""
    references = sorted(before.keys() | after.keys())
    found = (Changed(it, before.get(it), after.get(it)) for it in references)
    return tuple(
        it
        for it in found
        if (it.before is None or it.after is None or it.before.digest != it.after.digest)
        and not (it.after is None and it.reference in held)
    )


def _fields(before: Json, after: Json, pointer: str) -> Iterator[Field]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted(before.keys() | after.keys()):
            yield from _fields(before.get(name), after.get(name), f"{pointer}/{escape(name)}")
        return
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        pairs = _pairs(before, after)
        if pairs is not None:
            for number, old, new in pairs:
                yield from _fields(old, new, f"{pointer}/{number}")
            return
    if before != after or isinstance(before, bool) != isinstance(after, bool):
        yield Field(pointer, before, after)


def _pairs(before: Sequence[Json], after: Sequence[Json]) -> list[tuple[int, Json, Json]] | None:
    """Items that belong together: by name, where all have one, else by place."""
    for key in _NAMES:
        old, new = _named(before, key), _named(after, key)
        if old is not None and new is not None:
            kept = [(number, old.get(name, (0, None))[1], it) for name, (number, it) in new.items()]
            gone = [(number, it, None) for name, (number, it) in old.items() if name not in new]
            return [*kept, *gone]
    if len(before) != len(after):
        return None
    return list(zip(range(len(after)), before, after, strict=True))


def _named(items: Sequence[Json], key: str) -> dict[str, tuple[int, JsonObject]] | None:
    named = {text(mapping(it).get(key)): (i, mapping(it)) for i, it in enumerate(items)}
    return named if len(named) == len(items) and "" not in named else None


def artifacts(
    before: Mapping[PurePosixPath, bytes], after: Mapping[PurePosixPath, bytes]
) -> Iterator[tuple[PurePosixPath, bool, bool]]:
    """Script files that differ: path, whether it was there, whether it is."""
    for path in sorted(before.keys() | after.keys()):
        if isinstance(layout.parse_script_path(path), layout.ScriptPath):
            old, new = before.get(path), after.get(path)
            if old != new:
                yield path, old is not None, new is not None


def writers(before: Sequence[Capability], after: Sequence[Capability]) -> tuple[Writers, ...]:
    """Properties that are not written by the same Scripts any more."""
    old, new = _writers(before), _writers(after)
    return tuple(
        Writers(device, name, tuple(sorted(old[device, name])), tuple(sorted(new[device, name])))
        for device, name in sorted(old.keys() | new.keys())
        if old[device, name] != new[device, name]
    )


def _writers(capabilities: Sequence[Capability]) -> defaultdict[tuple[ObjectKey, str], set[str]]:
    found: defaultdict[tuple[ObjectKey, str], set[str]] = defaultdict(set)
    for it in capabilities:
        for touch in it.writes:
            found[ObjectKey(it.script.namespace, touch.device), touch.property].add(it.script.name)
    return found
