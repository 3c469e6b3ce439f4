"""Drift, prune limits, quarantine, suspend and reconcile on a real API server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from reconciler.core.objects import (
    ANNOTATION_REQUESTED_AT,
    DEVICE_MODELS_V1BETA1,
    DEVICES_V1BETA1,
    LABEL_QUARANTINED,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
)
from tests.integration.command_line import CommandLine
from tests.integration.conftest import Kubernetes, running_on
from tests.support.gitserver import Repository
from tests.support.kinds import DEVICE_CRDS
from tests.support.kube import KubeServer, wait_until
from tests.support.kubeedge import Layout
from tests.support.rulebook import HOUSE, QUIET, documents, script
from tests.support.system import condition, reason

pytestmark = pytest.mark.kube
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
RULES = {
    **{
        f"manifests/{name}.yaml": documents(script(name, env={"limit": "20", "unit": "C"}))
        for name in ("a", "b", "c")
    },
    "scripts/quiet/1.0.0.js": QUIET,
}


@dataclass(frozen=True)
class Open(Layout):
    """Devices that may say anything, for tests without KubeEdge's definitions."""

    def install(self, kube: KubeServer) -> None:
        kube.apply_crds(DEVICE_CRDS)


@pytest.fixture(scope="module")
def running(kube: KubeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    layout = Open(release="none", version="v1beta1")
    with running_on(kube, tmp_path_factory.mktemp("guarding"), layout=layout) as found:
        yield found


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def change(
    kube: KubeServer,
    team: str,
    plural: str,
    name: str,
    body: Any,
    *,
    manager: str = "kubectl-edit",
    content_type: str = MERGE,
) -> Any:
    group = "hit.edu.cn/v1alpha1" if plural.startswith("script") else "devices.kubeedge.io/v1beta1"
    path = f"/apis/{group}/namespaces/{team}/{plural}/{name}?fieldManager={manager}"
    return kube.request("PATCH", path, body, content_type=content_type)


def events(kube: KubeServer, team: str, kind: str, name: str) -> dict[str, str]:
    items = kube.request("GET", f"/api/v1/namespaces/{team}/events")["items"]
    return {
        it["reason"]: it["message"]
        for it in items
        if (it["involvedObject"]["kind"], it["involvedObject"]["name"]) == (kind, name)
    }


def told(kube: KubeServer, team: str, kind: str, name: str, reason_: str) -> str:
    wait_until(lambda: reason_ in events(kube, team, kind, name), what=f"{reason_} is told")
    return events(kube, team, kind, name)[reason_]


@pytest.mark.parametrize(
    ("resource", "name", "patch", "pointer"),
    [
        pytest.param(
            SCRIPTS,
            "relay",
            {"spec": {"manifest": {"version": "9.9.9"}}},
            "/spec/manifest/version",
            id="of a Script",
        ),
        pytest.param(
            DEVICES_V1BETA1,
            "lamp",
            {"spec": {"protocol": {"protocolName": "opcua"}}},
            "/spec/protocol/protocolName",
            id="of a Device",
        ),
        pytest.param(
            DEVICE_MODELS_V1BETA1,
            "lamp",
            {"spec": {"protocol": "opcua"}},
            "/spec/protocol",
            id="of a DeviceModel",
        ),
    ],
)
def test_a_field_is_put_back_within_a_second_and_who_changed_it_is_named(
    running: Kubernetes,
    team: str,
    git: Repository,
    resource: Any,
    name: str,
    patch: Any,
    pointer: str,
) -> None:
    kube, system = running.kube, running.system
    system.synced(system.repository(team, git.path), git.commit(HOUSE))
    key = ObjectKey(team, name)
    before = system.get(resource, key)["spec"]
    change(kube, team, resource.plural, name, patch)
    began = time.monotonic()
    system.object_is(resource, key, lambda o: o["spec"] == before, "it is as git says")
    assert time.monotonic() - began < 1.0
    assert told(kube, team, resource.kind, name, "DriftCorrected") == (
        f"{pointer} changed by kubectl-edit; put back as git has it"
    )


def test_what_is_reported_and_desired_is_no_drift(
    running: Kubernetes, team: str, git: Repository
) -> None:
    kube, system = running.kube, running.system
    system.synced(system.repository(team, git.path), git.commit(HOUSE))
    lamp = system.get(DEVICES_V1BETA1, ObjectKey(team, "lamp"))
    properties = [{**p, "desired": {"value": "true"}} for p in lamp["spec"]["properties"]]
    twins = [{"propertyName": "power", "reported": {"value": "true"}}]
    change(kube, team, "devices", "lamp", {"status": {"twins": twins}}, manager="cloudcore")
    change(kube, team, "devices", "lamp", {"spec": {"properties": properties}})
    change(kube, team, "devices", "door", {"spec": {"protocol": {"protocolName": "x"}}})
    told(kube, team, "Device", "door", "DriftCorrected")
    live = system.get(DEVICES_V1BETA1, ObjectKey(team, "lamp"))
    assert live["spec"]["properties"] == properties
    assert events(kube, team, "Device", "lamp") == {}


def test_two_appliers_of_one_field_end_in_backoff_and_the_other_is_named(
    running: Kubernetes, team: str, git: Repository
) -> None:
    """As when Flux applies the same Script from another repository."""
    kube, system = running.kube, running.system
    rules = system.repository(team, git.path)
    system.synced(rules, git.commit(RULES))
    key = ObjectKey(team, "a")
    theirs = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "Script",
        "metadata": {"name": "a", "namespace": team},
        "spec": {"env": {"limit": "30"}},
    }
    for _ in range(4):
        change(
            *(kube, team, "scripts", "a", theirs),
            manager="kustomize-controller&force=true",
            content_type=APPLY,
        )
        system.script_is(key, lambda o: o["spec"]["env"]["limit"] == "20", "it is put back")
    live = system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: condition(o, "Drifted"), "it is told"
    )
    assert (condition(live, "Drifted")["reason"], reason(live)) == (
        "Contended",
        ("True", "Applied"),
    )
    assert condition(live, "Drifted")["message"].endswith(
        "/spec/env/limit changed by kustomize-controller"
    )
    assert "changed by kustomize-controller again and again" in told(
        kube, team, "Script", "a", "DriftContended"
    )


