"""Servers that are gone, silent or slow: the rest goes on, and all is caught up with afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.objects import SCRIPT_REPOSITORIES, ObjectKey
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository, bad_server, git_daemon
from tests.support.kube import KubeServer, wait_until
from tests.support.rulebook import HOUSE, QUIET, documents, script
from tests.support.system import System, condition, is_ready, reason

RULES = {
    "manifests/one.yaml": documents(script("one", policy={"webhook": True})),
    "scripts/quiet/1.0.0.js": QUIET,
}


@pytest.fixture
def api_server(kube: KubeServer) -> Iterator[KubeServer]:
    """May be killed; is there again afterwards."""
    yield kube
    if "kube-apiserver" not in kube._processes:
        kube.start_apiserver()


@pytest.mark.kube
def test_what_happened_while_the_api_server_was_gone_is_caught_up_with(
    api_server: KubeServer, on_kubernetes: Kubernetes, team: str, git: Repository
) -> None:
    system = on_kubernetes.system
    rules = system.repository(team, git.path, interval="1s", resultsInterval="1s")
    system.synced(rules, git.commit(RULES))
    one, two = ObjectKey(team, "one"), ObjectKey(team, "two")
    system.ready(one)
    wait_until(lambda: len(system.runs(*one)) == 1, what="its first run")
    api_server.kill()
    # Runs need no API server; what they led to is told later.
    system.ask(f"/api/v1alpha1/webhook?namespace={team}&name=one", method="POST")
    wait_until(lambda: len(system.runs(*one)) == 2, what="it runs on")
    commit = git.commit({"manifests/two.yaml": documents(script("two"))})
    retried = system.controller.metrics.reconcile_total.labels("ScriptRepository", "error")
    wait_until(lambda: retried._value.get() > 0, what="a try has failed")
    api_server.start_apiserver()
    live = system.synced(rules, commit)
    assert reason(live) == ("True", "Applied")
    system.ready(two)
    system.script_is(one, lambda o: o["status"]["runs"] == 2, "both runs are in the status")


def test_a_git_server_that_says_nothing_delays_no_other_repository(
    embedded: System, namespace: str, git: Repository
) -> None:
    with bad_server() as port:
        silent = [
            embedded.repository(
                namespace, f"git://127.0.0.1:{port}/{n}.git", f"silent-{n}", timeout="4s"
            )
            for n in range(3)
        ]
        rules = embedded.repository(namespace, git.path)
        embedded.synced(rules, git.commit(RULES))
        embedded.ready(ObjectKey(namespace, "one"))
        # All of this while the others still wait.
        assert [
            embedded.get(SCRIPT_REPOSITORIES, key).get("status", {}).get("conditions")
            for key in silent
        ] == [None] * 3
        for key in silent:
            live = embedded.object_is(
                SCRIPT_REPOSITORIES,
                key,
                lambda o: reason(o)[1] == "SourceUnavailable",
                "the silent ones are given up",
            )
            assert reason(live) == ("Unknown", "SourceUnavailable")
            message = condition(live, "Reconciling")["message"]
            assert "did not answer in full within 4 s; trying again" in message
            embedded.delete(SCRIPT_REPOSITORIES, key)


def test_a_git_server_that_comes_back_is_read_again_and_nothing_stopped_meanwhile(
    embedded: System, namespace: str, tmp_path: Path
) -> None:
    git = Repository(tmp_path / "served" / "rules.git", "--bare")
    commit = git.commit(HOUSE)
    with git_daemon(tmp_path / "served") as url:
        rules = embedded.repository(namespace, f"{url}/rules.git", interval="1s")
        embedded.synced(rules, commit)
        relay = ObjectKey(namespace, "relay")
        embedded.ready(relay)
    embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o)[1] == "SourceUnavailable", "it is gone"
    )
    embedded.report(ObjectKey(namespace, "door"), open=True)
    wait_until(lambda: len(embedded.runs(*relay)) == 2, what="what is deployed runs on")
    assert is_ready(embedded.ready(relay))
    with git_daemon(tmp_path / "served") as url:
        embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"url": f"{url}/rules.git"}})
        added = git.commit({"manifests/more.yaml": documents(script("more"))})
        embedded.synced(rules, added)
        embedded.ready(ObjectKey(namespace, "more"))
