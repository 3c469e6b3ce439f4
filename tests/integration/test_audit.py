"""What is written down of what nobody asked for: runs, their writes, commits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from reconciler.controllers.auditing import MOST, Auditing
from reconciler.core.objects import SCRIPTS, ObjectKey
from reconciler.core.runs import Cause, Outcome, RunId, RunRecord
from reconciler.main.logs import TextLines
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE
from tests.support.system import executor, serving, settings


def told(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [
        vars(record)
        for record in caplog.records
        if record.name == "scriptops.audit" and record.getMessage() == message
    ]


def runs_told(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [run for line in told(caplog, "ran") for run in line["runs"]]


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param({"log_format": "json"}, id="for machines"),
        pytest.param({"audit": True}, id="for people who ask for it"),
    ],
)
def test_a_run_its_writes_and_the_commit_that_tells_of_it_are_written_down(
    tmp_path: Path, git: Repository, caplog: pytest.LogCaptureFixture, chosen: dict[str, Any]
) -> None:
    caplog.set_level(logging.INFO, "scriptops.audit")
    key = ObjectKey("house", "relay")
    with (
        serving(settings(tmp_path / "data", **chosen)) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        commit = git.commit(HOUSE)
        system.synced(system.repository("house", git.path, resultsInterval="1s"), commit)
        live = system.ready(key)
        system.report(ObjectKey("house", "door"), open=True)
        wait_until(lambda: len(runs_told(caplog)) == 2, what="both runs are told")
        [_, run] = system.runs(*key)
        wait_until(lambda: told(caplog, "pushed"), what="a commit is told")
        assert system.get(SCRIPTS, key)["metadata"]["uid"] == live["metadata"]["uid"]
    assert runs_told(caplog)[1] == {
        "who": "house/relay",
        "uid": live["metadata"]["uid"],
        "run": run["id"],
        "at": run["finishedAt"],
        "cause": "ReadChange",
        "outcome": "Succeeded",
        "revision": f"main@sha1:{commit}",
        "digest": live["status"]["digest"],
        "changed": ("lamp/power=true",),
    }
    pushed = told(caplog, "pushed")[-1]
    tip = git.tip("scriptops-status/default")
    assert (pushed["ref"], pushed["commit"]) == ("scriptops-status/default", tip)


def record(number: int) -> RunRecord:
    return RunRecord(
        run_id=RunId(f"run-{number}"),
        script=ObjectKey("house", "relay"),
        cause=Cause.MANUAL,
        outcome=Outcome.DENIED,
        message="",
        revision="",
        digest="",
        created_at=0.0,
        finished_at=0.0,
        duration_us=1,
        changed=(),
        unchanged=(),
        refused=("lamp/power=true",),
        logs=(),
    )


@pytest.mark.parametrize(
    ("runs", "lines"),
    [
        pytest.param(0, [], id="nothing of none"),
        pytest.param(3, [3], id="few together"),
        pytest.param(2 * MOST + 1, [MOST, MOST, 1], id="many, so many to a line"),
    ],
)
def test_every_run_is_told_once(
    caplog: pytest.LogCaptureFixture, runs: int, lines: list[int]
) -> None:
    caplog.set_level(logging.INFO, "scriptops.audit")
    auditing = Auditing()
    for number in range(runs):
        auditing.ran(record(number))
    auditing.flush()
    auditing.flush()
    assert [len(line["runs"]) for line in told(caplog, "ran")] == lines
    assert [run["run"] for run in runs_told(caplog)] == [f"run-{n}" for n in range(runs)]
    assert all(run["refused"] == ("lamp/power=true",) for run in runs_told(caplog))


def test_in_text_a_line_of_runs_is_json() -> None:
    line = logging.makeLogRecord({"msg": "ran", "runs": [{"who": "house/relay"}]})
    assert TextLines().format(line).endswith('ran  runs=[{"who":"house/relay"}]')


def test_logs_for_people_leave_runs_out(
    tmp_path: Path, git: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scriptops.audit")
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        system.synced(system.repository("house", git.path), git.commit(HOUSE))
        system.ready(ObjectKey("house", "relay"))
        wait_until(lambda: system.runs("house", "relay"), what="it has run")
    assert runs_told(caplog) == []
