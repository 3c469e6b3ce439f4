"""What the tests of the real adapter share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path, PurePosixPath

import pytest

from reconciler.adapters.git import GitMirrors
from reconciler.adapters.git.transport import DEFAULT_SIZE_LIMIT
from reconciler.ports.git import DEFAULT_STATUS_OPTIONS, Commit, CommitId, Remote, StatusOptions
from tests.support.gitserver import Repository, SystemClock

SOON = timedelta(seconds=20)
ROOT = PurePosixPath()
STATUS = "scriptops-status/edge"


@contextlib.contextmanager
def mirrors(folder: Path, **limits: int) -> Iterator[GitMirrors]:
    opened = GitMirrors(folder, clock=SystemClock(), **limits)
    try:
        yield opened
    finally:
        opened.close()


def fetch(
    data: Path,
    remote: Remote | Repository,
    *,
    branch: str = "main",
    timeout: timedelta = SOON,
    size_limit: int = DEFAULT_SIZE_LIMIT,
) -> Commit:
    """One fetch, as a process that starts, fetches and ends would do it."""
    with mirrors(data, size_limit=size_limit) as git:
        source = git.source(remote_of(remote))
        return asyncio.run(source.fetch(branch, timeout=timeout))


def push(
    data: Path,
    remote: Remote | Repository,
    path: str,
    content: bytes,
    options: StatusOptions = DEFAULT_STATUS_OPTIONS,
    *,
    timeout: timedelta = SOON,
) -> CommitId | None:
    """One push, as a process of its own would do it."""
    with mirrors(data) as git:
        ref = git.status_ref(remote_of(remote), STATUS, options)
        files = {PurePosixPath(path): content}
        return asyncio.run(ref.push(files, message="status [skip ci]", timeout=timeout))


def remote_of(remote: Remote | Repository) -> Remote:
    return Remote(str(remote.path)) if isinstance(remote, Repository) else remote


def git_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Has every run of the git program by the adapter noted; what they were, since last asked."""
    log = folder / "runs"
    wrapper = folder / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$1" >> {log}\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")

    def runs() -> list[str]:
        said = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return said

    return runs
