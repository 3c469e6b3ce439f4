"""Networks that stall, reset, delay and lose: every link comes back, and it is said what happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from reconciler.core.objects import SCRIPT_REPOSITORIES, ObjectKey
from tests.support.faultywire import Fault, FaultyWire, faulty
from tests.support.gitserver import Repository, git_daemon
from tests.support.kube import KubeServer, wait_until
from tests.support.mosquitto import Client, Mosquitto, mosquitto
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import (
    ROOT,
    System,
    executor,
    is_ready,
    kubernetes,
    reason,
    serving,
    settings,
)

TEAM = "team"
LEDGER, QUICK = ObjectKey(TEAM, "ledger"), ObjectKey(TEAM, "quick")
SOURCE = b"""\
function main(number) {
  const seen = State.get("seen") ?? [];
  State.set("seen", [...seen, number]);
}
"""
# What passes later, but passes; nothing of it is lost.
SLOW = [Fault.STALL, Fault.DELAY, Fault.DRIP]


def rules(**policy: Any) -> dict[str, bytes]:
    durable = {"webhook": True, "qos": "AtLeastOnce", "runOnDeploy": False, **policy}
    quick = {"webhook": True, "runOnDeploy": False}
    return {
        "manifests/rules.yaml": documents(
            script("ledger", artifact="ledger", executePolicy=durable),
            script("quick", executePolicy=quick),
        ),
        "scripts/ledger/1.0.0.js": SOURCE,
        "scripts/quiet/1.0.0.js": QUIET,
    }


def trigger(system: System, key: ObjectKey, body: object = None) -> str:
    path = f"/api/v1alpha1/webhook?namespace={key.namespace}&name={key.name}"
    return str(system.ask(path, method="POST", body=body)["runId"])


def seen(system: System) -> list[int]:
    items = system.ask("/api/v1alpha1/scripts")["items"]
    ledger = next(it for it in items if it["metadata"]["name"] == "ledger")
    return list(ledger.get("state", {}).get("seen", []))


# Between a controller and its executor.


@pytest.fixture
def apart(tmp_path: Path, git: Repository) -> Iterator[tuple[System, FaultyWire]]:
    """A controller, and an executor at the other end of a wire, with rules that run."""
    with (
        serving(settings(tmp_path / "data")) as system,
        faulty(int(system.grpc.rpartition(":")[2])) as wire,
        executor(f"127.0.0.1:{wire.port}", tmp_path / "executor.log"),
    ):
        system.repository(TEAM, git.path)
        git.commit(rules())
        system.ready(LEDGER)
        system.ready(QUICK)
        yield system, wire


@pytest.mark.parametrize("fault", SLOW, ids=lambda it: it.value)
def test_a_slow_way_to_an_executor_costs_time_and_nothing_else(
    apart: tuple[System, FaultyWire], fault: Fault
) -> None:
    system, wire = apart
    wire.set(fault)
    for number in range(5):
        trigger(system, LEDGER, number)
        trigger(system, QUICK)
    wait_until(lambda: system.controller.dispatcher.in_flight, what="some are on their way")
    wire.set(Fault.NONE)
    wait_until(lambda: seen(system) == list(range(5)), what="each was run once, in order")
    wait_until(lambda: len(system.runs(*QUICK)) == 5, what="the others as well")
    assert {run["outcome"] for run in system.runs(*QUICK)} == {"Succeeded"}
    assert len(system.controller.dispatcher.executors) == 1


@pytest.mark.parametrize("fault", [Fault.SWALLOW, Fault.HALF_OPEN], ids=lambda it: it.value)
def test_runs_whose_executor_cannot_be_heard_are_lost_or_started_again_as_promised(
    apart: tuple[System, FaultyWire], fault: Fault
) -> None:
    """What is swallowed is gone; the connection is reset as whoever forgot it would reset it."""
    system, wire = apart
    wire.set(fault)
    lost = trigger(system, QUICK)
    trigger(system, LEDGER, 1)
    wait_until(lambda: system.controller.dispatcher.in_flight == 2, what="both are on their way")
    wire.set(Fault.NONE)
    wait_until(lambda: seen(system) == [1], what="what promises it is started again")
    (run,) = system.runs(*QUICK)
    assert (run["id"], run["outcome"]) == (lost, "Lost")
    assert {it["outcome"] for it in system.runs(*LEDGER)} >= {"Succeeded"}


def test_an_executor_whose_connections_are_reset_comes_back_by_itself(
    apart: tuple[System, FaultyWire],
) -> None:
    system, wire = apart
    for number in range(3):
        wire.set(Fault.RESET)
        wait_until(lambda: not system.controller.dispatcher.executors, what="it is gone")
        trigger(system, LEDGER, number)
        wire.set(Fault.NONE)
        wait_until(lambda n=number: seen(system) == list(range(n + 1)), what="it is back")


# Between a controller and a git server.


@pytest.mark.parametrize(
    "fault",
    [Fault.STALL, Fault.SWALLOW, Fault.HALF_OPEN, Fault.RESET, Fault.DRIP],
    ids=lambda it: it.value,
)
def test_a_git_server_behind_a_bad_wire_is_said_to_be_gone_and_read_when_it_is_back(
    embedded: System, namespace: str, tmp_path: Path, fault: Fault
) -> None:
    git = Repository(tmp_path / "served" / "rules.git", "--bare")
    # Not to be had a drip at a time in the time it is given.
    git.commit({**rules(), "scripts/quiet/1.0.1.js": QUIET + b"// " + bytes(range(65, 91)) * 4000})
    with (
        git_daemon(tmp_path / "served") as url,
        faulty(int(url.rpartition(":")[2].strip("/"))) as wire,
    ):
        wire.set(fault)
        rules_ = embedded.repository(
            namespace, f"git://127.0.0.1:{wire.port}/rules.git", interval="1s", timeout="2s"
        )
        live = embedded.object_is(
            SCRIPT_REPOSITORIES,
            rules_,
            lambda o: reason(o)[1] == "SourceUnavailable",
            "its server is said to be gone",
        )
        assert reason(live) == ("Unknown", "SourceUnavailable")
        wire.set(Fault.NONE)
        embedded.object_is(SCRIPT_REPOSITORIES, rules_, is_ready, "it is read")
        embedded.ready(ObjectKey(namespace, "quick"))
        embedded.delete(SCRIPT_REPOSITORIES, rules_)


# Between a controller and an API server.


@pytest.fixture(scope="module")
def far_cluster(
    kube: KubeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[System, FaultyWire]]:
    """A controller with an executor, and its API server at the other end of a wire."""
    folder = tmp_path_factory.mktemp("far")
    kube.apply_crds(sorted((ROOT / "deploy" / "crds").glob("*.yaml")))
    place = urlsplit(kube.url)
    assert place.port is not None
    with faulty(place.port) as wire:
        kubeconfig = folder / "kubeconfig"
        known = kube.controller_kubeconfig.read_text()
        kubeconfig.write_text(known.replace(kube.url, f"https://127.0.0.1:{wire.port}"))
        chosen = settings(folder / "data", **kubernetes(kubeconfig))
        with (
            serving(chosen, operator=kube.kubeconfig) as system,
            executor(system.grpc, folder / "executor.log"),
        ):
            yield system, wire


@pytest.mark.kube
@pytest.mark.parametrize(
    "fault", [it for it in Fault if it is not Fault.NONE], ids=lambda it: it.value
)
def test_runs_need_no_api_server_and_what_happened_meanwhile_is_told_when_it_is_back(
    far_cluster: tuple[System, FaultyWire], team: str, git: Repository, fault: Fault
) -> None:
    system, wire = far_cluster
    quick, more = ObjectKey(team, "quick"), ObjectKey(team, "more")
    repository = system.repository(team, git.path, interval="1s", resultsInterval="1s")
    system.synced(repository, git.commit(rules()))
    system.ready(quick)
    wire.set(fault)
    for _ in range(3):
        trigger(system, quick)
    wait_until(lambda: len(system.runs(*quick)) == 3, what="it runs meanwhile")
    commit = git.commit({"manifests/more.yaml": documents(script("more"))})
    wire.set(Fault.NONE)
    live = system.synced(repository, commit)
    assert reason(live) == ("True", "Applied")
    system.ready(more)
    system.script_is(quick, lambda o: o["status"]["runs"] == 3, "all runs are in the status")


# Between a controller and a broker.


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.mark.parametrize(
    "fault", [Fault.STALL, Fault.RESET, Fault.SWALLOW, Fault.HALF_OPEN], ids=lambda it: it.value
)
def test_messages_at_quality_1_that_a_bad_wire_held_up_are_run(
    tmp_path: Path, git: Repository, broker: Mosquitto, fault: Fault
) -> None:
    topics = {"topics": ["numbers"], "qos": 1}
    with (
        faulty(broker.port) as wire,
        serving(settings(tmp_path / "data", mqtt=f"127.0.0.1:{wire.port}")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
        Client(broker.port) as other,
    ):
        system.repository(TEAM, git.path)
        git.commit(rules(mqtt=topics))
        system.ready(LEDGER)
        brokers = system.controller.broker
        assert brokers is not None
        wait_until(lambda: brokers.subscribed, what="it has subscribed")
        other.publish("numbers", "0", qos=1)
        wait_until(lambda: len(seen(system)) == 1, what="it runs")
        wire.set(fault)
        for number in range(1, 5):
            other.publish("numbers", str(number), qos=1)
        wire.set(Fault.NONE)
        other.publish("numbers", "5", qos=1)

        def payloads() -> set[str]:
            return {it["payload"] for it in seen(system)}  # type: ignore[index]

        wait_until(lambda: payloads() == set("012345"), what="all were run")
