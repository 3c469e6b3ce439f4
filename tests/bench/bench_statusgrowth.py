"""Ten thousand status commits of a hundred Scripts: what is left of them, there and here.

Each commit is what a results interval brings: a tenth of the Scripts have run. The server packs what
it has every thousand commits, with a cruft pack as git has by default since 2.41; what no ref reaches
any more goes when the server prunes, after two weeks unless it is configured otherwise, so both sizes
are told.

A push costs half a dozen processes, which would be most of an hour for ten thousand; here it puts its
objects into the repository itself, one file each, as receive-pack does with so few. All else is what
a controller does.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pygit2
from pygit2.enums import ObjectType

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.git import address as addresses
from reconciler.adapters.git.answers import Push
from reconciler.adapters.git.mirror import Mirror
from reconciler.adapters.git.mirrors import AUTHOR
from reconciler.adapters.git.status import GitStatusRef
from reconciler.adapters.git.transport import DEFAULT_SIZE_LIMIT, Transport
from reconciler.adapters.git.upstream import Upstream
from reconciler.api.meta import Condition
from reconciler.api.script import RunStatus, ScriptStatus
from reconciler.controllers.statuscommits import document
from reconciler.core.objects import ObjectKey
from reconciler.core.statusfiles import status_path
from reconciler.ports.git import Remote, StatusOptions
from tests.bench.bench_statusrefs import PATIENCE, _size
from tests.bench.cluster import git, row

SCRIPTS, RAN, COMMITS = 100, 10, 10_000
STATUS = "scriptops-status/here"
PACKED = 1_000


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="scriptops-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> list[dict[str, Any]]:
    bare = folder / "rules.git"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    (folder / "data").mkdir()
    mirror = Mirror(folder / "data", "rules")
    ref = GitStatusRef(
        Upstream(mirror, _Straight(bare, mirror)),
        f"refs/heads/{STATUS}",
        lock=asyncio.Lock(),
        clock=SystemClock(),
        author=AUTHOR,
        options=StatusOptions(),
        release=mirror.close,
    )
    largest = 0
    started = time.process_time()
    for number in range(COMMITS):
        files = dict(_ran(number))
        assert await ref.push(files, message="results [skip ci]", timeout=PATIENCE)
        if number % 500 == 499:
            largest = max(largest, _size(folder / "data"))
        if number % PACKED == PACKED - 1:
            git(bare, "gc", "--quiet", "--cruft")
            sizes = f"server {_size(bare):,} B, mirror {_size(folder / 'data'):,} B"
            print(f"  {number + 1:,} commits: {sizes}", file=sys.stderr, flush=True)
    print(f"  {time.process_time() - started:.0f} s of our processor", file=sys.stderr)
    ref.close()
    kept = _size(bare)
    git(bare, "gc", "--quiet", "--cruft", "--prune=now")
    pruned = _size(bare)
    commits = len(git(bare, "rev-list", "--all").split())
    print(f"  {commits:,} commits are reachable", file=sys.stderr)
    return [
        _row("repository after 10,000 status commits, pruned", pruned, 10),
        _row("repository after 10,000 status commits, before it prunes", kept, 100),
        _row("mirror of a controller, largest while it wrote them", largest, 100),
    ]


class _Straight(Transport):
    """Pushes without a child process."""

    def __init__(self, bare: Path, mirror: Mirror) -> None:
        remote = Remote(str(bare))
        super().__init__(
            remote,
            addresses.parse(remote, allowed=addresses.PROTOCOLS),
            size_limit=DEFAULT_SIZE_LIMIT,
            secrets_prefix=mirror.secrets_prefix,
        )
        self._bare = pygit2.Repository(str(bare))

    async def push(
        self, commit: str, ref: str, *, expected: str | None, git_dir: Path, fd: int
    ) -> tuple[Push, str]:
        mine = pygit2.Repository(str(git_dir))
        self._put(mine, pygit2.Oid(hex=commit))
        self._put(mine, mine[commit].tree_id)
        held = self._bare.references.get(ref)
        if (str(held.target) if held is not None else None) != expected:
            return Push.MOVED, "stale"
        self._bare.references.create(ref, pygit2.Oid(hex=commit), force=True)
        return Push.LANDED, ""

    def _put(self, mine: pygit2.Repository, oid: pygit2.Oid) -> None:
        """An object, and what it holds, that is not there yet."""
        if oid in self._bare.odb:
            return
        kind, data = mine.odb.read(oid)
        self._bare.odb.write(kind, data)
        if kind == ObjectType.TREE:
            for entry in mine[oid]:
                self._put(mine, entry.id)


def _row(name: str, size: int, target: int) -> dict[str, Any]:
    return row(name, size / 1e6, "MB", reference=None, target=target, absolute=True)


def _ran(number: int) -> dict[PurePosixPath, bytes | None]:
    """All files with the first commit, then a tenth of them in turns."""
    scripts = range(SCRIPTS) if number == 0 else range(number % 10, SCRIPTS, SCRIPTS // RAN)
    files: dict[PurePosixPath, bytes | None] = {}
    for script in scripts:
        key = ObjectKey("team", f"script-{script}")
        files[status_path(key)] = document(key, _status(script, number))
    return files


def _status(script: int, number: int) -> ScriptStatus:
    at = str(timedelta(seconds=30 * number))
    return ScriptStatus(
        observed_generation=1,
        conditions=[
            Condition(
                type="Ready",
                status="True",
                reason="Deployed",
                message="deployed main@sha1:620c5742915f1d4d6e6cf2a9a2a3f0e1b1f0c5aa",
                last_transition_time="2026-11-01T00:00:00Z",
                observed_generation=1,
            )
        ],
        revision="main@sha1:620c5742915f1d4d6e6cf2a9a2a3f0e1b1f0c5aa",
        digest=f"sha256:{script:064x}",
        last_run=RunStatus(
            id=f"{script:08x}-{number:012x}",
            cause="ReadChange",
            outcome="Succeeded",
            finished_at=f"2026-11-01T{at}Z",
            duration_microseconds=400 + number * 7919 % 1_000,
            writes=number % 2,
        ),
        runs=number,
    )
