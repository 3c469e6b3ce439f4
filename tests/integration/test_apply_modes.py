"""Argo CD or Flux applies, scriptops only controls: on a real API server, with kubectl as applier."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.registry import digest_of
from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from tests.integration.command_line import CommandLine
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository
from tests.support.kube import KubeServer, wait_until
from tests.support.rulebook import QUIET, documents, script
from tests.support.statusfiles import status_files
from tests.support.system import condition, reason

pytestmark = pytest.mark.kube
LOUD = b"function main() { console.log('loud'); }\n"
RULES = {
    "manifests/one.yaml": documents(script("one")),
    "manifests/two.yaml": documents(script("two")),
    "scripts/quiet/1.0.0.js": QUIET,
}


@pytest.fixture
def team(kube: KubeServer) -> Iterator[str]:
    """A namespace in which the controller may not write a single Script."""
    name = kube.namespace("left", granted=False)
    kube.grant(
        name,
        role={"kind": "ClusterRole", "name": "scriptops-runner"},
        right=("devices.kubeedge.io", "devices", "patch"),
    )
    yield name
    for plural in ("scriptrepositories", "scripts"):
        kube.request("DELETE", f"/apis/hit.edu.cn/v1alpha1/namespaces/{name}/{plural}")


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def rendered(command_line: CommandLine, git: Repository, team: str, folder: Path) -> str:
    """What `scriptops render` makes of a clone, as Argo CD's repo server has one."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["git", "clone", "-q", str(git.path), str(folder)], check=True)
    ended = command_line("render", str(folder), "--repository", "rules", "-n", team)
    assert (ended.code, ended.err) == (0, "")
    return ended.out


