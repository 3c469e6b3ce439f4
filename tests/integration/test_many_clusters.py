"""One repository, several clusters: each takes what is its own, and none waits for another."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository
from tests.support.kube import KubeServer, free_port, wait_until
from tests.support.rulebook import QUIET, documents, script
from tests.support.statusfiles import status_files
from tests.support.system import (
    PATIENCE,
    ROOT,
    ControllerProcess,
    System,
    ask,
    condition,
    executor,
    reason,
    serving,
    settings,
)

NAMED = b"clusters: [plant-a, plant-b]\n"
FILES = {
    "scriptops.yaml": NAMED,
    "manifests/rules.yaml": documents(
        script("alike", env={"limit": "1"}), script("own", env={"limit": "1"})
    ),
    "clusters/plant-a/rules.yaml": documents(script("own", env={"limit": "2"}), script("only-a")),
    "clusters/plant-b/rules.yaml": documents(script("only-b")),
    "scripts/quiet/1.0.0.js": QUIET,
}
TEAM = "team"


def limits(system: System) -> dict[str, Any]:
    """What each Script of the cluster is told."""
    found = system.all(SCRIPTS, TEAM)
    return {name: it["spec"].get("env", {}).get("limit") for name, it in found.items()}


@dataclass(frozen=True)
class Plant:
    system: System
    rules: ObjectKey

    def synced(self, commit: str) -> Any:
        return self.system.synced(self.rules, commit)

    def stalled(self, why: str) -> str:
        live = self.system.object_is(
            SCRIPT_REPOSITORIES, self.rules, lambda o: reason(o) == ("False", why), f"it is {why}"
        )
        return str(condition(live, "Stalled")["message"])


@pytest.fixture
def plants(tmp_path: Path, git: Repository) -> Iterator[Mapping[str, Plant]]:
    """Two clusters that deploy one repository, and a third that nobody named."""
    with ExitStack() as stack:
        found: dict[str, Plant] = {}
        for name in ("plant-a", "plant-b", "plant-c"):
            chosen = settings(tmp_path / name, cluster_name=name)
            system = stack.enter_context(serving(chosen))
            if name != "plant-c":
                stack.enter_context(executor(system.grpc, tmp_path / f"{name}.log"))
            rules = system.repository(TEAM, git.path, interval="1s", resultsInterval="1s")
            found[name] = Plant(system, rules)
        yield found


def test_each_cluster_gets_its_own_and_reports_to_a_branch_of_its_own(
    plants: Mapping[str, Plant], git: Repository
) -> None:
    a, b, c = plants.values()
    commit = git.commit(FILES)
    a.synced(commit)
    b.synced(commit)
    assert limits(a.system) == {"alike": "1", "own": "2", "only-a": None}
    assert limits(b.system) == {"alike": "1", "own": "1", "only-b": None}
    told = c.stalled("ClusterNotNamed")
    assert told == (
        'scriptops.yaml names the clusters plant-a, plant-b, and not "plant-c"; nothing was changed'
    )
    assert limits(c.system) == {}
    for name, plant in (("plant-a", a), ("plant-b", b)):
        wanted = {ObjectKey(TEAM, it) for it in limits(plant.system)}
        for key in wanted:
            plant.system.ready(key)
        ref = f"scriptops-status/{name}"
        wait_until(
            lambda r=ref, w=wanted: status_files(git, r).keys() == w, what=f"{ref} has them all"
        )
    # What is one cluster's own costs the other nothing.
    before = b.system.get(SCRIPTS, ObjectKey(TEAM, "own"))["metadata"]["resourceVersion"]
    commit = git.commit({"clusters/plant-a/rules.yaml": documents(script("only-a"))})
    a.synced(commit)
    b.synced(commit)
    assert limits(a.system) == {"alike": "1", "own": "1", "only-a": None}
    after = b.system.get(SCRIPTS, ObjectKey(TEAM, "own"))["metadata"]
    assert (after["generation"], before != "") == (1, True)


def test_a_name_that_is_taken_off_the_list_changes_nothing_in_that_cluster(
    plants: Mapping[str, Plant], git: Repository
) -> None:
    a, b, _ = plants.values()
    commit = git.commit(FILES)
    a.synced(commit)
    b.synced(commit)
    commit = git.commit(
        {"scriptops.yaml": b"clusters: [plant-b]\n", "manifests/rules.yaml": documents(script("x"))}
    )
    b.synced(commit)
    assert set(limits(b.system)) == {"x", "only-b"}
    a.stalled("ClusterNotNamed")
    assert set(limits(a.system)) == {"alike", "own", "only-a"}


def test_a_file_that_cannot_be_read_does_not_take_the_overlays_away(
    plants: Mapping[str, Plant], git: Repository
) -> None:
    a, b, _ = plants.values()
    commit = git.commit(FILES)
    a.synced(commit)
    b.synced(commit)
    git.commit({"scriptops.yaml": b"clusters: [plant-a,\n"})
    assert "scriptops.yaml:" in a.stalled("RepositoryFileInvalid")
    assert limits(a.system) == {"alike": "1", "own": "2", "only-a": None}
    commit = git.commit({"scriptops.yaml": NAMED})
    live = a.synced(commit)
    assert reason(live) == ("True", "Applied")


def test_a_broken_overlay_keeps_what_its_cluster_has_and_no_other_waits(
    plants: Mapping[str, Plant], git: Repository
) -> None:
    a, b, _ = plants.values()
    commit = git.commit(FILES)
    a.synced(commit)
    b.synced(commit)
    commit = git.commit(
        {
            "clusters/plant-a/rules.yaml": b"kind: [\n# own only-a\n",
            "manifests/rules.yaml": documents(
                script("alike", env={"limit": "9"}), script("own", env={"limit": "9"})
            ),
        }
    )
    problems = a.synced(commit)["status"]["problems"]
    assert [(p["path"], p["reason"]) for p in problems] == [
        ("clusters/plant-a/rules.yaml", "InvalidYaml")
    ]
    b.synced(commit)
    assert limits(a.system) == {"alike": "9", "own": "2", "only-a": None}
    assert limits(b.system) == {"alike": "9", "own": "9", "only-b": None}


def test_a_cluster_that_is_down_stops_no_other_and_catches_up(
    tmp_path: Path, git: Repository
) -> None:
    commit = git.commit(FILES)
    down = ControllerProcess(tmp_path / "b", "--cluster-name=plant-b")
    with serving(settings(tmp_path / "a", cluster_name="plant-a")) as system:
        rules = system.repository(TEAM, git.path, interval="1s")
        down.start()
        try:
            down.serving()
            system.synced(rules, commit)
            down.kill()
            commit = git.commit({"manifests/more.yaml": documents(script("more"))})
            system.synced(rules, commit)
            assert "more" in limits(system)
        finally:
            if down.code is None:
                down.kill()


def test_up_deploys_what_the_named_cluster_gets(tmp_path: Path, git: Repository) -> None:
    git.commit(FILES)
    up = ControllerProcess(tmp_path / "up")
    up.arguments = (
        *("reconciler", "up", str(git.path), "--cluster-name=plant-b", "--web=127.0.0.1:0"),
        *("--grpc=127.0.0.1:0", "--mqtt=", f"--data={tmp_path / 'data'}"),
    )
    up.environment = {"HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    up.start()
    try:
        up.says("3 created")
        web = up.output.partition("http://")[2].split()[0].rstrip("/")
        items = ask(f"http://{web}/api/v1alpha1/scripts")["items"]
        assert {it["metadata"]["name"] for it in items} == {"alike", "own", "only-b"}
    finally:
        if up.code is None:
            up.stop()


def scriptops(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reconciler", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_on_the_command_line_it_is_looked_at_for_each_cluster_or_for_one(tmp_path: Path) -> None:
    for name, content in {
        **FILES,
        "clusters/plant-b/rules.yaml": documents({**script("only-b"), "kind": "Scirpt"}),
        "clusters/plant-o/rules.yaml": documents(script("lost")),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    every = scriptops("validate", "--no-engine", str(tmp_path))
    unknown = 'unknown kind "Scirpt"; did you mean "Script"?; scriptops deploys Script, Device, '
    unnamed = (
        'warning: no manifest here is deployed to anything: scriptops.yaml does not name "plant-o" '
        'in its clusters; did you mean "plant-b"?'
    )
    assert every.returncode == 1
    assert every.stdout.splitlines() == [
        f"clusters/plant-b/rules.yaml:2 /kind  UnknownKind  {unknown}DeviceModel, ScriptRepository",
        f"clusters/plant-o  ClusterNotNamed  {unnamed}",
    ]
    one = scriptops("validate", "--no-engine", "--cluster-name=plant-a", str(tmp_path))
    assert (one.returncode, one.stdout.count("\n")) == (0, 1)
    none = scriptops("validate", "--cluster-name=plant-x", str(tmp_path))
    assert (none.returncode, "--cluster-name" in none.stderr) == (2, True)
    rendering = ("render", "--repository=rules", str(tmp_path))
    assert scriptops(*rendering).returncode == 2
    rendered = scriptops(*rendering, "--cluster-name=plant-a")
    assert rendered.returncode == 0, rendered.stderr
    assert ("limit: '2'" in rendered.stdout) or ('limit: "2"' in rendered.stdout)
    assert "only-b" not in rendered.stdout


# Handed out from one place.


def kubeconfig_of(kube: KubeServer, namespace: str) -> str:
    """Of somebody who may write ScriptRepositories in that namespace, and nothing else."""
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    kube.request("POST", account, {"metadata": {"name": "hub"}})
    token = kube.request("POST", f"{account}/hub/token", {"spec": {}})["status"]["token"]
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rule = {
        "apiGroups": ["hit.edu.cn"],
        "resources": ["scriptrepositories"],
        "verbs": ["get", "create", "patch", "delete"],
    }
    kube.request("POST", f"{rbac}/roles", {"metadata": {"name": "hub"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "hub"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "hub"},
        "subjects": [{"kind": "ServiceAccount", "name": "hub", "namespace": namespace}],
    }
    kube.request("POST", f"{rbac}/rolebindings", binding)
    return config_of(kube.url, kube.certificate, {"token": token})


def config_of(server: str, certificate: Path, user: Mapping[str, Any]) -> str:
    authority = base64.b64encode(certificate.read_bytes()).decode()
    cluster = {"server": server, "certificate-authority-data": authority}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": user}],
        }
    )


@pytest.mark.kube
def test_a_repository_is_handed_out_to_clusters_and_one_that_is_down_stops_no_other(
    on_kubernetes: Kubernetes, team: str, git: Repository, tmp_path: Path
) -> None:
    kube, there = on_kubernetes.kube, on_kubernetes.system
    commit = git.commit(
        {
            "scriptops.yaml": b"clusters: [default, far]\n",
            "manifests/rules.yaml": documents(script("alike")),
            "clusters/default/rules.yaml": documents(script("only-here")),
            "scripts/quiet/1.0.0.js": QUIET,
        }
    )
    secrets = {
        "default": kubeconfig_of(kube, team),
        "far": config_of(f"https://127.0.0.1:{free_port()}", kube.certificate, {"token": "x"}),
        "exec": kubeconfig_of_program(kube),
    }
    folder = tmp_path / "secrets"
    for name, content in secrets.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "value").write_text(content)
    bound = [{"name": n, "kubeConfig": {"secretRef": {"name": n}}} for n in ("far", "default")]
    chosen = settings(tmp_path / "hub", cluster_name="hub", secrets=folder, namespace=team)
    with serving(chosen) as hub:
        rules = hub.repository(team, git.path, interval="1s", clusters=bound)
        there.synced(rules, commit)
        assert set(there.all(SCRIPTS, team)) == {"alike", "only-here"}
        live = hub.object_is(
            SCRIPT_REPOSITORIES,
            rules,
            lambda o: (
                {it["ready"] for it in o["status"].get("clusters", ())} == {"True", "Unknown"}
            ),
            "one is ready and one is not heard of",
        )
        far, here = live["status"]["clusters"]
        assert (far["name"], far["reason"]) == ("far", "ClusterUnavailable")
        assert (here["reason"], here["revision"]) == ("Applied", f"main@sha1:{commit}")
        assert reason(live) == ("Unknown", "ClusterUnavailable")
        assert hub.all(SCRIPTS, team) == {}
        bindings = [{"name": "far", "kubeConfig": {"secretRef": {"name": "exec"}}}, *bound[1:]]
        hub.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"clusters": bindings}})
        live = hub.object_is(
            SCRIPT_REPOSITORIES,
            rules,
            lambda o: reason(o) == ("False", "KubeConfigRefused"),
            "a kubeconfig with a program is refused",
        )
        assert "'exec' is refused, it runs a program" in condition(live, "Ready")["message"]
        hub.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"clusters": bound[1:]}})
        hub.object_is(
            SCRIPT_REPOSITORIES,
            rules,
            lambda o: reason(o) == ("True", "HandedOut"),
            "all are ready",
        )
        commit = git.commit({"manifests/rules.yaml": documents(script("other"))})
        there.synced(rules, commit)
        hub.object_is(
            SCRIPT_REPOSITORIES,
            rules,
            lambda o: o["status"]["revision"] == f"main@sha1:{commit}",
            "what it is at is told",
        )
        assert secrets["default"] not in json.dumps(hub.get(SCRIPT_REPOSITORIES, rules))


def kubeconfig_of_program(kube: KubeServer) -> str:
    program = {"apiVersion": "client.authentication.k8s.io/v1", "command": "touch", "args": ["ran"]}
    return config_of(kube.url, kube.certificate, {"exec": program})
