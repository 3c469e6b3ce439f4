"""`scriptops plan` against an embedded cluster on disk."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from reconciler.adapters import template
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.objects import DEVICE_MODELS_V1BETA1, SCRIPT_REPOSITORIES
from tests.integration.command_line import CommandLine

MODEL = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "DeviceModel",
    "metadata": {"name": "thermometer", "namespace": "default"},
    "spec": {"protocol": "modbus"},
}
# Of a version that this cluster does not have.
UNKNOWN = {
    "apiVersion": "devices.kubeedge.io/v1alpha2",
    "kind": "Device",
    "metadata": {"name": "old"},
    "spec": {"deviceModelRef": {"name": "thermometer"}},
}


@pytest.fixture
def scriptops(capsys):
    return CommandLine(capsys)


@pytest.fixture
def places(tmp_path):
    """A repository, and the data folder of a cluster that has one of its models already."""
    repository, data = tmp_path / "rules", tmp_path / "data"
    shutil.copytree(template.folder(), repository)

    async def fill() -> None:
        cluster = await EmbeddedCluster.open(data / "cluster", clock=SystemClock())
        await cluster.create(DEVICE_MODELS_V1BETA1, MODEL, field_manager="test")
        await cluster.close()

    asyncio.run(fill())
    return str(repository), str(data)


def test_plan_says_what_would_be_created_and_configured_in_order(scriptops, places):
    repository, data = places
    code, out, err = scriptops("plan", repository, "--cluster", "embedded", "--data", data)
    steps = [line for line in out.splitlines() if not line.startswith("    ")]
    assert code == 1
    assert steps == [
        "+ DeviceModel default/door-sensor",
        "+ DeviceModel default/heater",
        "+ DeviceModel default/lamp",
        "~ DeviceModel default/thermometer",
        "+ Device default/front-door",
        "+ Device default/hall-lamp",
        "+ Device default/living-room-heater",
        "+ Device default/living-room-thermometer",
        "+ Script default/door-lamp",
        "+ Script default/thermostat",
    ]
    assert "    add /spec/protocol" in out.splitlines()
    assert err == "9 created, 1 configured\n"


def test_plan_as_json(scriptops, places):
    repository, data = places
    code, out, _ = scriptops(
        "plan", repository, "--cluster", "embedded", "--data", data, "-o", "json"
    )
    document = json.loads(out)
    assert code == 1
    assert document["steps"][3] == {
        "verb": "configure",
        "kind": "DeviceModel",
        "namespace": "default",
        "name": "thermometer",
    }
    assert document["counts"] == {
        "created": 9,
        "configured": 1,
        "unchanged": 0,
        "pruned": 0,
        "skipped": 0,
    }


def test_what_cannot_be_deployed_is_a_finding_though_nothing_would_change(scriptops, places):
    repository, data = places
    shutil.rmtree(repository)
    manifests = Path(repository) / "manifests"
    manifests.mkdir(parents=True)
    (manifests / "pod.yaml").write_text(json.dumps(UNKNOWN))
    code, out, err = scriptops("plan", repository, "--cluster", "embedded", "--data", data)
    assert (code, err) == (1, "1 skipped\n")
    assert out == (
        "! Device default/old  NotServed  this cluster does not take Device of "
        "devices.kubeedge.io/v1alpha2; write apiVersion: devices.kubeedge.io/v1beta1\n"
    )


def test_plan_of_a_kubernetes_without_a_kubeconfig_is_an_error(scriptops, places, monkeypatch):
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", places[1])
    code, out, err = scriptops("plan", places[0])
    assert (code, out) == (2, "")
    assert err.startswith("error: ")


def test_plan_of_a_repository_that_others_apply_is_empty(scriptops, places):
    repository, data = places
    document = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {"name": "rules", "namespace": "default"},
        "spec": {"url": repository, "apply": "None"},
    }

    async def create() -> None:
        cluster = await EmbeddedCluster.open(Path(data) / "cluster", clock=SystemClock())
        await cluster.create(SCRIPT_REPOSITORIES, document, field_manager="test")
        await cluster.close()

    asyncio.run(create())
    asked = ("plan", repository, "--repository", "rules", "--cluster", "embedded", "--data", data)
    code, out, _ = scriptops(*asked)
    assert (code, out) == (0, "")
