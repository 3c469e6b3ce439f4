"""The journey on a real API server, in each layout that KubeEdge has given its devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.core.objects import ObjectKey
from tests.integration.conftest import Kubernetes, running_on
from tests.support import kubeedge
from tests.support.gitserver import Repository
from tests.support.kube import KubeServer, wait_until
from tests.support.kubeedge import Layout
from tests.support.rulebook import INVERSE, RELAY, documents, relay, script
from tests.support.system import condition

pytestmark = [pytest.mark.kube, kubeedge.needed]


@pytest.fixture(scope="module", params=kubeedge.LAYOUTS, ids=lambda layout: layout.release)
def layout(request: pytest.FixtureRequest) -> Layout:
    found = request.param
    assert isinstance(found, Layout)
    return found


@pytest.fixture(scope="module")
def running(
    kube: KubeServer, layout: Layout, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubernetes]:
    with running_on(kube, tmp_path_factory.mktemp("layout"), layout=layout) as found:
        yield found


def test_a_report_leads_to_a_desired_value_where_this_release_reads_it(
    running: Kubernetes, layout: Layout, team: str, git: Repository
) -> None:
    kube, system = running.kube, running.system
    commit = git.commit(
        {
            "manifests/devices.yaml": documents(*layout.manifests()),
            "manifests/relay.yaml": documents(relay()),
            "scripts/relay/1.0.0.js": RELAY,
        }
    )
    live = system.synced(system.repository(team, git.path), commit)
    assert live["status"]["counts"]["created"] == 5, live["status"]
    key = ObjectKey(team, "relay")
    system.ready(key)

    def lamp_is(value: str) -> None:
        wait_until(
            lambda: layout.desired(kube, team, "lamp", "power") == value, what=f"lamp {value}"
        )

    def caused(*causes: str) -> None:
        wait_until(
            lambda: [run["cause"] for run in system.runs(*key)] == list(causes), what=str(causes)
        )

    layout.report(kube, team, "door", "open", "true")
    lamp_is("true")
    layout.report(kube, team, "door", "open", "false")
    lamp_is("false")
    done = system.script_is(
        key, lambda o: o["status"].get("lastRun", {}).get("writes") == 1, "the run is in the status"
    )
    assert done["status"]["status"] == 0
    assert done["status"]["message"] == ""
    assert condition(done, "RunsSucceeding")["status"] == "True"
    caused("Deployed", "ReadChange", "ReadChange")
    # The same value again, with a newer timestamp, is no change.
    layout.report(kube, team, "door", "open", "false")
    # An edited rule runs against what is, without any device change.
    manifest = documents(relay()).replace(b"1.0.0", b"1.0.1")
    git.commit({"scripts/relay/1.0.1.js": INVERSE, "manifests/relay.yaml": manifest})
    lamp_is("true")
    caused("Deployed", "ReadChange", "ReadChange", "Deployed")


def test_what_rules_set_survives_a_push_that_changes_the_manifest_of_the_device(
    running: Kubernetes, layout: Layout, team: str, git: Repository
) -> None:
    kube, system = running.kube, running.system
    manifests = layout.manifests()
    files = {"manifests/relay.yaml": documents(relay()), "scripts/relay/1.0.0.js": RELAY}
    commit = git.commit({**files, "manifests/devices.yaml": documents(*manifests)})
    rules = system.repository(team, git.path)
    system.synced(rules, commit)
    system.ready(ObjectKey(team, "relay"))
    layout.report(kube, team, "door", "open", "true")
    wait_until(lambda: layout.desired(kube, team, "lamp", "power") == "true", what="the lamp is on")
    path = layout.path("devices", team, "lamp")
    kube.request(
        "PATCH", path, {"metadata": {"labels": {"by": "hand"}}}, content_type=kubeedge.MERGE
    )
    items = "propertyVisitors" if layout.version == "v1alpha2" else "properties"
    manifests[3]["metadata"]["labels"] = {"room": "hall"}
    manifests[3]["spec"][items][0]["collectCycle"] = 5000
    live = system.synced(rules, git.commit({"manifests/devices.yaml": documents(*manifests)}))
    assert live["status"]["counts"] == {
        "created": 0,
        "configured": 1,
        "unchanged": 4,
        "pruned": 0,
        "skipped": 0,
    }
    device = kube.request("GET", path)
    assert layout.desired(kube, team, "lamp", "power") == "true"
    assert device["spec"][items][0]["collectCycle"] == 5000
    assert {"room": "hall", "by": "hand"}.items() <= device["metadata"]["labels"].items()


def test_no_status_that_was_written_meanwhile_breaks_a_rule(running: Kubernetes) -> None:
    namespaces = {o["metadata"]["namespace"] for _, o in running.watch.events}
    assert namespaces
    assert running.watch.violations(sorted(namespaces)) == []


WAITING = b"""\
async function main(event) {
  Device.setDeviceStatus("lamp", "power", event.power);
  const told = await Device.commitDevice("lamp", event.qos, { timeout: event.timeout });
  console.log(told.reached, told.code, told.message);
}
"""


def test_a_rule_is_told_how_far_its_value_got_where_this_release_says_it(
    running: Kubernetes, layout: Layout, team: str, git: Repository
) -> None:
    kube, system = running.kube, running.system
    policy = {"webhook": True, "runOnDeploy": False}
    rule = script("waiter", artifact="waiter", writes={"lamp": "lamp"}, policy=policy)
    commit = git.commit(
        {
            "manifests/devices.yaml": documents(*layout.manifests()),
            "manifests/waiter.yaml": documents(rule),
            "scripts/waiter/1.0.0.js": WAITING,
        }
    )
    system.synced(system.repository(team, git.path), commit)
    key = ObjectKey(team, "waiter")
    system.ready(key)

    def asked(**event: Any) -> str:
        path = f"/api/v1alpha1/webhook?namespace={team}&name=waiter"
        return str(system.ask(path, method="POST", body=event)["runId"])

    def run(run_id: str) -> Any:
        return next((it for it in system.runs(*key) if it["id"] == run_id), {"outcome": ""})

    def told(run_id: str) -> str:
        ended = wait_until(
            lambda: it if (it := run(run_id))["outcome"] == "Succeeded" else None,
            what="the run has ended",
        )
        [line] = ended["logs"]
        return str(line["text"])

    # What was reported before says nothing of a value that is new.
    layout.report(kube, team, "lamp", "power", "false")
    first = asked(power=True, qos=2)
    wait_until(lambda: run(first)["outcome"] == "Waiting", what="it waits")
    assert layout.desired(kube, team, "lamp", "power") == "true"
    layout.report(kube, team, "lamp", "power", "true")
    assert told(first) == "2 undefined undefined"
    # A new version of the Device for an edge that has not heard, and the time is over.
    versions = set()

    def look() -> bool:
        live = kube.request("GET", layout.path("devices", team, "lamp"))
        versions.add(live["metadata"]["resourceVersion"])
        return run(second)["outcome"] == "Succeeded"

    second = asked(power=False, qos=2, timeout=6_000)
    wait_until(look, what="the wait is over")
    assert told(second) == "0 NotConverged power=false is desired and true reported"
    assert len(versions) >= 2
    assert layout.desired(kube, team, "lamp", "power") == "false"
