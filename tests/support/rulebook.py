"""Rules, devices and models for repositories of tests: a sensor, a lamp, and who joins them."""

from __future__ import annotations

from typing import Any

import yaml

# The lamp shines while the door is open.
RELAY = b"""\
async function main() {
  const open = Device.getDeviceStatus("sensor", "open");
  if (open === undefined) return;
  Device.setDeviceStatus("lamp", "power", open);
  await Device.commitDevice("lamp");
}
"""
# The same, the other way round.
INVERSE = RELAY.replace(b'"power", open', b'"power", !open')
QUIET = b"function main() { console.log('ran'); }\n"
ENDLESS = b"function main() { for (;;) {} }\n"


def documents(*found: Any) -> bytes:
    """One YAML file."""
    return yaml.safe_dump_all(found, sort_keys=False).encode()


def script(
    name: str,
    *,
    artifact: str = "quiet",
    version: str = "1.0.0",
    reads: dict[str, str] | None = None,
    writes: dict[str, str] | None = None,
    policy: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    return {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "Script",
        "metadata": {"name": name},
        "spec": {
            "readSelector": {"matchNames": reads or {}},
            "writeSelector": {"matchNames": writes or {}},
            "manifest": {"scriptType": "Js", "name": artifact, "version": version},
            "executePolicy": policy or {},
            **spec,
        },
    }


def relay(name: str = "relay", *, sensor: str = "door", lamp: str = "lamp") -> dict[str, Any]:
    """A Script that switches `lamp` as `sensor` says."""
    return script(
        name,
        artifact="relay",
        reads={"sensor": sensor},
        writes={"lamp": lamp},
        policy={"readChange": True, "webhook": True},
    )


def model(name: str, *properties: str) -> dict[str, Any]:
    """A DeviceModel of boolean properties, written as `open` (read only) or `power=rw`."""
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "DeviceModel",
        "metadata": {"name": name},
        "spec": {
            "protocol": "simulated",
            "properties": [
                {
                    "name": p.removesuffix("=rw"),
                    "type": "BOOLEAN",
                    "accessMode": "ReadWrite" if p.endswith("=rw") else "ReadOnly",
                }
                for p in properties
            ],
        },
    }


def device(name: str, of: str, *properties: str, cycle: int = 1000) -> dict[str, Any]:
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": name},
        "spec": {
            "deviceModelRef": {"name": of},
            "protocol": {"protocolName": "modbus"},
            "properties": [
                {
                    "name": p,
                    "collectCycle": cycle,
                    "visitors": {"protocolName": "modbus", "configData": {"register": p}},
                }
                for p in properties
            ],
        },
    }


DEVICES = documents(
    model("sensor", "open"),
    model("lamp", "power=rw"),
    device("door", "sensor", "open"),
    device("lamp", "lamp", "power"),
)
# A small repository that is good.
HOUSE = {
    "manifests/devices.yaml": DEVICES,
    "manifests/relay.yaml": documents(relay()),
    "scripts/relay/1.0.0.js": RELAY,
    "scripts/quiet/1.0.0.js": QUIET,
}
