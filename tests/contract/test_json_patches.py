"""The embedded cluster's JSON patches are those of the library, and leave what they patch alone."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import jsonpointer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.adapters.embedded import patching

NAMES = st.sampled_from(["spec", "properties", "name", "0", "a/b", "~", ""])
SCALARS = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "x", "0"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=3)
TOKENS = st.sampled_from(
    ["spec", "properties", "name", "0", "1", "2", "-", "01", "a~1b", "~0", "~2", "", "x"]
)
PATHS = st.lists(TOKENS, max_size=3).map(lambda tokens: "".join(f"/{t}" for t in tokens))
STEPS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["test", "add", "replace"]),
                "path": PATHS,
                "value": VALUES,
            }
        ),
        st.fixed_dictionaries({"op": st.just("remove"), "path": PATHS}),
        st.fixed_dictionaries({"op": st.just("move"), "path": PATHS, "from": PATHS}),
    ),
    max_size=4,
)


def _made(apply: Any, document: Any, steps: Any) -> Any:
    try:
        return apply(document, steps)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        return type(error)


@given(DOCUMENTS, STEPS)
def test_a_patch_makes_what_the_library_makes_of_it(document: Any, steps: Any) -> None:
    before = copy.deepcopy(document)
    library = _made(jsonpatch.apply_patch, copy.deepcopy(document), copy.deepcopy(steps))
    if not isinstance(library, dict | type):
        return  # a document that is no object any more is none of ours
    assert _made(patching.applied, document, steps) == library
    assert document == before


@pytest.mark.parametrize("last", ["0", "1", "-"])
def test_a_value_is_put_into_a_list_before_what_was_there(last: str) -> None:
    document = {"spec": {"properties": ["a", "b"]}}
    path = f"/spec/properties/{last}"
    steps: list[Any] = [
        {"op": "test", "path": "/spec/properties/0", "value": "a"},
        {"op": "add", "path": path, "value": "new"},
        {"op": "replace", "path": "/spec/properties/1", "value": "second"},
    ]
    assert patching.applied(document, steps) == jsonpatch.apply_patch(document, steps)
    assert document == {"spec": {"properties": ["a", "b"]}}
