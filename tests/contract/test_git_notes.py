"""Notes on commits: real git reads them, and whoever else writes them loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

from reconciler.adapters.git import GitMirrors
from reconciler.adapters.git.notes import MAX_NOTE_BYTES
from reconciler.errors import PushRefused, PushRejected, SourceInvalid
from reconciler.ports.git import CommitId, Git, Remote
from tests.contract.githarness import SOON, mirrors, remote_of
from tests.fakes.git import FakeGit
from tests.support.gitserver import Repository, SystemClock, git_daemon

NOTES = "refs/notes/scriptops"
URL = "https://git.example/rules.git"


class World(Protocol):
    git: Git
    remote: Remote

    def commit(self) -> CommitId: ...

    def show(self, commit: CommitId) -> str: ...

    def add(self, commit: CommitId, text: str) -> None:
        """As `git notes append` does, behind an empty line."""
        ...

    def count(self) -> int:
        """Commits on the notes ref."""
        ...

    def refuse(self, words: str) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.git = FakeGit()
        self.remote = Remote(URL)
        self._held = self.git.add(URL)

    def commit(self) -> CommitId:
        return self._held.commit({"a": str(self._held.history("main")).encode()})

    def show(self, commit: CommitId) -> str:
        return self._held.files(NOTES)[commit].decode()

    def add(self, commit: CommitId, text: str) -> None:
        before = self._held.files(NOTES).get(commit, b"")
        between = b"\n" if before else b""
        self._held.commit({commit: before + between + text.encode()}, NOTES)

    def count(self) -> int:
        return self._held.history(NOTES)

    def refuse(self, words: str) -> None:
        self._held.hook = words


class RealWorld:
    def __init__(self, git: Git, remote: Remote, repository: Repository) -> None:
        self.git, self.remote, self.repository = git, remote, repository
        self._made = 0

    def commit(self) -> CommitId:
        self._made += 1
        return CommitId(self.repository.commit({"a": str(self._made).encode()}))

    def show(self, commit: CommitId) -> str:
        return self.repository.git("notes", f"--ref={NOTES}", "show", commit) + "\n"

    def add(self, commit: CommitId, text: str) -> None:
        add(self.repository, commit, text)

    def count(self) -> int:
        return len(self.repository.git("rev-list", NOTES).split())

    def refuse(self, words: str) -> None:
        self.repository.hook("pre-receive", f"echo {words}; exit 1")


def add(repository: Repository, commit: str, text: str) -> None:
    repository.git("notes", f"--ref={NOTES}", "append", "-m", text, commit)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "srv" / "rules", "--bare")


@pytest.fixture(params=["fake", "local path", "git daemon"])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, repository: Repository
) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    opened = GitMirrors(tmp_path / "data", clock=SystemClock())
    if request.param == "local path":
        yield RealWorld(opened, remote_of(repository), repository)
    else:
        with git_daemon(repository.path.parent) as url:
            yield RealWorld(opened, Remote(f"{url}/rules"), repository)
    opened.close()


def put(
    world: World, owner: str, *lines: tuple[CommitId, str], timeout: timedelta = SOON
) -> CommitId | None:
    async def work() -> CommitId | None:
        ref = world.git.notes_ref(world.remote, NOTES)
        made = await ref.put(dict(lines), owner=owner, message="notes", timeout=timeout)
        ref.close()
        return made

    return asyncio.run(work())


def test_each_cluster_has_its_line_and_nobody_loses_theirs(world: World) -> None:
    first, second = world.commit(), world.commit()
    assert put(world, "scriptops a", (first, "pending"))
    world.add(first, "looked at by a person\n")
    assert put(world, "scriptops b", (first, "good"), (second, "bad"))
    world.add(second, "known\n")
    assert put(world, "scriptops a", (first, "good"))
    assert world.show(first) == ("scriptops a: good\n\nlooked at by a person\nscriptops b: good\n")
    assert world.show(second) == "scriptops b: bad\n\nknown\n"
    assert world.count() == 5


def test_what_is_noted_already_is_no_commit(world: World) -> None:
    commit = world.commit()
    assert put(world, "a", (commit, "good"))
    assert put(world, "a", (commit, "good")) is None
    assert world.count() == 1


def test_a_refused_push_says_the_words_of_the_server(world: World) -> None:
    commit = world.commit()
    world.refuse("no notes here")
    with pytest.raises(PushRefused, match=r"refs/notes/scriptops.*no notes here"):
        put(world, "a", (commit, "good"))


@pytest.mark.parametrize("ref", ["refs/heads/main", "scriptops", "refs/notes/", "refs/notes/a..b"])
def test_a_notes_ref_has_to_be_one(world: World, ref: str) -> None:
    with pytest.raises(SourceInvalid):
        world.git.notes_ref(world.remote, ref)


def test_of_clusters_and_a_person_that_note_at_once_nobody_loses_a_line(
    tmp_path: Path, repository: Repository
) -> None:
    """Each with a mirror of its own, as on machines of their own."""
    commits = [CommitId(repository.commit({"a": str(n).encode()})) for n in range(5)]

    async def note(name: str) -> None:
        with mirrors(tmp_path / name) as git:
            ref = git.notes_ref(remote_of(repository), NOTES)
            for number, commit in enumerate(commits):
                while True:
                    try:
                        line = {commit: str(number)}
                        await ref.put(line, owner=name, message="n", timeout=SOON)
                        break
                    except PushRejected:
                        continue

    clone = Repository(tmp_path / "clone", "--bare")

    def person() -> None:
        for commit in commits:
            while True:
                try:
                    clone.git("fetch", "-q", str(repository.path), "+refs/*:refs/*")
                    add(clone, commit, "seen\n")
                    clone.git("push", "-q", str(repository.path), NOTES)
                    break
                except AssertionError:
                    # Somebody was faster.
                    continue

    async def together() -> None:
        await asyncio.gather(asyncio.to_thread(person), *(note(name) for name in "abc"))

    asyncio.run(together())
    for number, commit in enumerate(commits):
        shown = repository.git("notes", f"--ref={NOTES}", "show", commit)
        assert sorted(line for line in shown.splitlines() if line) == [
            *(f"{name}: {number}" for name in "abc"),
            "seen",
        ]


def test_notes_are_found_however_git_has_spread_them(
    tmp_path: Path, repository: Repository
) -> None:
    """Git moves all notes when a person adds one; ours go where the others are, and are found."""
    first, second, third = (CommitId(repository.commit({"a": bytes([n])})) for n in (48, 49, 50))
    world = RealWorld(
        GitMirrors(tmp_path / "data", clock=SystemClock()), remote_of(repository), repository
    )
    for depth in (0, 1, 2):
        parts = [first[2 * n : 2 * n + 2] for n in range(depth)] + [first[2 * depth :]]
        blob = repository.blob(b"by a person\n")
        tree = repository.git("mktree", stdin=f"100644 blob {blob}\t{parts.pop()}\n".encode())
        for part in reversed(parts):
            tree = repository.git("mktree", stdin=f"040000 tree {tree}\t{part}\n".encode())
        made = repository.git("commit-tree", tree, "-m", "spread")
        repository.git("update-ref", NOTES, made)
        assert put(world, "a", (first, "good"), (second, "bad"))
        assert world.show(first) == "by a person\na: good\n"
        assert world.show(second) == "a: bad\n"
        # Git rewrites the tree as it sees fit, and both are there still.
        add(repository, third, "x\n")
        assert world.show(first) == "by a person\na: good\n"
        assert world.show(second) == "a: bad\n"
        assert put(world, "a", (first, "bad"))
        assert world.show(first) == "by a person\na: bad\n"
    world.git.close()


def test_a_note_that_is_no_note_stays_as_it_is(tmp_path: Path, repository: Repository) -> None:
    first, second = (CommitId(repository.commit({"a": bytes([n])})) for n in (48, 49))
    blob = repository.blob(b"x" * (MAX_NOTE_BYTES + 1))
    tree = repository.git("mktree", stdin=f"100644 blob {blob}\t{first}\n".encode())
    repository.git("update-ref", NOTES, repository.git("commit-tree", tree, "-m", "large"))
    world = RealWorld(
        GitMirrors(tmp_path / "data", clock=SystemClock()), remote_of(repository), repository
    )
    assert put(world, "a", (first, "good"), (second, "bad"))
    assert repository.git("rev-parse", f"{NOTES}:{first}") == blob
    assert world.show(second) == "a: bad\n"
    world.git.close()
