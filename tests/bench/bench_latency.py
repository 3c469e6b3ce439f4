"""From a reported value to the desired value that a rule makes of it, both seen on the API server.

The reference does the least that could be done: a process of its own that watches devices and
PATCHes another device as soon as one changes. Both react to the same changes in turn, made and
observed by this process; time counts from before the report is written until the watch of an
observer shows the desired value.
"""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.bench.cluster import (
    DEVICES,
    SCRIPTS,
    Watch,
    api_server,
    connect,
    git,
    row,
    send,
    system,
)
from tests.support.kube import KubeServer

ROUNDS = 300
WARM_UP = 30

RULE = """\
async function main() {
  const value = Device.getDeviceStatus("sensor", "level");
  if (value === undefined) return;
  Device.setDeviceStatus("switch", "level", value);
  await Device.commitDevice("switch");
}
"""
SCRIPT = """\
apiVersion: hit.edu.cn/v1alpha1
kind: Script
metadata: {name: copy}
spec:
  readSelector: {matchNames: {sensor: sensor}}
  writeSelector: {matchNames: {switch: switch}}
  manifest: {scriptType: Js, name: copy, version: 1.0.0}
  executePolicy: {readChange: true, qos: AtMostOnce}
"""


def device(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": name},
        "spec": {"protocol": {"protocolName": "bench"}, "properties": [{"name": "level"}]},
    }


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="scriptops-bench-") as temporary:
        folder = Path(temporary)
        bare, work = folder / "rules.git", folder / "rules"
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        git(folder, "init", "--quiet", "--initial-branch=main", str(work))
        (work / "scripts" / "copy").mkdir(parents=True)
        (work / "scripts" / "copy" / "1.0.0.js").write_text(RULE)
        (work / "manifests").mkdir()
        (work / "manifests" / "copy.yaml").write_text(SCRIPT)
        git(work, "add", "--all")
        git(work, "commit", "--quiet", "-m", "one")
        git(work, "push", "--quiet", str(bare), "main")
        with api_server() as server, system(server, folder / "system"):
            ours = server.namespace("ours")
            connection = connect(server)
            for name in ("sensor", "switch"):
                path = f"{DEVICES}/namespaces/{ours}/devices"
                send(connection, server, "POST", path, device(name))
            scripts = Watch(server, f"{SCRIPTS}/namespaces/{ours}/scripts").start()
            repository = {
                "apiVersion": "hit.edu.cn/v1alpha1",
                "kind": "ScriptRepository",
                "metadata": {"name": "rules"},
                "spec": {"url": str(bare)},
            }
            path = f"{SCRIPTS}/namespaces/{ours}/scriptrepositories"
            send(connection, server, "POST", path, repository)
            scripts.until(lambda e: (e[2].get("status") or {}).get("runs"))
            return _measure(server, ours)


def _measure(server: KubeServer, ours: str) -> list[dict[str, Any]]:
    theirs = server.namespace("theirs")
    connection = connect(server)
    for name in ("sensor", "switch"):
        send(connection, server, "POST", f"{DEVICES}/namespaces/{theirs}/devices", device(name))
    bare = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.bench.bench_latency",
            str(server.certificate),
            str(server.port),
            server.token,
            theirs,
        ],
        stdout=subprocess.PIPE,
    )
    assert bare.stdout is not None
    try:
        bare.stdout.readline()
        values = itertools.count(1)
        # In turn, so that what else the machine does falls on both.
        sides = {
            name: Watch(server, f"{DEVICES}/namespaces/{name}/devices").start()
            for name in (ours, theirs)
        }
        took: dict[str, list[float]] = {ours: [], theirs: []}
        for _ in range(WARM_UP + ROUNDS):
            for name, watch in sides.items():
                took[name].append(_round(server, connection, name, watch, str(next(values))))
    finally:
        bare.terminate()
        bare.wait()
        bare.stdout.close()
    p50 = {name: statistics.median(times[WARM_UP:]) * 1000 for name, times in took.items()}
    p99 = {
        name: statistics.quantiles(times[WARM_UP:], n=100)[98] * 1000
        for name, times in took.items()
    }
    return [
        row("change to desired visible, p50", p50[ours], "ms", reference=p50[theirs], target=1.5),
        row("change to desired visible, p99", p99[ours], "ms", reference=p99[theirs], target=3),
    ]


def _round(
    server: KubeServer,
    connection: http.client.HTTPSConnection,
    namespace: str,
    watch: Watch,
    value: str,
) -> float:
    watch.clear()
    started = perf_counter()
    send(
        connection,
        server,
        "PATCH",
        f"{DEVICES}/namespaces/{namespace}/devices/sensor",
        report(value),
        "application/merge-patch+json",
    )
    seen = watch.until(
        lambda e: (
            e[2]["metadata"]["name"] == "switch"
            and e[2]["spec"]["properties"][0].get("desired", {}).get("value") == value
        ),
        seconds=30,
    )
    return seen - started


def report(value: str) -> dict[str, Any]:
    twin = {"propertyName": "level", "reported": {"value": value, "metadata": {"timestamp": "1"}}}
    return {"status": {"twins": [twin]}}


def react(certificate: str, port: str, token: str, namespace: str) -> None:
    """The bare loop: watch, PATCH."""
    trust = ssl.create_default_context(cafile=certificate)
    headers = {"Authorization": f"Bearer {token}"}

    def connection() -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", int(port), timeout=600, context=trust)

    path = f"{DEVICES}/namespaces/{namespace}/devices"
    watching, writing = connection(), connection()
    watching.request("GET", f"{path}?watch=1&timeoutSeconds=590", headers=headers)
    response = watching.getresponse()
    print("watching", flush=True)
    while line := response.readline():
        obj = json.loads(line)["object"]
        if obj["metadata"]["name"] != "sensor" or not obj.get("status"):
            continue
        value = obj["status"]["twins"][0]["reported"]["value"]
        patch = [
            {"op": "test", "path": "/spec/properties/0/name", "value": "level"},
            {"op": "add", "path": "/spec/properties/0/desired", "value": {"value": value}},
        ]
        writing.request(
            "PATCH",
            f"{path}/switch",
            body=json.dumps(patch),
            headers={**headers, "Content-Type": "application/json-patch+json"},
        )
        writing.getresponse().read()


if __name__ == "__main__":
    react(*sys.argv[1:])
