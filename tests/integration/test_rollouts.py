"""Rollouts, whole: a new version in git, real executors, and what runs, is written and is said."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import DEVICES_V1BETA1, SCRIPTS, ObjectKey
from tests.integration.command_line import CommandLine, Ended
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import (
    DEVICES,
    ENDLESS,
    INVERSE,
    RELAY,
    device,
    documents,
    model,
    relay,
    script,
)
from tests.support.system import (
    ControllerProcess,
    System,
    ask,
    condition,
    executor,
    reason,
    serving,
    settings,
)

COUNT = b"""\
function main() {
  State.set("count", (State.get("count") ?? 0) + 1);
  console.log(Deno.env.word ?? "one");
}
"""
THROWS = b"function main() { throw new Error('no'); }\n"
BROKEN = b"function main( {\n"


def rule(version: str, source: bytes, **spec: Any) -> dict[str, bytes]:
    return {
        "manifests/rule.yaml": documents(script("rule", artifact="rule", version=version, **spec)),
        f"scripts/rule/{version}.js": source,
    }


def canary(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "Canary", "canary": {"steps": list(steps)}, **more}


def deployed(
    system: System, git: Repository, team: str, files: dict[str, bytes], name: str = "rule"
) -> ObjectKey:
    """The first version, Ready, and its run on deployment over."""
    key = ObjectKey(team, name)
    system.synced(system.repository(team, git.path), git.commit(files))
    system.ready(key)
    wait_until(lambda: system.runs(*key), what="it has run once")
    return key


def trigger(system: System, key: ObjectKey, times: int = 1) -> None:
    """One after the other, so that each is a run of its own."""
    for _ in range(times):
        before = len(system.runs(*key))
        system.ask(f"/api/v1alpha1/scripts/{key.namespace}/{key.name}/trigger", method="POST")
        wait_until(lambda: len(system.runs(*key)) > before, what="it has run")  # noqa: B023 - called at once


def until(system: System, key: ObjectKey, what: str, **rollout: Any) -> Any:
    """The Script once its rollout says `rollout`."""

    def claim(obj: Any) -> bool:
        told = (obj.get("status") or {}).get("rollout") or {}
        return all(told.get(name) == value for name, value in rollout.items())

    return system.script_is(key, claim, what)


def digests(system: System, key: ObjectKey) -> list[str]:
    return [run["digest"] for run in system.runs(*key)]


class Rollout:
    """`scriptops rollout ...` for one Script."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._command_line = CommandLine(capsys)

    def __call__(self, system: System, key: ObjectKey, *words: str) -> Ended:
        where = ("-n", key.namespace, "--controller", system.web)
        return self._command_line("rollout", *words, key.name, *where)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Rollout:
    return Rollout(capsys)


def test_a_canary_that_fails_is_halted_and_the_version_before_has_all_runs_again(
    embedded: System, git: Repository, namespace: str
) -> None:
    rollout = canary({"percent": 50}, errorBudget={"minRuns": 2, "failedPercent": 0})
    key = deployed(embedded, git, namespace, rule("1.0.0", COUNT, rollout=rollout))
    [old] = digests(embedded, key)
    git.commit(rule("1.1.0", THROWS, rollout=rollout))
    until(embedded, key, "a canary is under way", phase="Paused", percent=50)

    def halted() -> bool:
        trigger(embedded, key)
        told = embedded.get(SCRIPTS, key)["status"]["rollout"]
        return bool(told["phase"] == "Degraded")

    wait_until(halted, what="its failures halt it")
    live = embedded.script_is(key, lambda o: reason(o)[0] == "False", "it is not Ready")
    assert reason(live) == ("False", "ErrorBudgetExceeded")
    assert condition(live, "Progressing")["reason"] == "ErrorBudgetExceeded"
    told = live["status"]["rollout"]
    assert (told["runs"], told["failed"], told["halted"], told["stableDigest"]) == (
        2,
        2,
        told["wanted"],
        old,
    )
    seen = digests(embedded, key)
    assert len([it for it in seen if it != old]) == 2
    trigger(embedded, key, 5)
    assert digests(embedded, key)[len(seen) :] == [old] * 5
    # What failed has left no trace in what the Script remembers.
    [shown] = embedded.ask(f"/api/v1alpha1/scripts?namespace={namespace}")["items"]
    assert shown["state"] == {"count": len(seen) - 2 + 5}


