"""From a push to live Scripts, against `kubectl apply --server-side` of the same files.

One API server, one after the other: kubectl applies a folder into one namespace, scriptops syncs
the same folder, pushed to a repository, into another. Time counts from the start of kubectl, and
from the return of `git push`.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.bench.cluster import SCRIPTS, Watch, api_server, connect, git, row, send, system
from tests.support.kube import KubeServer

RULES = 10
PER_FOLDER = 100
SMALL, LARGE = 1_000, 10_000
EDITS = 15

RULE = """\
async function main() {
  const value = Device.getDeviceStatus("sensor", "temperature");
  if (value === undefined) return;
  Device.setDeviceStatus("switch", "power", value > Number(Deno.env["limit"]));
  await Device.commitDevice("switch");
}
// rule %d
"""
MANIFEST = """\
apiVersion: hit.edu.cn/v1alpha1
kind: Script
metadata:
  name: script-%(number)05d
spec:
  readSelector: {matchNames: {sensor: sensor-%(number)05d}}
  writeSelector: {matchNames: {switch: switch-%(number)05d}}
  env: {limit: "%(limit)d"}
  manifest: {scriptType: Js, name: rule-%(rule)d, version: 1.0.0}
  executePolicy: {readChange: true, qos: AtMostOnce}
"""


def manifest(number: int, limit: int = 20) -> str:
    return MANIFEST % {"number": number, "limit": limit, "rule": number % RULES}


def path_of(work: Path, number: int) -> Path:
    return work / "manifests" / f"{number // PER_FOLDER:03d}" / f"script-{number:05d}.yaml"


def fill(work: Path, start: int, end: int) -> None:
    for number in range(start, end):
        path = path_of(work, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(manifest(number))


def push(work: Path, message: str) -> float:
    """Commit all and push; when the push had returned."""
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "-m", message)
    git(work, "push", "--quiet", "origin", "main")
    return time.perf_counter()


def kubectl(server: KubeServer, namespace: str, folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(
        [
            *("kubectl", "--kubeconfig", str(server.kubeconfig), "-n", namespace),
            *("apply", "--server-side", "-R", "-f", str(folder)),
        ],
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - started


def truthful(obj: dict[str, Any]) -> bool:
    """Observed as it is, and said to be ready."""
    status = obj.get("status") or {}
    return status.get("observedGeneration") == obj["metadata"]["generation"] and any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()
    )


class _All:
    """True once every one of `names` was seen to satisfy a claim."""

    def __init__(self, names: set[str], claim: Any) -> None:
        self.left = set(names)
        self.claim = claim

    def __call__(self, event: tuple[float, str, dict[str, Any]]) -> bool:
        _, kind, obj = event
        if kind != "DELETED" and self.claim(obj):
            self.left.discard(obj["metadata"]["name"])
        return not self.left


def names(start: int, end: int) -> set[str]:
    return {f"script-{number:05d}" for number in range(start, end)}


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="scriptops-bench-") as temporary:
        folder = Path(temporary)
        bare, work = folder / "rules.git", folder / "rules"
        work.mkdir()
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        git(folder, "init", "--quiet", "--initial-branch=main", str(work))
        git(work, "remote", "add", "origin", str(bare))
        for rule in range(RULES):
            script = work / "scripts" / f"rule-{rule}" / "1.0.0.js"
            script.parent.mkdir(parents=True)
            script.write_text(RULE % rule)
        fill(work, LARGE, LARGE + 1)
        push(work, "one")
        with api_server() as server, system(server, folder / "system"):
            return _measure(server, folder, bare, work)


def _measure(server: KubeServer, folder: Path, bare: Path, work: Path) -> list[dict[str, Any]]:
    ours, theirs = server.namespace("ours"), server.namespace("theirs")
    connection = connect(server)
    repositories = Watch(server, f"{SCRIPTS}/namespaces/{ours}/scriptrepositories").start()
    send(
        connection,
        server,
        "POST",
        f"{SCRIPTS}/namespaces/{ours}/scriptrepositories",
        {
            "apiVersion": "hit.edu.cn/v1alpha1",
            "kind": "ScriptRepository",
            "metadata": {"name": "rules"},
            "spec": {"url": str(bare), "interval": "10m"},
        },
    )
    scripts = Watch(server, f"{SCRIPTS}/namespaces/{ours}/scripts").start()
    scripts.until(_All(names(LARGE, LARGE + 1), truthful))

    files = folder / "files"
    fill(files, 0, SMALL)
    reference = kubectl(server, theirs, files / "manifests")
    fill(work, 0, SMALL)
    started = push(work, "a thousand")
    live = scripts.until(_All(names(0, SMALL), lambda _obj: True)) - started
    told = scripts.until(_All(names(0, SMALL), truthful)) - started
    rows = [
        row("1,000 new Scripts: live", live, "s", reference=reference, target=0.5),
        row("1,000 new Scripts: truthful status", told, "s", reference=reference, target=1.0),
    ]
    rows += _unrelated(server, bare, work, ours, scripts, repositories)
    _settle(server, ours, bare)
    small = _edits(work, scripts, SMALL)
    fill(work, SMALL, LARGE)
    push(work, "ten thousand")
    scripts.until(_All(names(SMALL, LARGE), truthful), seconds=600)
    _settle(server, ours, bare)
    large = _edits(work, scripts, LARGE)
    fill(files, SMALL, LARGE)
    kubectl(server, theirs, files / "manifests")
    path_of(files, 0).write_text(manifest(0, 99))
    reference = kubectl(server, theirs, files / "manifests")
    rows.append(row("one of 10,000 changed: live", large, "s", reference=reference, target=0.01))
    rows.append(row("one changed: 10,000 against 1,000", large, "s", reference=small, target=1.3))
    return rows


def _unrelated(
    server: KubeServer, bare: Path, work: Path, namespace: str, scripts: Watch, repositories: Watch
) -> list[dict[str, Any]]:
    """An unrelated commit: what it writes, counted in events of watches."""
    _settle(server, namespace, bare)
    scripts.clear()
    repositories.clear()
    (work / "NOTES.md").write_text("nothing to deploy\n")
    push(work, "unrelated")
    head = git(work, "rev-parse", "HEAD").strip()
    repositories.until(lambda e: (e[2].get("status") or {}).get("revision", "").endswith(head))
    _settle(server, namespace, bare)
    return [
        row(
            "unrelated commit: writes to Scripts",
            float(len(scripts.events)),
            "writes",
            reference=None,
            target=0,
            absolute=True,
        ),
        row(
            "unrelated commit: PATCHes of the ScriptRepository",
            float(len(repositories.events)),
            "writes",
            reference=None,
            target=1,
            absolute=True,
        ),
    ]


def _settle(server: KubeServer, namespace: str, bare: Path) -> None:
    """Until nothing of ours is written, to the cluster or to git, for longer than the slowest of
    our intervals.
    """
    connection = connect(server)
    path = f"{SCRIPTS}/namespaces/{namespace}"
    quiet_since, last = time.monotonic(), ""
    while time.monotonic() - quiet_since < 6:
        versions = git(bare, "for-each-ref").strip() + "".join(
            obj["metadata"]["resourceVersion"]
            for kind in ("scripts", "scriptrepositories")
            for obj in send(connection, server, "GET", f"{path}/{kind}")["items"]
        )
        if versions != last:
            quiet_since, last = time.monotonic(), versions
        # A pause between looks, so that the looking is not what keeps the server busy.
        threading.Event().wait(0.5)
    connection.close()


def _edits(work: Path, scripts: Watch, size: int) -> float:
    """Median time from a push of one changed manifest until its Script is live."""
    took = []
    for edit in range(EDITS):
        number = edit * (size // EDITS)
        path_of(work, number).write_text(manifest(number, 100 + edit + size))
        scripts.clear()
        started = push(work, f"edit {edit}")
        limit = str(100 + edit + size)
        name = f"script-{number:05d}"
        seen = scripts.until(
            lambda e, n=name, li=limit: (
                e[2]["metadata"]["name"] == n and e[2]["spec"]["env"]["limit"] == li
            )
        )
        took.append(seen - started)
    return statistics.median(took)
