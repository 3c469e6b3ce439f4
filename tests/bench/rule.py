"""The rule that is measured: started by a changed reading, it reads one property and writes one."""

from __future__ import annotations

import hashlib
import json

SOURCE = b"""
const limit = Number(Deno.env["threshold-value"]);
async function main() {
  if (Device.getDeviceStatus("sensor", "temperature") > limit) {
    Device.setDeviceStatus("switch", "state", "ON");
    await Device.commitDevice("switch");
  }
}
"""


def digest_of(source: bytes) -> str:
    return "sha256:" + hashlib.sha256(source).hexdigest()


DIGEST = digest_of(SOURCE)
ACTIVATION = json.dumps(
    {
        "now": 1_700_000_000_000,
        "seed": 7,
        "cause": "ReadChange",
        "event": {"device": "dht11", "property": "temperature"},
        "env": {"threshold-value": "20"},
        "read": {"sensor": {"temperature": 25.5, "humidity": 40}},
        "write": ["switch"],
    }
).encode()
