"""Faults while scripts run: executors killed, loops without end, nobody there to run anything."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import ENDLESS, HOUSE, QUIET, documents, script
from tests.support.system import System, descendants, executor, serving, settings

TEAM = "team"
FAST = {
    "manifests/fast.yaml": documents(script("fast", policy={"webhook": True})),
    "scripts/quiet/1.0.0.js": QUIET,
}


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[System]:
    """A controller without executors."""
    with serving(settings(tmp_path / "data")) as system:
        yield system


def endless(wall_time: str) -> dict[str, bytes]:
    policy = {"webhook": True, "runOnDeploy": False}
    rule = script("endless", artifact="endless", policy=policy, limits={"wallTime": wall_time})
    return {"manifests/endless.yaml": documents(rule), "scripts/endless/1.0.0.js": ENDLESS}


def trigger(system: System, name: str) -> str:
    answer = system.ask(f"/api/v1alpha1/webhook?namespace={TEAM}&name={name}", method="POST")
    return str(answer["runId"])


def outcome(system: System, run_id: str) -> tuple[str, str]:
    """Outcome and message of a run, once it has one."""
    found: list[Any] = []

    def look() -> bool:
        found[:] = [r for r in system.ask("/api/v1alpha1/runs")["items"] if r["id"] == run_id]
        return bool(found)

    wait_until(look, what=f"run {run_id} has ended")
    return found[0]["outcome"], found[0]["message"]


def test_a_script_that_never_ends_is_timed_out_and_the_others_go_on(
    alone: System, tmp_path: Path, git: Repository
) -> None:
    commit = git.commit({**FAST, **endless("500ms")})
    with executor(alone.grpc, tmp_path / "executor.log"):
        alone.synced(alone.repository(TEAM, git.path), commit)
        for name in ("fast", "endless"):
            alone.ready(ObjectKey(TEAM, name))
        runs = [trigger(alone, name) for name in ("endless", "fast", "endless", "fast")]
        ended = [outcome(alone, run) for run in runs]
        assert [o for o, _ in ended] == ["TimedOut", "Succeeded", "TimedOut", "Succeeded"]
        assert "500 ms" in ended[0][1]
        live = alone.script_is(
            ObjectKey(TEAM, "endless"),
            lambda o: o["status"].get("failures") == 2,
            "its failures are in the status",
        )
        status = live["status"]
        assert (status["status"], status["lastRun"]["outcome"]) == (2, "TimedOut")
        assert status["message"] == ended[2][1]
        told = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
        assert told == {"Ready": ("True", "Deployed"), "RunsSucceeding": ("False", "TimedOut")}


def test_a_run_whose_executor_is_killed_is_lost_and_another_executor_takes_the_next_ones(
    alone: System, tmp_path: Path, git: Repository
) -> None:
    commit = git.commit({**FAST, **endless("60s")})
    with executor(alone.grpc, tmp_path / "first.log", name="first") as first:
        alone.synced(alone.repository(TEAM, git.path), commit)
        for name in ("fast", "endless"):
            alone.ready(ObjectKey(TEAM, name))
        lost = trigger(alone, "endless")
        wait_until(lambda: alone.controller.dispatcher.in_flight == 1, what="it is in flight")
        first.kill()
        assert outcome(alone, lost) == (
            "Lost",
            "the executor went away while the run was in flight",
        )
        waiting = trigger(alone, "fast")
        with executor(alone.grpc, tmp_path / "second.log", name="second"):
            assert outcome(alone, waiting) == ("Succeeded", "")
    live = alone.script_is(
        ObjectKey(TEAM, "endless"),
        lambda o: o["status"].get("failures") == 1,
        "the loss is in the status",
    )
    assert (live["status"]["status"], live["status"]["lastRun"]["outcome"]) == (3, "Lost")


def test_an_executor_that_is_told_to_stop_finishes_what_it_has_and_leaves_the_rest_to_another(
    alone: System, tmp_path: Path, git: Repository
) -> None:
    commit = git.commit({**FAST, **endless("1s")})
    with executor(alone.grpc, tmp_path / "first.log", name="first") as first:
        alone.synced(alone.repository(TEAM, git.path), commit)
        for name in ("fast", "endless"):
            alone.ready(ObjectKey(TEAM, name))
        begun = trigger(alone, "endless")
        wait_until(lambda: alone.controller.dispatcher.in_flight == 1, what="it is in flight")
        with executor(alone.grpc, tmp_path / "second.log", name="second"):
            assert first.stop() == 0
            assert outcome(alone, begun)[0] == "TimedOut"
            assert outcome(alone, trigger(alone, "fast")) == ("Succeeded", "")


def test_device_changes_that_nobody_can_run_for_lead_to_one_run_with_the_newest_state(
    alone: System, tmp_path: Path, git: Repository
) -> None:
    relay, door, lamp = (ObjectKey(TEAM, n) for n in ("relay", "door", "lamp"))
    with executor(alone.grpc, tmp_path / "first.log"):
        alone.synced(alone.repository(TEAM, git.path), git.commit(HOUSE))
        alone.ready(relay)
        wait_until(lambda: len(alone.runs(*relay)) == 1, what="its first run")
    wait_until(lambda: not alone.controller.dispatcher.executors, what="nobody is there")
    for value in (True, False, True, False, True):
        alone.report(door, open=value)
    with executor(alone.grpc, tmp_path / "second.log"):
        alone.object_is(
            DEVICES_V1BETA1,
            lamp,
            lambda o: o["spec"]["properties"][0].get("desired", {}).get("value") == "true",
            "the lamp is on",
        )
        wait_until(lambda: len(alone.runs(*relay)) == 2, what="one run for all changes")
        # What is asked for after the others is run after the others.
        outcome(alone, trigger(alone, "relay"))
    assert [run["cause"] for run in alone.runs(*relay)] == ["Deployed", "ReadChange", "Webhook"]


def test_workers_killed_in_a_run_cost_that_run_only(
    alone: System, tmp_path: Path, git: Repository
) -> None:
    commit = git.commit({**FAST, **endless("60s")})
    with executor(alone.grpc, tmp_path / "executor.log") as process:
        alone.synced(alone.repository(TEAM, git.path), commit)
        for name in ("fast", "endless"):
            alone.ready(ObjectKey(TEAM, name))
        doomed = trigger(alone, "endless")
        wait_until(lambda: alone.controller.dispatcher.in_flight == 1, what="it is in flight")
        for worker in descendants(process.pid):
            # Not SIGSEGV: wasmtime takes the first for a trap of a guest, unless it comes again.
            os.kill(worker, signal.SIGABRT)
        assert outcome(alone, doomed)[0] == "Crashed"
        assert outcome(alone, trigger(alone, "fast")) == ("Succeeded", "")
