"""KubeEdge's own sample devices and models, on a real API server with the CRDs of their time."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from reconciler.adapters.kube import connect
from reconciler.core import desired, origins
from reconciler.core.models import ModelRecord, decode_model
from reconciler.core.objects import ANNOTATION_CAUSE
from reconciler.core.origins import Origin
from reconciler.core.runs import RunId
from reconciler.core.twins import DeviceRecord, Layout, decode_device
from reconciler.errors import Conflict
from tests.support import kubeedge
from tests.support.kube import KubeServer

BY = Origin(run_id=RunId("run-1"), script="rule", at=1.0)

pytestmark = [pytest.mark.kube, kubeedge.needed]

# Which version of the kinds a release of KubeEdge serves.
RELEASES = {
    "v1.12.0": "v1alpha2",
    "v1.14.0": "v1alpha2",
    "v1.22.0": "v1beta1",
    "v1.23.1": "v1beta1",
}
# What rules write: the first that a property takes.
VALUES = (True, 25, 2.5, "on")


def samples() -> dict[str, Any]:
    """By file name; none where there are no CRDs either."""
    root = Path(kubeedge.FOLDER, "samples")
    files = sorted(root.rglob("*.yaml")) if kubeedge.FOLDER else []
    return {str(path.relative_to(root)): yaml.safe_load(path.read_text()) for path in files}


SAMPLES = samples()


def of_kind(kind: str) -> list[Any]:
    """A parameter for each sample with each release that serves its version."""
    return [
        pytest.param(release, name, id=f"{release} {name}")
        for release, version in RELEASES.items()
        for name, document in SAMPLES.items()
        if (document["apiVersion"], document["kind"]) == (f"devices.kubeedge.io/{version}", kind)
    ]


@dataclass
class Release:
    kube: KubeServer
    version: str

    def create(self, document: Any, namespace: str) -> Any:
        """The document as the server keeps it."""
        made = copy.deepcopy(document)
        made["metadata"]["namespace"] = namespace
        return self.kube.request("POST", self.path(f"{made['kind'].lower()}s", namespace), made)

    def path(self, plural: str, namespace: str, name: str = "") -> str:
        path = f"{kubeedge.GROUP}/{self.version}/namespaces/{namespace}/{plural}"
        return f"{path}/{name}" if name else path


@pytest.fixture(scope="module")
def serving(kube: KubeServer) -> Iterator[Callable[[str], Release]]:
    """The CRDs of a release, installed anew only where another one was there before."""
    current = ""

    def install(name: str) -> Release:
        nonlocal current
        if name != current:
            kubeedge.remove_crds(kube)
            kube.apply_crds(sorted(Path(kubeedge.FOLDER, name).glob("*.yaml")))
            current = name
        return Release(kube, RELEASES[name])

    yield install
    kubeedge.remove_crds(kube)


def model_of(release: Release, device: Any, namespace: str) -> ModelRecord | None:
    """The model from the folder of the sample, where it came with one."""
    name = device["spec"]["deviceModelRef"]["name"]
    for document in SAMPLES.values():
        is_model = document["kind"] == "DeviceModel" and document["metadata"]["name"] == name
        if is_model and document["apiVersion"] == device["apiVersion"]:
            return decode_model(release.create(document, namespace))
    return None


def wishes(record: DeviceRecord, model: ModelRecord | None) -> dict[str, str]:
    """A value for every property that takes one; of what a model forbids, the refusal is asserted."""
    names = {twin.name for twin in record.twins} | set(model.properties if model else ("power",))
    found: dict[str, str] = {}
    for name in sorted(names):
        texts = [desired.check(model, name, value) for value in VALUES]
        prop = model.properties.get(name) if model else None
        may_be_written = model is None or (prop is not None and prop.writable)
        taken = [text for text in texts if isinstance(text, str)]
        assert bool(taken) == may_be_written, (name, texts)
        found.update({name: taken[0]} if taken else {})
    # A sensor that takes nothing: the server must take a patch of it all the same.
    return found or dict.fromkeys(names, "on")


def wished(device: Any, values: dict[str, str], layout: Layout) -> Any:
    """The device as it should then be, built from the device before and not by the code tested."""
    found = copy.deepcopy(device)
    parent, entries, name_field = (
        ("status", "twins", "propertyName")
        if layout is Layout.V1ALPHA2
        else ("spec", "properties", "name")
    )
    listed = found.setdefault(parent, {}).setdefault(entries, [])
    for name, value in values.items():
        entry = next((e for e in listed if e[name_field] == name), None)
        if entry is None:
            entry = {name_field: name}
            listed.append(entry)
        entry["desired"] = {**entry.get("desired", {}), "value": value}
    found["metadata"].setdefault("annotations", {})[ANNOTATION_CAUSE] = origins.written(
        "", replace(BY, marks={name: origins.mark(value) for name, value in values.items()})
    )
    return comparable(found)


def comparable(device: Any) -> Any:
    """Without what the server counts."""
    found = copy.deepcopy(device)
    for counted in ("resourceVersion", "generation", "managedFields"):
        found["metadata"].pop(counted, None)
    return found


@pytest.mark.parametrize(("of", "name"), of_kind("DeviceModel"))
def test_a_sample_model_is_read_from_the_server_with_every_type(
    serving: Callable[[str], Release], of: str, name: str
) -> None:
    release = serving(of)
    live = release.create(SAMPLES[name], release.kube.namespace("samples"))
    properties = decode_model(live).properties
    assert set(properties) == {p["name"] for p in SAMPLES[name]["spec"]["properties"]}
    assert all(prop.type is not None for prop in properties.values()), properties


@pytest.mark.parametrize(("of", "name"), of_kind("Device"))
def test_a_sample_device_takes_a_desired_value_and_nothing_else_of_it_changes(
    serving: Callable[[str], Release], of: str, name: str
) -> None:
    release = serving(of)
    namespace = release.kube.namespace("samples")
    live = release.create(SAMPLES[name], namespace)
    record = decode_device(live)
    assert record.model == SAMPLES[name]["spec"]["deviceModelRef"]["name"]
    values = wishes(record, model_of(release, live, namespace))
    assert values

    async def write() -> Any:
        cluster = await connect(kubeconfig=str(release.kube.controller_kubeconfig))
        try:
            patch = desired.patch(record, values, by=BY)
            await cluster.json_patch(
                patch.resource, patch.key, patch.ops, field_manager="scriptops"
            )
            written = await cluster.get(patch.resource, patch.key)
            # Another run knows of this one, and one that does not know of it is too late.
            again = desired.patch(decode_device(written), values, by=BY, forced=values)
            assert any(op["op"] == "test" and "annotations" in str(op["path"]) for op in again.ops)
            await cluster.json_patch(
                again.resource, again.key, again.ops, field_manager="scriptops"
            )
            newer = desired.patch(
                decode_device(written), values, by=replace(BY, at=2.0), forced=values
            )
            await cluster.json_patch(
                newer.resource, newer.key, newer.ops, field_manager="scriptops"
            )
            with pytest.raises(Conflict):
                await cluster.json_patch(
                    newer.resource, newer.key, again.ops, field_manager="scriptops"
                )
            return written
        finally:
            await cluster.close()

    after = asyncio.run(write())
    assert comparable(after) == wished(live, values, record.layout)
    again = decode_device(after)
    assert {twin.name: twin.desired for twin in again.twins if twin.name in values} == values
    assert desired.patch(again, values, by=BY).ops == ()


def test_no_sample_is_of_a_version_that_nobody_serves() -> None:
    served = {f"devices.kubeedge.io/{version}" for version in RELEASES.values()}
    left_out = {n: d["apiVersion"] for n, d in SAMPLES.items() if d["apiVersion"] not in served}
    # v1alpha1 was gone before the oldest release whose devices we read.
    assert {v for v in left_out.values() if not v.endswith("/v1alpha1")} == set()
    assert len(SAMPLES) - len(left_out) > 10
