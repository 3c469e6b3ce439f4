"""What we read and write, held against KubeEdge's own CRDs and samples.

They are not part of this project: SCRIPTOPS_KUBEEDGE_CRDS names a folder with the CRDs of a few
releases (`v1.22.0/devices_v1beta1_device.yaml`) and `samples/**/*.yaml`.
"""

import os
from pathlib import Path

import pytest
import yaml

from reconciler.core.models import decode_model
from reconciler.core.twins import Layout, decode_device

FOLDER = os.environ.get("SCRIPTOPS_KUBEEDGE_CRDS", "")

pytestmark = pytest.mark.skipif(
    not FOLDER, reason="SCRIPTOPS_KUBEEDGE_CRDS does not name a folder with KubeEdge's CRDs"
)


def schema(path: str, version: str) -> dict:
    document = yaml.safe_load((Path(FOLDER) / path).read_text())
    [found] = [v for v in document["spec"]["versions"] if v["name"] == version]
    return found


def at(found: dict, path: str) -> dict:
    node = found["schema"]["openAPIV3Schema"]
    for part in path.split("."):
        node = node["items"] if part == "[]" else node["properties"][part]
    return node


def samples(kind: str) -> list[dict]:
    found = []
    for path in sorted((Path(FOLDER) / "samples").rglob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        if document.get("kind") == kind and not document["apiVersion"].endswith("v1alpha1"):
            document["metadata"]["uid"] = "u"
            found.append(document)
    return found


@pytest.mark.parametrize(
    ("path", "version", "fields"),
    [
        pytest.param(
            "v1.14.0/devices_v1alpha2_device.yaml",
            "v1alpha2",
            ("status.twins.[].desired", "status.twins.[].reported", "spec.propertyVisitors"),
            id="v1alpha2",
        ),
        pytest.param(
            "v1.22.0/devices_v1beta1_device.yaml",
            "v1beta1",
            ("spec.properties.[].desired", "status.twins.[].reported"),
            id="v1beta1 with the status in the Device",
        ),
        pytest.param(
            "v1.23.1/devices_v1beta1_device.yaml",
            "v1beta1",
            ("spec.properties.[].desired",),
            id="v1beta1 beside DeviceStatus",
        ),
        pytest.param(
            "v1.23.1/devices_v1beta1_devicestatus.yaml",
            "v1beta1",
            ("status.twins.[].reported", "status.twins.[].observedDesired"),
            id="DeviceStatus",
        ),
    ],
)
def test_twin_values_are_text_where_we_look_for_them(path, version, fields):
    found = schema(path, version)
    assert "subresources" not in found
    values = {
        field: at(found, field).get("properties", {}).get("value", {}).get("type")
        for field in fields
        if field.endswith(("desired", "reported", "observedDesired"))
    }
    assert values == dict.fromkeys(values, "string")
    assert all(at(found, field) for field in fields)


def test_devices_of_1_23_report_elsewhere():
    status = at(schema("v1.23.1/devices_v1beta1_device.yaml", "v1beta1"), "status")
    assert "twins" not in status["properties"]


def test_every_sample_device_is_read_with_its_model_and_properties():
    documents = samples("Device")
    assert len(documents) > 5
    for document in documents:
        record = decode_device(document)
        spec = document["spec"]
        assert record.model == spec["deviceModelRef"]["name"]
        if record.layout is Layout.V1BETA1:
            listed = [
                (p["name"], (p.get("desired") or {}).get("value")) for p in spec["properties"]
            ]
        else:
            twins = (document.get("status") or {}).get("twins") or []
            listed = [(t["propertyName"], (t.get("desired") or {}).get("value")) for t in twins]
        assert [(t.name, t.desired) for t in record.twins] == listed


def test_every_sample_model_is_read_with_its_types():
    documents = samples("DeviceModel")
    assert len(documents) > 5
    for document in documents:
        properties = decode_model(document).properties
        assert sorted(properties) == sorted(p["name"] for p in document["spec"]["properties"])
        assert all(prop.type is not None for prop in properties.values())
