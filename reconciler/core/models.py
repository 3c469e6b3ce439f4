"""DeviceModels: what type a property has, and how values cross between text and type."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeAlias

from reconciler.core.objects import (
    ANNOTATION_DIGEST,
    DEVICE_MODELS_V1ALPHA2,
    LABEL_REPOSITORY_UID,
    Json,
    JsonObject,
    ObjectKey,
    key_of,
    mapping,
    sequence,
    text,
)
from reconciler.errors import ObjectInvalid

Value: TypeAlias = bool | int | float | str


class PropertyType(StrEnum):
    """As v1beta1 spells them; v1alpha2 has the same in lower case, without STREAM."""

    INT = "INT"
    FLOAT = "FLOAT"
    DOUBLE = "DOUBLE"
    STRING = "STRING"
    BOOLEAN = "BOOLEAN"
    BYTES = "BYTES"
    STREAM = "STREAM"


_TYPES: Final = {kind.value: kind for kind in PropertyType}
_NUMBERS: Final = frozenset({PropertyType.INT, PropertyType.FLOAT, PropertyType.DOUBLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """A property of a model.

    `type` is None when the model does not say it; values then are judged as if there were no
    model. Only an access mode of ReadOnly forbids writing. Bounds are inclusive and hold for
    numbers; one that cannot be read is no bound.
    """

    name: str
    type: PropertyType | None
    writable: bool = True
    minimum: int | float | None = None
    maximum: int | float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """What is kept of a DeviceModel."""

    key: ObjectKey
    uid: str
    resource_version: str
    properties: Mapping[str, Property]
    repository_uid: str
    digest: str


class RefusalReason(StrEnum):
    WRONG_TYPE = "WrongType"
    NOT_FINITE = "NotFinite"
    OUT_OF_RANGE = "OutOfRange"
    READ_ONLY = "ReadOnly"
    UNKNOWN_PROPERTY = "UnknownProperty"
    NOT_ALLOWED = "ValueNotAllowed"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a value is not written: a sentence for the author of the script."""

    reason: RefusalReason
    message: str


def decode_model(obj: JsonObject) -> ModelRecord:
    """The record of a DeviceModel, v1alpha2 or v1beta1.

    Raises `ObjectInvalid` for an object without name or UID. Whatever else has the wrong type
    reads as absent; of two properties with one name the first counts.
    """
    metadata = mapping(obj.get("metadata"))
    key, uid = key_of(obj), text(metadata.get("uid"))
    if not key.name or not uid:
        raise ObjectInvalid(f"DeviceModel {key} came without {'uid' if key.name else 'name'}")
    return ModelRecord(
        key=key,
        uid=uid,
        resource_version=text(metadata.get("resourceVersion")),
        properties=properties_of(obj),
        repository_uid=text(mapping(metadata.get("labels")).get(LABEL_REPOSITORY_UID)),
        digest=text(mapping(metadata.get("annotations")).get(ANNOTATION_DIGEST)),
    )


def properties_of(obj: JsonObject) -> dict[str, Property]:
    """The properties of a DeviceModel, as `decode_model` reads them; it may be a manifest."""
    read = _alpha if obj.get("apiVersion") == DEVICE_MODELS_V1ALPHA2.api_version else _beta
    properties: dict[str, Property] = {}
    for entry in sequence(mapping(obj.get("spec")).get("properties")):
        name = text(mapping(entry).get("name"))
        if name:
            properties.setdefault(name, read(name, mapping(entry)))
    return properties


def _beta(name: str, entry: JsonObject) -> Property:
    return _property(name, text(entry.get("type")), entry)


def _alpha(name: str, entry: JsonObject) -> Property:
    for type_name, details in mapping(entry.get("type")).items():
        if type_name.upper() in _TYPES and isinstance(details, Mapping):
            return _property(name, type_name.upper(), details)
    return _property(name, "", {})


def _property(name: str, type_name: str, details: JsonObject) -> Property:
    return Property(
        name=name,
        type=_TYPES.get(type_name),
        writable=details.get("accessMode") != "ReadOnly",
        minimum=_bound(details.get("minimum")),
        maximum=_bound(details.get("maximum")),
        unit=text(details.get("unit")),
    )


def _bound(value: Json) -> int | float | None:
    """A bound as v1alpha2 (number) or v1beta1 (text) gives it."""
    if isinstance(value, str):
        number = _decimal(value)
        if number is None or number.adjusted() > _LARGEST_EXPONENT:
            return None
        return int(number) if number == number.to_integral_value() else float(number)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


# Numbers as KubeEdge mappers print them, exponent included.
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
# The longest value KubeEdge's edge takes; no number of use is longer, and reading time is bounded.
_LONGEST: Final = 512
# Of a double.
_LARGEST_EXPONENT: Final = 308
_LARGEST_BITS: Final = 1024
# Whole numbers up to here are themselves in JavaScript.
_LARGEST_SAFE: Final = 2**53 - 1
_INT64: Final = range(-(2**63), 2**63)


