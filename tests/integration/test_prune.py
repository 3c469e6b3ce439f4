"""What leaves git leaves the cluster, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reconciler.core.objects import (
    DEVICE_MODELS_V1BETA1,
    DEVICES_V1BETA1,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
)
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE, QUIET, device, documents, model, relay, script
from tests.support.system import System, reason

DEVICES = (DEVICES_V1BETA1, DEVICE_MODELS_V1BETA1)
SOLE = {
    "manifests/stays.yaml": documents(script("stays")),
    "scripts/quiet/1.0.0.js": QUIET,
}


def names(system: System, namespace: str) -> set[str]:
    return {
        f"{resource.kind} {name}"
        for resource in (SCRIPTS, *DEVICES)
        for name in system.all(resource, namespace)
    }


def desired_power(device: Any) -> Any:
    return device["spec"]["properties"][0].get("desired", {}).get("value")


def test_a_script_that_leaves_git_is_deleted_and_its_devices_stay(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit({**HOUSE, **SOLE}))
    removed = git.commit({"manifests/relay.yaml": None, "manifests/devices.yaml": None})
    live = embedded.synced(rules, removed)
    assert live["status"]["counts"] == {
        "created": 0,
        "configured": 0,
        "unchanged": 1,
        "pruned": 1,
        "skipped": 4,
    }
    assert reason(live) == ("True", "Applied")
    assert names(embedded, namespace) == {
        "Script stays",
        "Device door",
        "Device lamp",
        "DeviceModel lamp",
        "DeviceModel sensor",
    }


def test_devices_that_leave_git_are_deleted_where_the_policy_says_so(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, prune={"devices": True})
    embedded.synced(rules, git.commit({**HOUSE, **SOLE}))
    live = embedded.synced(
        rules, git.commit({"manifests/relay.yaml": None, "manifests/devices.yaml": None})
    )
    assert live["status"]["counts"]["pruned"] == 5
    assert names(embedded, namespace) == {"Script stays"}


def test_scripts_that_leave_git_stay_where_the_policy_says_so(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, prune={"scripts": False})
    embedded.synced(rules, git.commit({**HOUSE, **SOLE}))
    live = embedded.synced(rules, git.commit({"manifests/relay.yaml": None}))
    assert live["status"]["counts"]["skipped"] == 1
    assert embedded.get(SCRIPTS, ObjectKey(namespace, "relay")) is not None


def test_an_object_of_another_repository_is_left_alone_and_that_is_told_until_the_other_gives_way(
    embedded: System, namespace: str, git: Repository, tmp_path: Path
) -> None:
    other_git = Repository(tmp_path / "other.git", "--bare")
    owner = embedded.repository(namespace, git.path, "owner")
    embedded.synced(owner, git.commit({**SOLE, "manifests/shared.yaml": documents(script("x"))}))
    before = embedded.ready(ObjectKey(namespace, "x"))
    claimant = embedded.repository(namespace, other_git.path, "claimant", interval="1s")
    claim = {
        "manifests/mine.yaml": documents(script("mine")),
        "manifests/shared.yaml": documents(script("x", env={"mine": "yes"})),
        "scripts/quiet/1.0.0.js": QUIET,
    }
    live = embedded.synced(claimant, other_git.commit(claim))
    [problem] = live["status"]["problems"]
    assert (problem["path"], problem["reason"]) == ("manifests/shared.yaml", "OwnedByAnother")
    assert "belongs to repository owner" in problem["message"]
    assert live["status"]["counts"] == {
        "created": 1,
        "configured": 0,
        "unchanged": 0,
        "pruned": 0,
        "skipped": 1,
    }
    # Another revision does not make it forget.
    live = embedded.synced(claimant, other_git.commit({"README.md": b"x"}))
    assert reason(live) == ("False", "OwnedByAnother")
    after = embedded.get(SCRIPTS, ObjectKey(namespace, "x"))
    assert (after["spec"], after["metadata"]["uid"]) == (before["spec"], before["metadata"]["uid"])
    # Nor does it delete what is not its own.
    embedded.synced(claimant, other_git.commit({"manifests/shared.yaml": None}))
    assert (
        embedded.get(SCRIPTS, ObjectKey(namespace, "x"))["metadata"]["uid"]
        == (before["metadata"]["uid"])
    )
    embedded.synced(
        claimant, other_git.commit({"manifests/shared.yaml": claim["manifests/shared.yaml"]})
    )
    embedded.synced(owner, git.commit({"manifests/shared.yaml": None}))
    embedded.script_is(
        ObjectKey(namespace, "x"),
        lambda o: o["spec"].get("env") == {"mine": "yes"},
        "the other repository has it now",
    )
    embedded.object_is(
        SCRIPT_REPOSITORIES, claimant, lambda o: reason(o) == ("True", "Applied"), "all is well"
    )


def test_a_script_that_nobody_owns_is_not_pruned(
    embedded: System, namespace: str, git: Repository
) -> None:
    cluster = embedded.controller.cluster
    loose = script("loose")
    loose["metadata"]["namespace"] = namespace
    embedded.do(cluster.create(SCRIPTS, loose, field_manager="somebody"))
    rules = embedded.repository(namespace, git.path, prune={"devices": True})
    embedded.synced(rules, git.commit({**HOUSE, **SOLE}))
    embedded.synced(rules, git.commit({"manifests/relay.yaml": None}))
    assert {"stays", "loose"} == set(embedded.all(SCRIPTS, namespace))


def test_a_script_deleted_by_hand_comes_back(
    embedded: System, namespace: str, git: Repository
) -> None:
    embedded.synced(embedded.repository(namespace, git.path), git.commit(SOLE))
    key = ObjectKey(namespace, "stays")
    before = embedded.ready(key)["metadata"]["uid"]
    embedded.delete(SCRIPTS, key)
    embedded.script_is(key, lambda o: o["metadata"]["uid"] != before, "it is there again")
    embedded.ready(key)


def test_a_script_changed_by_hand_is_put_back(
    embedded: System, namespace: str, git: Repository
) -> None:
    embedded.synced(embedded.repository(namespace, git.path), git.commit(SOLE))
    key = ObjectKey(namespace, "stays")
    before = embedded.ready(key)
    embedded.patch(SCRIPTS, key, {"spec": {"manifest": {"version": "9.9.9"}}})
    embedded.script_is(
        key,
        lambda o: o["metadata"]["generation"] == 3 and o["spec"] == before["spec"],
        "git wins",
    )


def test_a_suspended_repository_changes_nothing_and_catches_up_when_it_goes_on(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(SOLE))
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"suspend": True}})
    embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Suspended"), "suspended"
    )
    commit = git.commit({"manifests/more.yaml": documents(script("more"))})
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"interval": "2m"}})
    embedded.object_is(
        SCRIPT_REPOSITORIES,
        rules,
        lambda o: reason(o) == ("True", "Suspended"),
        "it was looked at and left alone",
    )
    assert set(embedded.all(SCRIPTS, namespace)) == {"stays"}
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"suspend": False}})
    embedded.synced(rules, commit)
    embedded.ready(ObjectKey(namespace, "more"))


def test_a_desired_value_of_a_rule_survives_a_push_that_changes_its_device(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(HOUSE))
    embedded.ready(ObjectKey(namespace, "relay"))
    embedded.report(ObjectKey(namespace, "door"), open=True)
    lamp = ObjectKey(namespace, "lamp")
    embedded.object_is(DEVICES_V1BETA1, lamp, lambda o: desired_power(o) == "true", "it shines")
    changed = documents(
        model("sensor", "open"),
        model("lamp", "power=rw", "dimmed=rw"),
        device("door", "sensor", "open"),
        device("lamp", "lamp", "power", "dimmed", cycle=9000),
    )
    live = embedded.synced(rules, git.commit({"manifests/devices.yaml": changed}))
    assert live["status"]["counts"]["configured"] == 2
    found = embedded.get(DEVICES_V1BETA1, lamp)
    assert [(p["name"], p["collectCycle"]) for p in found["spec"]["properties"]] == [
        ("power", 9000),
        ("dimmed", 9000),
    ]
    assert desired_power(found) == "true"
    assert found["metadata"]["annotations"]["scriptops.hit.edu.cn/cause"]


def test_a_desired_value_in_a_manifest_counts_at_creation_only(
    embedded: System, namespace: str, git: Repository
) -> None:
    lamp = device("lamp", "lamp", "power")
    lamp["spec"]["properties"][0]["desired"] = {"value": "true"}
    files = {
        "manifests/devices.yaml": documents(
            model("sensor", "open"), model("lamp", "power=rw"), device("door", "sensor", "open")
        ),
        "manifests/lamp.yaml": documents(lamp),
        "manifests/relay.yaml": documents(relay()),
    }
    rules = embedded.repository(namespace, git.path)
    key = ObjectKey(namespace, "lamp")
    embedded.synced(rules, git.commit({**HOUSE, **files}))
    embedded.ready(ObjectKey(namespace, "relay"))
    assert desired_power(embedded.get(DEVICES_V1BETA1, key)) == "true"
    embedded.report(ObjectKey(namespace, "door"), open=False)
    embedded.object_is(DEVICES_V1BETA1, key, lambda o: desired_power(o) == "false", "it is dark")
    lamp["metadata"]["labels"] = {"room": "hall"}
    embedded.synced(rules, git.commit({"manifests/lamp.yaml": documents(lamp)}))
    found = embedded.get(DEVICES_V1BETA1, key)
    assert found["metadata"]["labels"]["room"] == "hall"
    assert desired_power(found) == "false"


def test_a_script_that_is_deleted_runs_no_more(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit({**HOUSE, **SOLE}))
    relay_key, door = ObjectKey(namespace, "relay"), ObjectKey(namespace, "door")
    embedded.ready(relay_key)
    wait_until(lambda: len(embedded.runs(*relay_key)) == 1, what="its first run")
    embedded.synced(rules, git.commit({"manifests/relay.yaml": None}))
    embedded.report(door, open=True)
    # What a device change leads to is queued when the report is taken; this is queued after it.
    path = f"/api/v1alpha1/scripts/{namespace}/stays/trigger"
    run = embedded.ask(path, method="POST")["runId"]
    wait_until(
        lambda: run in {r["id"] for r in embedded.runs(namespace, "stays")}, what="the later run"
    )
    assert len(embedded.runs(*relay_key)) == 1
