from __future__ import annotations

from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, StringConstraints

from reconciler.api.structural import UnsupportedSchemaError, inline, rewrite


class Inner(BaseModel):
    size: int


class Tree(BaseModel):
    children: list[Tree]


class Ordinary(BaseModel):
    model_config = {"extra": "forbid"}

    kind: Literal["A"]
    inner: Inner = Field(description="Beside the reference.")
    maybe: Inner | None = None
    count: Annotated[int, Field(gt=0, lt=10)] = 3
    share: Annotated[float, Field(gt=0)] = 0.5
    names: list[str] = []
    env: dict[Annotated[str, StringConstraints(pattern="^[a-z]+$")], str] = {}
    anything: dict[str, object] = {}


def test_an_ordinary_model_becomes_structural() -> None:
    inner = {"properties": {"size": {"type": "integer"}}, "required": ["size"], "type": "object"}
    assert rewrite(Ordinary.model_json_schema()) == {
        "properties": {
            "kind": {"enum": ["A"], "type": "string"},
            "inner": {**inner, "description": "Beside the reference."},
            "maybe": {**inner, "nullable": True},
            "count": {"minimum": 1, "maximum": 9, "type": "integer"},
            "share": {"minimum": 0, "exclusiveMinimum": True, "type": "number"},
            "names": {"items": {"type": "string"}, "type": "array"},
            "env": {"additionalProperties": {"type": "string"}, "type": "object"},
            "anything": {"x-kubernetes-preserve-unknown-fields": True, "type": "object"},
        },
        "required": ["kind", "inner"],
        "type": "object",
    }


def test_inlining_leaves_the_meaning_alone() -> None:
    schema = inline(Ordinary.model_json_schema())
    assert "$ref" not in str(schema)
    assert Draft202012Validator(schema).is_valid({"kind": "A", "inner": {"size": 1}})
    assert not Draft202012Validator(schema).is_valid({"kind": "A", "inner": {"size": "1"}})


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        pytest.param(Tree.model_json_schema(), "contains itself", id="a type within itself"),
        pytest.param({"type": "object", "if": {}}, "#/if", id="a keyword nobody knows"),
        pytest.param(
            {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "#/anyOf", id="two types"
        ),
        pytest.param({"type": ["string", "null"]}, "one type", id="a list of types"),
        pytest.param({"description": "x"}, "one type", id="no type"),
        pytest.param({"$ref": "#/$defs/Gone"}, "Gone", id="a reference to nothing"),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "string", "allOf": []}}},
            "#/properties/a/allOf",
            id="a combination inside a property",
        ),
        pytest.param(
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "additionalProperties": {"type": "string"},
            },
            "either",
            id="properties beside additionalProperties",
        ),
        pytest.param(
            {"type": "object", "patternProperties": {"a": {"type": "string"}, "b": {}}},
            "exactly one",
            id="two patterns of keys",
        ),
        pytest.param(
            {"type": "integer", "minimum": 1, "exclusiveMinimum": 0}, "beside", id="two bounds"
        ),
    ],
)
def test_what_cannot_be_said_is_an_error_that_names_the_place(
    schema: dict[str, object], place: str
) -> None:
    with pytest.raises(UnsupportedSchemaError, match=place):
        rewrite(schema)


@given(st.integers(-5, 15))
def test_exclusive_bounds_of_integers_keep_their_meaning(count: int) -> None:
    before = Draft202012Validator({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9})
    after = Draft202012Validator(
        rewrite({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9})
    )
    assert before.is_valid(count) == after.is_valid(count)
