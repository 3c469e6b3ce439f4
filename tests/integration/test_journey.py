"""From a push to a device that moves, and back to git: one controller, one executor."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import DEVICES_V1BETA1, SCRIPTS, ObjectKey
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE, INVERSE, documents, relay, script
from tests.support.statusfiles import status_files
from tests.support.system import System, executor, serving, settings


def power(system: System, namespace: str) -> Any:
    live = system.get(DEVICES_V1BETA1, ObjectKey(namespace, "lamp"))
    return live["spec"]["properties"][0].get("desired", {}).get("value")


def lamp_is(system: System, namespace: str, value: str) -> None:
    wait_until(lambda: power(system, namespace) == value, what=f"the lamp's power is {value}")


def test_a_push_deploys_a_device_change_moves_another_device_and_git_tells_it(
    embedded: System, namespace: str, git: Repository
) -> None:
    commit = git.commit(HOUSE)
    rules = embedded.repository(namespace, git.path, resultsInterval="1s")
    live = embedded.synced(rules, commit)
    assert live["status"]["revision"] == f"main@sha1:{commit}"
    assert live["status"]["counts"] == {
        "created": 5,
        "configured": 0,
        "unchanged": 0,
        "pruned": 0,
        "skipped": 0,
    }
    key = ObjectKey(namespace, "relay")
    embedded.ready(key)
    embedded.report(ObjectKey(namespace, "door"), open=True)
    lamp_is(embedded, namespace, "true")
    wait_until(lambda: len(embedded.runs(*key)) == 2, what="the run has ended")
    run = embedded.runs(*key)[-1]
    assert (run["cause"], run["outcome"]) == ("ReadChange", "Succeeded")
    assert (run["changed"], run["unchanged"], run["refused"]) == (["lamp/power=true"], [], [])
    assert run["revision"] == f"main@sha1:{commit}"
    device = embedded.get(DEVICES_V1BETA1, ObjectKey(namespace, "lamp"))
    [cause] = json.loads(device["metadata"]["annotations"]["scriptops.hit.edu.cn/cause"])
    assert (cause["run"], cause["script"], [*cause["set"]]) == (run["id"], "relay", ["power"])
    wait_until(
        lambda: status_files(git).get(key, {}).get("lastRun", {}).get("id") == run["id"],
        what="the run is told in git",
    )


def test_an_edited_rule_runs_once_against_the_present_state_without_a_device_change(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(HOUSE))
    key = ObjectKey(namespace, "relay")
    embedded.ready(key)
    embedded.report(ObjectKey(namespace, "door"), open=True)
    lamp_is(embedded, namespace, "true")
    manifest = documents(relay()).replace(b"1.0.0", b"1.0.1")
    git.commit({"scripts/relay/1.0.1.js": INVERSE, "manifests/relay.yaml": manifest})
    lamp_is(embedded, namespace, "false")
    wait_until(
        lambda: [r["cause"] for r in embedded.runs(*key)] == ["Deployed", "ReadChange", "Deployed"],
        what="three runs, the last of them for the edit",
    )


def test_where_versions_may_be_edited_other_bytes_alone_redeploy(
    tmp_path: Path, git: Repository
) -> None:
    with (
        serving(settings(tmp_path / "data", dev=True)) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        rules = system.repository("team", git.path)
        system.synced(rules, git.commit(HOUSE))
        before = system.ready(ObjectKey("team", "relay"))
        system.report(ObjectKey("team", "door"), open=True)
        lamp_is(system, "team", "true")
        live = system.synced(rules, git.commit({"scripts/relay/1.0.0.js": INVERSE}))
        assert live["status"]["problems"] == []
        lamp_is(system, "team", "false")
        after = system.script_is(
            ObjectKey("team", "relay"),
            lambda o: o["status"]["digest"] != before["status"]["digest"],
            "the digest is another",
        )
        assert after["metadata"]["generation"] == before["metadata"]["generation"]


@pytest.mark.parametrize(
    ("method", "prefix"),
    [
        pytest.param("GET", "/api/v1alpha1", id="GET"),
        pytest.param("POST", "/api/v1alpha1", id="POST"),
        pytest.param("POST", "/api/v1alpha", id="POST to the older address"),
    ],
)
def test_a_webhook_leads_to_a_run_and_its_effect(
    embedded: System, namespace: str, git: Repository, method: str, prefix: str
) -> None:
    switch = script(
        "switch",
        artifact="switch",
        writes={"lamp": "lamp"},
        policy={"webhook": True, "runOnDeploy": False},
    )
    code = b"""\