def test_a_canary_whose_steps_are_over_runs_for_all_and_only_then_on_deployment(
    embedded: System, git: Repository, namespace: str
) -> None:
    rollout = canary({"percent": 50, "runs": 1}, {"percent": 100, "pause": "300ms"})
    key = deployed(embedded, git, namespace, rule("1.0.0", COUNT, rollout=rollout))
    [old] = digests(embedded, key)
    git.commit(rule("1.1.0", COUNT + b"//", rollout=rollout))
    until(embedded, key, "a canary is under way", percent=50)
    assert len(digests(embedded, key)) == 1

    def over() -> bool:
        trigger(embedded, key)
        return bool(embedded.get(SCRIPTS, key)["status"]["rollout"]["phase"] == "Healthy")

    wait_until(over, what="it has all runs")
    live = embedded.ready(key)
    told = live["status"]["rollout"]
    assert [it["revision"] for it in told["versions"]] == [2, 1]
    assert live["status"]["digest"] == told["stableDigest"] != old
    wait_until(
        lambda: [r["cause"] for r in embedded.runs(*key)].count("Deployed") == 2,
        what="it runs on deployment",
    )
    assert digests(embedded, key)[-1] == told["stableDigest"]


def test_a_shadow_runs_beside_and_writes_nothing_until_it_is_promoted(
    embedded: System, git: Repository, namespace: str, command: Rollout
) -> None:
    house = {"manifests/devices.yaml": DEVICES}

    def version(number: str, source: bytes) -> dict[str, bytes]:
        manifest = relay()
        manifest["spec"] = {**manifest["spec"], "rollout": {"type": "Shadow"}}
        manifest["spec"]["manifest"] = {**manifest["spec"]["manifest"], "version": number}
        return {
            **house,
            "manifests/relay.yaml": documents(manifest),
            f"scripts/relay/{number}.js": source,
        }

    door, lamp = ObjectKey(namespace, "door"), ObjectKey(namespace, "lamp")
    key = deployed(embedded, git, namespace, version("1.0.0", RELAY), "relay")
    git.commit(version("2.0.0", INVERSE))
    until(embedded, key, "a shadow is under way", phase="Paused", percent=0)
    runs = len(embedded.runs(*key))
    embedded.report(door, open=True)
    live = until(embedded, key, "the shadow has run", runs=1, differing=1)
    told = live["status"]["rollout"]
    [run] = embedded.runs(*key)[runs:]
    assert told["differences"] == [
        {"run": run["id"], "stable": ["lamp/power=true"], "shadow": ["lamp/power=false"]}
    ]
    assert run["changed"] == ["lamp/power=true"]
    assert desired(embedded, lamp) == "true"
    answer = command(embedded, key, "status")
    assert f"run {run['id']} differed\n  - lamp/power=true\n  + lamp/power=false" in answer.out
    assert command(embedded, key, "promote").code == 0
    until(embedded, key, "it runs for all", phase="Healthy", stable=told["candidate"])
    wait_until(lambda: desired(embedded, lamp) == "false", what="it writes on its deployment")


def desired(system: System, key: ObjectKey) -> str:
    [prop] = system.get(DEVICES_V1BETA1, key)["spec"]["properties"]
    return str((prop.get("desired") or {}).get("value"))


def test_a_shadow_s_state_is_compared_and_not_kept(
    embedded: System, git: Repository, namespace: str
) -> None:
    rollout = {"type": "Shadow", "errorBudget": {"differences": 0}}
    key = deployed(embedded, git, namespace, rule("1.0.0", COUNT, rollout=rollout))
    git.commit(rule("1.1.0", COUNT.replace(b"+ 1", b"+ 100"), rollout=rollout))
    until(embedded, key, "a shadow is under way", phase="Paused")
    trigger(embedded, key)
    live = until(embedded, key, "one difference is too many", phase="Degraded")
    told = live["status"]["rollout"]
    assert told["reason"] == "DifferenceBudgetExceeded"
    assert (told["differences"][0]["stable"], told["differences"][0]["shadow"]) == (
        ['state={"count":2}'],
        ['state={"count":101}'],
    )
    [shown] = embedded.ask(f"/api/v1alpha1/scripts?namespace={namespace}")["items"]
    assert shown["state"] == {"count": 2}


def test_a_version_that_does_not_load_leaves_the_one_before_running(
    embedded: System, git: Repository, namespace: str
) -> None:
    rollout = canary({"percent": 50})
    key = deployed(embedded, git, namespace, rule("1.0.0", COUNT, rollout=rollout))
    git.commit(rule("1.1.0", BROKEN, rollout=rollout))
    live = until(embedded, key, "it is given up", phase="Degraded", reason="LoadFailed")
    assert reason(live) == ("False", "LoadFailed")
    trigger(embedded, key, 2)
    assert [run["outcome"] for run in embedded.runs(*key)] == ["Succeeded"] * 3


