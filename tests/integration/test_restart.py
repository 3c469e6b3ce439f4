"""A controller that comes back: nothing is run twice, nothing that happened meanwhile is missed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.adapters.simulator import Bridge
from reconciler.core import mqtt_twin
from reconciler.core.mqtt_twin import Twin, TwinUpdate
from reconciler.core.objects import (
    DEVICE_MODELS_V1BETA1,
    DEVICES_V1BETA1,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
)
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE, INVERSE, QUIET, documents, relay, script
from tests.support.statusfiles import status_files
from tests.support.system import System, executor, serving, settings

TEAM = "team"
RELAY, DOOR, LAMP = (ObjectKey(TEAM, n) for n in ("relay", "door", "lamp"))
RULES = ObjectKey(TEAM, "rules")


def first_life(folder: Path, git: Repository) -> None:
    """Deployed, run for an open door, and told in full."""
    with (
        serving(settings(folder / "data")) as system,
        executor(system.grpc, folder / "first.log"),
    ):
        system.repository(TEAM, git.path, resultsInterval="1s")
        system.synced(RULES, git.commit(HOUSE))
        system.ready(RELAY)
        system.report(DOOR, open=True)
        wait_until(lambda: len(system.runs(*RELAY)) == 2, what="it has run twice")


def report_while_down(folder: Path, *, is_open: bool) -> None:
    async def report() -> None:
        cluster = await EmbeddedCluster.open(folder / "data" / "cluster", clock=SystemClock())
        try:
            twin = Twin(expected=None, actual="true" if is_open else "false")
            update = mqtt_twin.encode_update(TwinUpdate({"open": twin}), timestamp_ms=0)
            topic = mqtt_twin.topic(DOOR, mqtt_twin.TWIN_UPDATE)
            await Bridge(cluster, SystemClock()).receive(topic, update)
        finally:
            await cluster.close()

    asyncio.run(report())


def causes(system: System) -> list[str]:
    return [run["cause"] for run in system.runs(*RELAY)]


def run_by_hand(system: System) -> None:
    """What waits to be run when this is asked for is run before it."""
    before = len(causes(system))
    system.ask(f"/api/v1alpha1/scripts/{TEAM}/relay/trigger", method="POST")
    wait_until(lambda: len(causes(system)) > before, what="it was run by hand")


def test_a_restart_runs_nothing_and_writes_nothing(tmp_path: Path, git: Repository) -> None:
    first_life(tmp_path, git)
    with serving(settings(tmp_path / "data")) as system:
        assert system.ready(RELAY)["status"]["runs"] == 2
        before = versions(system)
        wait_until(lambda: system.controller.repositories.is_synced(RULES), what="it was read")
        with executor(system.grpc, tmp_path / "second.log"):
            wait_until(lambda: system.controller.dispatcher.executors, what="an executor is there")
            run_by_hand(system)
        assert causes(system) == ["Manual"]
        assert versions(system) == before


def versions(system: System) -> dict[str, str]:
    """Of what a run that changes nothing leaves alone."""
    return {
        f"{resource.kind} {name}": live["metadata"]["resourceVersion"]
        for resource in (SCRIPT_REPOSITORIES, DEVICES_V1BETA1, DEVICE_MODELS_V1BETA1)
        for name, live in system.all(resource, TEAM).items()
    }


def test_a_device_change_while_down_is_run_for_once(tmp_path: Path, git: Repository) -> None:
    first_life(tmp_path, git)
    report_while_down(tmp_path, is_open=False)
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "second.log"),
    ):
        system.object_is(
            DEVICES_V1BETA1,
            LAMP,
            lambda o: o["spec"]["properties"][0]["desired"]["value"] == "false",
            "the lamp is off",
        )
        run_by_hand(system)
        assert causes(system) == ["ReadChange", "Manual"]


def test_a_report_of_the_same_value_while_down_is_no_change(
    tmp_path: Path, git: Repository
) -> None:
    first_life(tmp_path, git)
    report_while_down(tmp_path, is_open=True)
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "second.log"),
    ):
        system.ready(RELAY)
        run_by_hand(system)
        assert causes(system) == ["Manual"]


def test_a_push_while_down_is_deployed_pruned_and_run_once(tmp_path: Path, git: Repository) -> None:
    git.commit({"manifests/gone.yaml": documents(script("gone"))})
    first_life(tmp_path, git)
    commit = git.commit(
        {
            "manifests/gone.yaml": None,
            "manifests/relay.yaml": documents(relay()).replace(b"1.0.0", b"1.0.1"),
            "scripts/relay/1.0.1.js": INVERSE,
        }
    )
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "second.log"),
    ):
        live = system.synced(RULES, commit)
        assert live["status"]["counts"] == {
            "created": 0,
            "configured": 1,
            "unchanged": 4,
            "pruned": 1,
            "skipped": 0,
        }
        system.object_is(
            DEVICES_V1BETA1,
            LAMP,
            lambda o: o["spec"]["properties"][0]["desired"]["value"] == "false",
            "the new rule has run",
        )
        assert causes(system) == ["Deployed"]
        wait_until(
            lambda: {key.name for key in status_files(git)} == {"relay"}, what="gone is told"
        )


def test_what_a_refused_folder_held_is_not_pruned_by_a_restart(
    tmp_path: Path, git: Repository
) -> None:
    """The folder is one that cannot be read; what it declared is known to nobody any more."""
    git.commit({"manifests/hall/more.yaml": documents(script("more"))})
    first_life(tmp_path, git)
    commit = git.commit({"manifests/Hall/twin.yaml": documents(script("twin"))})
    with serving(settings(tmp_path / "data")) as system:
        live = system.synced(RULES, commit)
        assert {p["reason"] for p in live["status"]["problems"]} == {"CaseTwins"}
        assert set(system.all(SCRIPTS, TEAM)) == {"relay", "more"}
    with serving(settings(tmp_path / "data")) as system:
        wait_until(lambda: system.controller.repositories.is_synced(RULES), what="it was read")
        assert set(system.all(SCRIPTS, TEAM)) == {"relay", "more"}
        mended = git.commit({"manifests/Hall/twin.yaml": None, "manifests/hall/more.yaml": None})
        system.synced(RULES, mended)
        wait_until(lambda: set(system.all(SCRIPTS, TEAM)) == {"relay"}, what="more is pruned")


def test_versions_kept_for_a_script_that_went_while_down_go_with_the_next_start(
    tmp_path: Path, git: Repository
) -> None:
    def rules(version: str) -> dict[str, bytes | None]:
        kept = documents(script("kept", version=version, revisionHistoryLimit=2))
        code = f"// {version}\n".encode() + QUIET
        return {"manifests/kept.yaml": kept, f"scripts/quiet/{version}.js": code}

    key = ObjectKey(TEAM, "kept")
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "first.log"),
    ):
        system.repository(TEAM, git.path)
        for version in ("1.0.0", "2.0.0"):
            system.synced(RULES, git.commit(rules(version)))
            system.ready(key)
        stored = system.controller.registry.stored
        wait_until(lambda: len(stored()) == 2, what="both versions are kept")

    async def delete() -> None:
        cluster = await EmbeddedCluster.open(tmp_path / "data" / "cluster", clock=SystemClock())
        try:
            live: Any = await cluster.get(SCRIPTS, key)
            await cluster.delete(SCRIPTS, key, uid=live["metadata"]["uid"])
        finally:
            await cluster.close()

    asyncio.run(delete())
    git.commit({"manifests/kept.yaml": None, "manifests/other.yaml": documents(script("other"))})
    with serving(settings(tmp_path / "data")) as system:
        assert system.controller.registry.stored() == frozenset()
