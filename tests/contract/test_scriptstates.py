"""What Scripts remember: what outlives the process, and what a bad disk does to it."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from reconciler.adapters.scriptstates import SqliteScriptStates
from reconciler.errors import Stalled, Transient
from reconciler.ports.state import ScriptStates
from tests.fakes.scriptstates import FakeScriptStates

ONE, TWO = b'{"count":1}', b'{"count":2}'


@contextmanager
def opened(path: Path) -> Iterator[SqliteScriptStates]:
    with closing(SqliteScriptStates(path)) as states:
        yield states


def loaded(path: Path) -> dict[str, bytes]:
    with opened(path) as states:
        return {uid: states.get(uid) for uid in states.uids()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "states.db"


@pytest.fixture(params=["fake", "sqlite"])
def states(request: pytest.FixtureRequest, path: Path) -> Iterator[ScriptStates]:
    made: Callable[[], ScriptStates] = {
        "fake": FakeScriptStates,
        "sqlite": lambda: SqliteScriptStates(path),
    }[request.param]
    with closing(made()) as it:
        yield it


def test_what_is_kept_is_there_and_what_is_forgotten_is_not(states: ScriptStates) -> None:
    async def check() -> None:
        assert (states.get("a"), states.uids()) == (b"", frozenset())
        await states.keep("a", ONE)
        await states.keep("b", ONE)
        await states.keep("b", TWO)
        assert (states.get("a"), states.get("b"), states.uids()) == (ONE, TWO, {"a", "b"})
        states.forget("a")
        states.forget("unknown")
        await states.flush()
        assert (states.get("a"), states.uids()) == (b"", {"b"})

    asyncio.run(check())


def test_what_is_forgotten_while_it_is_being_kept_stays_forgotten(states: ScriptStates) -> None:
    async def check() -> None:
        keeping = asyncio.create_task(states.keep("a", ONE))
        await asyncio.sleep(0)
        states.forget("a")
        await keeping
        states.forget("a")
        await states.flush()
        assert (states.get("a"), states.uids()) == (b"", frozenset())

    asyncio.run(check())


def test_what_was_kept_is_there_after_a_restart(path: Path) -> None:
    with opened(path) as states:
        asyncio.run(states.keep("a", ONE))
        asyncio.run(states.keep("b", ONE))
        states.forget("b")
    assert loaded(path) == {"a": ONE}


CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from reconciler.adapters.scriptstates import SqliteScriptStates

async def main():
    states = SqliteScriptStates(Path(sys.argv[1]))
    await states.keep("kept", b'{"count":1}')
    await states.keep("overtaken", b'{"count":1}')
    await states.keep("overtaken", b'{"count":2}')
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_kill_loses_nothing_that_was_kept(path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=False
    )
    assert (child.returncode, child.stderr) == (-signal.SIGKILL, "")
    assert loaded(path) == {"kept": ONE, "overtaken": TWO}


def test_many_at_once_are_all_kept(path: Path) -> None:
    async def many(states: SqliteScriptStates) -> None:
        await asyncio.gather(*(states.keep(f"uid-{n}", ONE) for n in range(200)))

    with opened(path) as states:
        asyncio.run(many(states))
    assert loaded(path) == {f"uid-{n}": ONE for n in range(200)}


def test_what_the_disk_refuses_is_as_it_was_and_what_was_to_go_goes_later(path: Path) -> None:
    async def check(states: SqliteScriptStates) -> None:
        await states.keep("a", ONE)
        await states.keep("gone", ONE)
        states._connection.execute("PRAGMA query_only = ON")  # as a full disk answers
        states.forget("gone")
        with pytest.raises(Transient, match="cannot be written"):
            await states.keep("a", TWO)
        with pytest.raises(Transient, match="cannot be written"):
            await states.flush()
        assert (states.get("a"), states.uids()) == (ONE, {"a"})
        states._connection.execute("PRAGMA query_only = OFF")
        await states.flush()

    with opened(path) as states:
        asyncio.run(check(states))
    assert loaded(path) == {"a": ONE}


def test_a_damaged_file_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 500)
    assert loaded(path) == {}
    assert path.with_name("states.db.damaged").read_bytes().startswith(b"no database")


def test_a_row_that_is_no_state_is_left_out(path: Path) -> None:
    with opened(path) as states:
        asyncio.run(states.keep("good", ONE))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO states VALUES ('bad', 5)")
    assert loaded(path) == {"good": ONE}


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    loaded(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(Stalled, match=r"newer scriptops \(schema 2, this one knows 1\)"):
        SqliteScriptStates(path)
