"""A real API server with a controller and an executor beside it, for the benches."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.kube import KubeServer, binaries, free_port, wait_until

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "deploy" / "crds"
SCRIPTS = "/apis/hit.edu.cn/v1alpha1"
DEVICES = "/apis/devices.kubeedge.io/v1beta1"
GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench@localhost",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench@localhost",
}

# What the benches need of KubeEdge's Device; its own definition, where it is at hand, is larger.
_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _device_crd(kind: str, plural: str) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.devices.kubeedge.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a bench"},
        },
        "spec": {
            "group": "devices.kubeedge.io",
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
            },
            "versions": [
                {
                    "name": "v1beta1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {"spec": _OPEN, "status": _OPEN},
                        }
                    },
                }
            ],
        },
    }


@contextmanager
def api_server() -> Iterator[KubeServer]:
    """A new API server with all kinds installed."""
    with tempfile.TemporaryDirectory(prefix="scriptops-bench-") as folder:
        server = KubeServer(Path(folder) / "kube", binaries())
        try:
            server.start()
            kubeedge = os.environ.get("SCRIPTOPS_KUBEEDGE_CRDS")
            devices: list[Any] = (
                sorted(Path(kubeedge, "v1.22.0").glob("*.yaml"))
                if kubeedge
                else [_device_crd("Device", "devices"), _device_crd("DeviceModel", "devicemodels")]
            )
            server.apply_crds([*sorted(CRDS.glob("*.yaml")), *devices])
            yield server
        finally:
            server.stop()


@contextmanager
def process(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program of ours; ended by its id."""
    with log.open("ab") as out:
        child = subprocess.Popen([sys.executable, "-m", *arguments], stdout=out, stderr=out)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def system(server: KubeServer, folder: Path) -> Iterator[int]:
    """A controller and an executor on that server; the web port."""
    folder.mkdir(parents=True, exist_ok=True)
    grpc, web = free_port(), free_port()
    flags = (
        *("--cluster", "kubernetes", "--kubeconfig", str(server.kubeconfig), "--git-url=*"),
        *("--data", str(folder / "data"), "--log-level", "warning"),
        *("--grpc", f"127.0.0.1:{grpc}", "--web", f"127.0.0.1:{web}"),
    )
    with (
        process("reconciler", "controller", *flags, log=folder / "controller.log"),
        process("executor", f"127.0.0.1:{grpc}", "--workers=1", log=folder / "executor.log"),
    ):
        wait_until(lambda: _connected(web), what="an executor is connected", seconds=60)
        yield web


def _connected(web: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", web, timeout=5)
    try:
        connection.request("GET", "/api/v1alpha1/debug")
        return bool(json.loads(connection.getresponse().read())["executors"])
    except (OSError, ValueError, KeyError):
        return False
    finally:
        connection.close()


def connect(server: KubeServer, seconds: float = 600) -> http.client.HTTPSConnection:
    trust = ssl.create_default_context(cafile=str(server.certificate))
    return http.client.HTTPSConnection("127.0.0.1", server.port, timeout=seconds, context=trust)


def send(
    connection: http.client.HTTPSConnection,
    server: KubeServer,
    method: str,
    path: str,
    body: object = None,
    content_type: str = "application/json",
) -> Any:
    """One request over a connection that is kept."""
    connection.request(
        method,
        path,
        body=None if body is None else json.dumps(body),
        headers={"Authorization": f"Bearer {server.token}", "Content-Type": content_type},
    )
    response = connection.getresponse()
    content = response.read()
    if response.status >= 300:
        raise AssertionError(f"{method} {path}: {response.status} {content[:500]!r}")
    return json.loads(content)


@dataclass
class Watch:
    """Everything that happens to a kind in a namespace, with when it was seen."""

    server: KubeServer
    path: str
    events: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _connection: http.client.HTTPSConnection | None = None

    def start(self) -> Watch:
        connection = connect(self.server)
        version = send(connection, self.server, "GET", self.path)["metadata"]["resourceVersion"]
        connection.request(
            "GET",
            f"{self.path}?watch=1&resourceVersion={version}&timeoutSeconds=590",
            headers={"Authorization": f"Bearer {self.server.token}"},
        )
        response = connection.getresponse()
        self._connection = connection
        threading.Thread(target=self._read, args=(response,), daemon=True).start()
        return self

    def _read(self, response: http.client.HTTPResponse) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            while line := response.readline():
                seen = time.perf_counter()
                event = json.loads(line)
                with self._news:
                    self.events.append((seen, event["type"], event["object"]))
                    self._news.notify_all()

    def until(self, claim: Any, *, seconds: float = 300) -> float:
        """Wait until `claim(event)` held for enough events; when the last of them was seen."""
        deadline = time.monotonic() + seconds
        at = 0
        with self._news:
            while True:
                while at < len(self.events):
                    if claim(self.events[at]):
                        return self.events[at][0]
                    at += 1
                if not self._news.wait(deadline - time.monotonic()):
                    raise AssertionError(f"not seen in {seconds} s: {self.path}")

    def clear(self) -> None:
        with self._news:
            self.events.clear()

    def stop(self) -> None:
        if self._connection is not None:
            self._connection.close()


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **GIT},
    )
    return done.stdout


def row(
    name: str,
    value: float,
    unit: str,
    *,
    reference: float | None,
    target: float,
    less: bool = True,
    absolute: bool = False,
) -> dict[str, Any]:
    """A row whose ratio, or with `absolute` whose value, is held against the target."""
    ratio = None if reference is None else value / reference
    judged = value if absolute or ratio is None else ratio
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "ratio": ratio,
        "target": f"{'<=' if less else '>='} {target:g}{'' if absolute else ' x'}",
        "met": judged <= target if less else judged >= target,
    }
