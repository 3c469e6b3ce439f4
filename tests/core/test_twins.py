import gc
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.core.objects import DEVICES_V1ALPHA2, DEVICES_V1BETA1, ObjectKey
from reconciler.core.twins import (
    DeviceRecord,
    DeviceStatusRecord,
    Layout,
    Twin,
    changed_properties,
    decode_device,
    decode_device_status,
    view,
)
from reconciler.errors import ObjectInvalid

ALPHA = {
    "apiVersion": "devices.kubeedge.io/v1alpha2",
    "kind": "Device",
    "metadata": {
        "name": "led",
        "namespace": "default",
        "uid": "u-1",
        "resourceVersion": "7",
        "generation": 3,
    },
    "spec": {"deviceModelRef": {"name": "led-light"}},
    "status": {
        "twins": [
            {
                "propertyName": "power",
                "desired": {"value": "ON", "metadata": {"type": "string"}},
                "reported": {"value": "OFF", "metadata": {"timestamp": "1550049403598"}},
            },
            {"propertyName": "fresh", "reported": {"value": ""}},
        ]
    },
}
BETA = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "Device",
    "metadata": {
        "name": "dht11",
        "namespace": "default",
        "uid": "u-2",
        "resourceVersion": "12",
        "generation": 40,
        "labels": {"scriptops.hit.edu.cn/repository-uid": "repo-1"},
        "annotations": {"scriptops.hit.edu.cn/manifest-digest": "sha256:aa"},
        "managedFields": [{"manager": 5, "fieldsV1": [None]}, "junk"],
    },
    "spec": {
        "deviceModelRef": {"name": "sensor"},
        "properties": [
            {"name": "limit", "desired": {"value": "30"}},
            {"name": "temperature"},
        ],
    },
    "status": {
        "twins": [
            {
                "propertyName": "temperature",
                "reported": {"value": "21.5", "metadata": {"timestamp": "1700000000001"}},
                "observedDesired": {"value": ""},
            },
            {
                "propertyName": "limit",
                "reported": {"value": "25", "metadata": {"timestamp": "1700000000002"}},
                "observedDesired": {"value": "30"},
            },
        ]
    },
}
SPLIT_STATUS = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "DeviceStatus",
    "metadata": {
        "name": "dht11",
        "namespace": "default",
        "uid": "u-3",
        "resourceVersion": "13",
        "ownerReferences": [{"kind": "Device", "uid": "u-2", "controller": True}],
    },
    "status": {
        "state": "online",
        "twins": [
            {
                "propertyName": "temperature",
                "reported": {"value": "22", "metadata": {"timestamp": "5"}},
                "observedDesired": {"value": "1"},
            }
        ],
    },
}


def device(*twins: Twin, **fields: object) -> DeviceRecord:
    values: dict[str, object] = {
        "key": ObjectKey("default", "d"),
        "uid": "u",
        "resource_version": "1",
        "generation": 1,
        "model": "",
        "layout": Layout.V1BETA1,
        "twins": twins,
        "repository_uid": "",
        "digest": "",
        "has_annotations": False,
        "has_list": True,
        "has_parent": True,
    }
    return DeviceRecord(**{**values, **fields})


def test_v1alpha2_keeps_desired_and_reported_in_status():
    assert decode_device(ALPHA) == DeviceRecord(
        key=ObjectKey("default", "led"),
        uid="u-1",
        resource_version="7",
        generation=3,
        model="led-light",
        layout=Layout.V1ALPHA2,
        twins=(
            Twin("power", "OFF", 1550049403598, "ON", None, 0),
            Twin("fresh", None, None, None, None, 1),
        ),
        repository_uid="",
        digest="",
        has_annotations=False,
        has_list=True,
        has_parent=True,
    )


def test_v1beta1_keeps_desired_in_spec_and_reported_in_status():
    record = decode_device(BETA)
    assert record.settings != 0
    assert replace(record, settings=0) == DeviceRecord(
        key=ObjectKey("default", "dht11"),
        uid="u-2",
        resource_version="12",
        generation=40,
        model="sensor",
        layout=Layout.V1BETA1,
        twins=(
            Twin("limit", "25", 1700000000002, "30", "30", 0),
            Twin("temperature", "21.5", 1700000000001, None, "", 1),
        ),
        repository_uid="repo-1",
        digest="sha256:aa",
        has_annotations=True,
        has_list=True,
        has_parent=True,
    )


