import copy

import jsonpatch
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.core import desired, origins
from reconciler.core.desired import DesiredPatch
from reconciler.core.models import ModelRecord, Property, PropertyType, RefusalReason, Refused
from reconciler.core.objects import DEVICES_V1ALPHA2, DEVICES_V1BETA1, ObjectKey
from reconciler.core.origins import Origin
from reconciler.core.runs import RunId
from reconciler.core.twins import decode_device

CAUSE = "/metadata/annotations/scriptops.hit.edu.cn~1cause"
UID = {"op": "test", "path": "/metadata/uid", "value": "u"}
BY = Origin(run_id=RunId("run-1"), script="rule", at=5.0)


def kept(**values: str) -> str:
    return origins.written("", replace(BY, marks={n: origins.mark(v) for n, v in values.items()}))


VERSION = {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
MODEL = ModelRecord(
    key=ObjectKey("default", "m"),
    uid="u",
    resource_version="1",
    properties={"limit": Property(name="limit", type=PropertyType.INT, maximum=100)},
    repository_uid="",
    digest="",
)


def beta(spec: object, annotations: object = None) -> dict:
    metadata = {"name": "d", "namespace": "default", "uid": "u", "resourceVersion": "7"}
    if annotations is not None:
        metadata["annotations"] = annotations
    obj = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": metadata}
    return obj if spec is None else {**obj, "spec": spec}


def alpha(status: object) -> dict:
    obj = beta({"deviceModelRef": {"name": "m"}}, {})
    obj["apiVersion"] = "devices.kubeedge.io/v1alpha2"
    return obj if status is None else {**obj, "status": status}


def apply(obj: dict, patch: DesiredPatch) -> dict:
    return jsonpatch.apply_patch(obj, list(patch.ops))


def test_a_v1beta1_property_is_patched_in_spec_behind_a_test_of_index_and_name():
    obj = beta(
        {
            "properties": [
                {"name": "temperature"},
                {"name": "limit", "desired": {"value": "1", "metadata": {"unit": "C"}}},
            ]
        },
        {"other": "stays"},
    )
    patch = desired.patch(decode_device(obj), {"limit": "2", "temperature": "3"}, by=BY)
    assert patch == DesiredPatch(
        key=ObjectKey("default", "d"),
        resource=DEVICES_V1BETA1,
        ops=(
            UID,
            VERSION,
            {"op": "test", "path": "/spec/properties/1/name", "value": "limit"},
            {"op": "add", "path": "/spec/properties/1/desired/value", "value": "2"},
            {"op": "test", "path": "/spec/properties/0/name", "value": "temperature"},
            {"op": "add", "path": "/spec/properties/0/desired", "value": {"value": "3"}},
            {"op": "add", "path": CAUSE, "value": kept(limit="2", temperature="3")},
        ),
        changed=("limit", "temperature"),
        unchanged=(),
    )
    after = apply(obj, patch)
    assert after["spec"]["properties"] == [
        {"name": "temperature", "desired": {"value": "3"}},
        {"name": "limit", "desired": {"value": "2", "metadata": {"unit": "C"}}},
    ]
    assert after["metadata"]["annotations"] == {
        "other": "stays",
        "scriptops.hit.edu.cn/cause": kept(limit="2", temperature="3"),
    }


def test_a_v1alpha2_property_is_patched_in_status_and_keeps_its_metadata():
    twin = {"propertyName": "power", "desired": {"value": "ON", "metadata": {"type": "string"}}}
    obj = alpha({"twins": [twin]})
    patch = desired.patch(decode_device(obj), {"power": "OFF"}, by=BY)
    assert patch == DesiredPatch(
        key=ObjectKey("default", "d"),
        resource=DEVICES_V1ALPHA2,
        ops=(
            UID,
            VERSION,
            {"op": "test", "path": "/status/twins/0/propertyName", "value": "power"},
            {"op": "add", "path": "/status/twins/0/desired/value", "value": "OFF"},
            {"op": "add", "path": CAUSE, "value": kept(power="OFF")},
        ),
        changed=("power",),
        unchanged=(),
    )
    assert apply(obj, patch)["status"] == {
        "twins": [
            {"propertyName": "power", "desired": {"value": "OFF", "metadata": {"type": "string"}}}
        ]
    }


@pytest.mark.parametrize(
    ("obj", "where", "expected"),
    [
        pytest.param(
            alpha(None),
            {"op": "add", "path": "/status", "value": {"twins": [{"propertyName": "p", "desired": {"value": "1"}}]}},
            {"status": {"twins": [{"propertyName": "p", "desired": {"value": "1"}}]}},
            id="v1alpha2 without status",
        ),
        pytest.param(
            alpha({"state": "?"}),
            {"op": "add", "path": "/status/twins", "value": [{"propertyName": "p", "desired": {"value": "1"}}]},
            {"status": {"state": "?", "twins": [{"propertyName": "p", "desired": {"value": "1"}}]}},
            id="v1alpha2 without twins",
        ),
        pytest.param(
            alpha({"twins": [{"propertyName": "q"}]}),
            {"op": "add", "path": "/status/twins/-", "value": {"propertyName": "p", "desired": {"value": "1"}}},
            {"status": {"twins": [{"propertyName": "q"}, {"propertyName": "p", "desired": {"value": "1"}}]}},
            id="v1alpha2 without this twin",
        ),
        pytest.param(
            beta(None, {}),
            {"op": "add", "path": "/spec", "value": {"properties": [{"name": "p", "desired": {"value": "1"}}]}},
            {"spec": {"properties": [{"name": "p", "desired": {"value": "1"}}]}},
            id="v1beta1 without spec",
        ),
        pytest.param(
            beta({"nodeName": "n"}, {}),
            {"op": "add", "path": "/spec/properties", "value": [{"name": "p", "desired": {"value": "1"}}]},
            {"spec": {"nodeName": "n", "properties": [{"name": "p", "desired": {"value": "1"}}]}},
            id="v1beta1 without properties",
        ),
        pytest.param(
            beta({"properties": [{"name": "q"}]}, {}),
            {"op": "add", "path": "/spec/properties/-", "value": {"name": "p", "desired": {"value": "1"}}},
            {"spec": {"properties": [{"name": "q"}, {"name": "p", "desired": {"value": "1"}}]}},
            id="v1beta1 without this property",
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_added_only_to_the_very_object_that_was_read(obj, where, expected):
    patch = desired.patch(decode_device(obj), {"p": "1"}, by=BY)
    assert patch.ops == (UID, VERSION, where, {"op": "add", "path": CAUSE, "value": kept(p="1")})
    after = apply(obj, patch)
    assert {field: after[field] for field in expected} == expected
    moved = copy.deepcopy(obj)
    moved["metadata"]["resourceVersion"] = "8"
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        apply(moved, patch)


def test_the_map_of_annotations_is_made_only_on_the_very_object_that_had_none():
    obj = beta({"properties": [{"name": "p"}]})
    patch = desired.patch(decode_device(obj), {"p": "1"}, by=BY)
    assert patch.ops == (
        UID,
        VERSION,
        {"op": "test", "path": "/spec/properties/0/name", "value": "p"},
        {"op": "add", "path": "/spec/properties/0/desired", "value": {"value": "1"}},
        {
            "op": "add",
            "path": "/metadata/annotations",
            "value": {"scriptops.hit.edu.cn/cause": kept(p="1")},
        },
    )


def test_what_other_runs_have_set_is_remembered_and_tested():
    obj = beta({"properties": [{"name": "p"}, {"name": "q"}]}, {})
    first = apply(obj, desired.patch(decode_device(obj), {"p": "1", "q": "1"}, by=BY))
    other = Origin(run_id=RunId("run-2"), script="other", at=6.0, depth=1, chain=RunId("run-1"))
    patch = desired.patch(decode_device(first), {"q": "2"}, by=other)
    seen = {"op": "test", "path": CAUSE, "value": kept(p="1", q="1")}
    assert patch.ops[:2] == (UID, seen)
    record = decode_device(apply(first, patch))
    q = replace(other, marks={"q": origins.mark("2")})
    assert origins.read(record.origins) == (q, replace(BY, marks={"p": origins.mark("1")}))
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        apply(apply(first, patch), desired.patch(decode_device(first), {"p": "2"}, by=other))


@pytest.mark.parametrize(
    ("forced", "changed", "unchanged"),
    [
        pytest.param((), ("b",), ("a",), id="an equal value is left out"),
        pytest.param(("a",), ("a", "b"), (), id="a forced one is written all the same"),
    ],
)
def test_equal_values_are_counted_and_not_written(forced, changed, unchanged):
    obj = beta({"properties": [{"name": n, "desired": {"value": "1"}} for n in "ab"]}, {})
    patch = desired.patch(decode_device(obj), {"a": "1", "b": "2"}, by=BY, forced=forced)
    assert (patch.changed, patch.unchanged) == (changed, unchanged)


def test_nothing_to_change_is_an_empty_patch():
    obj = beta({"properties": [{"name": "a", "desired": {"value": "1"}}]})
    patch = desired.patch(decode_device(obj), {"a": "1"}, by=BY)
    assert (patch.ops, patch.changed, patch.unchanged) == ((), (), ("a",))


def test_names_with_slash_and_tilde_are_values_not_paths():
    obj = beta({"properties": [{"name": "a/b~c"}]}, {})
    patch = desired.patch(decode_device(obj), {"a/b~c": "1"}, by=BY)
    assert apply(obj, patch)["spec"]["properties"] == [{"name": "a/b~c", "desired": {"value": "1"}}]


def test_a_device_made_anew_under_the_same_name_is_not_written():
    obj = beta({"properties": [{"name": "p"}]}, {})
    patch = desired.patch(decode_device(obj), {"p": "1"}, by=BY)
    obj["metadata"]["uid"] = "another"
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        apply(obj, patch)


@given(
    names=st.lists(st.sampled_from("abcdefg"), unique=True, min_size=1),
    data=st.data(),
    is_alpha=st.booleans(),
)
def test_a_list_reordered_in_between_is_never_written_wrongly(names, data, is_alpha):
    field = "propertyName" if is_alpha else "name"
    items = [{field: n, "desired": {"value": "0"}} for n in names]
    obj = alpha({"twins": items}) if is_alpha else beta({"properties": items}, {})
    writes = data.draw(st.dictionaries(st.sampled_from(names), st.just("1"), min_size=1))
    moved = copy.deepcopy(obj)
    entries = moved["status"]["twins"] if is_alpha else moved["spec"]["properties"]
    entries[:] = data.draw(st.permutations(entries))
    patch = desired.patch(decode_device(obj), writes, by=BY)
    if any(entries[names.index(n)][field] != n for n in writes):
        with pytest.raises(jsonpatch.JsonPatchTestFailed):
            apply(moved, patch)
    else:
        after = decode_device(apply(moved, patch))
        assert {t.name: t.desired for t in after.twins} == {**dict.fromkeys(names, "0"), **writes}


VALUES = st.text("ab", max_size=2)


@given(
    live=st.dictionaries(st.sampled_from("abcd"), st.none() | VALUES),
    writes=st.dictionaries(st.sampled_from("abcdef"), VALUES),
    is_alpha=st.booleans(),
    has_annotations=st.booleans(),
    has_list=st.booleans(),
)
def test_after_the_patch_every_write_is_desired_and_a_second_one_is_empty(
    live, writes, is_alpha, has_annotations, has_list
):
    assume(has_list or not live)
    field = "propertyName" if is_alpha else "name"
    items = [
        {field: n, **({} if v is None else {"desired": {"value": v}})} for n, v in live.items()
    ]
    place, entries = ("status", "twins") if is_alpha else ("spec", "properties")
    obj = {
        **beta({}, {"x": "y"} if has_annotations else None),
        "apiVersion": f"devices.kubeedge.io/{'v1alpha2' if is_alpha else 'v1beta1'}",
    }
    if has_list:
        obj[place] = {entries: items}
    patch = desired.patch(decode_device(obj), writes, by=BY)
    after = decode_device(apply(obj, patch))
    assert {t.name: t.desired for t in after.twins} == {**live, **writes}
    assert desired.patch(after, writes, by=BY).ops == ()
    assert set(patch.changed) == {n for n, v in writes.items() if live.get(n) != v}


@pytest.mark.parametrize(
    ("model", "name", "value", "expected"),
    [
        pytest.param(MODEL, "limit", 30.0, "30", id="a property of the model"),
        pytest.param(
            MODEL,
            "limit",
            101,
            Refused(
                RefusalReason.OUT_OF_RANGE,
                "property limit cannot be 101: INT from any to 100",
            ),
            id="out of range",
        ),
        pytest.param(
            MODEL,
            "speed",
            1,
            Refused(
                RefusalReason.UNKNOWN_PROPERTY, "DeviceModel default/m has no property 'speed'"
            ),
            id="not in the model",
        ),
        pytest.param(None, "speed", 1.5, "1.5", id="no model in the cluster"),
        pytest.param(
            None,
            "a b",
            1,
            Refused(RefusalReason.UNKNOWN_PROPERTY, "'a b' cannot name a property"),
            id="no model, and a name the edge does not take",
        ),
        pytest.param(
            None,
            "speed",
            "a b",
            Refused(
                RefusalReason.NOT_ALLOWED,
                "property speed cannot be 'a b': KubeEdge takes at most 512 of letters, digits "
                "and -_.,:/@#",
            ),
            id="no model, and a value the edge does not take",
        ),
    ],
)
def test_a_write_is_checked_against_the_model_where_there_is_one(model, name, value, expected):
    assert desired.check(model, name, value) == expected


def test_a_run_that_may_be_performed_again_writes_once_whatever_others_wrote_since():
    def undone(run_id: str) -> bool:
        return run_id == "run-1"

    last = replace(BY, is_last=True)
    obj = beta({"properties": [{"name": "limit"}]}, {})
    # What it wrote on the way is not the last.
    first = apply(obj, desired.patch(decode_device(obj), {"limit": "0"}, by=BY, undone=undone))
    first = apply(
        first, desired.patch(decode_device(first), {"limit": "1"}, by=last, undone=undone)
    )
    assert first["spec"]["properties"][0]["desired"] == {"value": "1"}
    other = replace(BY, run_id=RunId("run-2"))
    second = desired.patch(decode_device(first), {"limit": "2"}, by=other, undone=undone)
    both = apply(first, second)
    again = desired.patch(decode_device(both), {"limit": "1"}, by=last, undone=undone)
    assert (again.ops, again.changed) == ((), ("limit",))
    # Once it is done, nothing of it is left to be kept.
    third = replace(BY, run_id=RunId("run-3"))
    alone = apply(both, desired.patch(decode_device(both), {"limit": "3"}, by=third))
    found = origins.read(decode_device(alone).origins)
    assert [it.run_id for it in found] == ["run-3"]
