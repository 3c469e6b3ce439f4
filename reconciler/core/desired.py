"""Writes of `desired`: which are allowed, and the patch that makes one so in any layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from msgspec import structs

from reconciler.core import origins
from reconciler.core.models import (
    ModelRecord,
    Property,
    RefusalReason,
    Refused,
    Value,
    format_desired,
)
from reconciler.core.objects import ANNOTATION_CAUSE, JsonObject, ObjectKey, Resource
from reconciler.core.origins import Origin
from reconciler.core.patches import add, test
from reconciler.core.runs import RunId
from reconciler.core.twins import DeviceRecord, Layout

# Names the edge takes. There is no model to look a name up in where this is asked.
_EDGE_NAME: Final = re.compile(r"[A-Za-z0-9_.,:/@#-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPatch:
    """A JSON patch, and the properties that it changes and that it has no need to.

    `outranked` are those that it may not, with the run that holds each. `ops` is empty when there
    is nothing to write. A patch that fails its tests met another state than its record: take the
    newer record and make another.
    """

    key: ObjectKey
    resource: Resource
    ops: tuple[JsonObject, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    outranked: Mapping[str, Origin] = field(default_factory=dict)


def check(model: ModelRecord | None, name: str, value: Value) -> str | Refused:
    """The text to write for `value`, or why this property does not take it.

    Where the cluster has no model of the device any property takes any value that the edge takes.
    """
    if model is None:
        if not _EDGE_NAME.fullmatch(name):
            return Refused(
                RefusalReason.UNKNOWN_PROPERTY, f"{ascii(name)[:64]} cannot name a property"
            )
        return format_desired(value, Property(name=name, type=None))
    prop = model.properties.get(name)
    if prop is None:
        return Refused(
            RefusalReason.UNKNOWN_PROPERTY,
            f"DeviceModel {model.key} has no property {ascii(name)[:64]}",
        )
    return format_desired(value, prop)


def patch(
    record: DeviceRecord,
    writes: Mapping[str, str],
    *,
    by: Origin,
    undone: Callable[[RunId], bool] = origins.no_run,
    forced: Collection[str] = (),
) -> DesiredPatch:
    """What sets `writes` (text by property, as `check` gave it) and names the run as their origin.

    A value that is desired already is left out, unless its property is in `forced`; so is one that
    a Script of a higher priority holds. All else happens or nothing does: every place is tested by
    UID, index and name, what is kept of origins as it was read, and where something must be added
    that was not there, by resourceVersion. `metadata` beside a desired value stays, because
    KubeEdge keeps the type of v1alpha2 twins there. Where a property in `forced` has a value by
    then that is not the one in the record, the patch fails too. The last that a run writes is not
    written again, whatever is desired by now, as long as it is kept that it was: while it is
    `undone`.
    """
    twins = {twin.name: twin for twin in record.twins}
    parent, entries, name_field = (
        ("status", "twins", "propertyName")
        if record.layout is Layout.V1ALPHA2
        else ("spec", "properties", "name")
    )
    was_written = by.is_last and origins.has_last(record.origins, by.run_id)
    changed: list[str] = []
    unchanged: list[str] = []
    held: list[str] = []
    outranked: dict[str, Origin] = {}
    ops: list[JsonObject] = []
    missing: list[JsonObject] = []
    for name, value in writes.items():
        twin = twins.get(name)
        before = twin.desired if twin is not None else None
        holder = origins.holder(record.origins, name, before, by)
        if was_written:
            changed.append(name)
            continue
        if before == value and (name not in forced or holder is not None):
            unchanged.append(name)
            if holder is None and origins.is_to_hold(record.origins, name, before, by):
                held.append(name)
            continue
        if holder is not None:
            outranked[name] = holder
            continue
        changed.append(name)
        if twin is None or twin.position is None:
            missing.append({name_field: name, "desired": {"value": value}})
            continue
        ops.append(test(name, parent, entries, twin.position, name_field))
        if before is not None and name in forced:
            # What is repeated is what was seen: a person who wants something else is not heard of
            # by what is kept of origins.
            ops.append(test(before, parent, entries, twin.position, "desired", "value"))
        if twin.desired is None:
            ops.append(add({"value": value}, parent, entries, twin.position, "desired"))
        else:
            ops.append(add(value, parent, entries, twin.position, "desired", "value"))
    if missing:
        ops += _appended(record, missing, parent, entries)
    if (changed or held) and not was_written:
        marks = {name: origins.mark(writes[name]) for name in (*changed, *held)}
        ops.append(_signed(record, structs.replace(by, marks=marks), undone))
        if record.origins:
            # Of two runs that write at the same moment none forgets the other.
            ops.insert(0, test(record.origins, "metadata", "annotations", ANNOTATION_CAUSE))
        if missing or not record.origins:
            # That something is absent cannot be tested at its own place.
            ops.insert(0, test(record.resource_version, "metadata", "resourceVersion"))
        ops.insert(0, test(record.uid, "metadata", "uid"))
    return DesiredPatch(
        key=record.key,
        resource=record.layout.resource,
        ops=tuple(ops),
        changed=tuple(changed),
        unchanged=tuple(unchanged),
        outranked=outranked,
    )


def _signed(record: DeviceRecord, by: Origin, undone: Callable[[RunId], bool]) -> JsonObject:
    kept = origins.written(record.origins, by, undone)
    if record.has_annotations:
        return add(kept, "metadata", "annotations", ANNOTATION_CAUSE)
    return add({ANNOTATION_CAUSE: kept}, "metadata", "annotations")


def _appended(
    record: DeviceRecord, missing: list[JsonObject], parent: str, entries: str
) -> list[JsonObject]:
    if not record.has_parent:
        return [add({entries: missing}, parent)]
    if not record.has_list:
        return [add(missing, parent, entries)]
    return [add(entry, parent, entries, "-") for entry in missing]
