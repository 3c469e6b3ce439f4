"""From a change that somebody makes in the cluster to the object as git has it again.

The reference does the least that could be done: this process changes a Script, sees the change in
its own watch, and changes it back with one PATCH. Both are observed on the API server, and time
counts from before the change is sent until the watch shows the old value.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.bench_sync import fill, push, truthful
from tests.bench.cluster import SCRIPTS, Watch, api_server, connect, git, row, send, system
from tests.support.kube import KubeServer

OBJECTS = 300
BURST = 200
MERGE = "application/merge-patch+json"
RULE = "async function main() {}\n// rule %d\n"


def limit_of(obj: dict[str, Any]) -> str:
    return str(obj["spec"]["env"]["limit"])


class _Shows:
    """Of a Script: when it was first seen with a value, after it was seen with another."""

    def __init__(self, name: str, value: str, after: str) -> None:
        self._name = name
        self._value = value
        self._after = after
        self._was_other = False

    def __call__(self, event: tuple[float, str, dict[str, Any]]) -> bool:
        _, kind, obj = event
        if kind == "DELETED" or obj["metadata"]["name"] != self._name:
            return False
        self._was_other |= limit_of(obj) == self._after
        return self._was_other and limit_of(obj) == self._value


def change(connection: Any, server: KubeServer, path: str, limit: str) -> float:
    """Change a Script; when the change was begun."""
    began = time.perf_counter()
    body = {"spec": {"env": {"limit": limit}}}
    send(connection, server, "PATCH", f"{path}?fieldManager=bench", body, MERGE)
    return began


def one_by_one(server: KubeServer, watch: Watch, *, by_us: bool) -> list[float]:
    """Seconds until each of the objects is as it was; `by_us`: changed back by this process."""
    connection = connect(server)
    took: list[float] = []
    for number in range(OBJECTS):
        name = f"script-{number:05d}"
        watch.clear()
        began = change(connection, server, f"{watch.path}/{name}", "77")
        if by_us:
            watch.until(lambda e, n=name: e[2]["metadata"]["name"] == n and limit_of(e[2]) == "77")
            change(connection, server, f"{watch.path}/{name}", "20")
        took.append(watch.until(_Shows(name, "20", "77")) - began)
    connection.close()
    return took


def all_at_once(server: KubeServer, watch: Watch) -> float:
    """Seconds for each of many that are changed as fast as one client can, the changes included."""
    connection = connect(server)
    watch.clear()
    names = [f"script-{number:05d}" for number in range(BURST)]
    began = min(change(connection, server, f"{watch.path}/{name}", "88") for name in names)
    connection.close()
    return (max(watch.until(_Shows(name, "20", "88")) for name in names) - began) / BURST


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="scriptops-bench-") as temporary:
        folder = Path(temporary)
        bare, work = folder / "rules.git", folder / "rules"
        work.mkdir()
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        git(folder, "init", "--quiet", "--initial-branch=main", str(work))
        git(work, "remote", "add", "origin", str(bare))
        for rule in range(10):
            script = work / "scripts" / f"rule-{rule}" / "1.0.0.js"
            script.parent.mkdir(parents=True)
            script.write_text(RULE % rule)
        fill(work, 0, OBJECTS)
        push(work, "rules")
        with api_server() as server, system(server, folder / "system"):
            return measured(server, bare)


def measured(server: KubeServer, bare: Path) -> list[dict[str, Any]]:
    namespace = server.namespace("drift")
    watch = Watch(server, f"{SCRIPTS}/namespaces/{namespace}/scripts").start()
    create(server, namespace, bare)
    ready: set[str] = set()

    def all_ready(event: tuple[float, str, dict[str, Any]]) -> bool:
        if event[1] != "DELETED" and truthful(event[2]):
            ready.add(event[2]["metadata"]["name"])
        return len(ready) == OBJECTS

    watch.until(all_ready)
    ours = one_by_one(server, watch, by_us=False)
    burst = all_at_once(server, watch)
    suspend(server, namespace)
    theirs = one_by_one(server, watch, by_us=True)
    rows = [
        row(
            f"drift of a Script put back, {what}",
            value(ours) * 1000,
            "ms",
            reference=value(theirs) * 1000,
            target=1000,
            absolute=True,
        )
        for what, value in (("p50", statistics.median), ("p99", p99))
    ]
    each = row(
        f"{BURST} Scripts changed at once, each until put back",
        burst * 1000,
        "ms",
        reference=statistics.fmean(theirs) * 1000,
        target=2,
    )
    return [*rows, each]


def p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[98]


def create(server: KubeServer, namespace: str, bare: Path) -> None:
    document = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {"name": "rules", "namespace": namespace},
        "spec": {"url": str(bare), "interval": "10m", "statusRef": ""},
    }
    path = f"{SCRIPTS}/namespaces/{namespace}/scriptrepositories"
    send(connect(server), server, "POST", path, document)


def suspend(server: KubeServer, namespace: str) -> None:
    """From here on what this process does to Scripts is its own affair."""
    path = f"{SCRIPTS}/namespaces/{namespace}/scriptrepositories"
    watch = Watch(server, path).start()
    body = {"spec": {"suspend": True}}
    send(connect(server), server, "PATCH", f"{path}/rules", body, MERGE)
    watch.until(
        lambda e: any(
            c["reason"] == "Suspended" for c in (e[2].get("status") or {}).get("conditions") or ()
        )
    )
