"""What cloudcore makes of a report, release by release: how it is right, and how it is wrong.

It keeps its own copy of a device's twins and writes the whole list of them. Read from its sources;
the defects are those that a controller has to bear with:

- the first report of a property is stored as an empty value without a timestamp;
- every report is written, also one that says what the last one said;
- a list that holds what is desired is written as it was when it was last seen;
- a report makes the mapper set its device up again, which for a while has neither ears nor mouth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from reconciler.core.objects import JsonObject, mapping, text
from reconciler.core.twins import DeviceRecord, Layout

Twins: TypeAlias = Mapping[str, JsonObject]
"""As they stand in `status.twins`, by name and in that order."""

# Stored without its value: what it says is that there was a report.
_UNKNOWN: Final = {"reported": {"value": ""}, "observedDesired": {"value": ""}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """How one release behaves. Each defect can be had apart."""

    layout: Layout
    loses_first_report: bool = False
    writes_every_report: bool = True
    overwrites_desired: bool = False
    stops_at_report: bool = False


RELEASES: Final[Mapping[str, Release]] = {
    "1.14": Release(layout=Layout.V1ALPHA2, overwrites_desired=True, stops_at_report=True),
    "1.20": Release(layout=Layout.V1BETA1, loses_first_report=True, stops_at_report=True),
    "1.22": Release(layout=Layout.V1BETA1, loses_first_report=True),
    "1.23": Release(layout=Layout.SPLIT, loses_first_report=True),
}


def properties(device: DeviceRecord) -> frozenset[str]:
    """Those whose reports are stored: the others are passed over."""
    return frozenset(twin.name for twin in device.twins if twin.position is not None)


def remembered(twins: Twins, document: JsonObject) -> Twins:
    """The copy, after a new version of the object that holds the twins was seen.

    What was reported is known better here than there; the rest is as it is there.
    """
    seen: dict[str, JsonObject] = {}
    for item in _items(document):
        name = text(item.get("propertyName"))
        ours = {k: v for k, v in twins.get(name, {}).items() if k in _UNKNOWN}
        seen[name] = {**item, **ours}
    return {**{name: twin for name, twin in twins.items() if name not in seen}, **seen}


def reported(twins: Twins, update: Twins, of: frozenset[str], release: Release) -> Twins | None:
    """The copy after an update, which is what is written; None where nothing is.

    `update` is as `mqtt_twin.reported_twins` gives it, `of` the properties that the device has.
    """
    after = dict(twins)
    is_written = False
    for name, twin in update.items():
        if name not in of:
            continue
        before = after.get(name)
        if before is None and release.layout is Layout.V1ALPHA2:
            continue
        lost = release.loses_first_report and "reported" not in (before or {})
        stored = _UNKNOWN if lost else twin
        if release.layout is Layout.V1ALPHA2:
            stored = {"reported": stored["reported"]} if "reported" in stored else {}
        after[name] = {**(before or {}), "propertyName": name, **stored}
        if before is None or release.writes_every_report or _values(before) != _values(after[name]):
            is_written = True
    return after if is_written else None


def _items(document: JsonObject) -> list[JsonObject]:
    items = mapping(document.get("status")).get("twins")
    return [mapping(item) for item in items] if isinstance(items, list) else []


def _values(twin: JsonObject) -> tuple[object, ...]:
    return tuple(mapping(twin.get(name)).get("value") for name in _UNKNOWN)
