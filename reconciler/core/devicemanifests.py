"""Device and DeviceModel as manifests: the light shape that KubeEdge's kinds share.

KubeEdge's own schema judges the rest when they are applied. Checked here is what would break us or
the edge silently: lists that the plan merges by name need unique names, and values are strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from reconciler.core.findings import at
from reconciler.core.objects import Json, JsonObject, mapping, sequence, text
from reconciler.core.problems import Problem, quoted
from reconciler.core.yamldocs import Document

# What edgecore lets through; a message with any other value is rejected as a whole.
EDGE_NAME: Final = re.compile(r"[a-zA-Z0-9\-_.,:/@#]{1,128}")
EDGE_VALUE: Final = re.compile(r"[a-zA-Z0-9\-_.,:/@#]{0,512}")


class _Items(NamedTuple):
    """A list whose items are told apart by `key`."""

    kind: str
    version: str
    pointer: str
    key: str


_LISTS: Final = (
    _Items("Device", "v1beta1", "/spec/properties", "name"),
    _Items("Device", "v1alpha2", "/spec/propertyVisitors", "propertyName"),
    _Items("Device", "v1alpha2", "/spec/data/dataProperties", "propertyName"),
    _Items("Device", "v1alpha2", "/status/twins", "propertyName"),
    _Items("DeviceModel", "v1beta1", "/spec/properties", "name"),
    _Items("DeviceModel", "v1alpha2", "/spec/properties", "name"),
)


def problems(document: Document, kind: str, version: str) -> Iterator[Problem]:
    """What is wrong with a Device or DeviceModel below its metadata."""
    if not isinstance(document.value.get("spec"), dict):
        yield at(document, "/spec", "MissingField", "spec must be a mapping; add it")
        return
    for items in _LISTS:
        if (items.kind, items.version) == (kind, version):
            yield from _named(document, items)


def without_reports(document: JsonObject, version: str) -> JsonObject:
    """`document` without what devices report: that is never ours to write.

    What is left of status are the desired values of v1alpha2, which has them there.
    """
    status = document.get("status")
    if status is None:
        return document
    rest: dict[str, Json] = {k: v for k, v in document.items() if k != "status"}
    twins = sequence(mapping(status).get("twins"))
    if version == "v1alpha2" and twins:
        keep = ("propertyName", "desired")
        kept = [{k: v for k, v in mapping(twin).items() if k in keep} for twin in twins]
        rest["status"] = {"twins": kept}
    return rest


def _named(document: Document, items: _Items) -> Iterator[Problem]:
    value: Json = document.value
    for token in items.pointer.split("/")[1:]:
        value = mapping(value).get(token)
    if value is None:
        return
    if not isinstance(value, list):
        yield at(document, items.pointer, "InvalidField", "this must be a list")
        return
    seen: dict[str, int] = {}
    for index, item in enumerate(value):
        pointer = f"{items.pointer}/{index}"
        name = text(mapping(item).get(items.key))
        if not name:
            message = f"{items.key} must be a string that is not empty; add it"
            yield at(document, pointer, "MissingField", message)
            continue
        if name in seen:
            message = f"property {quoted(name)} stands twice; remove one"
            yield at(document, f"{pointer}/{items.key}", "DuplicateProperty", message)
        elif not EDGE_NAME.fullmatch(name):
            message = (
                f"property {quoted(name)} never passes the edge; "
                "use letters, digits and - _ . , : / @ #, at most 128"
            )
            yield at(document, f"{pointer}/{items.key}", "InvalidName", message)
        seen[name] = index
        yield from _desired(document, pointer, mapping(item))


def _desired(document: Document, pointer: str, item: JsonObject) -> Iterator[Problem]:
    if "desired" not in item:
        return
    value = mapping(item["desired"]).get("value")
    pointer = f"{pointer}/desired/value"
    if not isinstance(value, str):
        message = "a desired value is a string, numbers and booleans too; put it in quotes"
        yield at(document, pointer, "InvalidField", message)
    elif not EDGE_VALUE.fullmatch(value):
        message = (
            f"{quoted(value)} does not pass KubeEdge's edge; "
            "use letters, digits and - _ . , : / @ #, at most 512"
        )
        yield at(document, pointer, "EdgeValue", message, "note")
