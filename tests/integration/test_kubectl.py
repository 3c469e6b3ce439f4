"""What kubectl shows: columns, conditions, events."""

from __future__ import annotations

import os
import subprocess

import pytest

from reconciler.core.objects import ObjectKey
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import QUIET, documents, script

pytestmark = pytest.mark.kube


def kubectl(running: Kubernetes, team: str, *arguments: str) -> str:
    done = subprocess.run(
        ["kubectl", f"--kubeconfig={running.kube.kubeconfig}", f"--namespace={team}", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(running.kube.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def deployed(
    on_kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Kubernetes, str, str]:
    """One good Script, and one that does not load; the namespace and the commit."""
    git = Repository(tmp_path_factory.mktemp("kubectl") / "rules.git", "--bare")
    commit = git.commit(
        {
            "manifests/good.yaml": documents(script("good")),
            "manifests/bad.yaml": documents(script("bad", artifact="bad")),
            "scripts/quiet/1.0.0.js": QUIET,
            "scripts/bad/1.0.0.js": b"function main( {}",
        }
    )
    system, team = on_kubernetes.system, on_kubernetes.kube.namespace()
    system.synced(system.repository(team, git.path), commit)
    system.script_is(ObjectKey(team, "good"), lambda o: o["status"].get("runs") == 1, "it has run")
    wait_until(
        lambda: "LoadFailed" in kubectl(on_kubernetes, team, "describe", "script", "bad"),
        what="the bad script is stalled",
    )
    return on_kubernetes, team, commit


def test_get_scripts_shows_what_runs_at_which_revision(
    deployed: tuple[Kubernetes, str, str],
) -> None:
    running, team, commit = deployed
    head, bad, good = (
        line.split() for line in kubectl(running, team, "get", "scripts").splitlines()
    )
    assert " ".join(head) == "NAME READY STATUS SCRIPT VERSION REVISION OUTCOME LAST RUN AGE"
    assert good[:2] == ["good", "True"]
    assert ["quiet", "1.0.0", f"main@sha1:{commit}", "Succeeded"] == good[-6:-2]
    assert bad[:2] == ["bad", "False"]


def test_get_scripts_wide_shows_the_last_run_and_the_counters(
    deployed: tuple[Kubernetes, str, str],
) -> None:
    running, team, _ = deployed
    head, good = kubectl(running, team, "get", "scripts", "good", "-o", "wide").splitlines()
    assert head.split()[-5:] == ["ROLLOUT", "MESSAGE", "RUNS", "FAILURES", "DIGEST"]
    assert good.split()[-3:-1] == ["1", "0"]


def test_get_scriptrepositories_shows_what_was_applied(
    deployed: tuple[Kubernetes, str, str],
) -> None:
    running, team, commit = deployed
    head, rules = kubectl(running, team, "get", "scriptrepositories", "rules").splitlines()
    assert head.split()[:3] == ["NAME", "URL", "READY"]
    assert rules.split()[2] == "True"
    assert f"main@sha1:{commit}" in rules


def test_describe_shows_conditions_and_the_events_of_transitions(
    deployed: tuple[Kubernetes, str, str],
) -> None:
    running, team, _ = deployed

    def describes(name: str, words: str) -> None:
        wait_until(
            lambda: words in " ".join(kubectl(running, team, "describe", *name.split()).split()),
            what=f"describe {name} says {words}",
        )

    describes("scripts.hit.edu.cn good", "Type: Ready")
    describes("scripts.hit.edu.cn good", "Normal Deployed")
    describes("scripts.hit.edu.cn bad", "Type: Stalled")
    describes("scripts.hit.edu.cn bad", "Warning LoadFailed")
    describes("scriptrepositories.hit.edu.cn rules", "Normal Applied")


def test_a_wait_for_ready_ends_and_one_for_what_is_stalled_does_not(
    deployed: tuple[Kubernetes, str, str],
) -> None:
    running, team, _ = deployed
    wait = ("wait", "--for=condition=Ready", "--timeout=2s")
    assert "condition met" in kubectl(running, team, *wait, "script/good")
    with pytest.raises(AssertionError, match="timed out"):
        kubectl(running, team, *wait, "script/bad")


def test_an_object_applied_by_kubectl_is_taken_and_deleted_by_kubectl_is_gone(
    deployed: tuple[Kubernetes, str, str],
) -> None:
    running, team, _ = deployed
    folder = running.kube.folder / "applied.yaml"
    folder.write_bytes(documents(script("mine")))
    assert kubectl(running, team, "apply", "-f", str(folder)) == "script.hit.edu.cn/mine created\n"
    wait_until(
        lambda: "NoRegister" in kubectl(running, team, "describe", "script", "mine"),
        what="it is looked at",
    )
    kubectl(running, team, "delete", "script", "mine")
    assert "mine" not in kubectl(running, team, "get", "scripts")