async function main() {
  Device.setDeviceStatus("lamp", "power", true);
  await Device.commitDevice("lamp");
}
"""
    files = {"manifests/switch.yaml": documents(switch), "scripts/switch/1.0.0.js": code}
    embedded.synced(embedded.repository(namespace, git.path), git.commit({**HOUSE, **files}))
    key = ObjectKey(namespace, "switch")
    embedded.ready(key)
    body = {"on": True} if method == "POST" else None
    path = f"{prefix}/webhook?namespace={namespace}&name=switch"
    answer = embedded.ask(path, method=method, body=body)
    lamp_is(embedded, namespace, "true")
    wait_until(lambda: embedded.runs(*key), what="the run has ended")
    [run] = embedded.runs(*key)
    assert (run["id"], run["cause"], run["outcome"]) == (answer["runId"], "Webhook", "Succeeded")
    assert run["changed"] == ["lamp/power=true"]


def refusal(system: System, path: str, method: str = "POST") -> tuple[int, str, str]:
    with pytest.raises(urllib.error.HTTPError) as refused:
        system.ask(path, method=method)
    with refused.value as answer:
        problem = json.loads(answer.read())
    return problem["status"], problem["reason"], problem["detail"]


def test_a_suspended_script_is_not_triggered_and_one_without_webhook_not_over_http(
    embedded: System, namespace: str, git: Repository
) -> None:
    files = {
        "manifests/resting.yaml": documents(
            script("resting", policy={"webhook": True}, suspend=True)
        ),
        "manifests/shy.yaml": documents(script("shy")),
    }
    embedded.synced(embedded.repository(namespace, git.path), git.commit({**HOUSE, **files}))
    for name in ("resting", "shy"):
        embedded.ready(ObjectKey(namespace, name))
    api = "/api/v1alpha1"
    webhook = f"{api}/webhook?namespace={namespace}&name="
    suspended = (403, "Suspended", f"Script {namespace}/resting is suspended")
    assert refusal(embedded, f"{webhook}resting") == suspended
    assert refusal(embedded, f"{api}/scripts/{namespace}/resting/trigger") == suspended
    assert refusal(embedded, f"{webhook}shy")[:2] == (403, "WebhookOff")
    assert refusal(embedded, f"{webhook}nobody")[:2] == (404, "NotFound")
    assert embedded.runs(namespace, "resting") == []


def test_a_write_that_was_not_granted_or_does_not_fit_is_refused_and_told_in_the_status(
    embedded: System, namespace: str, git: Repository
) -> None:
    code = b"""\
async function main() {
  Device.setDeviceStatus("lamp", "power", "loud");
  await Device.commitDevice("lamp");
}
"""
    rule = script("wrong", artifact="wrong", writes={"lamp": "lamp"})
    files = {"manifests/wrong.yaml": documents(rule), "scripts/wrong/1.0.0.js": code}
    embedded.synced(embedded.repository(namespace, git.path), git.commit({**HOUSE, **files}))
    key = ObjectKey(namespace, "wrong")
    wait_until(lambda: embedded.runs(*key), what="it has run")
    [run] = embedded.runs(*key)
    assert (run["outcome"], run["refused"]) == ("Denied", ["lamp/power=loud"])
    live = embedded.script_is(key, lambda o: o["status"].get("runs") == 1, "it is told")
    assert live["status"]["status"] == 2
    assert live["status"]["message"] == run["message"] != ""
    assert power(embedded, namespace) is None


def test_the_registry_serves_what_was_published(
    embedded: System, namespace: str, git: Repository
) -> None:
    embedded.synced(embedded.repository(namespace, git.path), git.commit(HOUSE))
    live = embedded.ready(ObjectKey(namespace, "relay"))
    listed = embedded.ask(f"/registry/{namespace}/rules")
    assert live["status"]["digest"] in json.dumps(listed)
    assert set(embedded.all(SCRIPTS, namespace)) == {"relay"}