def test_a_canary_that_never_ends_is_halted_at_once_and_its_end_holds_up_nobody(
    embedded: System, git: Repository, namespace: str
) -> None:
    rollout = canary({"percent": 100})
    limits = {"limits": {"wallTime": "300ms"}}
    key = deployed(embedded, git, namespace, rule("1.0.0", COUNT, rollout=rollout, **limits))
    git.commit(rule("1.1.0", ENDLESS, rollout=rollout, **limits))
    until(embedded, key, "a canary is under way", percent=100)
    trigger(embedded, key)
    until(embedded, key, "it is halted", phase="Degraded", reason="CrashBudgetExceeded")
    trigger(embedded, key, 4)
    outcomes = [run["outcome"] for run in embedded.runs(*key)]
    assert outcomes == ["Succeeded", "TimedOut", *["Succeeded"] * 4]


def test_where_bytes_may_change_behind_a_version_a_new_executor_still_gets_the_stable_ones(
    tmp_path: Path, git: Repository
) -> None:
    rollout = canary({"percent": 100}, errorBudget={"minRuns": 1, "failedPercent": 0})
    with serving(settings(tmp_path / "data", dev=True)) as system:
        with executor(system.grpc, tmp_path / "first.log"):
            key = deployed(system, git, "team", rule("1.0.0", COUNT, rollout=rollout))
            git.commit({"scripts/rule/1.0.0.js": THROWS})
            until(system, key, "a canary is under way", percent=100)
            trigger(system, key)
            until(system, key, "it is halted", phase="Degraded")
        with executor(system.grpc, tmp_path / "second.log"):
            trigger(system, key)
            outcomes = [run["outcome"] for run in system.runs(*key)]
            assert outcomes == ["Succeeded", "Failed", "Succeeded"]


def test_a_manifest_that_goes_back_ends_the_rollout_without_a_run(
    embedded: System, git: Repository, namespace: str
) -> None:
    rollout = canary({"percent": 50})
    key = deployed(embedded, git, namespace, rule("1.0.0", COUNT, rollout=rollout))
    git.commit(rule("1.1.0", COUNT + b"//", rollout=rollout))
    until(embedded, key, "a canary is under way", percent=50)
    git.commit(rule("1.0.0", COUNT, rollout=rollout))
    live = until(embedded, key, "it is over", phase="Healthy")
    assert [it["revision"] for it in live["status"]["rollout"]["versions"]] == [1]
    embedded.ready(key)
    assert len(embedded.runs(*key)) == 1


def test_commands_abort_retry_promote_and_undo(
    embedded: System, git: Repository, namespace: str, command: Rollout
) -> None:
    rollout = canary({"percent": 50}, {"percent": 80})
    key = deployed(embedded, git, namespace, rule("1.0.0", COUNT, rollout=rollout))
    for words, code, said in (
        (("abort",), 2, "no rollout of Script"),
        (("promote",), 2, "runs the version that is wanted already"),
        (("undo",), 2, "no former version"),
        (("undo", "--to-revision", "7"), 2, "revision 7 of Script"),
    ):
        answer = command(embedded, key, *words)
        assert (answer.code, said in answer.err) == (code, True), answer
    git.commit(rule("1.1.0", COUNT + b"//", rollout=rollout))
    first = until(embedded, key, "a canary is under way", percent=50)["status"]["rollout"]
    assert command(embedded, key, "abort").code == 0
    until(embedded, key, "it is aborted", phase="Degraded", reason="Aborted")
    assert command(embedded, key, "status", "--wait").code == 1
    assert command(embedded, key, "promote").code == 0
    until(embedded, key, "it is tried again", percent=50)
    assert command(embedded, key, "promote").code == 0
    until(embedded, key, "its second step", percent=80, currentStep=1)
    assert command(embedded, key, "promote", "--full").code == 0
    until(embedded, key, "it runs for all", phase="Healthy", stable=first["candidate"])
    assert command(embedded, key, "status", "--wait").code == 0
    assert command(embedded, key, "undo").code == 0
    undone = until(embedded, key, "it is undone", phase="Degraded", reason="Undone")
    told = undone["status"]["rollout"]
    assert told["stable"] == first["stable"]
    assert [it["revision"] for it in told["versions"]] == [3, 2]
    shown = command(embedded, key, "status", "--output", "json")
    assert json.loads(shown.out)["halted"] == first["candidate"]


