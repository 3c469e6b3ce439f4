"""`commitDevice(device, 1 | 2)` as a rule author meets it: a device answers, or does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from tests.integration.command_line import CommandLine
from tests.support.gitserver import Repository
from tests.support.kube import free_port, wait_until
from tests.support.mosquitto import Mapper, mosquitto
from tests.support.rulebook import device, documents, model, script
from tests.support.system import (
    ControllerProcess,
    System,
    ask,
    executor,
    is_ready,
    serving,
    settings,
)

TEAM = "team"
VALVE = ObjectKey(TEAM, "valve")
SOURCE = b"""\
async function main(wanted) {
  Device.setDeviceStatus("valve", "open", wanted.open);
  const told = await Device.commitDevice("valve", wanted.qos, { timeout: wanted.timeout });
  console.log(JSON.stringify(told));
  State.set("last", told.reached);
}
"""


def rules(**spec: Any) -> dict[str, bytes]:
    opener = script(
        "opener",
        artifact="opener",
        writes={"valve": "valve"},
        policy={"webhook": True, "runOnDeploy": False},
        **spec,
    )
    return {
        "manifests/devices.yaml": documents(
            model("valve", "open=rw"), device("valve", "valve", "open")
        ),
        "manifests/opener.yaml": documents(opener),
        "scripts/opener/1.0.0.js": SOURCE,
    }


def triggered(system: System, **event: Any) -> str:
    path = f"/api/v1alpha1/webhook?namespace={TEAM}&name=opener"
    return str(system.ask(path, method="POST", body=event)["runId"])


def run(system: System, run_id: str) -> Any:
    return next((r for r in system.runs(TEAM, "opener") if r["id"] == run_id), {"outcome": ""})


def ended(system: System, run_id: str) -> Any:
    return wait_until(
        lambda: it if (it := run(system, run_id))["outcome"] not in {"", "Waiting"} else None,
        what="the run has ended",
    )


def test_a_run_goes_on_when_its_device_has_done_what_it_was_told(
    tmp_path: Path, git: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    git.commit(rules())
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        system.repository(TEAM, git.path)
        system.ready(ObjectKey(TEAM, "opener"))
        run_id = triggered(system, open=True, qos=2)
        waiting = wait_until(
            lambda: it if (it := run(system, run_id))["outcome"] == "Waiting" else None,
            what="the run waits",
        )
        assert (waiting["changed"], waiting["finishedAt"]) == (["valve/open=true"], "")
        desired = system.get(DEVICES_V1BETA1, VALVE)["spec"]["properties"][0]["desired"]
        assert desired["value"] == "true"
        explained = CommandLine(capsys)(
            "explain", "opener", "--namespace", TEAM, "--controller", system.web
        )
        assert "running now: 1\n  one waits for valve (qos 2), for 0s\n" in explained.out
        system.report(VALVE, open=True)
        record = ended(system, run_id)
        assert (record["outcome"], record["logs"], record["changed"]) == (
            "Succeeded",
            [{"level": "info", "text": '{"reached":2}'}],
            ["valve/open=true"],
        )
        # It is recorded with what it was told.
        wait_until(
            lambda: system.ask(f"/api/v1alpha1/recordings?namespace={TEAM}")["items"],
            what="it is recorded",
        )
        recorded = system.ask(f"/api/v1alpha1/runs/{run_id}/recording")
        [reply] = recorded["activation"]["replies"]
        assert (reply["op"], reply["reached"]) == ("commit", 2)


def test_a_device_that_does_not_answer_ends_the_wait_and_not_the_run(
    tmp_path: Path, git: Repository
) -> None:
    git.commit(rules(limits={"wait": "5m"}))
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        system.repository(TEAM, git.path)
        system.ready(ObjectKey(TEAM, "opener"))
        record = ended(system, triggered(system, open=True, qos=2, timeout=200))
        [line] = record["logs"]
        assert (record["outcome"], json.loads(line["text"])) == (
            "Succeeded",
            {
                "reached": 0,
                "code": "NotConverged",
                "message": "open=true is desired and nothing reported",
            },
        )


def test_a_delta_that_was_lost_is_sent_again_and_the_run_goes_on(
    tmp_path: Path, git: Repository
) -> None:
    git.commit(rules())
    with serving(settings(tmp_path / "data")) as system:
        system.repository(TEAM, git.path)
    with mosquitto(tmp_path / "broker") as broker:
        controller = ControllerProcess(tmp_path, f"--mqtt=127.0.0.1:{broker.port}")
        controller.start()
        try:
            web = controller.web
            with executor(controller.serving()["grpc"], tmp_path / "executor.log"):
                wait_until(lambda: is_served(web), what="it is ready")
                hook = f"{web}/api/v1alpha1/webhook?namespace={TEAM}&name=opener"
                run_id = ask(hook, method="POST", body={"open": True, "qos": 2})["runId"]
                wait_until(lambda: waiting(web), what="the run waits")
                # Nobody was there to hear the first one.
                with Mapper(broker.port, f"{TEAM}/valve") as mapper:
                    mapper.is_told(open="true")
                    mapper.report("open", "true", type_="boolean")
                    [record] = wait_until(lambda: succeeded(web), what="the run goes on")
            assert record["id"] == run_id
            assert [line["text"] for line in record["logs"]] == ['{"reached":2}']
        finally:
            controller.stop()


def waiting(web: str) -> bool:
    runs = ask(f"{web}/api/v1alpha1/runs?namespace={TEAM}")["items"]
    return [it["outcome"] for it in runs] == ["Waiting"]


def succeeded(web: str) -> list[Any]:
    runs = ask(f"{web}/api/v1alpha1/runs?namespace={TEAM}")["items"]
    return [it for it in runs if it["outcome"] == "Succeeded"]


def is_served(web: str) -> bool:
    try:
        items = ask(f"{web}/api/v1alpha1/scripts")["items"]
    except OSError:
        return False
    return any(is_ready(it) for it in items)


@pytest.mark.parametrize(
    ("qos", "outcome"),
    [("AtLeastOnce", "Succeeded"), ("AtMostOnce", ""), ("OnlyOnce", "Unknown")],
)
def test_a_run_whose_controller_is_killed_while_it_waits_starts_again_if_its_qos_says_so(
    tmp_path: Path, git: Repository, qos: str, outcome: str
) -> None:
    files = rules(executePolicy={"webhook": True, "runOnDeploy": False, "qos": qos})
    slow = {"simulate": "follow", "start": False, "delay": 3_000}
    valve = device("valve", "valve", "open")
    valve["spec"]["protocol"]["protocolName"] = "simulated"
    valve["spec"]["properties"][0]["visitors"] = {"protocolName": "simulated", "configData": slow}
    files["manifests/devices.yaml"] = documents(model("valve", "open=rw"), valve)
    git.commit(files)
    grpc, door = free_port(), free_port()
    web = f"http://127.0.0.1:{door}"
    with serving(settings(tmp_path / "data")) as system:
        system.repository(TEAM, git.path)
    controller = ControllerProcess(tmp_path, f"--grpc=127.0.0.1:{grpc}", f"--web=127.0.0.1:{door}")

    def runs() -> Any:
        return ask(f"{web}/api/v1alpha1/runs?namespace={TEAM}")["items"]

    controller.start()
    try:
        with executor(f"127.0.0.1:{grpc}", tmp_path / "executor.log"):
            wait_until(lambda: is_served(web), what="it is ready")
            hook = f"{web}/api/v1alpha1/webhook?namespace={TEAM}&name=opener"
            first = ask(hook, method="POST", body={"open": True, "qos": 2})["runId"]
            wait_until(lambda: waiting(web), what="it waits")
            controller.kill()
            controller.start()
            wait_until(lambda: is_served(web), what="it is ready again")
            second = ask(hook, method="POST", body={"open": True, "qos": 2})["runId"]
            expected = {second: "Succeeded", **({first: outcome} if outcome else {})}
            wait_until(
                lambda: {it["id"]: it["outcome"] for it in runs()} == expected,
                what="all that was promised has come true",
            )
            logs = [it["logs"][0]["text"] for it in runs() if it["outcome"] == "Succeeded"]
            assert set(logs) == {'{"reached":2}'}
    finally:
        controller.stop()
