"""Devices as KubeEdge keeps them: one typed view of the twins over three layouts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from sys import intern
from typing import Final, NamedTuple, TypeAlias

from reconciler.core.objects import (
    ANNOTATION_DIGEST,
    DEVICES_V1ALPHA2,
    DEVICES_V1BETA1,
    LABEL_REPOSITORY_UID,
    Json,
    JsonObject,
    ObjectKey,
    Resource,
)
from reconciler.errors import ObjectInvalid


class Layout(Enum):
    """Where a Device keeps what is desired and what was reported.

    | layout   | desired           | reported                                             |
    |----------|-------------------|------------------------------------------------------|
    | V1ALPHA2 | status.twins      | status.twins                                         |
    | V1BETA1  | spec.properties   | status.twins                                         |
    | SPLIT    | spec.properties   | status.twins of the DeviceStatus with the same key   |
    """

    V1ALPHA2 = "v1alpha2"
    V1BETA1 = "v1beta1"
    SPLIT = "v1beta1 with DeviceStatus"

    @property
    def resource(self) -> Resource:
        """What a write of `desired` goes to."""
        return DEVICES_V1ALPHA2 if self is Layout.V1ALPHA2 else DEVICES_V1BETA1


class Twin(NamedTuple):
    """One property of a device.

    `reported` is None while it is unknown; KubeEdge stores the first report of a property as an
    empty value without timestamp, which is unknown too. `timestamp` is in milliseconds, by the
    clock of the edge node at receipt. `position` is the index in the live list that holds
    `desired`, None when the property is not in that list.
    """

    name: str
    reported: str | None
    timestamp: int | None
    desired: str | None
    observed_desired: str | None
    position: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """What is kept of a Device: small, because a store holds one for every device.

    `has_annotations`, `has_list` and `has_parent` say what a JSON patch finds: the map of
    annotations, the list that holds `desired`, and the object (`spec` or `status`) around it.
    """

    key: ObjectKey
    uid: str
    resource_version: str
    generation: int
    model: str
    layout: Layout
    twins: tuple[Twin, ...]
    repository_uid: str
    digest: str
    has_annotations: bool
    has_list: bool
    has_parent: bool

    def twin(self, name: str) -> Twin | None:
        for twin in self.twins:
            if twin.name == name:
                return twin
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatusRecord:
    """What is kept of a DeviceStatus; its twins have neither `desired` nor `position`.

    `device_uid` is the UID of the Device that it names as its owner, or empty.
    """

    key: ObjectKey
    uid: str
    resource_version: str
    device_uid: str
    twins: tuple[Twin, ...]


_NOTHING: Final[dict[str, Json]] = {}
# Milliseconds since the epoch have 13 digits until the year 2286; what is longer than this is no
# time, and would only be slow to convert.
_LONGEST_TIMESTAMP: Final = 16


class _Report(NamedTuple):
    reported: str | None
    timestamp: int | None
    observed_desired: str | None


_Desired: TypeAlias = dict[str, tuple[str | None, int]]
_UNKNOWN: Final = _Report(None, None, None)


def decode_device(obj: JsonObject) -> DeviceRecord:
    """The record of a Device, as a JSON decoder made it (dicts and lists).

    Raises `ObjectInvalid` for an object without name or UID. Whatever else has the wrong type
    reads as absent; of two entries with one name the first counts, as it does for KubeEdge; one
    without apiVersion reads as v1beta1. A cluster with DeviceStatus objects needs `view` on top:
    the Device alone does not tell.
    """
    metadata = _dict(obj.get("metadata"))
    key, uid = _identity(metadata, "Device")
    annotations = metadata.get("annotations")
    generation = metadata.get("generation")
    spec = obj.get("spec")
    status = obj.get("status")
    reports = _dict(status).get("twins")
    if obj.get("apiVersion") == DEVICES_V1ALPHA2.api_version:
        layout, parent, entries, name_field = Layout.V1ALPHA2, status, reports, "propertyName"
    else:
        layout, parent, name_field = Layout.V1BETA1, spec, "name"
        entries = _dict(spec).get("properties")
    return DeviceRecord(
        key=key,
        uid=uid,
        resource_version=_text(metadata.get("resourceVersion")),
        generation=generation if type(generation) is int else 0,
        model=intern(_text(_dict(_dict(spec).get("deviceModelRef")).get("name"))),
        layout=layout,
        twins=_joined(_desired(entries, name_field), _reports(reports)),
        repository_uid=intern(_text(_dict(metadata.get("labels")).get(LABEL_REPOSITORY_UID))),
        digest=_text(_dict(annotations).get(ANNOTATION_DIGEST)),
        has_annotations=isinstance(annotations, dict),
        has_list=isinstance(entries, list),
        has_parent=isinstance(parent, dict),
    )


def decode_device_status(obj: JsonObject) -> DeviceStatusRecord:
    """The record of a DeviceStatus; reads and refuses as `decode_device` does."""
    metadata = _dict(obj.get("metadata"))
    key, uid = _identity(metadata, "DeviceStatus")
    owners = metadata.get("ownerReferences")
    device_uid = ""
    for owner in owners if isinstance(owners, list) else ():
        if _dict(owner).get("kind") == "Device":
            device_uid = _text(_dict(owner).get("uid"))
    return DeviceStatusRecord(
        key=key,
        uid=uid,
        resource_version=_text(metadata.get("resourceVersion")),
        device_uid=device_uid,
        twins=_joined({}, _reports(_dict(obj.get("status")).get("twins"))),
    )


def view(record: DeviceRecord, status: DeviceStatusRecord | None) -> DeviceRecord:
    """The device with what its DeviceStatus reports.

    Where there is a DeviceStatus only it says what was reported. One that belongs to an earlier
    Device of the same name is passed over. resourceVersion stays the Device's.
    """
    if status is None or (status.device_uid and status.device_uid != record.uid):
        return record
    desired = {t.name: (t.desired, t.position) for t in record.twins if t.position is not None}
    reports = {t.name: _Report(t.reported, t.timestamp, t.observed_desired) for t in status.twins}
    return replace(record, layout=Layout.SPLIT, twins=_joined(desired, reports))


def changed_properties(old: DeviceRecord | None, new: DeviceRecord) -> tuple[str, ...]:
    """Names of the properties whose reported value is another one than in `old`.

    A value that is unknown in `new` is no change, and time alone is none; the first value known
    after an unknown one is.
    """
    if old is None:
        return tuple(twin.name for twin in new.twins if twin.reported is not None)
    before = {twin.name: twin.reported for twin in old.twins}
    return tuple(
        twin.name
        for twin in new.twins
        if twin.reported is not None and twin.reported != before.get(twin.name)
    )


def _identity(metadata: dict[str, Json], kind: str) -> tuple[ObjectKey, str]:
    name, uid = _text(metadata.get("name")), _text(metadata.get("uid"))
    namespace = intern(_text(metadata.get("namespace")))
    if not name or not uid:
        raise ObjectInvalid(f"{kind} {namespace}/{name} came without {'uid' if name else 'name'}")
    return ObjectKey(namespace, name), uid


def _desired(entries: Json, name_field: str) -> _Desired:
    found: _Desired = {}
    for position, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, dict):
            continue
        name = entry.get(name_field)
        if isinstance(name, str) and name and name not in found:
            found[intern(name)] = (_value(entry.get("desired")), position)
    return found


def _reports(entries: Json) -> dict[str, _Report]:
    found: dict[str, _Report] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        name = entry.get("propertyName")
        if isinstance(name, str) and name and name not in found:
            found[intern(name)] = _report(entry)
    return found


def _report(entry: dict[str, Json]) -> _Report:
    observed = _value(entry.get("observedDesired"))
    reported = entry.get("reported")
    value = _value(reported)
    if value is None:
        return _Report(None, None, observed)
    stamp = _dict(_dict(reported).get("metadata")).get("timestamp")
    timestamp = None
    if (
        isinstance(stamp, str)
        and len(stamp) <= _LONGEST_TIMESTAMP
        and stamp.isascii()
        and stamp.isdigit()
    ):
        timestamp = int(stamp)
    if value == "" and timestamp is None:
        return _Report(None, None, observed)
    return _Report(value, timestamp, observed)


def _joined(desired: _Desired, reports: dict[str, _Report]) -> tuple[Twin, ...]:
    """Twins in the order of the list that holds `desired`, then those that are only reported."""
    twins = []
    for name, (value, position) in desired.items():
        reported, timestamp, observed = reports.get(name, _UNKNOWN)
        twins.append(Twin(name, reported, timestamp, value, observed, position))
    for name, (reported, timestamp, observed) in reports.items():
        if name not in desired:
            twins.append(Twin(name, reported, timestamp, None, observed, None))
    return tuple(twins)


# Plain `dict` and `str` tests instead of the ABCs of `core.objects`: they are several times
# faster, and every watch event of a fleet passes here.


def _dict(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else _NOTHING


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _value(holder: Json) -> str | None:
    value = _dict(holder).get("value")
    return value if isinstance(value, str) else None
