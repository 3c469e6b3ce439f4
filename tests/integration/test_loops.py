"""Rules that set themselves or each other off, with simulated devices, as their users meet them."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.chains import DEFAULT_LIMITS
from tests.integration.command_line import CommandLine
from tests.support.gitserver import Repository
from tests.support.kube import free_port, wait_until
from tests.support.rulebook import documents, script
from tests.support.system import (
    ControllerProcess,
    Process,
    ask,
    condition,
    is_ready,
    serving,
    settings,
)

TEAM = "team"
# One more than it reads, or than it is told to begin with.
ADD = b"""\
async function main(event) {
  const value = event?.start ?? Device.getDeviceStatus("in", "value");
  if (value === undefined) return;
  Device.setDeviceStatus("out", "value", value + 1);
  await Device.commitDevice("out");
}
"""
NOTHING: dict[str, Any] = {"metadata": {"generation": 0}}
MODEL = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "DeviceModel",
    "metadata": {"name": "number"},
    "spec": {"properties": [{"name": "value", "type": "INT", "accessMode": "ReadWrite"}]},
}


def actuator(name: str) -> dict[str, Any]:
    """It takes over what is desired of it, after five milliseconds."""
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": name},
        "spec": {
            "deviceModelRef": {"name": "number"},
            "protocol": {"protocolName": "simulated"},
            "properties": [
                {
                    "name": "value",
                    "visitors": {
                        "protocolName": "simulated",
                        "configData": {"simulate": "follow", "delay": 5},
                    },
                }
            ],
        },
    }


def adder(name: str, source: str, target: str, **policy: Any) -> dict[str, Any]:
    return script(
        name,
        artifact="add",
        reads={"in": source},
        writes={"out": target},
        policy={"readChange": True, "webhook": True, "runOnDeploy": False, **policy},
    )


class House:
    def __init__(self, port: int) -> None:
        self.web = f"http://127.0.0.1:{port}"

    def script(self, name: str) -> Any:
        try:
            found = ask(f"{self.web}/api/v1alpha1/scripts?namespace={TEAM}")["items"]
        except (OSError, http.client.HTTPException):
            return NOTHING
        return next((it for it in found if it["metadata"]["name"] == name), NOTHING)

    def begin(self, name: str, *, start: int = 0) -> None:
        where = f"webhook?namespace={TEAM}&name={name}&wait=20"
        ask(f"{self.web}/api/v1alpha1/{where}", method="POST", body={"start": start})

    def runs(self, name: str) -> list[Any]:
        where = f"runs?namespace={TEAM}&script={name}&limit=1000"
        return list(reversed(ask(f"{self.web}/api/v1alpha1/{where}")["items"]))

    def led_to_nothing(self, name: str) -> dict[str, tuple[int, str]]:
        where = f"scripts/{TEAM}/{name}/explain"
        found = ask(f"{self.web}/api/v1alpha1/{where}")["notRun"]
        return {it["reason"]: (it["count"], it["detail"]) for it in found}


@contextmanager
def house(tmp_path: Path, git: Repository, *rules: dict[str, Any]) -> Iterator[House]:
    """A controller with simulated devices, an executor, and rules that are ready."""
    grpc, door = free_port(), free_port()
    git.commit(
        {
            "manifests/devices.yaml": documents(MODEL, actuator("a"), actuator("b")),
            "manifests/rules.yaml": documents(*rules),
            "scripts/add/1.0.0.js": ADD,
        }
    )
    with serving(settings(tmp_path / "data")) as system:
        system.repository(TEAM, git.path)
    found = House(door)
    controller = ControllerProcess(tmp_path, f"--grpc=127.0.0.1:{grpc}", f"--web=127.0.0.1:{door}")
    worker = Process(
        ("executor", f"127.0.0.1:{grpc}", "--workers=1", "--log=json"), tmp_path / "executor.log"
    )
    controller.start()
    worker.start()
    try:
        for rule in rules:
            name = rule["metadata"]["name"]
            wait_until(lambda: is_ready(found.script(name)), what=f"{name} is ready")  # noqa: B023 - asked at once
        yield found
    finally:
        worker.stop()
        controller.stop()


def test_a_rule_that_reads_what_it_writes_runs_once(tmp_path: Path, git: Repository) -> None:
    with house(tmp_path, git, adder("counter", "a", "a")) as it:
        it.begin("counter")
        wait_until(lambda: it.led_to_nothing("counter").get("Echo"), what="the device has followed")
        assert it.led_to_nothing("counter")["Echo"] == (1, "a")
        assert [(run["cause"], run["changed"]) for run in it.runs("counter")] == [
            ("Webhook", ["a/value=1"])
        ]


def test_two_rules_that_set_each_other_off_are_stopped_and_say_so(
    tmp_path: Path, git: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    with house(tmp_path, git, adder("ping", "a", "b"), adder("pong", "b", "a")) as it:
        it.begin("ping")
        wait_until(lambda: condition(it.script("pong"), "Looping"), what="the chain is broken")
        runs = sorted((*it.runs("ping"), *it.runs("pong")), key=lambda run: run["depth"])
        assert [run["depth"] for run in runs] == list(range(DEFAULT_LIMITS.depth + 1))
        assert {run["chain"] for run in runs[1:]} == {runs[0]["id"]}
        broken = condition(it.script("pong"), "Looping")
        assert (broken["status"], broken["reason"]) == ("True", "Loop")
        assert condition(it.script("ping"), "Looping") == {}
        assert it.led_to_nothing("pong")["Loop"] == (1, "b, set by ping")
        told = CommandLine(capsys)("explain", "pong", "-n", TEAM, "--controller", it.web).out
        assert "Scripts set each other off without end; see executePolicy.loop" in told


def test_two_rules_that_may_go_on_and_wait_between_their_runs(
    tmp_path: Path, git: Repository
) -> None:
    rules = (adder("ping", "a", "b", loop="Allow"), adder("pong", "b", "a"))
    with house(tmp_path, git, *rules) as it:
        it.begin("ping")
        wait_until(lambda: len(it.runs("ping")) > DEFAULT_LIMITS.depth, what="it goes on")


def test_a_rule_that_is_outranked_succeeds_and_is_told_of_who_holds_the_property(
    tmp_path: Path, git: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = (adder("guard", "a", "b", priority=10, lease="1h"), adder("comfort", "a", "b"))
    with house(tmp_path, git, *rules) as it:
        it.begin("guard")
        it.begin("comfort", start=40)
        [run] = [run for run in it.runs("comfort") if run["cause"] == "Webhook"]
        assert (run["outcome"], run["changed"], run["outranked"]) == (
            "Succeeded",
            [],
            ["b/value=41"],
        )
        told = CommandLine(capsys)("explain", "comfort", "-n", TEAM, "--controller", it.web).out
        assert "b/value is to be '1', by guard " in told
        assert ", held with priority 10 until " in told
