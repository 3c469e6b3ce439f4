"""A rule that asks a service and remembers: whole, from the manifest to what `get` shows."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import SCRIPTS, ObjectKey
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import documents, script
from tests.support.system import (
    ControllerProcess,
    ask,
    executor,
    is_ready,
    serving,
    settings,
)

TEAM = "team"
COUNTER = ObjectKey(TEAM, "counter")
RULES = ObjectKey(TEAM, "rules")
SOURCE = b"""\
async function main() {
  const count = (State.get("count") ?? 0) + 1;
  State.set("count", count);
  if (Deno.env.url) console.log(await (await fetch(`${Deno.env.url}/count`)).text());
}
"""


class Service(BaseHTTPRequestHandler):
    """Answers with what it was asked by whom."""

    def do_GET(self) -> None:
        told = f"{self.path} {self.headers['Scriptops-Script']} {self.headers['Idempotency-Key']}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(told.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Not into the output of the tests."""


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def counter(**spec: Any) -> dict[str, bytes]:
    return {
        "manifests/counter.yaml": documents(script("counter", artifact="counter", **spec)),
        "scripts/counter/1.0.0.js": SOURCE,
    }


def counted(web: str) -> Any:
    """The counter as the API shows it."""
    items = ask(f"{web}/api/v1alpha1/scripts")["items"]
    return next((s for s in items if s["metadata"]["name"] == "counter"), {})


def remembers(web: str, count: int) -> bool:
    return bool(counted(web).get("state") == {"count": count})


def trigger(web: str, times: int = 1) -> None:
    for _ in range(times):
        ask(f"{web}/api/v1alpha1/scripts/{TEAM}/counter/trigger", method="POST")


def test_a_rule_asks_a_service_that_manifest_and_operator_both_name(
    tmp_path: Path, git: Repository, service: str
) -> None:
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log", f"--network-allow={service}") as process,
    ):
        system.repository(TEAM, git.path)
        spec = {"env": {"url": service}, "network": {"allow": [f"{service}/count"]}}
        system.synced(RULES, git.commit(counter(**spec)))
        wait_until(lambda: len(system.runs(*COUNTER)) == 1, what="it has run")
        [run] = system.runs(*COUNTER)
        assert (run["outcome"], run["logs"]) == (
            "Succeeded",
            [{"level": "info", "text": f"/count team/counter {run['id']}-0"}],
        )
        assert remembers(system.web, 1)
        [line] = [json.loads(x) for x in process.output.splitlines() if '"message":"fetch"' in x]
        assert (line["namespace"], line["script"], line["run_id"], line["url"], line["code"]) == (
            TEAM,
            "counter",
            run["id"],
            service,
            200,
        )


def test_what_the_operator_does_not_name_is_denied_and_nothing_is_remembered(
    tmp_path: Path, git: Repository, service: str
) -> None:
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        system.repository(TEAM, git.path)
        spec = {"env": {"url": service}, "network": {"allow": [service]}}
        system.synced(RULES, git.commit(counter(**spec)))
        wait_until(lambda: len(system.runs(*COUNTER)) == 1, what="it has run")
        [run] = system.runs(*COUNTER)
        assert run["outcome"] == "Denied"
        assert f"{service} is not allowed by the operator of this executor" in run["message"]
        assert "state" not in counted(system.web)


def test_many_runs_at_once_count_every_one(tmp_path: Path, git: Repository) -> None:
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        system.repository(TEAM, git.path)
        system.synced(RULES, git.commit(counter()))
        system.ready(COUNTER)
        trigger(system.web, 60)
        wait_until(lambda: remembers(system.web, 61), what="all are counted")
        assert {run["outcome"] for run in system.runs(*COUNTER)} == {"Succeeded"}
        system.delete(SCRIPTS, COUNTER)
        wait_until(lambda: not system.controller.states.uids(), what="it is forgotten")


def test_what_was_kept_survives_a_power_cut(tmp_path: Path, git: Repository) -> None:
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "first.log"),
    ):
        system.repository(TEAM, git.path)
        system.synced(RULES, git.commit(counter()))
        wait_until(lambda: remembers(system.web, 1), what="it has counted its first run")
    process = ControllerProcess(tmp_path)
    process.start()
    web = process.web
    with executor(process.serving()["grpc"], tmp_path / "second.log"):
        wait_until(lambda: remembers(web, 1), what="it remembers what it was before")
        wait_until(lambda: is_ready(counted(web)), what="it is ready")
        trigger(web, 5)
        wait_until(lambda: remembers(web, 6), what="it has counted on")
        process.kill()
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "third.log"),
    ):
        system.ready(COUNTER)
        assert remembers(system.web, 6)
        trigger(system.web)
        wait_until(lambda: remembers(system.web, 7), what="it goes on from there")
