"""`qos: AtLeastOnce` and `OnlyOnce` as their users meet them, whatever is killed meanwhile."""

from __future__ import annotations

import http.client
import random
import threading
import urllib.error
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.gitserver import Repository
from tests.support.kube import free_port, wait_until
from tests.support.natsserver import NatsServer, nats_server
from tests.support.rulebook import documents, script
from tests.support.system import ControllerProcess, Process, ask, is_ready, serving, settings

TEAM = "team"
SOURCE = b"""\
function main(number) {
  const seen = State.get("seen") ?? [];
  State.set("seen", [...seen, number]);
}
"""
NOTHING: dict[str, Any] = {"metadata": {"generation": 0}}
ROUNDS = 4
EACH = 15


def rules(qos: str) -> dict[str, bytes]:
    policy = {"webhook": True, "qos": qos, "runOnDeploy": False}
    return {
        "manifests/ledger.yaml": documents(
            script("ledger", artifact="ledger", executePolicy=policy)
        ),
        "scripts/ledger/1.0.0.js": SOURCE,
    }


def shown(web: str) -> Any:
    try:
        items = ask(f"{web}/api/v1alpha1/scripts")["items"]
    except (OSError, http.client.HTTPException):
        return NOTHING
    return next(iter(items), NOTHING)


def seen(web: str) -> list[int]:
    return list(shown(web).get("state", {}).get("seen", []))


@pytest.mark.parametrize("victim", ["controller", "executor"])
def test_everything_that_was_accepted_is_run_though_it_is_killed_again_and_again(
    tmp_path: Path, git: Repository, victim: str
) -> None:
    accepted, found = killed(tmp_path, git, "AtLeastOnce", victim)
    assert len(accepted) >= EACH
    assert set(accepted) <= set(found)


@pytest.mark.parametrize("victim", ["controller", "executor"])
def test_everything_that_was_accepted_is_run_once_though_it_is_killed_again_and_again(
    tmp_path: Path, git: Repository, victim: str
) -> None:
    accepted, found = killed(tmp_path, git, "OnlyOnce", victim)
    assert len(accepted) >= EACH
    assert set(accepted) <= set(found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("victim", ["controller", "nats"])
def test_nats_keeps_what_was_accepted_though_it_or_the_controller_is_killed_again_and_again(
    tmp_path: Path, git: Repository, victim: str
) -> None:
    with nats_server(tmp_path / "nats") as server:
        accepted, found = killed(tmp_path, git, "OnlyOnce", victim, server)
    assert len(accepted) >= EACH
    assert set(accepted) <= set(found)
    assert len(found) == len(set(found))


def killed(
    tmp_path: Path, git: Repository, qos: str, victim: str, nats: NatsServer | None = None
) -> tuple[Sequence[int], Sequence[int]]:
    """The numbers that were accepted, and those that the rule remembers to have run for."""
    chance = random.Random(7)
    grpc, door = free_port(), free_port()
    web = f"http://127.0.0.1:{door}"
    git.commit(rules(qos))
    with serving(settings(tmp_path / "data")) as system:
        system.repository(TEAM, git.path)
    options = [f"--grpc=127.0.0.1:{grpc}", f"--web=127.0.0.1:{door}"]
    if nats is not None:
        options.append(f"--nats={nats.url}")
    controller = ControllerProcess(tmp_path, *options)
    worker = Process(
        ("executor", f"127.0.0.1:{grpc}", "--workers=1", "--log=json"), tmp_path / "executor.log"
    )
    targets = {"controller": controller, "executor": worker, "nats": nats}
    target = targets[victim]
    assert target is not None
    controller.start()
    worker.start()
    accepted: list[int] = []
    try:
        wait_until(lambda: is_ready(shown(web)), what="it is ready")
        for round_ in range(ROUNDS):
            timer = threading.Timer(chance.uniform(0.05, 0.4), target.kill)
            timer.start()
            numbers = range(round_ * EACH, (round_ + 1) * EACH)
            accepted += [number for number in numbers if posted(web, number)]
            timer.join()
            target.start()
            wait_until(lambda: is_ready(shown(web)), what="it is ready again")
        # What NATS was asked when it went has an answer after 5 s, or comes again after 30.
        everything = "all of it was run"
        wait_until(lambda: set(accepted) <= set(seen(web)), what=everything, seconds=90)
        return accepted, seen(web)
    finally:
        for process in (worker, controller):
            if process.code is None:
                process.stop()


def posted(web: str, number: int) -> bool:
    hook = f"{web}/api/v1alpha1/webhook?namespace={TEAM}&name=ledger"
    try:
        ask(hook, method="POST", body=number)
    except urllib.error.HTTPError as error:
        if error.code < 500 and error.code not in {409, 425, 429}:
            raise
        return False
    except (OSError, http.client.HTTPException):
        # Nobody knows whether it was taken; it may be run, and need not.
        return False
    return True