def test_where_there_is_a_devicestatus_only_it_says_what_was_reported():
    status = decode_device_status(SPLIT_STATUS)
    assert status == DeviceStatusRecord(
        key=ObjectKey("default", "dht11"),
        uid="u-3",
        resource_version="13",
        device_uid="u-2",
        twins=(Twin("temperature", "22", 5, None, "1", None),),
    )
    record = decode_device(BETA)
    joined = view(record, status)
    assert joined.twins == (
        Twin("limit", None, None, "30", None, 0),
        Twin("temperature", "22", 5, None, "1", 1),
    )
    assert (joined.layout, joined.resource_version) == (Layout.SPLIT, "12")


def test_the_devicestatus_of_an_earlier_device_of_that_name_is_passed_over():
    record = decode_device({**BETA, "metadata": {**BETA["metadata"], "uid": "u-9"}})
    assert view(record, decode_device_status(SPLIT_STATUS)) is record
    assert view(record, None) is record


def test_desired_is_patched_in_the_version_the_device_came_in():
    assert [layout.resource for layout in Layout] == [
        DEVICES_V1ALPHA2,
        DEVICES_V1BETA1,
        DEVICES_V1BETA1,
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param({"value": ""}, (None, None), id="empty without timestamp is unknown"),
        pytest.param(
            {"value": "", "metadata": {"timestamp": "1"}}, ("", 1), id="empty with one is known"
        ),
        pytest.param({"value": "5"}, ("5", None), id="a value without timestamp is known"),
        pytest.param(
            {"value": "5", "metadata": {"timestamp": "soon"}},
            ("5", None),
            id="an unreadable timestamp is none",
        ),
        pytest.param(
            {"value": "5", "metadata": {"timestamp": "9" * 5000}},
            ("5", None),
            id="a timestamp of 5000 digits is none",
        ),
        pytest.param({"value": 5}, (None, None), id="a number is not a reported value"),
        pytest.param("5", (None, None), id="a bare string is not a report"),
        pytest.param(None, (None, None), id="null is not a report"),
    ],
)
def test_reported_values_are_read_as_kubeedge_means_them(entry, expected):
    obj = {
        "metadata": {"name": "d", "uid": "u"},
        "status": {"twins": [{"propertyName": "p", "reported": entry}]},
    }
    [twin] = decode_device(obj).twins
    assert (twin.reported, twin.timestamp) == expected


def test_of_two_entries_of_one_name_the_first_counts_and_nameless_ones_keep_their_index():
    obj = {
        "metadata": {"name": "d", "uid": "u"},
        "spec": {
            "properties": [
                {"visitors": {}},
                "junk",
                {"name": "p", "desired": {"value": "1"}},
                {"name": "p", "desired": {"value": "2"}},
            ]
        },
    }
    assert decode_device(obj).twins == (Twin("p", None, None, "1", None, 2),)


@pytest.mark.parametrize("decode", [decode_device, decode_device_status])
@pytest.mark.parametrize(
    ("obj", "message"),
    [
        pytest.param({}, "without name", id="nothing at all"),
        pytest.param({"metadata": []}, "without name", id="metadata is a list"),
        pytest.param({"metadata": {"name": "d"}}, "without uid", id="no uid"),
        pytest.param({"metadata": {"name": "d", "uid": 5}}, "without uid", id="uid is a number"),
    ],
)
def test_an_object_without_identity_is_invalid(decode, obj, message):
    with pytest.raises(ObjectInvalid, match=message):
        decode(obj)


def test_a_resource_version_is_only_text():
    obj = {"metadata": {"name": "d", "uid": "u", "resourceVersion": "not-a-number"}}
    assert decode_device(obj).resource_version == "not-a-number"
    obj["metadata"]["resourceVersion"] = 5
    assert decode_device(obj).resource_version == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
FIELDS = [
    "spec",
    "status",
    "properties",
    "twins",
    "name",
    "propertyName",
    "desired",
    "reported",
    "observedDesired",
    "value",
    "metadata",
    "timestamp",
    "labels",
    "annotations",
    "generation",
    "deviceModelRef",
    "apiVersion",
    "ownerReferences",
    "kind",
]
NEARLY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=30,
)


