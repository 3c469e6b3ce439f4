"""`scriptops up`: a repository of one's own, wherever it lies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from reconciler.adapters import template
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.objects import SCRIPTS
from tests.support.gitserver import git
from tests.support.kube import wait_until
from tests.support.system import ROOT, Process, ask

ANYWHERE = ("--web=127.0.0.1:0", "--grpc=127.0.0.1:0", "--mqtt=")
Up = Callable[..., AbstractContextManager[Process]]
RULE = Path("scripts/door-lamp/1.0.0.js")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A clone of the template, committed."""
    folder = tmp_path / "house"
    template.create(folder)
    return folder


@pytest.fixture
def up(tmp_path: Path) -> Up:
    starts = itertools.count(1)

    @contextmanager
    def running(repository: object, *options: str) -> Iterator[Process]:
        process = Process(
            (
                "reconciler",
                "up",
                str(repository),
                f"--data={tmp_path / 'data'}",
                *ANYWHERE,
                *options,
            ),
            tmp_path / f"up-{next(starts)}.log",
            {"HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )
        process.start()
        try:
            yield process
        except BaseException:
            if process.code is None:
                process.kill()
            raise
        if process.code is None:
            assert process.stop() == 0

    return running


def refused(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of an `up` that cannot begin."""
    ended = subprocess.run(
        [sys.executable, "-m", "reconciler", "up", *arguments, f"--data={tmp_path / 'data'}"],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ended.returncode, ended.stderr


def commit(folder: Path, message: str) -> None:
    rule = folder / RULE
    rule.write_text(f"{rule.read_text()}// {message}\n")
    git(folder, "commit", "--quiet", "--all", "--message", message)


def bare_clone(work: Path, path: Path) -> Path:
    git(work, "clone", "--quiet", "--bare", str(work), str(path))
    return path


def worktree(work: Path, path: Path) -> Path:
    git(work, "worktree", "add", "--quiet", "-b", "try", str(path))
    return path


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda work, _: (work, work), id="a work tree"),
        pytest.param(lambda work, _: (work / "manifests", work), id="a folder inside a work tree"),
        pytest.param(
            lambda work, tmp: (worktree(work, tmp / "try"), tmp / "try"), id="a linked work tree"
        ),
    ],
)
def test_a_commit_is_deployed_within_a_second_and_runs(
    work: Path, tmp_path: Path, up: Up, place: Callable[[Path, Path], tuple[Path, Path]]
) -> None:
    named, edited = place(work, tmp_path)
    options = ("--path=",) if named == work / "manifests" else ()
    with up(named, *options) as process:
        process.says("door-lamp (Deployed) Succeeded")
        before = process.output.count("door-lamp (Deployed)")
        commit(edited, "another lamp")
        started = time.monotonic()
        process.says("door-lamp (Deployed)", times=before + 1)
        took = time.monotonic() - started
        assert took < 2.0, "about a tenth of a second on an idle machine"
        tip = git(edited, "rev-parse", "HEAD")
        process.says(f"@sha1:{tip[:10]}: 1 artifact published")


def test_a_push_to_a_bare_repository_is_deployed_within_a_second(
    work: Path, tmp_path: Path, up: Up
) -> None:
    bare = bare_clone(work, tmp_path / "house.git")
    git(work, "remote", "add", "origin", str(bare))
    with up(bare) as process:
        process.says("door-lamp (Deployed) Succeeded")
        commit(work, "another lamp")
        git(work, "push", "--quiet", "origin", "main")
        started = time.monotonic()
        process.says("door-lamp (Deployed)", times=2)
        assert time.monotonic() - started < 2.0
        status = "refs/heads/scriptops-status/default"
        wait_until(lambda: git(bare, "for-each-ref", status), what="results are in git")


def test_edits_that_are_not_committed_are_named_and_not_deployed(work: Path, up: Up) -> None:
    (work / RULE).write_text("function main( {}\n")
    with up(work) as process:
        process.says(f"not committed, so not deployed: {RULE}; commit to deploy")
        process.says("door-lamp (Deployed) Succeeded")


def test_it_is_the_devices_that_move(work: Path, up: Up) -> None:
    with up(work) as process:
        process.says("door-lamp (Deployed) Succeeded")
        page = next(line for line in process.output.splitlines() if line.strip().startswith("Page"))
        web = page.split()[1].rstrip("/")
        ask(f"{web}/api/v1alpha1/webhook?name=door-lamp", method="POST")
        process.says("door-lamp (Webhook) Succeeded")
        devices = {
            o["metadata"]["name"]: {p["name"]: p["reported"] for p in o["properties"]}
            for o in ask(f"{web}/api/v1alpha1/devices")["items"]
        }
        assert devices["hall-lamp"] == {"power": False, "brightness": 0}
        assert devices["living-room-thermometer"]["temperature"] >= 17


def test_a_repository_that_comes_to_nothing_is_told_while_it_stays_up(work: Path, up: Up) -> None:
    git(work, "rm", "--quiet", "-r", "manifests")
    git(work, "commit", "--quiet", "--message", "nothing left")
    with up(work, "--log-format=json") as process:
        process.says('"reason":"EmptySource"')
        told = next(json.loads(x) for x in process.output.splitlines() if "EmptySource" in x)
        assert told["level"] == "warning"
        git(work, "revert", "--no-edit", "HEAD")
        process.says("door-lamp (Deployed) Succeeded")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("ext::sh -c true", "names a transport helper", id="a transport helper"),
        pytest.param("http://example.test/a.git", "uses 'http'", id="plain http"),
        pytest.param("/nowhere/at/all", "there is no folder /nowhere/at/all", id="no folder"),
    ],
)
def test_an_address_that_cannot_work_ends_it_at_once(tmp_path: Path, url: str, words: str) -> None:
    code, said = refused(tmp_path, url)
    assert (code, words in said) == (2, True), said
    assert "Traceback" not in said


def test_a_folder_without_a_repository_ends_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    code, said = refused(tmp_path, str(tmp_path / "plain"))
    assert code == 2
    assert "not a git repository" in said
    assert "Traceback" not in said


def test_a_door_that_others_could_reach_is_refused(work: Path, tmp_path: Path) -> None:
    code, said = refused(tmp_path, str(work), "--web=0.0.0.0:0")
    assert code == 2
    assert "this verb listens on loopback only" in said


def test_a_second_one_on_the_same_data_says_so(work: Path, tmp_path: Path, up: Up) -> None:
    with up(work) as process:
        process.says("stops everything")
        code, said = refused(tmp_path, str(work), *ANYWHERE)
        assert code == 2
        assert "another scriptops writes to" in said
        assert "Traceback" not in said


def test_killed_in_the_middle_of_a_sync_it_deploys_all_at_the_next_start(
    work: Path, tmp_path: Path, up: Up
) -> None:
    """The embedded cluster is as whole after a power cut as an API server's."""
    rule = (work / "manifests/rules/door-lamp.yaml").read_text()
    many = [rule.replace("name: door-lamp\nspec", f"name: lamp-{n:03}\nspec") for n in range(300)]
    (work / "manifests/many.yaml").write_text("\n---\n".join(many))
    git(work, "add", "manifests/many.yaml")
    git(work, "commit", "--quiet", "--message", "many")
    data = tmp_path / "data" / "cluster"
    left = []
    for more in (60_000, 150_000, 200_000):
        size = written(data) + more
        with up(work) as process:
            wait_until(lambda s=size: written(data) >= s, what="it has begun", every=0.001)
            process.signal(signal.SIGKILL)
            process.wait()
        left.append(asyncio.run(scripts_in(data)))
    assert any(0 < count < 302 for count in left), left
    with up(work) as process:
        process.says("stops everything")
        page = next(line for line in process.output.splitlines() if line.strip().startswith("Page"))
        api = f"{page.split()[1].rstrip('/')}/api/v1alpha1/scripts"

        def all_ready() -> bool:
            items = ask(api)["items"]
            return len(items) == 302 and all(
                o["status"].get("conditions", [{}])[0].get("status") == "True" for o in items
            )

        wait_until(all_ready, what="all are ready", every=0.2)


def written(folder: Path) -> int:
    """Bytes that an embedded cluster has on disk."""
    size = 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


async def scripts_in(folder: Path) -> int:
    """Scripts that a cluster whose process was killed still has."""
    cluster = await EmbeddedCluster.open(folder, clock=SystemClock(), read_only=True)
    try:
        return len((await cluster.list_page(SCRIPTS, limit=1000)).items)
    finally:
        await cluster.close()
