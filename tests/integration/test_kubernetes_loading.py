"""A Script is Ready when it is loaded and not before, on a real API server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reconciler.core.objects import ObjectKey
from tests.api.examples import EXAMPLE
from tests.support.gitserver import Repository
from tests.support.kube import KubeServer
from tests.support.rulebook import QUIET, documents, script
from tests.support.statuswatch import watching
from tests.support.system import (
    ROOT,
    condition,
    executor,
    kubernetes,
    reason,
    serving,
    settings,
)

pytestmark = pytest.mark.kube


@pytest.fixture
def register(tmp_path: Path) -> Iterator[str]:
    """A register elsewhere, with the artifact of the example."""
    folder = tmp_path / "register" / "test"
    folder.mkdir(parents=True)
    (folder / "0.1_beta1.js").write_bytes(QUIET)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's
            """Say nothing."""

    handler = partial(Handler, directory=str(tmp_path / "register"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_no_status_says_ready_before_an_executor_loaded_the_script(
    kube: KubeServer, tmp_path: Path, team: str, git: Repository, register: str
) -> None:
    kube.apply_crds(sorted((ROOT / "deploy" / "crds").glob("*.yaml")))
    example = {**EXAMPLE, "metadata": {"name": "test-script", "namespace": team}}
    example["spec"] = {
        **EXAMPLE["spec"],
        "manifest": {**EXAMPLE["spec"]["manifest"], "register": f"http://{register}"},
    }
    kube.request("POST", f"/apis/hit.edu.cn/v1alpha1/namespaces/{team}/scripts", example)
    commit = git.commit(
        {
            "manifests/all.yaml": documents(script("good"), script("bad", artifact="bad")),
            "scripts/quiet/1.0.0.js": QUIET,
            "scripts/bad/1.0.0.js": b"function main( {}",
        }
    )
    chosen = settings(
        tmp_path / "data", **kubernetes(kube.controller_kubeconfig), registers=frozenset({register})
    )
    good, bad, foreign = (ObjectKey(team, n) for n in ("good", "bad", "test-script"))
    with watching(kube) as watch, serving(chosen, operator=kube.kubeconfig) as system:
        system.synced(system.repository(team, git.path), commit)
        for key in (good, bad, foreign):
            waiting = system.script_is(key, lambda o: reason(o)[1] == "ExecutorAbsent", "it waits")
            assert reason(waiting) == ("Unknown", "ExecutorAbsent")
            assert condition(waiting, "Reconciling")["status"] == "True"
        too_soon = [o for o in watch.of(team) if condition(o, "Ready").get("status") == "True"]
        with executor(system.grpc, tmp_path / "executor.log"):
            system.ready(good)
            system.ready(foreign)
            stalled = system.script_is(bad, lambda o: reason(o)[0] == "False", "it is stalled")
            assert reason(stalled) == ("False", "LoadFailed")
            assert "bad/1.0.0.js:1" in condition(stalled, "Stalled")["message"]
            runs = system.script_is(
                foreign, lambda o: o["status"].get("runs") == 1, "the example has run"
            )
            assert runs["status"]["status"] == 0
    assert too_soon == []
    ever = {o["metadata"]["name"] for o in watch.of(team) if reason(o)[0] == "True"}
    assert ever == {"good", "test-script"}
    assert watch.violations([team]) == []