def apply(running: Kubernetes, manifests: str, *arguments: str, verb: str = "apply") -> None:
    """With the verb `diff` it is tried, and a difference is an error."""
    done = subprocess.run(
        ["kubectl", f"--kubeconfig={running.kube.kubeconfig}", verb, *arguments, "-f", "-"],
        input=manifests,
        env={"PATH": os.environ["PATH"], "HOME": str(running.kube.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def managers(live: Any) -> dict[str, list[str]]:
    return {
        entry["manager"]: sorted(name for name in entry["fieldsV1"] if name != "f:metadata")
        for entry in live["metadata"]["managedFields"]
    }


def written(running: Kubernetes, team: str) -> set[tuple[str, str]]:
    """Resources and verbs of what the controller wrote into the namespace, events aside."""
    asked = running.kube.asked(team)
    return {
        (it.resource, it.verb)
        for it in asked
        if it.namespace == team and it.verb not in {"get", "list", "watch"}
        if it.resource != "events"
    }


@pytest.mark.parametrize(
    ("manager", "arguments"),
    [
        pytest.param("kubectl-client-side-apply", (), id="client side"),
        pytest.param(
            "argocd-controller",
            ("--server-side", "--field-manager=argocd-controller"),
            id="server side",
        ),
    ],
)
def test_what_others_apply_runs_and_nothing_but_status_is_written(
    on_kubernetes: Kubernetes,
    team: str,
    git: Repository,
    tmp_path: Path,
    command_line: CommandLine,
    manager: str,
    arguments: tuple[str, ...],
) -> None:
    system = on_kubernetes.system
    commit = git.commit(RULES)
    rules = system.repository(team, git.path, apply="None")
    live = system.synced(rules, commit)
    assert reason(live) == ("True", "Published")
    assert condition(live, "Ready")["message"] == f"published main@sha1:{commit}; others apply it"
    assert "counts" not in live["status"]
    assert system.all(SCRIPTS, team) == {}
    manifests = rendered(command_line, git, team, tmp_path / "clone")
    apply(on_kubernetes, manifests, *arguments)
    for name in ("one", "two"):
        live = system.script_is(
            ObjectKey(team, name), lambda o: o["status"].get("runs") == 1, "it has run"
        )
        assert live["status"]["digest"] == digest_of(QUIET)
        assert live["metadata"]["generation"] == 1
        assert managers(live) == {
            manager: managers(live)[manager],
            "scriptops-status": ["f:status"],
        }
        assert "f:status" not in managers(live)[manager]
    apply(on_kubernetes, manifests, *arguments, verb="diff")
    wait_until(
        lambda: {key.name for key in status_files(git)} == {"one", "two"},
        what="their results are told in git",
    )
    assert written(on_kubernetes, team) == {
        ("scripts/status", "patch"),
        ("scriptrepositories/status", "patch"),
    }


def test_a_script_that_comes_before_its_artifact_waits_and_has_the_repository_looked_at(
    on_kubernetes: Kubernetes,
    team: str,
    git: Repository,
    tmp_path: Path,
    command_line: CommandLine,
) -> None:
    """As when Argo CD hears of a push before scriptops does."""
    system = on_kubernetes.system
    first = git.commit(RULES)
    # By URL, and not again for a day: no watch of a folder tells of the next commit.
    rules = system.repository(team, git.path.as_uri(), apply="None", interval="24h")
    system.synced(rules, first)
    second = git.commit(
        {
            "manifests/one.yaml": documents(script("one", artifact="loud")),
            "scripts/loud/1.0.0.js": LOUD,
        }
    )
    apply(on_kubernetes, rendered(command_line, git, team, tmp_path / "clone"))
    live = system.ready(ObjectKey(team, "one"))
    assert live["status"]["digest"] == digest_of(LOUD)
    system.synced(rules, second)
    waited = [
        condition(o, "Ready")["message"]
        for o in on_kubernetes.watch.of(team)
        if reason(o)[1] == "ArtifactPending"
    ]
    assert set(waited) <= {
        f"ScriptRepository {team}/rules has not published scripts/loud/1.0.0.js yet"
    }


def test_what_others_take_away_or_change_stays_so(
    on_kubernetes: Kubernetes,
    team: str,
    git: Repository,
    tmp_path: Path,
    command_line: CommandLine,
) -> None:
    system = on_kubernetes.system
    rules = system.repository(team, git.path, apply="None")
    system.synced(rules, git.commit(RULES))
    apply(on_kubernetes, rendered(command_line, git, team, tmp_path / "clone"))
    system.ready(ObjectKey(team, "one"))
    system.delete(SCRIPTS, ObjectKey(team, "two"))
    system.patch(SCRIPTS, ObjectKey(team, "one"), {"spec": {"env": {"limit": "9"}}})
    system.synced(rules, git.commit({"manifests/one.yaml": None}))
    live = system.script_is(
        ObjectKey(team, "one"),
        lambda o: o["status"].get("observedGeneration") == 2,
        "the change was seen",
    )
    assert live["spec"]["env"] == {"limit": "9"}
    assert set(system.all(SCRIPTS, team)) == {"one"}


def test_a_repository_may_be_handed_over_and_taken_back(
    on_kubernetes: Kubernetes, git: Repository
) -> None:
    system = on_kubernetes.system
    team = on_kubernetes.kube.namespace("handed")
    rules = system.repository(team, git.path)
    system.synced(rules, git.commit(RULES))
    system.ready(ObjectKey(team, "one"))
    system.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"apply": "None"}})
    system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Published"), "handed over"
    )
    system.delete(SCRIPTS, ObjectKey(team, "two"))
    commit = git.commit({"manifests/one.yaml": documents(script("one", env={"limit": "9"}))})
    system.synced(rules, commit)
    assert "env" not in system.get(SCRIPTS, ObjectKey(team, "one"))["spec"]
    system.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"apply": "All"}})
    live = system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Applied"), "taken back"
    )
    assert {k: live["status"]["counts"][k] for k in ("created", "configured", "pruned")} == {
        "created": 1,
        "configured": 1,
        "pruned": 0,
    }
    assert system.get(SCRIPTS, ObjectKey(team, "one"))["spec"]["env"] == {"limit": "9"}


def test_another_namespace_runs_nothing_that_was_not_published_for_it(
    on_kubernetes: Kubernetes,
    team: str,
    git: Repository,
    tmp_path: Path,
    command_line: CommandLine,
) -> None:
    system, kube = on_kubernetes.system, on_kubernetes.kube
    system.synced(system.repository(team, git.path, apply="None"), git.commit(RULES))
    other = kube.namespace()
    manifests = rendered(command_line, git, team, tmp_path / "clone")
    apply(on_kubernetes, manifests.replace(f"namespace: {team}", f"namespace: {other}"))
    live = system.script_is(
        ObjectKey(other, "one"), lambda o: reason(o)[0] == "False", "it is refused"
    )
    assert reason(live) == ("False", "Forbidden")
    assert condition(live, "Stalled")["message"] == (
        f"ScriptRepository {team}/rules publishes nothing for namespace {other}; "
        "name it in its spec.namespaces"
    )
