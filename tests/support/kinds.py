"""Small CRDs of the kinds that cluster tests need: a Script with `/status`, a Device without."""

from __future__ import annotations

from typing import Any

_TWIN = {
    "type": "object",
    "required": ["propertyName"],
    "properties": {
        "propertyName": {"type": "string"},
        "reported": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def _crd(
    group: str, version: str, kind: str, schema: Any, *, has_status: bool, plural: str = ""
) -> dict[str, Any]:
    plural = plural or f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": schema}},
                    **({"subresources": {"status": {}}} if has_status else {}),
                }
            ],
        },
    }


SCRIPT_CRD = _crd(
    "hit.edu.cn",
    "v1alpha1",
    "Script",
    {
        "spec": {
            "type": "object",
            "properties": {
                "env": {"type": "object", "additionalProperties": {"type": "string"}},
                "suspend": {"type": "boolean"},
                "manifest": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
                },
                "executePolicy": {"type": "object", "properties": {"cron": {"type": "string"}}},
            },
        },
        "status": {
            "type": "object",
            "default": {"observedGeneration": -1},
            "x-kubernetes-preserve-unknown-fields": True,
        },
    },
    has_status=True,
)
DEVICE_CRD = _crd(
    "devices.kubeedge.io",
    "v1beta1",
    "Device",
    {
        "spec": {
            "type": "object",
            "properties": {
                "properties": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}},
                        "x-kubernetes-preserve-unknown-fields": True,
                    },
                }
            },
        },
        "status": {
            "type": "object",
            "properties": {"twins": {"type": "array", "items": _TWIN}},
        },
    },
    has_status=False,
)

_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
# What KubeEdge serves, as far as tests that do not have its own definitions need it.
DEVICE_CRDS = [
    _crd(
        "devices.kubeedge.io",
        "v1beta1",
        kind,
        {"spec": _OPEN, "status": _OPEN},
        has_status=False,
    )
    for kind in ("Device", "DeviceModel")
]
# As KubeEdge served it until 1.14.
DEVICE_V1ALPHA2_CRD = _crd(
    "devices.kubeedge.io",
    "v1alpha2",
    "Device",
    {"spec": _OPEN, "status": _OPEN},
    has_status=False,
)
# Where devices report since KubeEdge 1.23.
DEVICE_STATUS_CRD = _crd(
    "devices.kubeedge.io",
    "v1beta1",
    "DeviceStatus",
    {"spec": _OPEN, "status": _OPEN},
    has_status=False,
    plural="devicestatuses",
)
