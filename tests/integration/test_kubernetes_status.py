"""What people, kstatus and other controllers see of Scripts and ScriptRepositories."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from reconciler.core.objects import ObjectKey
from tests.api.examples import EXAMPLE
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository
from tests.support.kube import KubeServer, wait_until
from tests.support.kubeedge import APPLY
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import System, condition, reason

pytestmark = pytest.mark.kube
GROUP = "/apis/hit.edu.cn/v1alpha1"
# The repositories of these tests need no devices.
RULES = {
    "manifests/one.yaml": documents(script("one")),
    "manifests/two.yaml": documents(script("two")),
    "scripts/quiet/1.0.0.js": QUIET,
}


def scripts(team: str, name: str = "", more: str = "") -> str:
    return f"{GROUP}/namespaces/{team}/scripts{'/' if name else ''}{name}{more}"


def create(kube: KubeServer, team: str, document: dict[str, Any], name: str) -> Any:
    own = {**document, "metadata": {**document["metadata"], "name": name, "namespace": team}}
    return kube.request("POST", scripts(team), own)


def writes(kube: KubeServer) -> Counter[tuple[str, ...]]:
    """Writes that the API server has answered, by resource and verb; leases are its own."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in kube.request("GET", "/metrics").splitlines():
        if not line.startswith("apiserver_request_total{"):
            continue
        labels, _, number = line.removeprefix("apiserver_request_total{").partition("} ")
        named = dict(pair.split("=", 1) for pair in labels.split(","))
        what = tuple(named[n].strip('"') for n in ("resource", "subresource", "verb"))
        if what[0] != "leases" and what[2] in ("POST", "PUT", "PATCH", "APPLY", "DELETE"):
            found[what] += int(float(number))
    return found


def test_the_example_manifest_is_taken_as_it_is_and_stalled_as_its_register_is_not_allowed(
    on_kubernetes: Kubernetes, team: str
) -> None:
    create(on_kubernetes.kube, team, EXAMPLE, "test-script")
    live = on_kubernetes.system.script_is(
        ObjectKey(team, "test-script"), lambda o: reason(o)[0] == "False", "it is stalled"
    )
    assert live["spec"] == EXAMPLE["spec"]
    assert reason(live) == ("False", "Forbidden")
    assert "register 127.0.0.1:8080 is not allowed" in condition(live, "Stalled")["message"]


def test_a_script_without_register_that_no_repository_applied_is_stalled(
    on_kubernetes: Kubernetes, team: str
) -> None:
    create(on_kubernetes.kube, team, script("alone"), "alone")
    live = on_kubernetes.system.script_is(
        ObjectKey(team, "alone"), lambda o: reason(o)[0] == "False", "it is stalled"
    )
    assert reason(live) == ("False", "NoRegister")


def test_the_status_that_a_script_is_created_with_says_that_nobody_has_looked_at_it(
    on_kubernetes: Kubernetes, team: str, git: Repository
) -> None:
    system = on_kubernetes.system
    system.synced(system.repository(team, git.path), git.commit(RULES))
    for name in ("one", "two"):
        system.ready(ObjectKey(team, name))
    first = {}
    for obj in on_kubernetes.watch.of(team):
        first.setdefault(obj["metadata"]["name"], obj["status"])
    assert first == {name: {"observedGeneration": -1} for name in ("one", "two")}


def test_status_writes_leave_the_spec_to_its_owner(
    on_kubernetes: Kubernetes, team: str, git: Repository
) -> None:
    system, kube = on_kubernetes.system, on_kubernetes.kube
    system.synced(system.repository(team, git.path), git.commit(RULES))
    system.script_is(
        ObjectKey(team, "one"), lambda o: o["status"].get("runs") == 1, "its run is in the status"
    )
    live = kube.request("GET", scripts(team, "one"))
    owned = {
        (m["manager"], m["operation"]): [f for f in m["fieldsV1"] if f != "f:metadata"]
        for m in live["metadata"]["managedFields"]
    }
    assert owned == {
        ("scriptops", "Apply"): ["f:spec"],
        ("scriptops-status", "Update"): ["f:status"],
    }
    assert live["metadata"]["generation"] == 1


def test_an_unrelated_commit_costs_one_status_patch_and_writes_nothing_else(
    on_kubernetes: Kubernetes, team: str, git: Repository
) -> None:
    system, kube = on_kubernetes.system, on_kubernetes.kube
    rules = system.repository(team, git.path)
    system.synced(rules, git.commit(RULES))
    for name in ("one", "two"):
        system.script_is(
            ObjectKey(team, name), lambda o: o["status"].get("runs") == 1, "its run is reported"
        )
    wait_until(lambda: not pending(system), what="all that was to be written is written")
    before, versions = writes(kube), versions_of(kube, team)
    # What the first commit costs has been paid when the second is there.
    for number in (1, 2):
        system.synced(rules, git.commit({"README.md": b"x" * number}))
    assert writes(kube) - before == Counter({("scriptrepositories", "status", "PATCH"): 2})
    assert versions_of(kube, team) == versions


def pending(system: System) -> bool:
    controller = system.controller
    loops = (controller.scripts.loop, controller.statuses.loop, controller.repositories.loop)
    return not (all(loop.idle for loop in loops) and controller.events.idle)


def versions_of(kube: KubeServer, team: str) -> dict[str, str]:
    items = kube.request("GET", scripts(team))["items"]
    return {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in items}


def test_what_somebody_else_applies_to_a_script_of_git_is_put_back(
    on_kubernetes: Kubernetes, team: str, git: Repository
) -> None:
    system, kube = on_kubernetes.system, on_kubernetes.kube
    system.synced(system.repository(team, git.path), git.commit(RULES))
    key = ObjectKey(team, "one")
    system.ready(key)
    theirs = script("one", artifact="loud")
    theirs["metadata"]["namespace"] = team
    more = "?fieldManager=somebody&force=true"
    kube.request("PATCH", scripts(team, "one", more), theirs, content_type=APPLY)
    system.script_is(
        key,
        lambda o: o["spec"]["manifest"]["name"] == "quiet" and o["metadata"]["generation"] == 3,
        "git wins",
    )
    system.ready(key)


def test_no_status_that_was_written_meanwhile_breaks_a_rule(on_kubernetes: Kubernetes) -> None:
    namespaces = {o["metadata"]["namespace"] for _, o in on_kubernetes.watch.events}
    assert namespaces
    assert on_kubernetes.watch.violations(sorted(namespaces)) == []