def test_with_detect_nothing_is_put_back(running: Kubernetes, team: str, git: Repository) -> None:
    kube, system = running.kube, running.system
    rules = system.repository(team, git.path, drift={"mode": "Detect"})
    system.synced(rules, git.commit(RULES))
    change(kube, team, "scripts", "a", {"spec": {"env": {"limit": "30"}}})
    live = system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: condition(o, "Drifted"), "it is told"
    )
    assert condition(live, "Drifted")["message"] == (
        "1 not as git says, left so, as spec.drift.mode says: "
        f"Script {team}/a: /spec/env/limit changed by kubectl-edit"
    )
    assert system.get(SCRIPTS, ObjectKey(team, "a"))["spec"]["env"]["limit"] == "30"


def test_what_is_ignored_is_left(running: Kubernetes, team: str, git: Repository) -> None:
    kube, system = running.kube, running.system
    ignore = [{"kind": "Script", "name": "a", "pointers": ["/spec/env/limit"]}]
    rules = system.repository(team, git.path, drift={"ignore": ignore})
    system.synced(rules, git.commit(RULES))
    change(kube, team, "scripts", "a", {"spec": {"env": {"limit": "30", "unit": "F"}}})
    live = system.script_is(
        ObjectKey(team, "a"), lambda o: o["spec"]["env"]["unit"] == "C", "the rest is put back"
    )
    assert live["spec"]["env"] == {"limit": "30", "unit": "C"}


def test_a_prune_beyond_the_limit_waits_for_its_approval(
    running: Kubernetes, team: str, git: Repository, command_line: CommandLine
) -> None:
    kube, system = running.kube, running.system
    rules = system.repository(team, git.path, prune={"maxCount": 1})
    system.synced(rules, git.commit(RULES))
    commit = git.commit({"manifests/a.yaml": None, "manifests/b.yaml": None})
    live = system.synced(rules, commit)
    assert reason(live) == ("False", "PruneBudgetExceeded")
    plan = live["status"]["pendingPrune"]["plan"]
    command = f"scriptops approve rules {plan} -n {team}"
    assert command in condition(live, "Stalled")["message"]
    assert command in told(kube, team, "ScriptRepository", "rules", "PruneBudgetExceeded")
    _, *arguments = command.split()
    assert command_line(*arguments, "--controller", system.web).code == 0
    system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Applied"), "it goes on"
    )
    assert set(system.all(SCRIPTS, team)) == {"c"}


def test_a_script_passes_its_quarantine_and_comes_back_out_of_it(
    running: Kubernetes, team: str, git: Repository
) -> None:
    kube, system = running.kube, running.system
    rules = system.repository(team, git.path, prune={"quarantine": "1h"})
    system.synced(rules, git.commit(RULES))
    key = ObjectKey(team, "a")
    before = system.ready(key)
    system.synced(rules, git.commit({"manifests/a.yaml": None, "manifests/b.yaml": None}))
    live = system.script_is(key, lambda o: reason(o) == ("True", "Suspended"), "it rests")
    assert live["metadata"]["labels"][LABEL_QUARANTINED] == "true"
    told(kube, team, "Script", "a", "Quarantined")
    past = {"scriptops.hit.edu.cn/quarantined-at": "2020-01-01T00:00:00Z"}
    change(kube, team, "scripts", "b", {"metadata": {"annotations": past}})
    system.synced(rules, git.commit({"manifests/a.yaml": RULES["manifests/a.yaml"]}))
    live = system.script_is(key, lambda o: reason(o) == ("True", "Deployed"), "it is back")
    assert (live["spec"], live["metadata"]["uid"]) == (before["spec"], before["metadata"]["uid"])
    assert LABEL_QUARANTINED not in live["metadata"]["labels"]
    assert set(system.all(SCRIPTS, team)) == {"a", "c"}


def test_suspend_resume_and_reconcile_by_command(
    running: Kubernetes, team: str, git: Repository, command_line: CommandLine
) -> None:
    system = running.system
    at = ("-n", team, "--controller", system.web)
    git.commit(RULES)
    rules = system.repository(team, git.path.as_uri(), interval="24h")
    system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Applied"), "applied"
    )
    assert command_line("suspend", "repository", "rules", *at).code == 0
    system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Suspended"), "suspended"
    )
    assert command_line("resume", "repository", "rules", *at).code == 0
    system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Applied"), "resumed"
    )
    assert command_line("suspend", "script", "a", *at).code == 0
    system.script_is(ObjectKey(team, "a"), lambda o: o["spec"].get("suspend") is True, "suspended")
    commit = git.commit({"README.md": b"x"})
    ended = command_line("reconcile", "rules", "--wait", *at)
    assert (ended.code, ended.out) == (0, f"applied main@sha1:{commit}\n")
    live = system.get(SCRIPT_REPOSITORIES, rules)
    assert (
        live["status"]["lastHandledReconcileAt"]
        == live["metadata"]["annotations"][ANNOTATION_REQUESTED_AT]
    )
    assert system.get(SCRIPTS, ObjectKey(team, "a"))["spec"]["suspend"] is True
