"""Devices as KubeEdge keeps them: one typed view of the twins over three layouts."""

from __future__ import annotations

from enum import Enum
from sys import intern
from typing import Final

import msgspec
from msgspec.structs import replace

from reconciler.core.documents import Document, Metadata, NoList, NoObject, Part, document
from reconciler.core.objects import (
    ANNOTATION_CAUSE,
    ANNOTATION_DIGEST,
    DEVICES_V1ALPHA2,
    DEVICES_V1BETA1,
    LABEL_REPOSITORY_UID,
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


class Twin(msgspec.Struct, frozen=True, gc=False):
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


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    # Who set what is desired, as `core.origins` has it.
    origins: str = ""
    has_list: bool
    has_parent: bool
    # Of a repository's Device: differs when anything but its twins may be other than before. Means
    # nothing to another process.
    settings: int = 0

    def twin(self, name: str) -> Twin | None:
        for twin in self.twins:
            if twin.name == name:
                return twin
        return None


class DeviceStatusRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is kept of a DeviceStatus; its twins have neither `desired` nor `position`.

    `device_uid` is the UID of the Device that it names as its owner, or empty.
    """

    key: ObjectKey
    uid: str
    resource_version: str
    device_uid: str
    twins: tuple[Twin, ...]


# Milliseconds since the epoch have 13 digits until the year 2286; what is longer than this is no
# time, and would only be slow to convert.
_LONGEST_TIMESTAMP: Final = 16


class _Value(Part):
    value: object = None


class _Stamp(Part):
    timestamp: object = None


class _Reported(_Value):
    metadata: _Stamp | NoObject = None


class _Property(Part):
    name: object = None
    desired: _Value | NoObject = None


class _Report(_Property):
    name: object = msgspec.field(default=None, name="propertyName")
    reported: _Reported | NoObject = None
    observed_desired: _Value | NoObject = None


class _Model(Part):
    name: object = None


class _Spec(Part):
    device_model_ref: _Model | NoObject = None
    properties: list[_Property | NoObject] | NoList = None


class _Status(Part):
    twins: list[_Report | NoObject] | NoList = None


class DeviceDocument(Document):
    """What is read of a Device."""

    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: _Status | NoObject = None


class DeviceStatusDocument(Document):
    """What is read of a DeviceStatus."""

    status: _Status | NoObject = None


_UNREPORTED: Final = _Report()
_SPEC: Final = msgspec.json.Decoder(_Spec | NoObject)
_V1ALPHA2: Final = DEVICES_V1ALPHA2.api_version


def decode_device(obj: JsonObject | Document) -> DeviceRecord:
    """The record of a Device, as a JSON decoder made it: a dict, or a `DeviceDocument`.

    Raises `ObjectInvalid` for an object without name or UID. Whatever else has the wrong type
    reads as absent; of two entries with one name the first counts, as it does for KubeEdge; one
    without apiVersion reads as v1beta1. A cluster with DeviceStatus objects needs `view` on top:
    the Device alone does not tell.
    """
    device = document(obj, DeviceDocument)
    metadata, key, uid = _identity(device, "Device")
    spec, status = _SPEC.decode(device.spec), device.status
    reports = status.twins if type(status) is _Status else None
    parent: object
    entries: object
    if device.api_version == _V1ALPHA2:
        layout, parent, entries = Layout.V1ALPHA2, status, reports
    else:
        layout, parent = Layout.V1BETA1, spec
        entries = spec.properties if type(spec) is _Spec else None
    model = spec.device_model_ref if type(spec) is _Spec else None
    labels, annotations = metadata.labels, metadata.annotations
    generation = metadata.generation
    repository_uid = _at(labels, LABEL_REPOSITORY_UID)
    return DeviceRecord(
        key=key,
        uid=uid,
        resource_version=_text(metadata.resource_version),
        generation=generation if type(generation) is int else 0,
        model=intern(_text(model.name)) if type(model) is _Model else "",
        layout=layout,
        twins=_twins(entries, reports),
        repository_uid=repository_uid,
        digest=_at(annotations, ANNOTATION_DIGEST),
        has_annotations=type(annotations) is dict,
        origins=_text(annotations.get(ANNOTATION_CAUSE)) if type(annotations) is dict else "",
        has_list=type(entries) is list,
        has_parent=isinstance(parent, Part),
        settings=_settings(device.spec, labels, annotations) if repository_uid else 0,
    )


def decode_device_status(obj: JsonObject | Document) -> DeviceStatusRecord:
    """The record of a DeviceStatus; reads and refuses as `decode_device` does."""
    found = document(obj, DeviceStatusDocument)
    metadata, key, uid = _identity(found, "DeviceStatus")
    owners = metadata.owner_references
    device_uid = ""
    for owner in owners if type(owners) is list else ():
        if _at(owner, "kind") == "Device":
            device_uid = _at(owner, "uid")
    status = found.status
    return DeviceStatusRecord(
        key=key,
        uid=uid,
        resource_version=_text(metadata.resource_version),
        device_uid=device_uid,
        twins=_twins(None, status.twins if type(status) is _Status else None),
    )


def view(record: DeviceRecord, status: DeviceStatusRecord | None) -> DeviceRecord:
    """The device with what its DeviceStatus reports.

    Where there is a DeviceStatus only it says what was reported. One that belongs to an earlier
    Device of the same name is passed over. resourceVersion stays the Device's.
    """
    if status is None or (status.device_uid and status.device_uid != record.uid):
        return record
    reports = {twin.name: twin for twin in status.twins}
    twins = []
    for twin in record.twins:
        if twin.position is not None:
            report = reports.pop(twin.name, None) or Twin(twin.name, None, None, None, None, None)
            twins.append(replace(report, desired=twin.desired, position=twin.position))
    return replace(record, layout=Layout.SPLIT, twins=(*twins, *reports.values()))


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


def _identity(found: Document, kind: str) -> tuple[Metadata, ObjectKey, str]:
    metadata = found.metadata
    if type(metadata) is not Metadata:
        metadata = Metadata()
    name, uid = _text(metadata.name), _text(metadata.uid)
    namespace = intern(_text(metadata.namespace))
    if not name or not uid:
        raise ObjectInvalid(f"{kind} {namespace}/{name} came without {'uid' if name else 'name'}")
    return metadata, ObjectKey(namespace, name), uid


# Loops written out, exact types and no helpers: every watch event of a fleet passes here.


_DESIRED: Final = b'"desired"'


def _settings(spec: msgspec.Raw, labels: object, annotations: object) -> int:
    """A fingerprint of what is neither reported nor desired."""
    text = bytes(spec)
    if _DESIRED in text:
        # What rules write is no change of settings, and it must not look like one.
        plain = msgspec.json.decode(text)
        entries = plain.get("properties") if type(plain) is dict else None
        for entry in entries if type(entries) is list else ():
            if type(entry) is dict:
                entry.pop("desired", None)
        text = msgspec.json.encode(plain)
    told = annotations.items() if type(annotations) is dict else ()
    tags = labels.items() if type(labels) is dict else ()
    return hash(
        (
            text,
            frozenset((name, str(value)) for name, value in tags),
            frozenset((name, str(value)) for name, value in told if name != ANNOTATION_CAUSE),
        )
    )


def _twins(entries: object, reports: object) -> tuple[Twin, ...]:
    """Twins in the order of the list that holds `desired`, then those that are only reported."""
    told: dict[str, _Report] = {}
    if type(reports) is list:
        for report in reports:
            if type(report) is _Report:
                name = report.name
                if type(name) is str and name and name not in told:
                    told[name] = report
    twins: dict[str, Twin] = {}
    if type(entries) is list:
        for position, entry in enumerate(entries):
            if type(entry) is _Report or type(entry) is _Property:
                name = entry.name
                if type(name) is str and name and name not in twins:
                    desired = entry.desired
                    value = desired.value if type(desired) is _Value else None
                    twins[name] = _twin(
                        name,
                        told.get(name, _UNREPORTED),
                        value if type(value) is str else None,
                        position,
                    )
    if len(told) > len(twins) or not told.keys() <= twins.keys():
        for name, report in told.items():
            if name not in twins:
                twins[name] = _twin(name, report, None, None)
    return tuple(twins.values())


def _twin(name: str, report: _Report, desired: str | None, position: int | None) -> Twin:
    reported, wished = report.reported, report.observed_desired
    value = observed = timestamp = None
    if type(wished) is _Value and type(wished.value) is str:
        observed = wished.value
    if type(reported) is _Reported and type(reported.value) is str:
        value = reported.value
        metadata = reported.metadata
        stamp = metadata.timestamp if type(metadata) is _Stamp else None
        if type(stamp) is str and len(stamp) <= _LONGEST_TIMESTAMP and _is_number(stamp):
            timestamp = int(stamp)
        elif not value:
            value = None
    return Twin(intern(name), value, timestamp, desired, observed, position)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _text(value: object) -> str:
    return value if type(value) is str else ""


def _at(holder: object, name: str) -> str:
    """Few different ones for many devices: one string each."""
    return intern(_text(holder.get(name))) if type(holder) is dict else ""
