"""KubeEdge's own kinds on a real API server, and cloudcore's way of writing to them.

The CRDs are not part of this project: SCRIPTOPS_KUBEEDGE_CRDS names a folder with those of a few
releases.
"""

from __future__ import annotations

import os
import time
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube import KubeServer, wait_until

FOLDER = os.environ.get("SCRIPTOPS_KUBEEDGE_CRDS", "")
needed = pytest.mark.skipif(
    not FOLDER, reason="SCRIPTOPS_KUBEEDGE_CRDS does not name a folder with KubeEdge's CRDs"
)
GROUP = "/apis/devices.kubeedge.io"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


def remove_crds(kube: KubeServer) -> None:
    """Take all kinds of KubeEdge away, and with them all their objects."""
    for plural in ("devices", "devicemodels", "devicestatuses"):
        path = f"{CRDS}/{plural}.devices.kubeedge.io"
        try:
            kube.request("DELETE", path)
        except urllib.error.HTTPError as error:
            assert error.code == 404  # noqa: PT017 - the one answer besides success
            continue
        wait_until(lambda p=path: not _exists(kube, p), what=f"{plural} are gone")


def _exists(kube: KubeServer, path: str) -> bool:
    try:
        kube.request("GET", path)
    except urllib.error.HTTPError as error:
        return error.code != 404
    return True


@dataclass(frozen=True)
class Layout:
    """Devices as one release of KubeEdge has them."""

    release: str
    version: str
    has_device_status: bool = False

    def install(self, kube: KubeServer) -> None:
        remove_crds(kube)
        kube.apply_crds(sorted(Path(FOLDER, f"v{self.release}").glob("*.yaml")))

    def manifests(self) -> list[Any]:
        """A door sensor and a lamp with their models, as this release spells them."""
        return [
            self._model("sensor", "open", "ReadOnly"),
            self._model("light", "power", "ReadWrite"),
            self._device("door", "sensor", "open"),
            self._device("lamp", "light", "power"),
        ]

    def path(self, plural: str, namespace: str, name: str) -> str:
        return f"{GROUP}/{self.version}/namespaces/{namespace}/{plural}/{name}"

    def report(self, kube: KubeServer, namespace: str, device: str, name: str, value: str) -> None:
        """Write what a device reported as cloudcore does: the whole list of twins from its copy."""
        metadata = {"timestamp": str(int(time.time() * 1000)), "type": "string"}
        reported = {"value": value, "metadata": metadata}
        live = kube.request("GET", self.path("devices", namespace, device))
        if not self.has_device_status:
            twin = {**self._known(live, name), "propertyName": name, "reported": reported}
            patch = {"status": {"twins": [twin]}}
            kube.request(
                "PATCH", self.path("devices", namespace, device), patch, content_type=MERGE
            )
            return
        self._make_device_status(kube, namespace, live)
        twin = {
            "propertyName": name,
            "reported": reported,
            "observedDesired": {"value": "", "metadata": metadata},
        }
        path = self.path("devicestatuses", namespace, device)
        kube.request("PATCH", path, {"status": {"twins": [twin]}}, content_type=MERGE)

    def desired(self, kube: KubeServer, namespace: str, device: str, name: str) -> Any:
        """What is desired, from where this release's edge reads it; None where nothing is."""
        live = kube.request("GET", self.path("devices", namespace, device))
        if self.version == "v1alpha2":
            twin = self._known(live, name)
            return (twin.get("desired") or {}).get("value")
        found = [p for p in live["spec"]["properties"] if p["name"] == name]
        return (found[0].get("desired") or {}).get("value")

    @staticmethod
    def _known(live: Any, name: str) -> dict[str, Any]:
        twins = (live.get("status") or {}).get("twins") or []
        return next((t for t in twins if t["propertyName"] == name), {})

    def _make_device_status(self, kube: KubeServer, namespace: str, device: Any) -> None:
        name = device["metadata"]["name"]
        if _exists(kube, self.path("devicestatuses", namespace, name)):
            return
        owner = {
            "apiVersion": device["apiVersion"],
            "kind": "Device",
            "name": name,
            "uid": device["metadata"]["uid"],
            "controller": True,
        }
        document = {
            "apiVersion": device["apiVersion"],
            "kind": "DeviceStatus",
            "metadata": {"name": name, "namespace": namespace, "ownerReferences": [owner]},
            "spec": {},
        }
        kube.request("POST", self.path("devicestatuses", namespace, "").rstrip("/"), document)

    def _object(self, kind: str, name: str, spec: Any, **more: Any) -> Any:
        api_version = f"devices.kubeedge.io/{self.version}"
        metadata = {"name": name}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec, **more}

    def _model(self, name: str, prop: str, access: str) -> Any:
        if self.version == "v1alpha2":
            kind: dict[str, Any] = {
                "type": {"boolean": {"accessMode": access, "defaultValue": False}}
            }
        else:
            kind = {"type": "BOOLEAN", "accessMode": access}
        return self._object("DeviceModel", name, {"properties": [{"name": prop, **kind}]})

    def _device(self, name: str, model: str, prop: str) -> Any:
        reference = {"deviceModelRef": {"name": model}}
        if self.version == "v1alpha2":
            visitor = {"propertyName": prop, "customizedProtocol": {"protocolName": "gpio"}}
            node = {"key": "", "operator": "In", "values": ["edge-1"]}
            spec = {
                **reference,
                "protocol": {"customizedProtocol": {"protocolName": "gpio"}},
                "propertyVisitors": [visitor],
                "nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [node]}]},
            }
            twins = [{"propertyName": prop}] if model == "sensor" else []
            return self._object(
                "Device", name, spec, **({"status": {"twins": twins}} if twins else {})
            )
        spec = {
            **reference,
            "nodeName": "edge-1",
            "protocol": {"protocolName": "gpio"},
            "properties": [{"name": prop, "visitors": {"protocolName": "gpio"}}],
        }
        return self._object("Device", name, spec)


LAYOUTS = [
    Layout("1.14.0", "v1alpha2"),
    Layout("1.22.0", "v1beta1"),
    Layout("1.23.1", "v1beta1", has_device_status=True),
]
