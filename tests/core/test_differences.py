"""Objects compared field by field, and who writes what before and after."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from reconciler.core.admission import Desired
from reconciler.core.differences import Changed, Field, Writers, artifacts, objects, writers
from reconciler.core.objects import JsonObject, ObjectKey, Reference
from reconciler.core.uses import Capability, Touch

REFERENCE = Reference("Device", "default", "lamp")


def desired(document: JsonObject) -> Desired:
    return Desired(
        reference=REFERENCE,
        document=document,
        digest=repr(document),
        path=PurePosixPath("manifests/a.yaml"),
        line=1,
    )


def capability(name: str, *touches: tuple[str, str]) -> Capability:
    return Capability(
        script=ObjectKey("default", name),
        artifact=f"{name}/1",
        reads=(),
        writes=tuple(Touch(device, prop, device) for device, prop in touches),
        env=(),
        fetches=(),
        is_exact=True,
    )


@pytest.mark.parametrize(
    ("before", "after", "fields"),
    [
        pytest.param({"a": 1}, {"a": 2}, [Field("/a", 1, 2)], id="a value"),
        pytest.param({"a": 1}, {"a": True}, [Field("/a", 1, True)], id="a number is no boolean"),
        pytest.param({}, {"a/b": {}}, [Field("/a~1b", None, {})], id="a field that comes"),
        pytest.param(
            {"p": [{"name": "x", "v": 1}, {"name": "y"}]},
            {"p": [{"name": "y"}, {"name": "x", "v": 2}]},
            [Field("/p/1/v", 1, 2)],
            id="items by their names, wherever they stand",
        ),
        pytest.param(
            {"p": [{"name": "x"}, {"name": "y"}]},
            {"p": [{"name": "y"}]},
            [Field("/p/0", {"name": "x"}, None)],
            id="an item that goes",
        ),
        pytest.param(
            {"p": ["a", "b"]}, {"p": ["a", "c"]}, [Field("/p/1", "b", "c")], id="items by place"
        ),
        pytest.param(
            {"p": ["a"]}, {"p": ["a", "b"]}, [Field("/p", ["a"], ["a", "b"])], id="a longer list"
        ),
    ],
)
def test_fields_that_differ_are_told_by_their_place(before, after, fields):
    (changed,) = objects({REFERENCE: desired(before)}, {REFERENCE: desired(after)})
    assert list(changed.fields) == fields


def test_what_is_held_does_not_go():
    lamp = desired({})
    assert objects({REFERENCE: lamp}, {}) == (Changed(REFERENCE, lamp, None),)
    assert objects({REFERENCE: lamp}, {}, held=frozenset({REFERENCE})) == ()
    assert objects({REFERENCE: lamp}, {REFERENCE: lamp}) == ()


def test_only_script_files_are_artifacts():
    old = {PurePosixPath("scripts/a/1.js"): b"1", PurePosixPath("scripts/a/1.test.yaml"): b"1"}
    new = {PurePosixPath("scripts/a/1.js"): b"2", PurePosixPath("scripts/a/2.js"): b"2"}
    assert list(artifacts(old, new)) == [
        (PurePosixPath("scripts/a/1.js"), True, True),
        (PurePosixPath("scripts/a/2.js"), False, True),
    ]


def test_writers_are_told_where_they_are_others_than_before():
    before = [capability("a", ("lamp", "power")), capability("b", ("heater", "power"))]
    after = [capability("a", ("lamp", "power")), capability("c", ("lamp", "power"), ("door", ""))]
    assert writers(before, after) == (
        Writers(ObjectKey("default", "door"), "", (), ("c",)),
        Writers(ObjectKey("default", "heater"), "power", ("b",), ()),
        Writers(ObjectKey("default", "lamp"), "power", ("a",), ("a", "c")),
    )
