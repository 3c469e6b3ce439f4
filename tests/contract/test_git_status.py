"""Pushing status against others who push, servers that refuse, and death at any moment."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from reconciler.core.objects import ObjectKey
from reconciler.core.statusfiles import status_path
from reconciler.errors import PushRefused, PushRejected, SourceInvalid
from reconciler.ports.git import Remote, StatusOptions
from tests.contract.githarness import ROOT, SOON, STATUS, git_runs, mirrors, push, remote_of
from tests.support.gitserver import ENVIRONMENT, Repository, git_daemon, wait_until


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "srv" / "rules", "--bare")


@pytest.fixture(params=["a local path", "a server"])
def remote(request: pytest.FixtureRequest, repository: Repository) -> Iterator[Remote]:
    if request.param == "a local path":
        yield remote_of(repository)
        return
    with git_daemon(repository.path.parent) as url:
        yield Remote(f"{url}/rules")


def test_of_two_writers_and_a_person_nobody_loses_a_commit(
    tmp_path: Path, remote: Remote, repository: Repository
) -> None:
    async def write(name: str) -> list[str]:
        with mirrors(tmp_path / name) as git:
            ref = git.status_ref(remote, STATUS)
            made: list[str] = []
            while len(made) < 20:
                try:
                    files = {PurePosixPath(f"{name}/{len(made)}"): b"1"}
                    commit = await ref.push(files, message=name, timeout=SOON)
                except PushRejected:
                    continue
                assert commit is not None
                made.append(commit)
                if name == "one" and len(made) % 5 == 0:
                    await asyncio.to_thread(
                        repository.git,
                        "push",
                        "-q",
                        ".",
                        f"{_person(repository)}:refs/heads/{STATUS}",
                    )
            return made

    async def both() -> tuple[list[str], list[str]]:
        return await asyncio.gather(write("one"), write("two"))

    one, two = asyncio.run(both())
    history = set(repository.git("rev-list", STATUS).split())
    assert {*one, *two} <= history
    files = repository.files(STATUS)
    assert {path for path in files if "/" in path} == {
        f"{name}/{n}" for name in ("one", "two") for n in range(20)
    }


def _person(repository: Repository) -> str:
    """A commit on top of the status ref, as somebody with a clone would push it."""
    tip = repository.tip(STATUS)
    assert tip is not None
    return repository.git("commit-tree", f"{tip}^{{tree}}", "-p", tip, "-m", "a person")


def test_two_refs_of_one_place_take_turns(tmp_path: Path, repository: Repository) -> None:
    async def together() -> None:
        with mirrors(tmp_path / "data") as git:
            refs = [git.status_ref(remote_of(repository), STATUS) for _ in range(2)]
            await asyncio.gather(
                *(
                    refs[n % 2].push({ROOT / str(n): b"1"}, message="m", timeout=SOON)
                    for n in range(10)
                )
            )

    asyncio.run(together())
    assert len(repository.git("rev-list", f"refs/heads/{STATUS}").split()) == 10


def test_signed_commits_are_verified_by_git_itself(tmp_path: Path, repository: Repository) -> None:
    key = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True
    )
    signers = tmp_path / "signers"
    signers.write_text(f"status@here {key.with_suffix('.pub').read_text()}")

    async def sign(options: StatusOptions, folder: str) -> None:
        with mirrors(tmp_path / "data") as git:
            ref = git.status_ref(remote_of(repository), STATUS, options)
            for number in range(2):
                files = {ROOT / folder / str(number): b"1"}
                assert await ref.push(files, message="m [skip ci]", timeout=SOON)

    asyncio.run(sign(StatusOptions(signing_key=key.read_text()), "good"))
    for commit in repository.git("rev-list", f"refs/heads/{STATUS}").split():
        repository.git("-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", commit)
    assert not list((tmp_path / "data").rglob(".sign-*"))
    with pytest.raises(SourceInvalid, match=r"cannot sign .*without a passphrase"):
        asyncio.run(sign(StatusOptions(signing_key="no key"), "bad"))


def test_a_history_begins_anew_only_where_the_old_one_can_be_kept(
    tmp_path: Path, repository: Repository
) -> None:
    repository.hook("update", "case $1 in *.1) echo protected; exit 1;; esac")
    for number in range(4):
        assert push(tmp_path / "data", repository, str(number), b"1", StatusOptions(history=2))
    assert len(repository.git("rev-list", f"refs/heads/{STATUS}").split()) == 4


def test_a_ref_that_never_holds_still_is_given_up_after_some_attempts(
    tmp_path: Path, repository: Repository
) -> None:
    repository.hook("update", "echo x >> attempts")
    # Somebody is always just about to write it.
    lock = repository.path / "refs" / "heads" / f"{STATUS}.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("")
    with pytest.raises(PushRejected, match="5 attempts"):
        push(tmp_path / "data", repository, "x", b"1")
    assert (repository.path / "attempts").read_text().count("x") == 5
    lock.unlink()
    assert push(tmp_path / "data", repository, "x", b"1")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        pytest.param(("pre-receive", "echo no entry >&2; exit 1"), "no entry", id="pre-receive"),
        pytest.param(("update", "echo GH006: protected >&2; exit 1"), "GH006", id="protected"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_the_server(
    tmp_path: Path, remote: Remote, repository: Repository, setting: tuple[str, str], words: str
) -> None:
    repository.hook(*setting)
    with pytest.raises(PushRefused, match=words):
        push(tmp_path / "data", remote, "x", b"1")
    assert repository.tip(STATUS) is None


def test_a_hook_that_talks_without_end_is_cut_short(tmp_path: Path, repository: Repository) -> None:
    repository.hook("pre-receive", "yes https://u:password@h/ | head -c 3000000 >&2; exit 1")
    with pytest.raises(PushRefused) as caught:
        push(tmp_path / "data", repository, "x", b"1")
    assert len(str(caught.value)) < 1000
    assert "password" not in str(caught.value)


def test_a_branch_in_the_way_of_the_ref_is_for_a_person(
    tmp_path: Path, remote: Remote, repository: Repository
) -> None:
    repository.commit({"a": b"1"}, STATUS.partition("/")[0])
    with pytest.raises(PushRefused, match="scriptops-status"):
        push(tmp_path / "data", remote, "x", b"1")


def test_the_checked_out_branch_of_a_work_tree_is_not_pushed_to(tmp_path: Path) -> None:
    work = Repository(tmp_path / "work")
    work.commit({"a": b"1"}, STATUS)
    work.git("checkout", "--quiet", STATUS)
    with pytest.raises(PushRefused, match="checked out"):
        push(tmp_path / "data", work, "x", b"1")


def test_a_server_without_push_options_is_asked_once_only(
    tmp_path: Path, remote: Remote, repository: Repository
) -> None:
    repository.git("config", "receive.advertisePushOptions", "false")
    assert push(tmp_path / "data", remote, "x", b"1")


def test_a_repository_on_this_machine_is_pushed_to_once_with_and_without_push_options(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = git_runs(tmp_path, monkeypatch)
    push(tmp_path / "data", repository, "x", b"1")
    repository.git("config", "--unset", "receive.advertisePushOptions")
    push(tmp_path / "data", repository, "x", b"2")
    assert runs() == ["push", "push"]


def test_the_option_that_skips_pipelines_is_sent(tmp_path: Path, repository: Repository) -> None:
    repository.hook("pre-receive", 'echo "$GIT_PUSH_OPTION_COUNT $GIT_PUSH_OPTION_0" > options')
    push(tmp_path / "data", repository, "x", b"1")
    assert (repository.path / "options").read_text() == "1 ci.skip\n"


def test_a_ref_that_was_set_back_is_built_upon(
    tmp_path: Path, remote: Remote, repository: Repository
) -> None:
    first = push(tmp_path / "data", remote, "x", b"1")
    push(tmp_path / "data", remote, "y", b"1")
    repository.git("update-ref", f"refs/heads/{STATUS}", str(first))
    assert push(tmp_path / "data", remote, "z", b"1")
    assert repository.files(STATUS) == {"x": b"1", "z": b"1"}


def test_a_writer_with_an_old_mirror_does_not_take_it_for_the_truth(
    tmp_path: Path, remote: Remote, repository: Repository
) -> None:
    push(tmp_path / "one", remote, "x", b"1")
    push(tmp_path / "two", remote, "x", b"2")
    assert push(tmp_path / "one", remote, "x", b"1")
    assert repository.files(STATUS) == {"x": b"1"}


def test_a_writer_killed_at_any_moment_leaves_the_ref_whole(
    tmp_path: Path, repository: Repository
) -> None:
    program = (
        "import sys, itertools; from pathlib import Path;"
        "from tests.contract.githarness import push; from reconciler.ports.git import Remote\n"
        "for n in itertools.count(): push(Path(sys.argv[1]), Remote(sys.argv[2]), f'f/{n}', b'1')"
    )
    for attempt in range(6):
        before = repository.tip(STATUS)
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "data"), str(repository.path)],
            env={**ENVIRONMENT, "PYTHONHASHSEED": str(attempt)},
        )

        def has_pushed(before: str | None = before) -> bool:
            return repository.tip(STATUS) != before

        wait_until(has_pushed, "something is pushed", seconds=30)
        # Other moments of the next push each time.
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=0.007 * attempt)
        child.send_signal(signal.SIGKILL)
        child.wait()
        push(tmp_path / "data", repository, f"g/{attempt}", b"1")
        repository.git("fsck", "--strict", "--no-dangling")
    names = {path for path in repository.files(STATUS) if path.startswith("g/")}
    assert names == {f"g/{attempt}" for attempt in range(6)}


def test_a_commit_costs_by_what_changed_and_not_by_the_number_of_scripts(
    tmp_path: Path, repository: Repository
) -> None:
    keys = [ObjectKey("default", f"script-{n:05}") for n in range(10_000)]

    async def write() -> None:
        with mirrors(tmp_path / "data") as git:
            ref = git.status_ref(remote_of(repository), STATUS)
            everything = {status_path(key): str(key).encode() for key in keys}
            await ref.push(everything, message="all", timeout=SOON)
            await ref.push({status_path(keys[7]): b"new"}, message="one", timeout=SOON)

    asyncio.run(write())
    new = repository.git("rev-list", "--objects", "--disk-usage", f"{STATUS}~1..{STATUS}")
    assert int(new) < 20_000


def test_ref_names_and_places_are_judged_before_git_sees_them(tmp_path: Path) -> None:
    with mirrors(tmp_path) as git, pytest.raises(SourceInvalid):
        git.status_ref(Remote("ext::sh -c true"), STATUS)


def test_a_push_that_is_cancelled_leaves_no_lock_in_the_repository(
    tmp_path: Path, repository: Repository
) -> None:
    """Git calls this hook while it holds the lock of the ref; it must not outlive its caller."""
    held = repository.path / "held"
    repository.hook("reference-transaction", f"[ $1 = prepared ] && touch {held} && sleep 60")

    async def cancel() -> None:
        with mirrors(tmp_path / "data") as git:
            ref = git.status_ref(remote_of(repository), STATUS)
            push = ref.push({PurePosixPath("a"): b"1"}, message="a", timeout=SOON)
            task = asyncio.create_task(push)
            await asyncio.to_thread(wait_until, held.exists, "the lock is held")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    assert list(repository.path.rglob("*.lock")) == []
    (repository.path / "hooks" / "reference-transaction").unlink()
    assert push(tmp_path / "other", repository, "a", b"1") is not None
