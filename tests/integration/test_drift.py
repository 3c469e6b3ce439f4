"""What somebody changes in the cluster is as git says a moment later, or is told of."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.objects import (
    DEVICE_MODELS_V1BETA1,
    DEVICES_V1BETA1,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
    Reference,
    Resource,
)
from tests.support.gitserver import Repository
from tests.support.rulebook import HOUSE, QUIET, documents, script
from tests.support.system import System, condition, reason

RULES = {
    "manifests/rule.yaml": documents(script("rule", env={"limit": "20", "unit": "C"})),
    "scripts/quiet/1.0.0.js": QUIET,
}


def told(system: System, resource: Resource, key: ObjectKey) -> dict[str, str]:
    """Events about an object: the newest message of each reason."""
    cluster = system.controller.cluster
    assert isinstance(cluster, EmbeddedCluster)
    found = cluster.events(Reference(resource.kind, *key))
    return {it.event.reason: it.event.message for it in found}


def says(system: System, resource: Resource, key: ObjectKey, reason_: str) -> str:
    system.object_is(
        SCRIPT_REPOSITORIES if resource is SCRIPT_REPOSITORIES else resource,
        key,
        lambda _: reason_ in told(system, resource, key),
        f"{reason_} of {key} is told",
    )
    return told(system, resource, key)[reason_]


CHANGES = [
    pytest.param(
        SCRIPTS,
        "relay",
        {"spec": {"writeSelector": {"matchNames": {"lamp": "another"}}}},
        "/spec/writeSelector/matchNames/lamp",
        id="a field of a Script",
    ),
    pytest.param(
        SCRIPTS,
        "relay",
        {"metadata": {"labels": {"scriptops.hit.edu.cn/repository": "mine"}}},
        "/metadata/labels/scriptops.hit.edu.cn~1repository",
        id="a label of a Script",
    ),
    pytest.param(
        DEVICES_V1BETA1,
        "lamp",
        {"spec": {"protocol": {"protocolName": "opcua"}}},
        "/spec/protocol/protocolName",
        id="a field of a Device",
    ),
    pytest.param(
        DEVICES_V1BETA1,
        "lamp",
        {"metadata": {"annotations": {"scriptops.hit.edu.cn/revision": None}}},
        "/metadata/annotations/scriptops.hit.edu.cn~1revision",
        id="an annotation of a Device",
    ),
    pytest.param(
        DEVICE_MODELS_V1BETA1,
        "lamp",
        {"spec": {"protocol": "opcua"}},
        "/spec/protocol",
        id="a field of a DeviceModel",
    ),
]


@pytest.mark.parametrize(("resource", "name", "patch", "pointer"), CHANGES)
def test_what_git_owns_is_put_back_within_a_second_and_who_changed_it_is_told(
    embedded: System,
    namespace: str,
    git: Repository,
    resource: Resource,
    name: str,
    patch: Any,
    pointer: str,
) -> None:
    embedded.synced(embedded.repository(namespace, git.path), git.commit(HOUSE))
    key = ObjectKey(namespace, name)
    before = embedded.get(resource, key)
    embedded.patch(resource, key, patch)
    began = time.monotonic()
    embedded.object_is(
        resource,
        key,
        lambda o: (
            o["spec"] == before["spec"]
            and o["metadata"]["labels"] == before["metadata"]["labels"]
            and "scriptops.hit.edu.cn/revision" in o["metadata"]["annotations"]
        ),
        "it is as git says",
    )
    assert time.monotonic() - began < 1.0
    assert says(embedded, resource, key, "DriftCorrected").startswith(f"{pointer} changed by ")
    if None not in patch.get("metadata", {}).get("annotations", {}).values():
        assert "changed by somebody;" in told(embedded, resource, key)["DriftCorrected"]


def test_a_property_of_a_device_is_put_back_and_its_desired_value_stays(
    embedded: System, namespace: str, git: Repository
) -> None:
    embedded.synced(embedded.repository(namespace, git.path), git.commit(HOUSE))
    key = ObjectKey(namespace, "lamp")
    properties = [
        {**p, "collectCycle": 5, "desired": {"value": "true"}}
        for p in embedded.get(DEVICES_V1BETA1, key)["spec"]["properties"]
    ]
    embedded.patch(DEVICES_V1BETA1, key, {"spec": {"properties": properties}})
    live = embedded.object_is(
        DEVICES_V1BETA1,
        key,
        lambda o: o["spec"]["properties"][0]["collectCycle"] == 1000,
        "its setting is as git says",
    )
    assert live["spec"]["properties"][0]["desired"] == {"value": "true"}
    assert says(embedded, DEVICES_V1BETA1, key, "DriftCorrected") == (
        "/spec/properties/power/collectCycle changed by somebody; put back as git has it"
    )


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        pytest.param(SCRIPTS, "relay", id="a Script"),
        pytest.param(DEVICES_V1BETA1, "lamp", id="a Device"),
        pytest.param(DEVICE_MODELS_V1BETA1, "lamp", id="a DeviceModel"),
    ],
)
def test_what_is_deleted_comes_back(
    embedded: System, namespace: str, git: Repository, resource: Resource, name: str
) -> None:
    embedded.synced(embedded.repository(namespace, git.path), git.commit(HOUSE))
    key = ObjectKey(namespace, name)
    before = embedded.get(resource, key)
    embedded.delete(resource, key)
    live = embedded.object_is(
        resource, key, lambda o: o["metadata"]["uid"] != before["metadata"]["uid"], "it is back"
    )
    assert live["spec"] == before["spec"]


def test_what_the_manifest_does_not_say_is_anybodys(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(RULES))
    key = ObjectKey(namespace, "rule")
    more = {"spec": {"env": {"more": "1"}, "isolation": "Strict"}}
    version = embedded.patch(SCRIPTS, key, more)["metadata"]["generation"]
    embedded.patch(SCRIPTS, key, {"spec": {"env": {"limit": "30"}}})
    live = embedded.script_is(
        key, lambda o: o["metadata"]["generation"] == version + 2, "only the other is put back"
    )
    assert live["spec"]["env"] == {"limit": "20", "unit": "C", "more": "1"}
    assert live["spec"]["isolation"] == "Strict"


def test_drift_is_put_back_while_the_git_server_is_away(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(RULES))
    git.path.rename(git.path.with_name("moved.git"))
    key = ObjectKey(namespace, "rule")
    embedded.patch(SCRIPTS, key, {"spec": {"env": {"limit": "30"}}})
    embedded.script_is(key, lambda o: o["spec"]["env"]["limit"] == "20", "it is put back")


def test_with_detect_drift_is_told_and_left_until_git_changes_the_object(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, drift={"mode": "Detect"})
    embedded.synced(rules, git.commit(RULES))
    key = ObjectKey(namespace, "rule")
    embedded.patch(SCRIPTS, key, {"spec": {"env": {"limit": "30"}}})
    live = embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: condition(o, "Drifted"), "it is told"
    )
    drifted = condition(live, "Drifted")
    assert (drifted["status"], drifted["reason"], drifted["message"]) == (
        "True",
        "DriftDetected",
        (
            f"1 not as git says, left so, as spec.drift.mode says: Script {namespace}/rule: "
            "/spec/env/limit changed by somebody"
        ),
    )
    assert reason(live) == ("True", "Applied")
    assert says(embedded, SCRIPTS, key, "DriftDetected") == (
        "/spec/env/limit changed by somebody; left so, as drift.mode says"
    )
    # An unrelated commit does not put it back, nor does it forget.
    live = embedded.synced(rules, git.commit({"README.md": b"x"}))
    assert condition(live, "Drifted")["reason"] == "DriftDetected"
    assert embedded.get(SCRIPTS, key)["spec"]["env"]["limit"] == "30"
    # What git says anew counts.
    newer = documents(script("rule", env={"limit": "25", "unit": "C"}))
    embedded.synced(rules, git.commit({"manifests/rule.yaml": newer}))
    assert embedded.get(SCRIPTS, key)["spec"]["env"]["limit"] == "25"
    embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: not condition(o, "Drifted"), "it is over"
    )


def test_what_was_left_is_put_back_when_the_policy_says_so(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, drift={"mode": "Detect"})
    embedded.synced(rules, git.commit(RULES))
    key = ObjectKey(namespace, "rule")
    embedded.patch(SCRIPTS, key, {"spec": {"env": {"limit": "30"}}})
    embedded.object_is(SCRIPT_REPOSITORIES, rules, lambda o: condition(o, "Drifted"), "it is told")
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"drift": {"mode": "Correct"}}})
    embedded.script_is(key, lambda o: o["spec"]["env"]["limit"] == "20", "it is put back")
    embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: not condition(o, "Drifted"), "it is over"
    )


def test_with_detect_what_is_deleted_stays_away_and_is_told(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, drift={"mode": "Detect"})
    embedded.synced(rules, git.commit(RULES))
    embedded.delete(SCRIPTS, ObjectKey(namespace, "rule"))
    live = embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: condition(o, "Drifted"), "it is told"
    )
    assert condition(live, "Drifted")["message"].endswith(
        f"Script {namespace}/rule: deleted by somebody"
    )
    assert embedded.get(SCRIPTS, ObjectKey(namespace, "rule")) is None


def test_what_is_ignored_is_left_and_the_rest_is_put_back(
    embedded: System, namespace: str, git: Repository
) -> None:
    ignore = [{"kind": "Script", "pointers": ["/spec/env/limit"]}]
    rules = embedded.repository(namespace, git.path, drift={"ignore": ignore})
    embedded.synced(rules, git.commit(RULES))
    key = ObjectKey(namespace, "rule")
    embedded.patch(SCRIPTS, key, {"spec": {"env": {"limit": "30", "unit": "F"}}})
    live = embedded.script_is(key, lambda o: o["spec"]["env"]["unit"] == "C", "it is put back")
    assert live["spec"]["env"] == {"limit": "30", "unit": "C"}
    newer = documents(script("rule", env={"limit": "25", "unit": "K"}))
    embedded.synced(rules, git.commit({"manifests/rule.yaml": newer}))
    assert embedded.get(SCRIPTS, key)["spec"]["env"] == {"limit": "30", "unit": "K"}


def test_whoever_goes_on_changing_a_field_is_named_and_meets_no_hot_loop(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(RULES))
    key = ObjectKey(namespace, "rule")
    change = {"spec": {"env": {"limit": "30"}}}
    for _ in range(4):
        embedded.patch(SCRIPTS, key, change)
        embedded.script_is(key, lambda o: o["spec"]["env"]["limit"] == "20", "it is put back")
    live = embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: condition(o, "Drifted"), "it is told"
    )
    drifted = condition(live, "Drifted")
    assert drifted["reason"] == "Contended"
    assert drifted["message"].endswith("/spec/env/limit changed by somebody")
    assert says(embedded, SCRIPTS, key, "DriftContended").startswith(
        "/spec/env/limit changed by somebody again and again; put back 3 times, and from now on"
    )
    generation = embedded.patch(SCRIPTS, key, change)["metadata"]["generation"]
    for number in range(50):
        embedded.patch(SCRIPTS, key, {"spec": {"env": {"limit": str(number)}}})
    assert embedded.get(SCRIPTS, key)["metadata"]["generation"] - generation < 55
    embedded.script_is(key, lambda o: o["spec"]["env"]["limit"] == "20", "in the end git wins")


def test_a_suspended_repository_puts_nothing_back_until_it_goes_on(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit({**RULES, **HOUSE}))
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"suspend": True}})
    embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Suspended"), "suspended"
    )
    key = ObjectKey(namespace, "rule")
    lamp = ObjectKey(namespace, "lamp")
    embedded.patch(SCRIPTS, key, {"spec": {"env": {"limit": "30"}}})
    embedded.patch(DEVICES_V1BETA1, lamp, {"spec": {"protocol": {"protocolName": "opcua"}}})
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"interval": "2m"}})
    embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Suspended"), "looked at"
    )
    assert embedded.get(SCRIPTS, key)["spec"]["env"]["limit"] == "30"
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"suspend": False}})
    embedded.script_is(key, lambda o: o["spec"]["env"]["limit"] == "20", "it is put back")
    embedded.object_is(
        DEVICES_V1BETA1,
        lamp,
        lambda o: o["spec"]["protocol"]["protocolName"] == "modbus",
        "and so is the device",
    )


def test_a_restart_finds_drift_and_with_detect_leaves_it(
    embedded: System, namespace: str, git: Repository
) -> None:
    """A repository that is read anew is planned for as a whole."""
    rules = embedded.repository(namespace, git.path, drift={"mode": "Detect"})
    embedded.synced(rules, git.commit(RULES))
    key = ObjectKey(namespace, "rule")
    embedded.patch(SCRIPTS, key, {"spec": {"env": {"limit": "30"}}})
    embedded.object_is(SCRIPT_REPOSITORIES, rules, lambda o: condition(o, "Drifted"), "it is told")
    # Another folder spelling is another reader.
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"path": "."}})
    embedded.object_is(
        SCRIPT_REPOSITORIES,
        rules,
        lambda o: reason(o) == ("True", "Applied") and condition(o, "Drifted"),
        "it is told again",
    )
    assert embedded.get(SCRIPTS, key)["spec"]["env"]["limit"] == "30"


def test_of_two_repositories_that_want_an_object_the_one_whose_it_is_puts_it_back(
    embedded: System, namespace: str, git: Repository, tmp_path: Path
) -> None:
    other_git = Repository(tmp_path / "other.git", "--bare")
    claim = {"manifests/rule.yaml": documents(script("rule", env={"limit": "99"}))}
    claimant = embedded.repository(namespace, other_git.path, "claimant")
    mine = {"manifests/mine.yaml": documents(script("mine")), "scripts/quiet/1.0.0.js": QUIET}
    embedded.synced(claimant, other_git.commit(mine))
    owner = embedded.repository(namespace, git.path, "owner")
    embedded.synced(owner, git.commit(RULES))
    embedded.synced(claimant, other_git.commit(claim))
    key = ObjectKey(namespace, "rule")
    embedded.patch(SCRIPTS, key, {"spec": {"env": {"limit": "30"}}})
    embedded.script_is(key, lambda o: o["spec"]["env"]["limit"] == "20", "it is put back")


def test_drift_is_counted_by_what_became_of_it(
    embedded: System, namespace: str, git: Repository
) -> None:
    def count(result: str) -> float:
        name = f'scriptops_drift_total{{kind="Script",result="{result}"}}'
        with urllib.request.urlopen(f"{embedded.web}/metrics", timeout=10) as answer:  # noqa: S310 - our own loopback server
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(RULES))
    key, before = ObjectKey(namespace, "rule"), (count("corrected"), count("detected"))
    change = {"spec": {"env": {"limit": "30"}}}
    embedded.patch(SCRIPTS, key, change)
    embedded.script_is(key, lambda o: o["spec"]["env"]["limit"] == "20", "it is put back")
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"drift": {"mode": "Detect"}}})
    embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Applied"), "the other mode"
    )
    embedded.patch(SCRIPTS, key, change)
    embedded.object_is(SCRIPT_REPOSITORIES, rules, lambda o: condition(o, "Drifted"), "it is told")
    assert (count("corrected"), count("detected")) == (before[0] + 1, before[1] + 1)
