"""Following a branch of a server in one conversation: what it costs, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import uvloop

from reconciler.adapters.git import GitMirrors, address, channels, program, wire
from reconciler.errors import SourceInvalid, SourceUnavailable
from reconciler.ports.git import Commit, Remote, Source
from tests.contract.githarness import ROOT, SOON, git_runs, mirrors
from tests.support.gitserver import (
    Repository,
    bad_server,
    git,
    git_daemon,
    git_http,
    make_certificate,
)

REF = "refs/heads/main"
LOGIN = ("robot", "p:ss wörd")


Run = Callable[[Coroutine[None, None, None]], None]


class World(NamedTuple):
    repository: Repository
    remote: Remote
    data: Path
    git: GitMirrors
    # Runs of the git program, since last asked; without the one that is spoken with.
    runs: Callable[[], list[str]]

    @property
    def mirror(self) -> Path:
        [mirror] = [path for path in self.data.iterdir() if path.is_dir()]
        return mirror


@contextlib.contextmanager
def serving_git(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with git_daemon(root) as url:
        yield url, {}


@contextlib.contextmanager
def serving_https(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    make_certificate(root / "tls")
    with git_http(root, tls=root / "tls", login=LOGIN) as url:
        authority = (root / "tls" / "server.crt").read_text()
        yield url, {"username": LOGIN[0], "password": LOGIN[1], "ca.crt": authority}


@contextlib.contextmanager
def serving_files(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    yield str(root), {}


@pytest.fixture(params=[serving_git, serving_https, serving_files])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    repository = Repository(tmp_path / "srv" / "rules", "--bare")
    repository.commit({f"d{n}/rule.yaml": b"rule %d " % n * 50 for n in range(20)})
    runs = git_runs(tmp_path, monkeypatch)
    with request.param(tmp_path / "srv") as (url, secrets), mirrors(tmp_path / "data") as opened:
        remote = Remote(f"{url}/rules", secrets or None)

        def others() -> list[str]:
            return [run for run in runs() if run != "upload-pack"]

        yield World(repository, remote, tmp_path / "data", opened, others)


async def files(source: Source, commit: Commit) -> dict[str, bytes]:
    diff = await source.diff(None, commit.tree, folder=ROOT)
    blobs = await source.read([c.blob for c in diff.changes if c.blob], limit=1 << 24)
    return {str(change.path): blobs[change.blob] for change in diff.changes if change.blob}


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_change_costs_one_run_of_git_and_no_change_none(world: World, run: Run) -> None:
    async def test() -> None:
        source = world.git.source(world.remote)
        await source.fetch("main", timeout=SOON)
        assert world.runs() == ["fetch"]

        assert (await source.fetch("main", timeout=SOON)).id == world.repository.tip()
        assert world.runs() == []

        world.repository.commit({"d7/rule.yaml": b"another\n"})
        assert (await source.fetch("main", timeout=SOON)).id == world.repository.tip()
        assert world.runs() == ["unpack-objects"]

    run(test())


def test_what_is_followed_is_what_the_server_has(world: World) -> None:
    """Edits, removals, many files at once, history that was rewritten and a branch set back."""
    repository = world.repository
    first = repository.tip()

    def edit() -> None:
        repository.commit({"d3/rule.yaml": b"rule 3 " * 49 + b"edited"})

    def remove() -> None:
        repository.commit({"d4/rule.yaml": None, "d5/new": b"5"})

    def add_many() -> None:
        repository.commit({f"more/{n}": b"%d" % n for n in range(150)})

    def rewrite() -> None:
        tree = repository.git("rev-parse", f"{REF}~2^{{tree}}")
        other = repository.git("commit-tree", tree, "-m", "from nothing")
        repository.git("update-ref", REF, other)

    def set_back() -> None:
        repository.git("update-ref", REF, str(first))

    async def test() -> None:
        source = world.git.source(world.remote)
        await source.fetch("main", timeout=SOON)
        world.runs()
        for step in (edit, remove, edit, add_many, rewrite, set_back, edit):
            step()
            commit = await source.fetch("main", timeout=SOON)
            assert commit.id == repository.tip()
            assert await files(source, commit) == repository.files("main")
        assert set(world.runs()) <= {"unpack-objects", "index-pack"}

    asyncio.run(test())
    git(world.mirror, "fsck", "--full", "--strict")
    git(world.mirror, "gc", "--quiet", "--prune=now")
    git(world.mirror, "fsck", "--full", "--strict")


def test_a_push_of_many_megabytes_is_left_to_git(world: World) -> None:
    async def test() -> None:
        source = world.git.source(world.remote)
        await source.fetch("main", timeout=SOON)
        world.runs()
        world.repository.commit({"large": os.urandom(9 << 20)})
        assert (await source.fetch("main", timeout=SOON)).id == world.repository.tip()
        assert world.runs()[-1:] == ["fetch"]
        # That time.
        world.repository.commit({"small": b""})
        assert (await source.fetch("main", timeout=SOON)).id == world.repository.tip()
        assert world.runs() == ["unpack-objects"]

    asyncio.run(test())


def test_a_mirror_that_lost_what_a_pack_builds_upon_is_made_whole(world: World) -> None:
    async def test() -> None:
        source = world.git.source(world.remote)
        await source.fetch("main", timeout=SOON)
        lost = world.repository.git("rev-parse", f"{REF}:d3/rule.yaml")
        _lose(world.mirror, lost)
        world.repository.commit({"d3/rule.yaml": b"rule 3 " * 49 + b"edited"})
        commit = await source.fetch("main", timeout=SOON)
        assert await files(source, commit) == world.repository.files("main")

    asyncio.run(test())


def _lose(mirror: Path, blob: str) -> None:
    """Have all objects lie loose, and one of them not."""
    for pack in [*mirror.glob("objects/pack/*.pack")]:
        moved = pack.rename(mirror / pack.name)
        for rest in mirror.glob("objects/pack/*"):
            rest.unlink()
        git(mirror, "unpack-objects", "-q", stdin=moved.read_bytes())
    (mirror / "objects" / blob[:2] / blob[2:]).unlink()


def unfolding(mebibytes: int) -> bytes:
    """A pack of a megabyte and a difference to it, of which the rest is made by repetition."""

    def number(value: int) -> bytes:
        low, rest = value & 127, value >> 7
        return bytes([low | 128]) + number(rest) if rest else bytes([low])

    def entry(kind: int, data: bytes, base: bytes = b"") -> bytes:
        low, rest = len(data) & 15, len(data) >> 4
        size = bytes([kind << 4 | low | 128]) + number(rest)
        return size + base + zlib.compress(data)

    base = os.urandom(1 << 20)
    # "Copy a mebibyte from the beginning", so many times.
    copies = bytes([0b1100_0000, 0x10]) * mebibytes
    difference = number(1 << 20) + number(mebibytes << 20) + copies
    name = hashlib.sha1(b"blob %d\0" % len(base) + base, usedforsecurity=False).digest()
    pack = b"PACK" + struct.pack(">II", 2, 2) + entry(3, base) + entry(7, difference, name)
    return pack + hashlib.sha1(pack, usedforsecurity=False).digest()


@pytest.mark.parametrize(
    "how", [("unpack-objects", "-q"), ("index-pack", "--stdin", "--fix-thin")], ids=" ".join
)
def test_a_difference_that_unfolds_to_gigabytes_is_never_unfolded(
    tmp_path: Path, how: tuple[str, ...]
) -> None:
    async def take(pack: bytes) -> program.Answer:
        environment = program.isolated({}, {"GIT_DIR": str(tmp_path)})
        return await program.run(how, environment=environment, file_limit=1 << 31, given=pack)

    git(tmp_path, "init", "--quiet", "--bare")
    assert (asyncio.run(take(unfolding(4)))).code == 0
    answer = asyncio.run(take(unfolding(2000)))
    assert (answer.code != 0, answer.is_too_large) == (True, True)


def test_a_branch_that_only_begins_like_ours_is_not_ours(world: World) -> None:
    async def test() -> None:
        source = world.git.source(world.remote)
        await source.fetch("main", timeout=SOON)
        world.repository.git("branch", "--move", "main", "main-two")
        world.repository.git("symbolic-ref", "HEAD", "refs/heads/main-two")
        with pytest.raises(SourceInvalid, match="no branch 'main'"):
            await source.fetch("main", timeout=SOON)

    asyncio.run(test())


def test_a_server_that_is_gone_is_told_in_the_words_of_git(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "srv" / "rules", "--bare")
    repository.commit({"a": b"1"})

    async def test() -> None:
        with mirrors(tmp_path / "data") as opened:
            with git_daemon(tmp_path / "srv") as url:
                source = opened.source(Remote(f"{url}/rules"))
                await source.fetch("main", timeout=SOON)
            with pytest.raises(SourceUnavailable, match="refused"):
                await source.fetch("main", timeout=SOON)

    asyncio.run(test())


def test_a_name_that_no_server_can_have_is_told_in_the_words_of_git(tmp_path: Path) -> None:
    async def test() -> None:
        with mirrors(tmp_path / "data") as opened:
            source = opened.source(Remote(f"git://{'a' * 64}.test/rules"))
            with pytest.raises(SourceUnavailable, match="look up"):
                await source.fetch("main", timeout=SOON)

    asyncio.run(test())


def test_a_silent_server_is_given_up_in_time() -> None:
    async def test(port: int) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await _ask(port)

    with bad_server() as port:
        asyncio.run(test(port))


async def _ask(port: int) -> object:
    async with channels.conversation(
        address.parse(Remote(f"git://127.0.0.1:{port}/rules"))
    ) as server:
        return await server.ask(REF)


def line(data: bytes) -> bytes:
    return b"%04x%s" % (len(data) + 4, data)


def section(*lines: bytes) -> bytes:
    return b"".join(map(line, lines)) + b"0000"


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[int]:
    """A server on a free port; all its talks have ended at the end."""
    talks: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        await talk(reader, writer)
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*(task for task in talks if task is not None))


@asynccontextmanager
async def saying(said: bytes) -> AsyncIterator[int]:
    """A server that says this whatever it is asked."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(said)
            await writer.drain()
            writer.write_eof()
            await reader.read()

    async with serving(talk) as port:
        yield port