@given(metadata=NEARLY, spec=NEARLY | JSON, status=NEARLY | JSON, version=NEARLY)
def test_whatever_else_is_in_an_object_it_decodes(metadata, spec, status, version):
    meta = {**(metadata if isinstance(metadata, dict) else {}), "name": "d", "uid": "u"}
    obj = {"apiVersion": version, "metadata": meta, "spec": spec, "status": status}
    record = decode_device(obj)
    changed_properties(None, view(record, decode_device_status(obj)))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param((("a", "1", 1),), (("a", "1", 2),), (), id="only time moved"),
        pytest.param((("a", "1", 1),), (("a", "2", 1),), ("a",), id="the value moved"),
        pytest.param((("a", "1", 1),), (("a", None, None),), (), id="it became unknown"),
        pytest.param((("a", None, None),), (("a", "1", 1),), ("a",), id="it became known"),
        pytest.param((("a", "1", 1),), (("a", "", 2),), ("a",), id="it became empty"),
        pytest.param((("a", "1", 1),), (), (), id="the property is gone"),
        pytest.param(
            (("a", "1", 1), ("b", "2", 1)),
            (("b", "2", 1), ("a", "1", 1)),
            (),
            id="the list was reordered",
        ),
        pytest.param((), (("a", "1.0", 1),), ("a",), id="the property is new"),
        pytest.param(
            (("a", "1", 1),), (("a", "1.0", 1),), ("a",), id="the text moved, not the number"
        ),
    ],
)
def test_a_change_is_one_of_known_value(old, new, expected):
    before = device(*(Twin(n, v, t, None, None, None) for n, v, t in old))
    after = device(*(Twin(n, v, t, None, None, None) for n, v, t in new))
    assert changed_properties(before, after) == expected


def test_of_a_device_never_seen_every_known_value_is_a_change():
    after = device(Twin("a", "1", 1, "5", None, 0), Twin("b", None, None, "6", None, 1))
    assert changed_properties(None, after) == ("a",)


def test_desired_and_observed_desired_are_no_change():
    before = device(Twin("a", "1", 1, "1", "1", 0))
    after = device(Twin("a", "1", 1, "2", "2", 3))
    assert changed_properties(before, after) == ()


def test_a_hundred_thousand_devices_of_four_twins_take_less_than_300_mb():
    sample = 2000
    documents = [json.dumps(fleet_device(n)) for n in range(sample)]
    gc.collect()
    tracemalloc.start()
    records = []
    for document in documents:
        records.append(decode_device(json.loads(document)))  # noqa: PERF401  the loop is measured
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(records) == sample
    assert used / sample * 100_000 < 200e6


def fleet_device(n: int) -> dict[str, object]:
    names = ("temperature", "humidity", "battery", "switch")
    stamp = {"timestamp": str(1700000000000 + n), "type": "string"}
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {
            "name": f"sensor-{n:06}",
            "namespace": "plant",
            "uid": f"6f0c1a52-1c1e-4b0e-9d53-{n:012}",
            "resourceVersion": str(n + 1000000),
            "generation": n,
            "labels": {"scriptops.hit.edu.cn/repository-uid": "6f0c1a52-aaaa"},
            "annotations": {"scriptops.hit.edu.cn/manifest-digest": f"sha256:{n:064}"},
            "managedFields": [{"manager": "cloudcore", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {
            "deviceModelRef": {"name": "sensor"},
            "properties": [{"name": name, "desired": {"value": str(n)}} for name in names],
        },
        "status": {
            "twins": [
                {
                    "propertyName": name,
                    "reported": {"value": str(n * 7), "metadata": stamp},
                    "observedDesired": {"value": str(n), "metadata": stamp},
                }
                for name in names
            ]
        },
    }


def _changed(*path, value):
    obj = json.loads(json.dumps(BETA))
    *above, last = path
    node = obj
    for part in above:
        node = node[part]
    node[last] = value
    return obj


@pytest.mark.parametrize(
    ("obj", "same"),
    [
        pytest.param(
            _changed("spec", "properties", 0, "desired", value={"value": "31"}),
            True,
            id="another desired value is not",
        ),
        pytest.param(
            _changed("spec", "properties", 1, "desired", value={"value": "1"}),
            True,
            id="nor is the first one of a property",
        ),
        pytest.param(
            _changed("metadata", "annotations", "scriptops.hit.edu.cn/cause", value="run-1"),
            True,
            id="nor what run it came from",
        ),
        pytest.param(_changed("status", "twins", value=[]), True, id="nor what is reported"),
        pytest.param(
            _changed("metadata", "resourceVersion", value="13"), True, id="nor another version"
        ),
        pytest.param(
            _changed("spec", "properties", 1, "collectCycle", value=5),
            False,
            id="a setting of a property is",
        ),
        pytest.param(_changed("spec", "nodeName", value="edge"), False, id="another field is"),
        pytest.param(_changed("metadata", "labels", "a", value="b"), False, id="a label is"),
        pytest.param(
            _changed("metadata", "annotations", "a", value="b"), False, id="an annotation is"
        ),
    ],
)
def test_what_changes_the_settings_of_a_device(obj, same):
    assert (decode_device(obj).settings == decode_device(BETA).settings) is same
