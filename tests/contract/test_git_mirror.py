"""The mirror on disk: what it is made from, and what it survives."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.adapters.git import transport
from reconciler.errors import SourceInvalid, SourceUnavailable
from reconciler.ports.git import Remote, TreeDiff
from tests.contract.githarness import ROOT, SOON, STATUS, fetch, mirrors, push, remote_of
from tests.support.gitserver import ENVIRONMENT, Repository, git, git_daemon, wait_until


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "srv" / "rules", "--bare")
    repository.commit({f"d{n}/rule.yaml": b"%d" % n for n in range(20)})
    return repository


def mirror_of(data: Path) -> Path:
    [mirror] = [path for path in data.iterdir() if path.is_dir()]
    return mirror


def test_a_work_tree_and_a_linked_one_are_read(tmp_path: Path) -> None:
    work = Repository(tmp_path / "work")
    work.commit({"a": b"1"})
    work.git("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "linked"))
    (tmp_path / "linked" / "b").write_text("2")
    git(tmp_path / "linked", "add", "b")
    git(tmp_path / "linked", "commit", "--quiet", "-m", "in the linked one")
    linked = Remote(str(tmp_path / "linked"))
    assert fetch(tmp_path / "data", work).id == work.tip("main")
    assert fetch(tmp_path / "data", linked, branch="side").id == work.tip("side")


def test_a_shallow_clone_is_read(tmp_path: Path, repository: Repository) -> None:
    for n in range(3):
        repository.commit({"a": b"%d" % n})
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--bare", "--depth=2", f"file://{repository.path}", "shallow")
    assert fetch(tmp_path / "data", Remote(str(shallow))).id == repository.tip()
    with git_daemon(tmp_path) as url:
        assert fetch(tmp_path / "data", Remote(f"{url}/shallow")).id == repository.tip()


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("how", ["in the first fetch", "in a push"])
def test_what_differs_little_takes_no_more_room_here_than_on_its_way(
    tmp_path: Path, repository: Repository, how: str
) -> None:
    """Kilobytes of differences name gigabytes, each object of which would be a file of its own."""
    base = os.urandom(256 * 1024)
    many = {f"bomb/{n}": base * 8 + b"%d" % n for n in range(40)}
    repository.commit({"base": base})
    with git_daemon(repository.path.parent) as url, mirrors(tmp_path / "data") as opened:
        source = opened.source(Remote(f"{url}/rules"))
        if how == "in a push":
            asyncio.run(source.fetch("main", timeout=SOON))
        repository.commit(many)
        repository.git("gc", "--quiet")
        assert asyncio.run(source.fetch("main", timeout=3 * SOON)).id == repository.tip()
    assert bytes_below(tmp_path / "data") < 8 * 1024**2


def test_a_sha256_repository_is_invalid(tmp_path: Path) -> None:
    other = Repository(tmp_path / "srv" / "rules", "--bare", "--object-format=sha256")
    other.commit({"a": b"1"})
    with git_daemon(other.path.parent) as url:
        for remote in (remote_of(other), Remote(f"{url}/rules")):
            with pytest.raises(SourceInvalid, match="SHA-256"):
                fetch(tmp_path / "data", remote)


def test_rewritten_history_is_followed_and_compared_with_what_was_before(
    tmp_path: Path, repository: Repository
) -> None:
    async def follow() -> TreeDiff:
        with mirrors(tmp_path / "data") as opened:
            source = opened.source(remote_of(repository))
            before = await source.fetch("main", timeout=SOON)
            repository.git("update-ref", "-d", "refs/heads/main")
            with pytest.raises(SourceInvalid, match="empty"):
                await source.fetch("main", timeout=SOON)
            repository.commit({f"d{n}/rule.yaml": b"%d" % n for n in range(19)})
            repository.git("reflog", "expire", "--expire=now", "--all")
            repository.git("gc", "--quiet", "--prune=now")
            after = await source.fetch("main", timeout=SOON)
            return await source.diff(before.tree, after.tree, folder=ROOT)

    found = asyncio.run(follow())
    assert [(str(change.path), change.blob) for change in found.changes] == [
        ("d19/rule.yaml", None)
    ]


def test_a_tree_that_is_no_longer_held_is_told_by_its_reason(
    tmp_path: Path, repository: Repository
) -> None:
    with mirrors(tmp_path / "data") as opened:
        source = opened.source(remote_of(repository))
        new = asyncio.run(source.fetch("main", timeout=SOON)).tree
        with pytest.raises(SourceUnavailable) as caught:
            asyncio.run(source.diff(type(new)("1" * 40), new, folder=ROOT))
    assert caught.value.reason == "RevisionGone"


def empty_an_index(mirror: Path) -> None:
    for path in mirror.glob("objects/pack/*.idx"):
        path.chmod(0o600)
        path.write_bytes(b"")


def cut_the_packs(mirror: Path) -> None:
    for path in mirror.glob("objects/pack/*.pack"):
        path.chmod(0o600)
        os.truncate(path, 20)


def lose_the_head(mirror: Path) -> None:
    (mirror / "HEAD").unlink()


def spoil_the_refs(mirror: Path) -> None:
    for path in mirror.glob("refs/scriptops/**/main"):
        path.write_text("")


def spoil_the_config(mirror: Path) -> None:
    (mirror / "config").write_text("[core\n")


@pytest.mark.parametrize(
    "damage", [empty_an_index, cut_the_packs, lose_the_head, spoil_the_refs, spoil_the_config]
)
def test_a_damaged_mirror_is_replaced(
    tmp_path: Path, repository: Repository, damage: Callable[[Path], None]
) -> None:
    data = tmp_path / "data"
    fetch(data, repository)
    damage(mirror_of(data))

    async def read() -> int:
        with mirrors(data) as opened:
            source = opened.source(remote_of(repository))
            for _ in range(3):
                try:
                    commit = await source.fetch("main", timeout=SOON)
                    found = await source.diff(None, commit.tree, folder=ROOT)
                    blobs = [change.blob for change in found.changes if change.blob]
                    return len(await source.read(blobs, limit=100))
                except SourceUnavailable:
                    continue
        return 0

    assert asyncio.run(read()) == 20


def test_a_damaged_mirror_is_kept_while_the_remote_is_away(
    tmp_path: Path, repository: Repository
) -> None:
    data = tmp_path / "data"

    commit = fetch(data, repository)

    async def read() -> str:
        with mirrors(data) as opened:
            source = opened.source(remote_of(repository))
            [rule] = mirror_of(data).glob("objects/pack/*.idx")
            content = rule.read_bytes()
            rule.chmod(0o600)
            rule.write_bytes(b"")
            with pytest.raises(SourceUnavailable):
                await source.diff(None, commit.tree, folder=ROOT)
            away = repository.path.rename(tmp_path / "away")
            with pytest.raises(SourceInvalid):
                await source.fetch("main", timeout=SOON)
            kept = rule.exists()
            away.rename(repository.path)
            rule.write_bytes(content)
            await source.fetch("main", timeout=SOON)
            return f"{kept} {len((await source.diff(None, commit.tree, folder=ROOT)).changes)}"

    assert asyncio.run(read()) == "True 20"


def test_locks_and_junk_of_a_killed_process_are_nobodys(
    tmp_path: Path, repository: Repository
) -> None:
    data = tmp_path / "data"
    fetch(data, repository)
    mirror = mirror_of(data)
    junk = [
        mirror / "shallow.lock",
        mirror / "packed-refs.lock",
        mirror / "refs/scriptops/current/heads/main.lock",
        mirror / "objects/pack/tmp_pack_x",
        mirror / "objects/11/tmp_obj_x",
        data / f"{mirror.name}.new" / "HEAD",
        data / f"{mirror.name}.secrets-x" / "identity",
    ]
    for path in junk:
        path.parent.mkdir(exist_ok=True)
        path.write_text("junk")
    which = mirror.stat().st_ino
    repository.commit({"a": b"1"})
    assert fetch(data, repository).id == repository.tip()
    assert [path for path in junk if path.exists()] == []
    assert mirror.stat().st_ino == which


def test_another_process_on_the_same_mirror_is_waited_for(
    tmp_path: Path, repository: Repository
) -> None:
    data = tmp_path / "data"
    fetch(data, repository)
    lock = f"{mirror_of(data)}.lock"
    holder = subprocess.Popen(
        ["flock", lock, "sh", "-c", "echo held; cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SourceUnavailable, match="did not answer in full within"):
            fetch(data, repository, timeout=timedelta(seconds=0.2))
    assert fetch(data, repository).id == repository.tip()


def test_a_process_killed_in_the_middle_of_a_fetch_does_no_harm(
    tmp_path: Path, repository: Repository
) -> None:
    data = tmp_path / "data"
    repository.commit({f"f{n}": os.urandom(20_000) for n in range(200)})
    program = (
        "import sys; from pathlib import Path; from tests.contract.githarness import fetch;"
        "from reconciler.ports.git import Remote; fetch(Path(sys.argv[1]), Remote(sys.argv[2]))"
    )
    for wanted in ("objects", "objects/pack/tmp_pack_*", "shallow*"):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(data), str(repository.path)], env=ENVIRONMENT
        )

        def is_there(pattern: str = wanted, child: subprocess.Popen[bytes] = child) -> bool:
            found = data.exists() and any(True for _ in data.glob(f"*/{pattern}"))
            return found or child.poll() is not None

        wait_until(is_there, f"{wanted} is there")
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert fetch(data, repository).id == repository.tip()
    git(mirror_of(data), "fsck", "--connectivity-only")


def test_no_configuration_of_a_user_is_used(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    marker = tmp_path / "marker"
    (home / ".gitconfig").write_text(
        f'[url "/nowhere/"]\n\tinsteadOf = {repository.path.parent}/\n'
        f"[core]\n\tsshCommand = touch {marker}\n\thooksPath = {home}\n"
        f"\tfsmonitor = touch {marker}\n[user]\n\tname = somebody\n"
    )
    for hook in ("pre-push", "reference-transaction"):
        (home / hook).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (home / hook).chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.sshCommand=touch {marker}'")
    assert fetch(tmp_path / "data", repository).id == repository.tip()
    push(tmp_path / "data", repository, "x", b"1")
    assert not marker.exists()
    author = repository.git("log", "-1", "--format=%an <%ae> %s", f"refs/heads/{STATUS}")
    assert author == "scriptops <scriptops@localhost> status [skip ci]"


def test_only_the_branch_is_fetched(tmp_path: Path, repository: Repository) -> None:
    repository.commit({"other": b"1"}, "other")
    repository.git("tag", "v1", "refs/heads/main")
    fetch(tmp_path / "data", repository)
    refs = git(mirror_of(tmp_path / "data"), "for-each-ref", "--format=%(refname)")
    assert refs == "refs/scriptops/current/heads/main"


def test_our_own_data_is_no_repository(tmp_path: Path, repository: Repository) -> None:
    fetch(tmp_path / "data", repository)
    with mirrors(tmp_path / "data") as opened, pytest.raises(SourceInvalid, match="own data"):
        opened.source(Remote(str(mirror_of(tmp_path / "data"))))


def test_a_crowded_mirror_is_packed_and_read_on(tmp_path: Path, repository: Repository) -> None:
    data = tmp_path / "data"

    async def crowd() -> int:
        with mirrors(data) as opened:
            source = opened.source(remote_of(repository))
            ref = opened.status_ref(remote_of(repository), STATUS)
            before = await source.fetch("main", timeout=SOON)
            await ref.push({ROOT / "x": b"1"}, message="m", timeout=SOON)
            folder = mirror_of(data) / "objects" / "17"
            folder.mkdir(exist_ok=True)
            for n in range(30):
                (folder / f"{n:038x}").write_bytes(b"junk")
            await ref.push({ROOT / "x": b"2"}, message="m", timeout=SOON)
            for path in folder.iterdir():
                path.unlink()
            for n in range(30):
                repository.commit({f"n{n}": b"%d" % n})
                await source.fetch("main", timeout=SOON)
            after = await source.fetch("main", timeout=SOON)
            await ref.push({ROOT / "x": b"3"}, message="m", timeout=SOON)
            return len((await source.diff(before.tree, after.tree, folder=ROOT)).changes)

    assert asyncio.run(crowd()) == 30
    assert repository.files(STATUS) == {"x": b"3"}
    assert list(mirror_of(data).glob("objects/pack/*.pack"))


@pytest.mark.parametrize(
    "is_old",
    [
        pytest.param(False, id="git that packs it"),
        pytest.param(True, id="git that gives each of it a file"),
    ],
)
def test_a_mirror_is_not_packed_again_for_what_is_too_young_to_go(
    tmp_path: Path,
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    is_old: bool,  # noqa: FBT001 - of a table
) -> None:
    """However fast statuses are pushed, and however much of what was is young."""
    if is_old:
        monkeypatch.setitem(transport._CONFIG, "gc.cruftPacks", "false")

    def held(pattern: str) -> set[Path]:
        return set((mirror_of(tmp_path / "data") / "objects").glob(pattern))

    def packs() -> set[Path]:
        return held("pack/*.pack")

    def loose() -> int:
        return len(held("??/*"))

    async def write() -> None:
        # Some 500 small files are a crowd then, not 7,000.
        with mirrors(tmp_path / "data", crowded=1) as opened:
            ref = opened.status_ref(remote_of(repository), STATUS)

            async def push(content: str, count: int = 1_000) -> None:
                files = {ROOT / str(n): f"{content} {n}".encode() for n in range(count)}
                assert await ref.push({**files}, message="m", timeout=SOON)

            await push("a")
            await push("b")
            # What was there before is in files of its own, or in one pack.
            assert (loose() > 900) == is_old
            before = packs()
            for number in range(3):
                await push(f"c{number}", 1)
            assert packs() == before
            if not is_old:
                return
            # Time passes, and then it goes.
            hour_ago = time.time() - 3600
            for path in held("**/*"):
                os.utime(path, (hour_ago, hour_ago))
            await push("d")
            assert packs() != before
            assert loose() < 100

    asyncio.run(write())
    assert repository.files(STATUS)["999"] == (b"d 999" if is_old else b"b 999")