GREETING = section(b"version 2\n", b"ls-refs=unborn\n", b"fetch=shallow\n", b"object-format=sha1\n")
OID = b"1" * 40


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        pytest.param([b""], EOFError, id="nothing"),
        pytest.param([b"SSH-2.0-OpenSSH\r\n"], wire.Unspoken, id="another protocol"),
        pytest.param([section(OID + b" HEAD\0multi_ack\n")], wire.Unspoken, id="version 0"),
        pytest.param([b"000eversion 2\n0003"], wire.Unspoken, id="a length that cannot be"),
        pytest.param([b"000eversion 2\n00"], EOFError, id="half a length"),
        pytest.param([b"000eversion 2\n0010ls"], EOFError, id="half a line"),
        pytest.param(
            [section(b"version 2\n", b"ls-refs\n", b"fetch=filter\n")],
            wire.Unspoken,
            id="no shallow fetches",
        ),
        pytest.param(
            [GREETING.replace(b"sha1", b"sha2")], wire.Unspoken, id="other names of objects"
        ),
        pytest.param(
            [b"000eversion 2\n", *([line(b"x" * 60_000)] * 20)],
            wire.Unspoken,
            id="capabilities without end",
        ),
        pytest.param([GREETING, section(b"no refs/heads/main\n")], wire.Unspoken, id="no name"),
        pytest.param(
            [GREETING, *([line(OID + b" refs/heads/main" + b"x" * 60_000)] * 20)],
            wire.Unspoken,
            id="refs without end",
        ),
    ],
)
def test_what_is_not_understood_ends_the_conversation(
    said: Sequence[bytes], ends: type[Exception]
) -> None:
    async def test() -> None:
        async with saying(b"".join(said)) as port, asyncio.timeout(20):
            with pytest.raises(ends):
                await _ask(port)

    asyncio.run(test())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(line(b"ERR upload-pack: not our ref\n"), id="an error"),
        pytest.param(b"0000", id="no pack"),
        pytest.param(
            line(b"packfile\n") + line(b"\3fatal: out of memory"), id="an error meanwhile"
        ),
        pytest.param(
            line(b"packfile\n") + line(b"\1" + b"x" * 60_000) * 200, id="a pack without end"
        ),
    ],
)
def test_a_pack_that_does_not_come_is_not_waited_for(answer: bytes) -> None:
    async def test() -> None:
        async with saying(GREETING + answer) as port, asyncio.timeout(20):
            remote = address.parse(Remote(f"git://127.0.0.1:{port}/rules"))
            with pytest.raises(ConnectionAbortedError):
                async with channels.conversation(remote) as server:
                    await server.fetch("2" * 40, have="1" * 40)

    asyncio.run(test())


