"""What a controller leaves behind in a cluster that is not its own."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.objects import LABEL_REPOSITORY_UID, SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
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


def test_nothing_of_ours_holds_up_a_deletion_or_is_deleted_with_something_else(
    on_kubernetes: Kubernetes, deployed: ObjectKey, team: str
) -> None:
    system = on_kubernetes.system
    uid = system.get(SCRIPT_REPOSITORIES, deployed)["metadata"]["uid"]
    objects = [
        *system.all(SCRIPTS, team).values(),
        system.get(SCRIPT_REPOSITORIES, deployed),
        *events_of(on_kubernetes, team),
    ]
    assert len(objects) > len(NAMES)
    assert [o for o in objects if {"finalizers", "ownerReferences"} & o["metadata"].keys()] == []

    system.delete(SCRIPT_REPOSITORIES, deployed)

    assert system.get(SCRIPT_REPOSITORIES, deployed) is None
    # Who wants them gone finds them by their label.
    left = system.all(SCRIPTS, team)
    assert sorted(left) == sorted(NAMES)
    assert {o["metadata"]["labels"][LABEL_REPOSITORY_UID] for o in left.values()} == {uid}
    for name in NAMES:
        system.delete(SCRIPTS, ObjectKey(team, name))
    assert system.all(SCRIPTS, team) == {}


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
