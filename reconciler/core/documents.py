"""Objects as their readers want them: only the fields that somebody reads, the rest passed over.

A `Document` is what a JSON parser makes of an object when it is told beforehand what will be read:
it builds nothing of what is not (managedFields, visitors), and attributes instead of dicts of what
is. That is half of what a watch event costs.

Types are not trusted: what others wrote may be anything anywhere. So a field is declared as what
it should be *or* whatever else JSON has, and whoever reads it looks.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias, TypeVar

import msgspec

from reconciler.core.objects import JsonObject
from reconciler.errors import ObjectInvalid

Scalar: TypeAlias = bool | int | float | str | None
# What a field may be instead of the object, or the list, that it should be.
NoObject: TypeAlias = Scalar | list[Any]
NoList: TypeAlias = Scalar | dict[str, Any]


class Part(msgspec.Struct, gc=False, rename="camel"):
    """An object inside a document. JSON has no cycles, so the collector need not look at it."""


class Metadata(Part):
    name: object = None
    namespace: object = None
    uid: object = None
    resource_version: object = None
    generation: object = None
    labels: object = None
    annotations: object = None
    owner_references: object = None


class Document(Part):
    """What every object has; subclasses add what is read of a kind."""

    metadata: Metadata | NoObject = None
    api_version: object = None


D = TypeVar("D", bound=Document)


@cache
def _keeps_as_sent(shape: type[Document]) -> bool:
    return any(field.type is msgspec.Raw for field in msgspec.structs.fields(shape))


def document(obj: JsonObject | Document, shape: type[D]) -> D:
    """`obj` in that shape. Raises `ObjectInvalid` for numbers that no computer word holds."""
    if isinstance(obj, shape):
        return obj
    try:
        if _keeps_as_sent(shape):
            # A part that is kept as it was sent has to have been sent.
            return msgspec.json.decode(msgspec.json.encode(obj), type=shape)
        return msgspec.convert(obj, shape)
    except msgspec.ValidationError as error:
        raise ObjectInvalid(str(error)) from error
