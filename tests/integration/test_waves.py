"""Waves: a step begins when the one before is ready at its revision, and is released by watch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import (
    System,
    condition,
    executor,
    is_ready,
    reason,
    serving,
    settings,
)

BROKEN = b"function main( {"


def rules(level: str, first: str) -> dict[str, bytes]:
    """One manifest for each Script; all of them change with `level`."""
    waves = {"first": -1, "beside": -1, "second": 0, "third": 5}
    return {
        **{
            f"manifests/{name}.yaml": documents(
                script(
                    name,
                    version=first if name == "first" else "1.0.0",
                    env={"level": level},
                    **({"wave": wave} if wave else {}),
                )
            )
            for name, wave in waves.items()
        },
        "scripts/quiet/1.0.0.js": QUIET,
        "scripts/quiet/2.0.0.js": BROKEN,
    }


def level(obj: Any) -> str:
    return str(obj["spec"]["env"]["level"])


def steps(system: System, team: str, git: Repository) -> None:
    keys = {name: ObjectKey(team, name) for name in ("first", "beside", "second", "third")}

    def is_at(name: str, wanted: str) -> Any:
        return system.script_is(
            keys[name], lambda it: is_ready(it) and level(it) == wanted, f"{name} is at {wanted}"
        )

    def waits(name: str, message: str) -> Any:
        found = system.script_is(
            keys[name],
            lambda it: condition(it, "Reconciling").get("message") == message,
            f"{name} says that {message}",
        )
        assert reason(found) == ("Unknown", "WaveNotReady")
        return found

    repository = system.repository(team, git.path)
    git.commit(rules("1", first="1.0.0"))
    for name in keys:
        is_at(name, "1")
    wait_until(lambda: bool(system.runs(*keys["second"])), what="second has run")
    [ran] = system.runs(*keys["second"])

    # It does not load: its own wave goes on, the others wait, and run as they did.
    git.commit(rules("2", first="2.0.0"))
    is_at("beside", "2")
    for name, wave in (("second", 0), ("third", 5)):
        waits(name, f"it is of wave {wave}, and Script {team}/first of wave -1 is not ready")
    assert system.runs(*keys["second"]) == [ran]

    git.commit(rules("2", first="1.0.0"))
    for name in keys:
        is_at(name, "2")
    wait_until(lambda: len(system.runs(*keys["second"])) == 2, what="second has run again")

    # It has no artifact, so it stays as it is, and so do later waves.
    git.commit(rules("3", first="9.0.0"))
    is_at("beside", "3")
    found = system.object_is(
        SCRIPT_REPOSITORIES,
        repository,
        lambda it: len((it.get("status") or {}).get("problems", ())) == 3,
        "three problems are told",
    )
    assert [(it["path"], it["reason"]) for it in found["status"]["problems"]] == [
        ("manifests/first.yaml", "ArtifactNotFound"),
        ("manifests/second.yaml", "WaveNotReady"),
        ("manifests/third.yaml", "WaveNotReady"),
    ]
    assert [level(system.get(SCRIPTS, keys[name])) for name in ("first", "second", "third")] == [
        *("2", "2", "2")
    ]
    git.commit(rules("3", first="1.0.0"))
    for name in keys:
        is_at(name, "3")


def test_a_wave_begins_when_all_of_the_one_before_is_ready_at_the_revision(
    tmp_path: Path, git: Repository
) -> None:
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        steps(system, "team", git)


@pytest.mark.kube
def test_waves_are_the_same_on_an_api_server(
    on_kubernetes: Kubernetes, team: str, git: Repository
) -> None:
    steps(on_kubernetes.system, team, git)
