"""`scriptops simulate --cluster kubernetes`: KubeEdge with its defects, at a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.kinds import DEVICE_CRDS, DEVICE_STATUS_CRD
from tests.support.kube import KubeServer, wait_until
from tests.support.kubeedge import GROUP, MERGE, remove_crds
from tests.support.system import Process

pytestmark = pytest.mark.kube

DEVICES = """\
devices:
  - name: fan-{{n}}
    namespace: {namespace}
    count: 50
    properties:
      speed: {{simulate: follow, start: "0", delay: 10}}
      heat: {{simulate: ramp, from: 10, to: 30, step: 1, every: 300}}
      label: {{simulate: constant, start: here}}
"""


@pytest.fixture
def namespace(kube: KubeServer) -> Iterator[str]:
    remove_crds(kube)
    kube.apply_crds([*DEVICE_CRDS, DEVICE_STATUS_CRD])
    yield kube.namespace("simulated", granted=False)
    remove_crds(kube)


@contextmanager
def simulating(folder: Path, kube: KubeServer, namespace: str, release: str) -> Iterator[Process]:
    file = folder / "scenario.yaml"
    file.write_text(f"{DEVICES.format(namespace=namespace)}kubeedge: {release}\n")
    command = ("reconciler", "simulate", str(file), "--cluster=kubernetes")
    process = Process((*command, f"--kubeconfig={kube.kubeconfig}"), folder / "simulate.log")
    process.start()
    try:
        yield process
    finally:
        assert process.stop() == 0


def path(namespace: str, number: int, plural: str = "devices") -> str:
    return f"{GROUP}/v1beta1/namespaces/{namespace}/{plural}/fan-{number}"


def add(kube: KubeServer, namespace: str, number: int) -> None:
    names = ("speed", "heat", "label")
    kube.request(
        "POST",
        path(namespace, number).rpartition("/")[0],
        {
            "apiVersion": "devices.kubeedge.io/v1beta1",
            "kind": "Device",
            "metadata": {"name": f"fan-{number}"},
            "spec": {"protocol": {"protocolName": "modbus"}, "properties": [{"name": n} for n in names]},
        },
    )  # fmt: skip


def twins(kube: KubeServer, namespace: str, number: int, plural: str = "devices") -> dict[str, Any]:
    live = kube.request("GET", path(namespace, number, plural))
    items = (live.get("status") or {}).get("twins") or []
    return {it["propertyName"]: it for it in items}


def reported(kube: KubeServer, namespace: str, number: int, plural: str = "devices") -> set[str]:
    """Properties whose value is known."""
    found = twins(kube, namespace, number, plural)
    return {name for name, twin in found.items() if twin["reported"].get("metadata")}


def desire(kube: KubeServer, namespace: str, number: int, value: str) -> None:
    live = kube.request("GET", path(namespace, number))
    properties = live["spec"]["properties"]
    properties[0]["desired"] = {"value": value}
    body = {"spec": {"properties": properties}}
    kube.request("PATCH", path(namespace, number), body, content_type=MERGE)


def test_devices_report_all_but_their_first_word_and_do_as_they_are_told(
    kube: KubeServer, namespace: str, tmp_path: Path
) -> None:
    for number in range(1, 51):
        add(kube, namespace, number)
    with simulating(tmp_path, kube, namespace, '{release: "1.22"}'):
        wait_until(
            lambda: all(reported(kube, namespace, n) == {"heat"} for n in range(1, 51)),
            what="what is reported again is known",
        )
        found = twins(kube, namespace, 1)
        nothing = {"reported": {"value": ""}, "observedDesired": {"value": ""}}
        assert found["label"] == {"propertyName": "label", **nothing}
        desire(kube, namespace, 7, "3")
        wait_until(
            lambda: twins(kube, namespace, 7)["speed"]["reported"]["value"] == "3",
            what="the fan turns",
        )
        observed = twins(kube, namespace, 7)["speed"]["observedDesired"]["value"]
        assert observed == "3"


def test_where_a_release_has_them_apart_reports_are_in_a_device_status(
    kube: KubeServer, namespace: str, tmp_path: Path
) -> None:
    add(kube, namespace, 1)
    without = '{release: "1.23", defects: {losesFirstReport: false}}'
    with simulating(tmp_path, kube, namespace, without):
        add(kube, namespace, 2)
        for number in (1, 2):
            wait_until(
                lambda n=number: _there(kube, namespace, n) == {"speed", "heat", "label"},
                what="all is reported",
            )
        assert twins(kube, namespace, 1) == {}
        status = kube.request("GET", path(namespace, 1, "devicestatuses"))
        device = kube.request("GET", path(namespace, 1))
        assert [it["uid"] for it in status["metadata"]["ownerReferences"]] == [
            device["metadata"]["uid"]
        ]


def test_a_device_that_is_set_up_again_after_each_report_misses_some(
    kube: KubeServer, namespace: str, tmp_path: Path
) -> None:
    add(kube, namespace, 1)
    older = '{release: "1.20", defects: {losesFirstReport: false}}'
    with simulating(tmp_path, kube, namespace, older):
        wait_until(lambda: "heat" in reported(kube, namespace, 1), what="it is heard again")
        # Of what it says at its start the first is heard; while that is written there is no other.
        assert "label" not in reported(kube, namespace, 1)


def _there(kube: KubeServer, namespace: str, number: int) -> set[str]:
    listed = kube.request("GET", path(namespace, number, "devicestatuses").rpartition("/")[0])
    names = {it["metadata"]["name"] for it in listed["items"]}
    if f"fan-{number}" not in names:
        return set()
    return reported(kube, namespace, number, "devicestatuses")