def test_a_rollout_goes_on_where_it_was_when_its_controller_is_killed(
    tmp_path: Path, git: Repository
) -> None:
    rollout = canary({"percent": 100, "runs": 3}, errorBudget={"minRuns": 3})
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "first.log"),
    ):
        key = deployed(system, git, "team", rule("1.0.0", COUNT, rollout=rollout))
        git.commit(rule("1.1.0", COUNT + b"//", rollout=rollout))
        before = until(system, key, "a canary is under way", percent=100)["status"]["rollout"]
    controller = ControllerProcess(tmp_path)
    controller.start()

    def told() -> Any:
        [found] = ask(f"{controller.web}/api/v1alpha1/scripts?namespace=team")["items"]
        return found["status"]["rollout"]

    def runs() -> Any:
        return ask(f"{controller.web}/api/v1alpha1/runs?namespace=team&script=rule")["items"]

    def run_once() -> None:
        had = len(runs())
        path = f"/api/v1alpha1/scripts/{key.namespace}/{key.name}/trigger"
        wait_until(lambda: taken(controller.web + path), what="it can run")
        wait_until(lambda: len(runs()) > had, what="it has run")

    with executor(controller.serving()["grpc"], tmp_path / "second.log"):
        run_once()
        wait_until(lambda: told()["runs"] == 1, what="its run is told")
        controller.kill()
    controller.start()
    with executor(controller.serving()["grpc"], tmp_path / "third.log"):
        run_once()
        assert {run["cause"] for run in runs()} == {"Manual"}
        kept = {name: told()[name] for name in ("stable", "candidate", "startedAt", "versions")}
        assert kept == {name: before[name] for name in kept}
        run_once()
        wait_until(
            lambda: told()["phase"] == "Healthy", what="three runs over two lives are enough"
        )
        assert told()["stable"] == before["candidate"]
    assert controller.stop() == 0


def taken(url: str) -> bool:
    try:
        ask(url, method="POST")
    except urllib.error.HTTPError as error:
        with error:
            return False
    return True


def test_devices_of_a_canary_keep_their_version(
    embedded: System, git: Repository, namespace: str
) -> None:
    names = [f"door-{n}" for n in range(4)]
    manifest = script(
        "rule",
        artifact="rule",
        reads={name: name for name in names},
        policy={"readChange": True, "runOnDeploy": False},
        rollout={"type": "Canary", "canary": {"by": "Devices", "steps": [{"percent": 50}]}},
    )

    def files(version: str, source: bytes) -> dict[str, bytes]:
        manifest["spec"]["manifest"] = {**manifest["spec"]["manifest"], "version": version}
        return {
            "manifests/devices.yaml": documents(
                model("sensor", "open"), *(device(name, "sensor", "open") for name in names)
            ),
            "manifests/rule.yaml": documents(manifest),
            f"scripts/rule/{version}.js": source,
        }

    key = ObjectKey(namespace, "rule")
    embedded.synced(embedded.repository(namespace, git.path), git.commit(files("1.0.0", COUNT)))
    old = embedded.ready(key)["status"]["digest"]
    git.commit(files("1.1.0", COUNT + b"//"))
    until(embedded, key, "a canary is under way", percent=50)
    versions: dict[str, set[bool]] = {name: set() for name in names}
    for turn in (True, False, True):
        for name in names:
            before = len(embedded.runs(*key))
            embedded.report(ObjectKey(namespace, name), open=turn)
            wait_until(lambda: len(embedded.runs(*key)) > before, what="it has run")  # noqa: B023 - called at once
            versions[name].add(embedded.runs(*key)[-1]["digest"] != old)
    assert all(len(seen) == 1 for seen in versions.values())
    assert sum(True in seen for seen in versions.values()) == 2


@pytest.mark.kube
def test_on_kubernetes_a_canary_is_promoted_by_an_annotation_and_its_history_is_in_the_status(
    on_kubernetes: Kubernetes, team: str, git: Repository, command: Rollout
) -> None:
    system, kube = on_kubernetes.system, on_kubernetes.kube
    rollout = canary({"percent": 50})
    key = deployed(system, git, team, rule("1.0.0", COUNT, rollout=rollout))
    git.commit(rule("1.1.0", COUNT + b"//", rollout=rollout, env={"word": "two"}))
    live = until(system, key, "a canary is under way", percent=50)
    assert reason(live) == ("Unknown", "RolloutPaused")
    path = f"/apis/hit.edu.cn/v1alpha1/namespaces/{team}/scripts/rule"
    kube.request(
        "PATCH",
        path,
        {"metadata": {"annotations": {"rollout.hit.edu.cn/requested": "promote now"}}},
        content_type="application/merge-patch+json",
    )
    live = until(system, key, "it runs for all", phase="Healthy", lastHandledRequest="promote now")
    kept = live["status"]["rollout"]["versions"]
    assert [(it["revision"], it["spec"].get("env")) for it in kept] == [
        (2, {"word": "two"}),
        (1, None),
    ]
    git.commit(rule("1.1.1", THROWS, rollout=rollout))
    until(system, key, "the next canary is under way", percent=50)
    assert command(system, key, "abort").code == 0
    live = until(system, key, "it is aborted", phase="Degraded")
    assert live["status"]["digest"] == kept[0]["digest"]
    assert reason(live) == ("False", "Aborted")
