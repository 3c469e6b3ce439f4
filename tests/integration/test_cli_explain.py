"""`scriptops explain` against a running controller: what a person reads, word for word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reconciler.core.objects import ObjectKey
from tests.integration.command_line import CommandLine
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import documents, script
from tests.support.system import ask, executor, serving, settings

TEAM = "team"
LAMP = ObjectKey(TEAM, "lamp")


def rules(**spec: object) -> dict[str, bytes]:
    policy = {"readChange": True, "webhook": True, "cron": "0 0 1 1 *", "runOnDeploy": False}
    manifest = script(
        "lamp",
        artifact="lamp",
        executePolicy=policy,
        readSelector={"matchNames": {"door": "front-door"}},
        **spec,
    )
    return {
        "manifests/lamp.yaml": documents(manifest),
        "scripts/lamp/1.0.0.js": b"function main() {}\n",
    }


def test_a_script_says_what_it_runs_for_and_what_led_to_nothing(
    tmp_path: Path, git: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    scriptops = CommandLine(capsys)
    with serving(settings(tmp_path / "data")) as system:
        where = ("--namespace", TEAM, "--controller", system.web)
        system.repository(TEAM, git.path)
        git.commit(rules())
        with executor(system.grpc, tmp_path / "executor.log"):
            system.ready(LAMP)
            ended = scriptops("explain", "lamp", *where)
            assert ended.code == 0, ended.err
            assert re.sub(r"\d{4}-01-01", "NEXT", ended.out) == (
                "lamp can run\n"
                "last run: none that is remembered\n"
                "it runs\n"
                "  when a device that it reads reports another value than it was last run for:\n"
                "    front-door: there is no Device front-door\n"
                "  at 0 0 1 1 *, next at NEXTT00:00:00Z\n"
                "  when somebody calls its webhook\n"
                "  when somebody triggers it by hand\n"
            )
        wait_until(lambda: not ask(f"{system.web}/api/v1alpha1/executors")["items"], what="it left")
        git.commit(rules(suspend=True))
        wait_until(
            lambda: "it is suspended" in scriptops("explain", "lamp", *where).out,
            what="it is suspended",
        )
        assert scriptops("trigger", "lamp", *where).code != 0
        found = json.loads(scriptops("explain", "lamp", "--output", "json", *where).out)
        assert (found["canRun"], found["executors"]) == (False, 0)
        assert [(it["reason"], it["count"]) for it in found["notRun"]] == [("Suspended", 1)]
        told = scriptops("explain", "lamp", *where).out
        assert told.startswith(
            "lamp cannot run: it is suspended\nno executor is connected, so whatever is due waits\n"
        )
        assert "\n\nled to no run of their own, since the controller began:\nREASON " in told
        assert re.search(r"Suspended +Manual +1 +\d+s +- +the Script is suspended", told)
        assert scriptops("explain", "nobody", *where).code == 2
