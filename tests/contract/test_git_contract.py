"""What controllers may rely on, over the fake and over real repositories alike."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Protocol

import pytest

from reconciler.adapters.git import GitMirrors
from reconciler.errors import PushRefused, SourceInvalid
from reconciler.ports.git import CommitId, FileChange, Git, Refusal, Remote, StatusOptions, TreeDiff
from tests.fakes.git import FakeGit
from tests.support.gitserver import Repository, SystemClock, git_daemon

SOON = timedelta(seconds=20)
ROOT = PurePosixPath()
STATUS = "scriptops-status/edge"
SYMLINK = 0o120000


class World(Protocol):
    """A repository that people write to, and git as controllers see it."""

    git: Git
    remote: Remote

    def commit(
        self,
        files: Mapping[str, bytes | None],
        branch: str = "main",
        message: str = "change",
        *,
        mode: int = 0o100644,
    ) -> str: ...

    def files(self, branch: str) -> dict[str, bytes]: ...

    def history(self, branch: str) -> int: ...

    def delete_branch(self, branch: str) -> None: ...

    def refuse_pushes(self, words: str) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.git: Git = (fake := FakeGit())
        self.remote = Remote("/srv/rules")
        self._remote = fake.add(self.remote.url)
        self.commit = self._remote.commit
        self.files = self._remote.files
        self.history = self._remote.history
        self.delete_branch = self._remote.delete_branch

    def refuse_pushes(self, words: str) -> None:
        self._remote.hook = words


class RealWorld:
    def __init__(self, git: Git, remote: Remote, repository: Repository) -> None:
        self.git = git
        self.remote = remote
        self._repository = repository
        self.commit = repository.commit
        self.files = repository.files

    def history(self, branch: str) -> int:
        return len(self._repository.git("rev-list", f"refs/heads/{branch}", "--").split())

    def delete_branch(self, branch: str) -> None:
        self._repository.git("update-ref", "-d", f"refs/heads/{branch}")

    def refuse_pushes(self, words: str) -> None:
        self._repository.hook("pre-receive", f"echo '{words}' >&2; exit 1")


@pytest.fixture(params=["fake", "local path", "git daemon"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    repository = Repository(tmp_path / "srv" / "rules", "--bare")
    mirrors = GitMirrors(tmp_path / "data", clock=SystemClock())
    if request.param == "local path":
        yield RealWorld(mirrors, Remote(str(repository.path)), repository)
    else:
        with git_daemon(repository.path.parent) as url:
            yield RealWorld(mirrors, Remote(f"{url}/rules"), repository)
    mirrors.close()


def diffs(
    world: World, folder: PurePosixPath, *changes: tuple[Mapping[str, bytes | None], int]
) -> list[TreeDiff]:
    """Commit each change and compare with what was there before; the first with nothing."""

    async def compare() -> list[TreeDiff]:
        source = world.git.source(world.remote)
        found, old = [], None
        for files, mode in changes:
            world.commit(files, mode=mode)
            new = (await source.fetch("main", timeout=SOON)).tree
            found.append(await source.diff(old, new, folder=folder))
            old = new
        source.close()
        return found

    return asyncio.run(compare())


def blob_of(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 - git's own


def written(path: str, data: bytes) -> FileChange:
    return FileChange(PurePosixPath(path), blob_of(data), len(data))


def removed(path: str) -> FileChange:
    return FileChange(PurePosixPath(path), None)


def symlink(path: str) -> Refusal:
    message = f"{path} is a symbolic link; put the file itself in its place"
    return Refusal(path, "SymbolicLink", message)


FILE = 0o100644


def test_fetch_gives_the_tip_of_the_branch(world: World) -> None:
    async def tips() -> list[tuple[str, str]]:
        source = world.git.source(world.remote)
        found: list[tuple[str, str]] = []
        for message in ("first", "second"):
            world.commit({"a": message.encode()}, message=message)
            commit = await source.fetch("main", timeout=SOON)
            found.append((commit.id, commit.message.strip()))
        return found

    (first, first_message), (second, second_message) = asyncio.run(tips())
    assert first != second
    assert (first_message, second_message) == ("first", "second")


def test_diff_lists_what_changed_and_nothing_else(world: World) -> None:
    assert diffs(
        world,
        ROOT,
        ({"a.yaml": b"1", "d/b.yaml": b"2", "d/e/c.yaml": b"3"}, FILE),
        ({"d/e/c.yaml": b"33", "d/b.yaml": None, "z": b"4"}, FILE),
        ({"z": b"4"}, FILE),
    ) == [
        TreeDiff(
            (written("a.yaml", b"1"), written("d/b.yaml", b"2"), written("d/e/c.yaml", b"3")), ()
        ),
        TreeDiff((removed("d/b.yaml"), written("d/e/c.yaml", b"33"), written("z", b"4")), ()),
        TreeDiff((), ()),
    ]


def test_diff_sees_only_what_lies_below_the_folder(world: World) -> None:
    assert diffs(
        world,
        PurePosixPath("apps/one"),
        ({"apps/two/x": b"1"}, FILE),
        ({"apps/one/a": b"1", "apps/one/b/c": b"2"}, FILE),
        ({"apps/one/a": None, "apps/one/b/c": None}, FILE),
    ) == [
        TreeDiff((), ()),
        TreeDiff((written("apps/one/a", b"1"), written("apps/one/b/c", b"2")), ()),
        TreeDiff((removed("apps/one/a"), removed("apps/one/b/c")), ()),
    ]


def test_a_refused_entry_is_told_once_and_removed_when_gone(world: World) -> None:
    assert diffs(
        world,
        ROOT,
        ({"rule.yaml": b"target"}, SYMLINK),
        ({"other.yaml": b"1"}, FILE),
        ({"rule.yaml": b"2"}, FILE),
        ({"rule.yaml": b"target"}, SYMLINK),
        ({"rule.yaml": None}, FILE),
    ) == [
        TreeDiff((), (symlink("rule.yaml"),)),
        TreeDiff((written("other.yaml", b"1"),), ()),
        TreeDiff((removed("rule.yaml"), written("rule.yaml", b"2")), ()),
        TreeDiff((), (symlink("rule.yaml"),)),
        TreeDiff((removed("rule.yaml"),), ()),
    ]


def test_of_case_twins_none_is_read_until_one_is_gone(world: World) -> None:
    first, second, third = diffs(
        world,
        ROOT,
        ({"a.yaml": b"1", "b.yaml": b"1"}, FILE),
        ({"A.yaml": b"2"}, FILE),
        ({"A.yaml": None}, FILE),
    )
    assert first.changes == (written("a.yaml", b"1"), written("b.yaml", b"1"))
    assert second.changes == ()
    assert [(refusal.path, refusal.reason) for refusal in second.refused] == [
        ("A.yaml", "CaseTwins"),
        ("a.yaml", "CaseTwins"),
    ]
    assert third == TreeDiff((removed("A.yaml"), removed("a.yaml"), written("a.yaml", b"1")), ())


def test_a_file_may_become_a_folder_and_back(world: World) -> None:
    assert diffs(
        world,
        ROOT,
        ({"rule": b"1"}, FILE),
        ({"rule": None, "rule/a": b"2"}, FILE),
        ({"rule/a": None, "rule": b"1"}, FILE),
    ) == [
        TreeDiff((written("rule", b"1"),), ()),
        TreeDiff((removed("rule"), written("rule/a", b"2")), ()),
        TreeDiff((removed("rule/a"), written("rule", b"1")), ()),
    ]


def test_read_leaves_out_what_is_over_the_limit(world: World) -> None:
    async def read() -> Mapping[str, bytes]:
        world.commit({"small": b"12345", "large": b"123456"})
        source = world.git.source(world.remote)
        await source.fetch("main", timeout=SOON)
        return await source.read([blob_of(b"12345"), blob_of(b"123456")], limit=5)

    assert asyncio.run(read()) == {blob_of(b"12345"): b"12345"}


def test_has_folder_knows_folders_from_files_and_nothing(world: World) -> None:
    async def ask() -> list[bool]:
        world.commit({"apps/one/rule.yaml": b"1"})
        source = world.git.source(world.remote)
        tree = (await source.fetch("main", timeout=SOON)).tree
        paths = ("apps", "apps/one", "apps/one/rule.yaml", "apps/two", "apps/one/rule.yaml/x")
        return [await source.has_folder(tree, PurePosixPath(path)) for path in paths]

    assert asyncio.run(ask()) == [True, True, False, False, False]


@pytest.mark.parametrize(
    "branch",
    [
        pytest.param("missing", id="no such branch"),
        pytest.param("-x", id="a branch that looks like an option"),
        pytest.param("--upload-pack=touch /tmp/x", id="a branch that is an option"),
        pytest.param("HEAD", id="HEAD"),
        pytest.param("a..b", id="two dots"),
        pytest.param("a:b", id="a refspec"),
        pytest.param("", id="no name"),
    ],
)
def test_fetch_refuses(world: World, branch: str) -> None:
    world.commit({"a": b"1"})
    with pytest.raises(SourceInvalid):
        asyncio.run(world.git.source(world.remote).fetch(branch, timeout=SOON))


def test_an_empty_repository_is_invalid(world: World) -> None:
    with pytest.raises(SourceInvalid):
        asyncio.run(world.git.source(world.remote).fetch("main", timeout=SOON))


def test_push_puts_files_on_top_and_makes_no_commit_for_nothing(world: World) -> None:
    world.commit({"a": b"1"})

    async def push() -> list[bool]:
        ref = world.git.status_ref(world.remote, f"refs/heads/{STATUS}")
        steps: list[dict[str, bytes | None]] = [
            {},
            {"never/there": None},
            {"ns/aa/x.yaml": b"1", "ns/bb/y.yaml": b"2"},
            {"ns/aa/x.yaml": b"1"},
            {"ns/aa/x.yaml": None, "ns/bb/z.yaml": b"3"},
            {"ns/aa/x.yaml": None},
        ]
        made = []
        for step in steps:
            files = {PurePosixPath(path): data for path, data in step.items()}
            made.append(await ref.push(files, message="status", timeout=SOON) is not None)
        ref.close()
        return made

    assert asyncio.run(push()) == [False, False, True, False, True, False]
    assert world.files(STATUS) == {"ns/bb/y.yaml": b"2", "ns/bb/z.yaml": b"3"}


def push_one(world: World, path: str, data: bytes) -> bool:
    async def push() -> bool:
        ref = world.git.status_ref(world.remote, STATUS)
        return await ref.push({PurePosixPath(path): data}, message="s", timeout=SOON) is not None

    return asyncio.run(push())


def test_push_keeps_what_somebody_else_put_there(world: World) -> None:
    push_one(world, "ns/aa/x.yaml", b"1")
    world.commit({"README.md": b"hello"}, STATUS)
    assert push_one(world, "ns/aa/x.yaml", b"2")
    assert world.files(STATUS) == {"README.md": b"hello", "ns/aa/x.yaml": b"2"}


def test_push_of_what_somebody_else_changed_back_is_no_mistake(world: World) -> None:
    push_one(world, "ns/aa/x.yaml", b"1")
    world.commit({"ns/aa/x.yaml": b"tampered"}, STATUS)
    assert push_one(world, "ns/aa/x.yaml", b"1")
    assert world.files(STATUS) == {"ns/aa/x.yaml": b"1"}


def test_a_ref_that_somebody_deleted_is_made_again_with_all_it_held(world: World) -> None:
    push_one(world, "ns/aa/x.yaml", b"1")
    world.delete_branch(STATUS)
    assert push_one(world, "ns/bb/y.yaml", b"2")
    assert world.files(STATUS) == {"ns/aa/x.yaml": b"1", "ns/bb/y.yaml": b"2"}


def test_a_refused_push_says_the_words_of_the_hook(world: World) -> None:
    world.refuse_pushes("only robots may write here")
    with pytest.raises(PushRefused, match="only robots may write here"):
        push_one(world, "ns/aa/x.yaml", b"1")


def test_a_long_history_begins_anew_and_the_last_one_is_kept_beside_it(world: World) -> None:
    async def push() -> list[tuple[int, int]]:
        seen = []
        for number in range(8):
            # Opened anew each time, as after a restart.
            ref = world.git.status_ref(world.remote, STATUS, StatusOptions(history=3))
            files: dict[PurePosixPath, bytes | None] = {PurePosixPath(f"{number}"): b"1"}
            assert await ref.push(files, message="s", timeout=SOON)
            ref.close()
            aside = world.history(f"{STATUS}.1") if number > 2 else 0
            seen.append((world.history(STATUS), aside))
        return seen

    assert asyncio.run(push()) == [
        *((1, 0), (2, 0), (3, 0)),
        *((1, 3), (2, 3), (3, 3)),
        *((1, 3), (2, 3)),
    ]
    assert world.files(STATUS) == {str(number): b"1" for number in range(8)}


@pytest.mark.parametrize(
    ("after", "left", "count"),
    [
        pytest.param({}, {"a": b"1", "f/b": b"1", "gone": b"1"}, 4, id="nothing since"),
        pytest.param(
            {"other": b"9"},
            {"a": b"1", "f/b": b"1", "gone": b"1", "other": b"9"},
            4,
            id="something else since",
        ),
        pytest.param(
            {"a": b"3"}, {"a": b"3", "f/b": b"1", "gone": b"1"}, 3, id="mended in one file"
        ),
        pytest.param({"a": b"1"}, {"a": b"1", "f/b": b"1", "gone": b"1"}, 3, id="taken back there"),
        pytest.param(
            {"f/new": b"4", "gone": b"5"},
            {"a": b"1", "f/b": b"1", "f/new": b"4", "gone": b"5"},
            2,
            id="what was new and what was removed have changed",
        ),
    ],
)
def test_a_revert_puts_back_what_is_still_as_it_was_when_it_was_bad(
    world: World, after: Mapping[str, bytes], left: Mapping[str, bytes], count: int
) -> None:
    world.commit({"a": b"1", "f/b": b"1", "gone": b"1", "elsewhere/x": b"1"})
    left = {**left, "elsewhere/x": b"2"}

    async def revert() -> tuple[int, dict[str, bytes]]:
        source = world.git.source(world.remote)
        good = await source.fetch("main", timeout=SOON)
        await source.keep([good.id], owner="team")
        world.commit({"a": b"2", "f/b": b"2", "f/new": b"2", "gone": None, "elsewhere/x": b"2"})
        bad = await source.fetch("main", timeout=SOON)
        tip = bad
        if after:
            world.commit(after)
            tip = await source.fetch("main", timeout=SOON)
        kept = await source.find(good.id, timeout=SOON)
        found = await source.reverted(
            tip.tree,
            bad=bad.tree,
            good=kept.tree,
            places=[PurePosixPath(name) for name in ("a", "f", "gone", "never")],
        )
        changes = (await source.diff(None, found.tree, folder=ROOT)).changes
        blobs = await source.read([c.blob for c in changes if c.blob], limit=10)
        return found.count, {str(c.path): blobs[c.blob] for c in changes if c.blob}

    assert asyncio.run(revert()) == (count, left)


def test_a_commit_that_nobody_has_is_not_found(world: World) -> None:
    world.commit({"a": b"1"})

    async def look(commit: str) -> None:
        source = world.git.source(world.remote)
        await source.fetch("main", timeout=SOON)
        await source.find(CommitId(commit), timeout=SOON)

    for commit in ("0" * 40, "main", "--upload-pack=x"):
        with pytest.raises(SourceInvalid) as caught:
            asyncio.run(look(commit))
        assert caught.value.reason == "RevisionNotFound"


def test_paths_are_what_the_ref_holds_now(world: World) -> None:
    async def look() -> list[frozenset[PurePosixPath]]:
        ref = world.git.status_ref(world.remote, STATUS)
        seen = [await ref.paths(timeout=SOON)]
        world.commit({"ns/aa/x.yaml": b"1", "README": b"2"}, STATUS)
        seen.append(await ref.paths(timeout=SOON))
        world.delete_branch(STATUS)
        return [*seen, await ref.paths(timeout=SOON)]

    held = frozenset({PurePosixPath("ns/aa/x.yaml"), PurePosixPath("README")})
    assert asyncio.run(look()) == [frozenset(), held, frozenset()]


@pytest.mark.parametrize("ref", ["-x", "refs/heads/a..b", "refs/tags/v1", "a b", "refs/heads/"])
def test_a_status_ref_has_to_be_a_branch(world: World, ref: str) -> None:
    with pytest.raises(SourceInvalid):
        world.git.status_ref(world.remote, ref)
