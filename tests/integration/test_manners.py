"""What a controller leaves behind in a cluster that is not its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import QUIET, documents, script

pytestmark = pytest.mark.kube

NAMES = [f"rule-{number}" for number in range(20)]


@pytest.fixture
def deployed(on_kubernetes: Kubernetes, team: str, git: Repository) -> ObjectKey:
    """A repository of twenty Scripts that have all run, told of to the last event."""
    git.commit(
        {
            "manifests/rules.yaml": documents(*(script(name) for name in NAMES)),
            "scripts/quiet/1.0.0.js": QUIET,
        }
    )
    system = on_kubernetes.system
    rules = system.repository(team, git.path)
    for name in NAMES:
        system.script_is(
            ObjectKey(team, name),
            lambda o: (o.get("status") or {}).get("runs") == 1,
            f"{name} has run",
        )
    wait_until(lambda: system.controller.events.idle, what="all events are told")
    return rules


def events_of(running: Kubernetes, namespace: str) -> list[Any]:
    listed: Any = running.kube.request("GET", f"/api/v1/namespaces/{namespace}/events")
    return list(listed["items"])


@pytest.fixture
def collector(on_kubernetes: Kubernetes) -> Iterator[None]:
    on_kubernetes.kube.start_controller_manager("garbagecollector")
    yield
    on_kubernetes.kube.kill("kube-controller-manager")


def owners(obj: Any) -> Any:
    return obj["metadata"].get("ownerReferences", [])


def test_scripts_belong_to_their_repository_and_nothing_waits_for_a_finalizer(
    on_kubernetes: Kubernetes, deployed: ObjectKey, team: str
) -> None:
    system = on_kubernetes.system
    repository = system.get(SCRIPT_REPOSITORIES, deployed)
    scripts = list(system.all(SCRIPTS, team).values())
    events = events_of(on_kubernetes, team)
    assert len(scripts) == len(NAMES)
    assert [o for o in (repository, *scripts, *events) if "finalizers" in o["metadata"]] == []
    owner = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "name": deployed.name,
        "uid": repository["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
    assert [owners(it) for it in scripts] == [[owner]] * len(NAMES)
    # Nobody's: the one is a person's, the others regard something and expire.
    assert [owners(it) for it in (repository, *events)] == [[]] * (1 + len(events))


def test_a_repository_that_is_deleted_takes_along_what_its_policy_would_prune(
    on_kubernetes: Kubernetes, deployed: ObjectKey, team: str, collector: None
) -> None:
    system = on_kubernetes.system
    system.delete(SCRIPT_REPOSITORIES, deployed)
    wait_until(lambda: not system.all(SCRIPTS, team), what="the Scripts are collected", seconds=90)


def test_orphans_run_on_without_their_repository_and_other_owners_are_left_alone(
    on_kubernetes: Kubernetes, deployed: ObjectKey, team: str, collector: None
) -> None:
    system = on_kubernetes.system
    bundle = on_kubernetes.kube.request(
        "POST", f"/api/v1/namespaces/{team}/configmaps", {"metadata": {"name": "bundle"}}
    )
    theirs = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "bundle",
        "uid": bundle["metadata"]["uid"],
    }
    first = ObjectKey(team, NAMES[0])
    both = [*owners(system.get(SCRIPTS, first)), theirs]
    system.patch(SCRIPTS, first, {"metadata": {"ownerReferences": both}})
    system.patch(SCRIPT_REPOSITORIES, deployed, {"spec": {"deletionPolicy": "Orphan"}})
    wait_until(
        lambda: (
            [owners(it) for it in system.all(SCRIPTS, team).values() if owners(it)] == [[theirs]]
        ),
        what="the Scripts belong to no repository",
    )

    system.delete(SCRIPT_REPOSITORIES, deployed)
    collected = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "orphan",
            "ownerReferences": [{**theirs, "name": "gone", "uid": "no-such-uid"}],
        },
    }
    configmaps = f"/api/v1/namespaces/{team}/configmaps"
    on_kubernetes.kube.request("POST", configmaps, collected)
    wait_until(
        lambda: (
            "orphan"
            not in {
                it["metadata"]["name"]
                for it in on_kubernetes.kube.request("GET", configmaps)["items"]
            }
        ),
        what="what has no owner any more is collected",
        seconds=90,
    )
    left = system.all(SCRIPTS, team)
    assert sorted(left) == sorted(NAMES)
    # It is still told to run, and runs.
    system.ask(f"/api/v1alpha1/scripts/{team}/{NAMES[1]}/trigger", method="POST")
    system.script_is(
        ObjectKey(team, NAMES[1]),
        lambda o: (o.get("status") or {}).get("runs") == 2,
        "it has run again",
    )


def test_events_are_one_for_a_transition_and_regard_something(
    on_kubernetes: Kubernetes, deployed: ObjectKey, team: str
) -> None:
    events = events_of(on_kubernetes, team)
    told = [(e["involvedObject"]["name"], e["type"], e["reason"]) for e in events]
    assert len(told) == len(set(told))
    assert {reason for _, _, reason in told} == {"Applied", "Deployed"}
    # A run that goes well is no news; each Script became Ready once.
    assert len(told) <= len(NAMES) + 1
    assert all(e["involvedObject"]["uid"] for e in events)
