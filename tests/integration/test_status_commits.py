"""Results in git: on a ref of their own, complete, and never read as a revision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.objects import SCRIPTS, ObjectKey, Reference
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE, QUIET, documents, script
from tests.support.statusfiles import REF, status_files
from tests.support.system import System, executor, serving, settings

SIX = [f"s{n}" for n in range(6)]
RULES = {
    **{f"manifests/{name}.yaml": documents(script(name)) for name in SIX},
    "scripts/quiet/1.0.0.js": QUIET,
}


def statuses(system: System, *namespaces: str) -> dict[ObjectKey, Any]:
    return {
        ObjectKey(namespace, name): live["status"]
        for namespace in namespaces
        for name, live in system.all(SCRIPTS, namespace).items()
    }


def reconciles(system: System) -> float:
    """How often any repository was looked at."""
    counter = system.controller.metrics.reconcile_total
    return sum(
        sample.value
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["kind"] == "ScriptRepository"
    )


def test_the_status_ref_says_what_the_cluster_says(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, resultsInterval="1s")
    embedded.synced(rules, git.commit(RULES))
    wait_until(
        lambda: (
            status_files(git) == statuses(embedded, namespace)
            and {s["runs"] for s in status_files(git).values()} == {1}
        ),
        what="git says what the cluster says",
    )
    messages = git.git("log", "--format=%s", REF).splitlines()
    assert all(message.endswith("[skip ci]") for message in messages)


def test_a_pruned_script_leaves_the_status_ref(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(RULES))
    wait_until(lambda: len(status_files(git)) == 6, what="all are told")
    embedded.synced(rules, git.commit({"manifests/s0.yaml": None}))
    wait_until(
        lambda: {key.name for key in status_files(git)} == set(SIX[1:]), what="one is not told"
    )


def test_status_commits_wake_nobody_up(embedded: System, namespace: str, git: Repository) -> None:
    rules = embedded.repository(namespace, git.path, interval="1h", resultsInterval="1s")
    embedded.synced(rules, git.commit(HOUSE))
    relay, door = ObjectKey(namespace, "relay"), ObjectKey(namespace, "door")
    embedded.ready(relay)
    wait_until(lambda: git.tip(REF), what="a first status commit")
    before = reconciles(embedded)
    for value, runs in ((True, 2), (False, 3)):
        tip = git.tip(REF)
        embedded.report(door, open=value)
        wait_until(lambda n=runs: len(embedded.runs(*relay)) == n, what="it has run")
        wait_until(lambda t=tip: git.tip(REF) != t, what="another status commit")
    assert reconciles(embedded) == before
    embedded.synced(rules, git.commit({"README.md": b"x"}))
    wait_until(lambda: reconciles(embedded) == before + 1, what="only a revision wakes it up")


def test_a_push_that_a_hook_refuses_is_told_and_its_results_are_pushed_when_it_is_allowed(
    embedded: System, namespace: str, git: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    git.hook("pre-receive", "echo 'status is not welcome here' >&2; exit 1")
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(RULES))

    def refusals() -> list[str]:
        said = [r.__dict__ for r in caplog.records if r.message == "status not pushed, kept"]
        return [r["error"] for r in said if str(git.path) in r["error"]]

    wait_until(refusals, what="the refusal is logged")
    assert "status is not welcome here" in refusals()[0]
    cluster = embedded.controller.cluster
    assert isinstance(cluster, EmbeddedCluster)
    told = wait_until(
        lambda: [
            t.event.type
            for t in cluster.events(Reference("ScriptRepository", *rules))
            if "not welcome" in t.event.message
        ],
        what="an event tells of the refusal",
    )
    assert told == ["Warning"]
    assert git.tip(REF) is None
    for name in SIX:
        embedded.ready(ObjectKey(namespace, name))
    (Path(git.path) / "hooks" / "pre-receive").unlink()
    wait_until(lambda: len(status_files(git)) == 6, what="all are told")
    ready = [s["conditions"][0]["status"] for s in status_files(git).values()]
    assert ready == ["True"] * 6


def test_an_empty_status_ref_asks_for_no_commits(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, statusRef="")
    embedded.synced(rules, git.commit(RULES))
    for name in SIX:
        embedded.ready(ObjectKey(namespace, name))
    assert git.git("for-each-ref", "--format=%(refname)") == "refs/heads/main"


def test_two_repositories_of_one_url_share_the_ref_and_lose_nothing(
    embedded: System, fresh: Any, git: Repository
) -> None:
    one, two = fresh(), fresh()
    commit = git.commit(RULES)
    for namespace in (one, two):
        embedded.repository(namespace, git.path)
    for namespace in (one, two):
        embedded.synced(ObjectKey(namespace, "rules"), commit)
    wait_until(
        lambda: set(status_files(git)) == {ObjectKey(n, s) for n in (one, two) for s in SIX},
        what="both are told",
    )


def test_two_controllers_that_write_one_ref_lose_nothing(tmp_path: Path, git: Repository) -> None:
    """As when two clusters are configured with the same name."""
    with (
        serving(settings(tmp_path / "a")) as first,
        serving(settings(tmp_path / "b")) as second,
        executor(first.grpc, tmp_path / "a.log"),
        executor(second.grpc, tmp_path / "b.log"),
    ):
        systems = {"first": first, "second": second}
        git.commit(RULES)
        for team, system in systems.items():
            system.repository(team, git.path, resultsInterval="1s")
        for number in range(3):
            changed = documents(script("s0", env={"round": str(number)}))
            commit = git.commit({"manifests/s0.yaml": changed})
            for team, system in systems.items():
                system.synced(ObjectKey(team, "rules"), commit)

        def all_is_told() -> bool:
            said = status_files(git)
            wanted = {
                k: v for team, system in systems.items() for k, v in statuses(system, team).items()
            }
            return said == wanted and len(said) == 12 and all(s["runs"] for s in said.values())

        wait_until(all_is_told, what="the ref says what both clusters say", every=0.2)
    history = git.git("log", "--format=%H", REF).splitlines()
    for commit in history:
        for name in git.git("ls-tree", "-r", "--name-only", commit).splitlines():
            assert yaml.safe_load(git.git("cat-file", "blob", f"{commit}:{name}"))["status"]


def test_what_was_not_pushed_before_a_restart_is_pushed_after_it(
    tmp_path: Path, git: Repository
) -> None:
    git.hook("pre-receive", "exit 1")
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        rules = system.repository("team", git.path)
        system.synced(rules, git.commit(RULES))
        for name in SIX:
            wait_until(lambda n=name: system.runs("team", n), what=f"{name} has run")
    assert git.tip(REF) is None
    (Path(git.path) / "hooks" / "pre-receive").unlink()
    with serving(settings(tmp_path / "data")) as system:
        wait_until(lambda: len(status_files(git)) == 6, what="all are told")
        assert status_files(git) == statuses(system, "team")