@asynccontextmanager
async def old_server(remote: Remote) -> AsyncIterator[Remote]:
    """The same repository from a server to which nobody can say that version 2 is wanted."""
    there = urlsplit(remote.url)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int(await reader.readexactly(4), 16)
        request, _, _ = (await reader.readexactly(length - 4)).partition(b"\0\0")
        back, forth = await asyncio.open_connection(there.hostname, there.port)
        forth.write(line(request + b"\0"))
        await asyncio.gather(pump(reader, forth), pump(back, writer))

    async with serving(relay) as port:
        yield Remote(f"git://127.0.0.1:{port}{there.path}")


@pytest.mark.parametrize("world", [serving_git], indirect=True)
def test_a_server_that_speaks_an_older_version_is_followed_by_git(world: World) -> None:
    async def test() -> None:
        async with old_server(world.remote) as remote:
            source = world.git.source(remote)
            for _ in range(3):
                world.repository.commit({"a": os.urandom(8)})
                commit = await source.fetch("main", timeout=SOON)
                assert commit.id == world.repository.tip()
            assert world.runs() == ["ls-remote", "fetch"] * 3

    asyncio.run(test())


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("git://h/~user/a", id="a home"),
        pytest.param("git://h/a%20b", id="encoded"),
        pytest.param("https://h/a%20b", id="encoded, over https"),
        pytest.param("ssh://u@h/a", id="ssh"),
    ],
)
def test_other_addresses_are_left_to_git(url: str) -> None:
    assert not channels.is_spoken(address.parse(Remote(url)))
