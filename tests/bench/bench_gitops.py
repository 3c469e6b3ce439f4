"""From a push to a live Script by way of a webhook, and how soon webhooks are answered in a burst.

A forge's part is played here: `git push` to a `git daemon`, which tells nobody, and then a webhook
with GitHub's own payload and signature. Time counts from the return of `git push`, when a forge
sends its webhook, until a watch of the API server shows the changed Script. Pushes are a second
apart; the burst is sent over eight connections that are kept, as forges deliver.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import statistics
import tempfile
import threading
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from tests.bench.bench_sync import (
    LARGE,
    RULE,
    RULES,
    fill,
    manifest,
    path_of,
    push,
)
from tests.bench.cluster import SCRIPTS, Watch, api_server, connect, git, row, send, system
from tests.support.gitserver import git_daemon
from tests.support.kube import KubeServer, wait_until

PUSHES = 120
BURST = 1_500
CONNECTIONS = 8
TOKEN = "It's a Secret to Everybody"
SAMPLE = Path(__file__).parents[1] / "support" / "webhooks" / "github-push.json"


class Forge:
    """Sends webhooks to one ScriptRepository."""

    def __init__(self, port: int, namespace: str) -> None:
        self.port = port
        self.path = f"/api/v1alpha1/repositories/{namespace}/rules/push"
        self.payload = json.loads(SAMPLE.read_text())
        self.sent = 0

    def request(self, before: str, after: str) -> tuple[bytes, dict[str, str]]:
        self.sent += 1
        change = {"ref": "refs/heads/main", "before": before, "after": after}
        body = json.dumps({**self.payload, **change}).encode()
        signature = hmac.new(TOKEN.encode(), body, hashlib.sha256).hexdigest()
        return body, {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": f"bench-{self.sent}",
            "X-Hub-Signature-256": f"sha256={signature}",
        }

    def tell(self, before: str, after: str) -> None:
        body, headers = self.request(before, after)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", self.path, body, headers)
        answer = connection.getresponse()
        if answer.status != 202:
            raise AssertionError(f"{answer.status} {answer.read()!r}")
        connection.close()

    async def burst(self, count: int) -> list[float]:
        """Seconds from the first byte sent until the answer was read, of each."""
        waiting = [self._raw(f"{number:040x}", f"{number + 1:040x}") for number in range(count)]
        took: list[float] = []

        async def deliver() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            while waiting:
                raw = waiting.pop()
                started = perf_counter()
                writer.write(raw)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                took.append(perf_counter() - started)
                if head.split(b" ", 2)[1] not in {b"202", b"200"}:
                    raise AssertionError(head)
            writer.close()

        await asyncio.gather(*(deliver() for _ in range(CONNECTIONS)))
        return took

    def _raw(self, before: str, after: str) -> bytes:
        body, headers = self.request(before, after)
        lines = [f"POST {self.path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="scriptops-bench-") as temporary:
        folder = Path(temporary)
        bare, work = folder / "served" / "rules.git", folder / "rules"
        work.mkdir()
        bare.parent.mkdir()
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        git(folder, "init", "--quiet", "--initial-branch=main", str(work))
        git(work, "remote", "add", "origin", str(bare))
        for rule in range(RULES):
            script = work / "scripts" / f"rule-{rule}" / "1.0.0.js"
            script.parent.mkdir(parents=True)
            script.write_text(RULE % rule)
        fill(work, 0, LARGE)
        push(work, "ten thousand")
        with (
            git_daemon(bare.parent) as url,
            api_server() as server,
            system(server, folder / "system") as port,
        ):
            return _measure(server, port, f"{url}/{bare.name}", work)


def _measure(server: KubeServer, port: int, url: str, work: Path) -> list[dict[str, Any]]:
    namespace = server.namespace("hooks")
    connection = connect(server)
    _create(connection, server, namespace, url)
    wait_until(
        lambda: _counted(port, 'status_patches_total{kind="Script"}') >= LARGE,
        what="ten thousand Scripts have a status",
        seconds=600,
        every=1.0,
    )
    _settle(port)
    scripts = Watch(server, f"{SCRIPTS}/namespaces/{namespace}/scripts").start()
    forge = Forge(port, namespace)
    took = sorted(_push(work, scripts, forge, number) for number in range(PUSHES))
    answered = sorted(asyncio.run(forge.burst(BURST)))
    return [
        _absolute("webhook: push to applied at 10,000, p50", statistics.median(took), 0.15),
        _absolute("webhook: push to applied at 10,000, p99", _p99(took), 0.5),
        _absolute("webhook: answered in a burst of 1,500, p99", _p99(answered), 0.02),
    ]


def _counted(port: int, name: str) -> float:
    """A counter of the controller; asking it costs the API server nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"scriptops_{name}"))


def _settle(port: int) -> None:
    """Until nothing is written, to the cluster or to git, for longer than the usual intervals."""
    quiet_since, last = monotonic(), -1.0
    while monotonic() - quiet_since < 6:
        now = _counted(port, "status_")
        if now != last:
            quiet_since, last = monotonic(), now
        threading.Event().wait(0.5)


def _create(
    connection: http.client.HTTPSConnection, server: KubeServer, namespace: str, url: str
) -> None:
    token = base64.b64encode(TOKEN.encode()).decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "push"}}
    path = f"/api/v1/namespaces/{namespace}/secrets"
    send(connection, server, "POST", path, {**secret, "data": {"token": token}})
    repository = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {"name": "rules"},
        "spec": {"url": url, "interval": "1h", "webhook": {"secretRef": {"name": "push"}}},
    }
    path = f"{SCRIPTS}/namespaces/{namespace}/scriptrepositories"
    send(connection, server, "POST", path, repository)


def _push(work: Path, scripts: Watch, forge: Forge, number: int) -> float:
    """Seconds from the return of `git push` until the changed Script is live."""
    # Faster than this, a robot's pushes are put together.
    threading.Event().wait(0.7)
    chosen = number * (LARGE // PUSHES)
    limit = 1000 + number
    before = git(work, "rev-parse", "HEAD").strip()
    path_of(work, chosen).write_text(manifest(chosen, limit))
    scripts.clear()
    started = push(work, f"push {number}")
    forge.tell(before, git(work, "rev-parse", "HEAD").strip())
    name = f"script-{chosen:05d}"
    seen = scripts.until(
        lambda event: (
            event[2]["metadata"]["name"] == name and event[2]["spec"]["env"]["limit"] == str(limit)
        )
    )
    return seen - started


def _p99(values: list[float]) -> float:
    return values[int(len(values) * 0.99)]


def _absolute(name: str, value: float, target: float) -> dict[str, Any]:
    return row(name, value, "s", reference=None, target=target, absolute=True)
