"""`scriptops demo`: both lives of a change, told truthfully, and nothing left behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.gitserver import git
from tests.support.kube import wait_until
from tests.support.system import ROOT, Process, alive, ask, descendants

ANYWHERE = ("--web=127.0.0.1:0", "--grpc=127.0.0.1:0", "--mqtt=")


def once(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reconciler", "demo", "--once", f"--data={folder}", *options],
        cwd=ROOT,
        env={**os.environ, "HOME": str(folder.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder and the summary of one round."""
    folder = tmp_path_factory.mktemp("demo") / "state"
    ended = once(folder, "--output=json")
    assert ended.returncode == 0, ended.stderr
    return folder, json.loads(ended.stdout)


def test_one_round_says_what_happened(shown: tuple[Path, Any]) -> None:
    folder, summary = shown
    tip = git(folder / "rules.git", "rev-parse", "refs/heads/main")
    assert summary["revision"] == f"main@sha1:{tip}"
    assert summary["changeSet"] == {
        "created": 10,
        "configured": 0,
        "unchanged": 0,
        "pruned": 0,
        "skipped": 0,
    }
    assert summary["runs"] >= 4
    assert summary["failedRuns"] == 0
    assert 0 < summary["effectLatencyMs"] < 5000
    assert 0 < summary["redeployLatencyMs"] < 10_000


def test_the_status_commit_that_it_names_is_on_the_ref_and_tells_of_the_edited_rule(
    shown: tuple[Path, Any],
) -> None:
    folder, summary = shown
    bare, commit = folder / "rules.git", summary["statusCommit"]
    git(bare, "merge-base", "--is-ancestor", commit, "refs/heads/scriptops-status/default")
    names = git(bare, "ls-tree", "-r", "--name-only", commit).splitlines()
    found = [yaml.safe_load(git(bare, "cat-file", "blob", f"{commit}:{n}")) for n in names]
    statuses = {o["metadata"]["name"]: o["status"] for o in found}
    assert set(statuses) == {"thermostat", "door-lamp"}
    for status in statuses.values():
        assert {c["type"]: c["status"] for c in status["conditions"]} == {
            "Ready": "True",
            "RunsSucceeding": "True",
        }
    edited = (folder / "rules" / "scripts" / "thermostat" / "1.0.0.js").read_bytes()
    assert b"- 5;" in edited
    digest = f"sha256:{hashlib.sha256(edited).hexdigest()}"
    assert statuses["thermostat"]["digest"] == digest


def test_a_round_for_people_ends_with_the_same_facts(tmp_path: Path) -> None:
    ended = once(tmp_path / "state")
    assert ended.returncode == 0, ended.stderr
    for words in ("The life of a change", "The life of an edited rule", "Summary", "statusCommit"):
        assert words in ended.stdout


def test_a_folder_that_is_no_demos_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    ended = once(folder)
    assert ended.returncode == 2
    assert "is not empty and not from a demo; give another --data folder" in ended.stderr
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Process]:
    """A demo that stays up, ready to be played with."""
    environment = {"HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    process = Process(
        ("reconciler", "demo", f"--data={tmp_path / 'state'}", *ANYWHERE),
        tmp_path / "demo.log",
        environment,
    )
    process.start()
    try:
        process.says("stops everything", seconds=60)
        yield process
    finally:
        if process.code is None:
            process.stop()


def test_it_stays_up_to_be_played_with_and_ctrl_c_leaves_nothing_behind(
    demo: Process, tmp_path: Path
) -> None:
    work = tmp_path / "state" / "rules"
    found = re.search(r"Page\s+(http://\S+?)/\s", demo.output)
    assert found is not None, demo.output
    scripts = ask(f"{found[1]}/api/v1alpha1/scripts")["items"]
    assert {o["metadata"]["name"] for o in scripts} == {"thermostat", "door-lamp"}
    # What it says to try.
    rule = work / "scripts" / "thermostat" / "1.0.0.js"
    rule.write_text(rule.read_text() + "// tried\n")
    git(work, "commit", "--quiet", "--all", "--message", "Try something")
    git(work, "push", "--quiet")
    tip = git(work, "rev-parse", "HEAD")
    demo.says(f"main@sha1:{tip[:10]}")
    demo.says("thermostat (Deployed) Succeeded")
    children = descendants(demo.pid)
    assert len(children) >= 2, "an executor and its worker"
    demo.signal(signal.SIGINT)
    assert demo.wait() == 0
    wait_until(lambda: not [pid for pid in children if alive(pid)], what="all have ended")


def test_a_second_demo_leaves_the_folder_of_a_running_one_alone(
    demo: Process, tmp_path: Path
) -> None:
    before = git(tmp_path / "state" / "rules", "rev-parse", "HEAD")
    ended = once(tmp_path / "state")
    assert ended.returncode == 2
    assert "another demo runs in" in ended.stderr
    assert git(tmp_path / "state" / "rules", "rev-parse", "HEAD") == before


def test_a_rule_that_cannot_be_loaded_is_told_of(demo: Process, tmp_path: Path) -> None:
    work = tmp_path / "state" / "rules"
    (work / "scripts/thermostat/1.0.0.js").write_text("function main( {")
    git(work, "commit", "--quiet", "--all", "--message", "A slip of the pen")
    git(work, "push", "--quiet")
    demo.says("thermostat cannot run: SyntaxError")


def test_a_demo_that_is_killed_takes_its_executor_with_it_and_starts_again_in_its_folder(
    demo: Process, tmp_path: Path
) -> None:
    children = descendants(demo.pid)
    demo.signal(signal.SIGKILL)
    demo.wait()
    wait_until(lambda: not [pid for pid in children if alive(pid)], what="all have ended")
    ended = once(tmp_path / "state", "--output=json")
    assert ended.returncode == 0, ended.stderr
