"""`commitDevice(device, 1 | 2)` as a rule author meets it: a device answers, or does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import device, documents, model, script
from tests.support.system import System, executor, serving, settings

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
    tmp_path: Path, git: Repository
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
