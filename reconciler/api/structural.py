"""From what pydantic emits to what a CustomResourceDefinition accepts: one pure pass.

A structural schema knows no `$ref`, no `anyOf` with null, no `const` and no closed objects. Each is
rewritten into what says the same, and anything that is not known here raises
`UnsupportedSchemaError`, so that a kind cannot quietly lose a rule on its way into the cluster.

What a structural schema cannot say at all is left to us alone: the pattern of a map's keys, and
what one field says about another. Unknown fields are pruned by the API server, where the models
refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reconciler.errors import LocalProtocolError

Schema = dict[str, object]

_KEPT: Final = frozenset(
    {
        "description",
        "enum",
        "format",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "pattern",
        "type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
    }
)
# Titles and examples are for editors. Defaults are dropped because spec has none on the server:
# what is derived goes under `status`. Key patterns (`propertyNames`) cannot be said.
_DROPPED: Final = frozenset(
    {"$defs", "title", "default", "examples", "discriminator", "propertyNames"}
)
_BOUNDS: Final = {"exclusiveMinimum": ("minimum", 1), "exclusiveMaximum": ("maximum", -1)}
_JSON_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}


class UnsupportedSchemaError(LocalProtocolError):
    """A model says something that this pass cannot carry into a structural schema."""

    reason = "UnsupportedSchema"


def inline(schema: Mapping[str, object]) -> Schema:
    """The same schema without `$ref` and `$defs`.

    Raises `UnsupportedSchemaError` for one that contains itself.
    """
    return _Inliner(_object(schema.get("$defs", {}), "#")).walk(schema, "#", ())


def rewrite(schema: Mapping[str, object]) -> Schema:
    """A structural schema that accepts what `schema` accepts.

    It may accept more where the module says so, never less. Raises `UnsupportedSchemaError`,
    which names the place.
    """
    return _node(inline(schema), "#")


class _Inliner:
    def __init__(self, definitions: Mapping[str, object]) -> None:
        self._definitions = definitions

    def walk(self, schema: Mapping[str, object], where: str, within: tuple[str, ...]) -> Schema:
        node: Schema = {}
        if (reference := schema.get("$ref")) is not None:
            name = str(reference).removeprefix("#/$defs/")
            if name not in self._definitions:
                raise UnsupportedSchemaError(f"{where}: {reference} is not among the definitions")
            if name in within:
                raise UnsupportedSchemaError(f"{where}: {name} contains itself")
            definition = _object(self._definitions[name], where)
            node = self.walk(definition, where, (*within, name))
        for keyword, value in schema.items():
            if keyword in {"$ref", "$defs"}:
                continue
            here = f"{where}/{keyword}"
            if keyword in {"properties", "patternProperties"}:
                node[keyword] = {
                    name: self.walk(_object(child, here), f"{here}/{name}", within)
                    for name, child in _object(value, here).items()
                }
            elif keyword in {"items", "additionalProperties"} and isinstance(value, Mapping):
                node[keyword] = self.walk(value, here, within)
            elif keyword in {"anyOf", "oneOf", "allOf"} and isinstance(value, list):
                node[keyword] = [
                    self.walk(_object(child, here), f"{here}/{index}", within)
                    for index, child in enumerate(value)
                ]
            else:
                node[keyword] = value
        return node


def _node(schema: Mapping[str, object], where: str) -> Schema:
    schema, nullable = _without_null(schema, where)
    node: Schema = {}
    for keyword, value in schema.items():
        here = f"{where}/{keyword}"
        if keyword in _KEPT:
            node[keyword] = value
        elif keyword in _DROPPED:
            continue
        elif keyword == "const":
            node["enum"] = [value]
            node.setdefault("type", _JSON_TYPES.get(type(value)))
        elif keyword in _BOUNDS:
            node.update(_bound(schema, keyword, here))
        elif keyword == "properties":
            node["properties"] = {
                name: _node(_object(child, here), f"{here}/{name}")
                for name, child in _object(value, here).items()
            }
        elif keyword == "required":
            if value:
                node["required"] = value
        elif keyword == "items":
            node["items"] = _node(_object(value, here), here)
        elif keyword == "additionalProperties":
            node.update(_additional(value, here))
        elif keyword == "patternProperties":
            node["additionalProperties"] = _only_pattern(value, here)
        else:
            raise UnsupportedSchemaError(f"{here}: no structural schema says this")
    if not isinstance(node.get("type"), str):
        raise UnsupportedSchemaError(f"{where}: every value needs exactly one type")
    if "properties" in node and "additionalProperties" in node:
        raise UnsupportedSchemaError(f"{where}: either properties or additionalProperties")
    if nullable:
        node["nullable"] = True
    return node


def _without_null(schema: Mapping[str, object], where: str) -> tuple[Mapping[str, object], bool]:
    """`anyOf [T, null]` as T, with what stands beside it, and whether null was there."""
    alternatives = schema.get("anyOf")
    if alternatives is None:
        return schema, False
    if not isinstance(alternatives, list):
        raise UnsupportedSchemaError(f"{where}/anyOf: not a list")
    some = [_object(a, where) for a in alternatives if a != {"type": "null"}]
    if len(some) != 1 or len(alternatives) != 2:
        raise UnsupportedSchemaError(f"{where}/anyOf: only one type, or null, can be said")
    return {**some[0], **{k: v for k, v in schema.items() if k != "anyOf"}}, True


def _bound(schema: Mapping[str, object], keyword: str, where: str) -> Schema:
    """Draft 2020's exclusive bound, as OpenAPI 3.0 spells it; for integers as the next one."""
    value = schema[keyword]
    plain, step = _BOUNDS[keyword]
    if plain in schema:
        raise UnsupportedSchemaError(f"{where}: beside {plain}")
    if isinstance(value, int) and schema.get("type") == "integer":
        return {plain: value + step}
    return {plain: value, keyword: True}


def _additional(value: object, where: str) -> Schema:
    match value:
        case False:
            return {}  # the API server prunes what is not declared; we refuse it
        case True:
            return {"x-kubernetes-preserve-unknown-fields": True}
        case _:
            return {"additionalProperties": _node(_object(value, where), where)}


def _only_pattern(value: object, where: str) -> Schema:
    patterns = list(_object(value, where).values())
    if len(patterns) != 1:
        raise UnsupportedSchemaError(f"{where}: exactly one pattern for all keys")
    return _node(_object(patterns[0], where), where)


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise UnsupportedSchemaError(f"{where}: not an object")
    return value
