"""Fifty clusters that commit status to one repository, each to its own ref, while people push.

Each writer has a mirror of its own, as a controller on another machine would; the branch that is
deployed is force-pushed without a pause meanwhile. What is counted is one push, from the wish to
the server's answer, with all that it waits for.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.git import GitMirrors
from reconciler.core.objects import ObjectKey
from reconciler.core.statusfiles import status_path
from reconciler.ports.git import Remote, StatusOptions
from tests.bench.cluster import git, row

CLUSTERS, PUSHES = 50, 10
SCRIPTS, COMMITS = 10_000, 300
PATIENCE = timedelta(seconds=60)


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="scriptops-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> list[dict[str, Any]]:
    bare = folder / "rules.git"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    with ExitStack() as stack:
        opened = [GitMirrors(folder / f"{n}", clock=SystemClock()) for n in range(CLUSTERS)]
        for mirrors in opened:
            stack.callback(mirrors.close)
        person = asyncio.create_task(
            asyncio.to_thread(_force_push, folder, bare, stop := threading.Event())
        )
        took = sorted(
            seconds
            for seconds_of_one in await asyncio.gather(
                *(_write(mirrors, bare, f"cluster-{n}") for n, mirrors in enumerate(opened))
            )
            for seconds in seconds_of_one
        )
        stop.set()
        pushed = await person
    for n in range(CLUSTERS):
        held = git(bare, "ls-tree", "-r", "--name-only", f"scriptops-status/cluster-{n}").split()
        assert len(held) == PUSHES, f"lost: cluster-{n} has {len(held)} files"
    assert pushed
    growth = await _growth(folder)
    p99 = took[int(len(took) * 0.99) - 1]
    return [
        row(
            "status push, 50 clusters at once: p99",
            p99,
            "s",
            reference=None,
            target=3.0,
            absolute=True,
        ),
        row(
            "repository per status commit, 10,000 Scripts",
            growth,
            "KB",
            reference=None,
            target=25,
            absolute=True,
        ),
    ]


async def _write(mirrors: GitMirrors, bare: Path, cluster: str) -> list[float]:
    ref = mirrors.status_ref(Remote(str(bare)), f"scriptops-status/{cluster}")
    took = []
    for number in range(PUSHES):
        path = status_path(ObjectKey("team", f"script-{number}"))
        started = time.perf_counter()
        assert await ref.push(
            {path: cluster.encode()}, message="status [skip ci]", timeout=PATIENCE
        )
        took.append(time.perf_counter() - started)
    ref.close()
    return took


def _force_push(folder: Path, bare: Path, stop: threading.Event) -> int:
    """Push one history over another until told to stop; how often."""
    work = folder / "work"
    git(folder, "init", "--quiet", "--initial-branch=main", str(work))
    count = 0
    while not stop.is_set():
        count += 1
        git(
            work,
            "commit",
            "--quiet",
            "--allow-empty",
            "--amend" if count > 1 else "--no-edit",
            "-m",
            f"{count}",
        )
        git(work, "push", "--quiet", "--force", str(bare), "main")
    return count


async def _growth(folder: Path) -> float:
    """What one status commit of one Script adds to a repository that holds 10,000, in KB."""
    bare = folder / "large.git"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    mirrors = GitMirrors(folder / "large", clock=SystemClock())
    ref = mirrors.status_ref(
        Remote(str(bare)), "scriptops-status/here", StatusOptions(history=COMMITS * 2)
    )
    paths = [status_path(ObjectKey("team", f"script-{n:05d}")) for n in range(SCRIPTS)]
    files: dict[PurePosixPath, bytes | None] = {path: f"{path}\n".encode() * 12 for path in paths}
    await ref.push(files, message="all [skip ci]", timeout=PATIENCE)
    before = _size(bare)
    for number in range(COMMITS):
        path = paths[number * 7 % SCRIPTS]
        await ref.push(
            {path: f"{number} {path}\n".encode() * 12}, message="one [skip ci]", timeout=PATIENCE
        )
    mirrors.close()
    return (_size(bare) - before) / COMMITS / 1_000


def _size(bare: Path) -> int:
    return int(
        subprocess.check_output(["du", "-s", "--apparent-size", "-B1", str(bare)]).split()[0]
    )
