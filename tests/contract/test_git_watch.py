"""Wake-ups from repositories on this machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from reconciler.ports.git import Remote
from tests.contract.githarness import ROOT, SOON, STATUS, mirrors
from tests.support.gitserver import Repository, git


async def woken(
    data: Path, remote: Remote, branch: str, act: Callable[[], Awaitable[object]], patience: float
) -> float | None:
    """Seconds from the end of `act` to the wake-up; None if none comes within `patience`."""
    with mirrors(data) as git:
        changes = git.source(remote).changes(branch)
        await anext(changes)
        waiting = asyncio.ensure_future(anext(changes))
        await act()
        start = time.monotonic()
        done, _ = await asyncio.wait({waiting}, timeout=patience)
        took = time.monotonic() - start
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return took if done else None


def commit(repository: Repository, branch: str) -> Callable[[], Awaitable[object]]:
    return lambda: asyncio.to_thread(repository.commit, {"b": b"2"}, branch)


@pytest.mark.parametrize("branch", ["main", "team/feature"])
@pytest.mark.parametrize("layout", ["bare", "work tree", "linked work tree"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_commit_is_seen_at_once(
    tmp_path: Path, branch: str, layout: str, *, packed: bool
) -> None:
    repository = Repository(tmp_path / "rules", *(["--bare"] if layout == "bare" else []))
    repository.commit({"a": b"1"}, branch)
    if layout == "linked work tree":
        git(repository.path, "worktree", "add", "--quiet", "--detach", str(tmp_path / "x"), branch)
    if packed:
        repository.git("pack-refs", "--all")
    path = tmp_path / "x" if layout == "linked work tree" else repository.path
    took = asyncio.run(
        woken(tmp_path / "data", Remote(str(path)), branch, commit(repository, branch), 5)
    )
    assert took is not None
    # 15 ms on an idle machine; well under any interval of polling on a busy one.
    assert took < 1


def test_other_branches_and_our_own_pushes_wake_nobody(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "rules", "--bare")
    repository.commit({"a": b"1"})

    async def push() -> None:
        with mirrors(tmp_path / "other") as opened:
            ref = opened.status_ref(Remote(str(repository.path)), STATUS)
            await ref.push({ROOT / "x": b"1"}, message="m", timeout=SOON)
        await commit(repository, "side")()

    remote = Remote(str(repository.path))
    assert asyncio.run(woken(tmp_path / "data", remote, "main", push, 0.3)) is None


@pytest.mark.parametrize("url", ["git://example.test/x", "{tmp}/missing"])
def test_what_cannot_be_watched_never_wakes_and_can_be_left(tmp_path: Path, url: str) -> None:
    async def wait() -> bool:
        with mirrors(tmp_path / "data") as opened:
            changes = opened.source(Remote(url.format(tmp=tmp_path))).changes("main")
            waiting = asyncio.ensure_future(anext(changes))
            done, _ = await asyncio.wait({waiting}, timeout=0.1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            return bool(done)

    assert asyncio.run(wait()) is False