def _decimal(value: str) -> Decimal | None:
    if len(value) <= _LONGEST and _NUMBER.fullmatch(value):
        return Decimal(value)
    return None


def typed(value: str, prop: Property | None) -> Value:
    """A reported value as a script reads it: number, boolean or string by the model.

    A value that cannot be read as its type, a whole number beyond 2^53 among them, is given as
    the text it is: `undefined` would say that nothing was reported, and a rounded number would
    be another value. Without a model everything is text.
    """
    kind = prop.type if prop is not None else None
    if kind is PropertyType.BOOLEAN:
        return {"true": True, "false": False}.get(value, value)
    number = _decimal(value) if kind in _NUMBERS else None
    if number is None or number.adjusted() > _LARGEST_EXPONENT:
        return value
    if kind is PropertyType.INT:
        whole = number.to_integral_value()
        return int(whole) if whole == number and abs(whole) <= _LARGEST_SAFE else value
    real = float(number)
    return real if math.isfinite(real) else value


# What the edge takes. A message with one value outside of it is dropped whole, reports included,
# so such a value must never become a desired one. The empty text passes there.
_EDGE_VALUE: Final = re.compile(r"[A-Za-z0-9_.,:/@#-]{0,512}")


def format_desired(value: Value, prop: Property | None) -> str | Refused:
    """The text of a desired value, or why it is refused.

    A value has the type of the model or is its text. Numbers are written without exponent, as
    the shortest text that reads back as the same number; a number given as text is rewritten so.
    Without a model (`prop` None) a value of any type passes that the edge takes.
    """
    where = "the value" if prop is None else f"property {prop.name}"
    if prop is not None and not prop.writable:
        return Refused(RefusalReason.READ_ONLY, f"{where} is ReadOnly in its DeviceModel")
    if not _is_finite(value):
        return Refused(RefusalReason.NOT_FINITE, f"{where} must be a finite number")
    kind = prop.type if prop is not None else None
    if prop is not None and kind in _NUMBERS:
        return _number(value, prop)
    if kind is PropertyType.BOOLEAN:
        result = {True: "true", False: "false", "true": "true", "false": "false"}.get(
            value if isinstance(value, (bool, str)) else ""
        )
    elif kind is not None:
        result = value if isinstance(value, str) else None
    elif isinstance(value, bool):
        result = "true" if value else "false"
    else:
        result = value if isinstance(value, str) else number_text(value)
    if result is None:
        return Refused(RefusalReason.WRONG_TYPE, f"{where} is {kind}, not {_shown(value)}")
    if not _EDGE_VALUE.fullmatch(result):
        return Refused(
            RefusalReason.NOT_ALLOWED,
            f"{where} cannot be {_shown(value)}: KubeEdge takes at most 512 of letters, digits "
            "and -_.,:/@#",
        )
    return result


def _number(value: Value, prop: Property) -> str | Refused:
    number: Decimal | None = None
    if isinstance(value, str):
        number = _decimal(value)
    elif not isinstance(value, bool):
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if number is None:
        return Refused(
            RefusalReason.WRONG_TYPE, f"property {prop.name} is {prop.type}, not {_shown(value)}"
        )
    result: float
    if prop.type is PropertyType.INT:
        if number.adjusted() <= _LARGEST_EXPONENT and number != number.to_integral_value():
            return Refused(
                RefusalReason.WRONG_TYPE,
                f"property {prop.name} is INT, and {_shown(value)} is not a whole number",
            )
        in_type = number.adjusted() <= _LARGEST_EXPONENT and int(number) in _INT64
        result = int(number) if in_type else 0
    else:
        result = float(number)
        in_type = math.isfinite(result)
    if (
        not in_type
        or (prop.minimum is not None and result < prop.minimum)
        or (prop.maximum is not None and result > prop.maximum)
    ):
        low = "" if prop.minimum is None else number_text(prop.minimum)
        high = "" if prop.maximum is None else number_text(prop.maximum)
        return Refused(
            RefusalReason.OUT_OF_RANGE,
            f"property {prop.name} cannot be {_shown(value)}: {prop.type} from {low or 'any'} "
            f"to {high or 'any'}",
        )
    return number_text(result)


def _is_finite(value: Value) -> bool:
    """Whether it is no number, or one that a double can come near to."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or value.bit_length() <= _LARGEST_BITS


def number_text(value: float) -> str:
    """A finite number without exponent: the shortest text that reads back as the same number."""
    if isinstance(value, int):
        return str(value)
    digits = format(Decimal(repr(value)), "f").removesuffix(".0")
    return "0" if digits == "-0" else digits


def _shown(value: Value) -> str:
    """What a message shows of a value: printable and short, whatever the script gave."""
    shown = ascii(value)
    return shown if len(shown) <= 64 else f"{shown[:60]}..."
