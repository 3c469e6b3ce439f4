"""Runs that are kept until they succeed: what outlives the process, on the fake and on disk."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.adapters.journal import SqliteJournal
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause, Run, RunId, RunKey
from reconciler.errors import Transient
from reconciler.ports.journal import Journal
from tests.fakes.journal import FakeJournal

Reopen = Callable[[], Journal]


def run(run_id: str, *, attempt: int = 1, event: bytes = b"") -> Run:
    return Run(
        key=RunKey(RunId(run_id), attempt, 1),
        script=ObjectKey("default", "lamp-ü"),
        uid="u1",
        cause=Cause.WEBHOOK,
        created_at=1_700_000_000.5,
        devices=frozenset({"b", "a"}),
        event=event,
        is_canary=True,
        depth=3,
        chain=RunId("first"),
    )


@pytest.fixture(params=["fake", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Another process opens what the one before it had closed."""
    opened: list[Journal] = []

    def again() -> Journal:
        if opened:
            opened[-1].close()
        if request.param == "fake":
            last = opened[-1] if opened else None
            opened.append(FakeJournal(last if isinstance(last, FakeJournal) else None))
        else:
            opened.append(SqliteJournal(tmp_path / "journal.db"))
        return opened[-1]

    yield again
    opened[-1].close()


def test_what_was_kept_is_found_in_its_order_and_what_was_dropped_is_not(reopen: Reopen) -> None:
    async def check() -> None:
        journal = reopen()
        for name in "cab":
            await journal.keep(run(name, event=b'{"n": "\xc3\xbc"}'))
        journal.drop(RunId("a"))
        await journal.flush()
        kept = [run(name, event=b'{"n": "\xc3\xbc"}') for name in "cb"]
        assert list(reopen().load()) == kept

    asyncio.run(check())


def test_a_new_attempt_takes_the_place_of_the_one_before(reopen: Reopen) -> None:
    async def check() -> None:
        journal = reopen()
        await journal.keep(run("a"))
        await journal.keep(run("b"))
        await journal.keep(run("a", attempt=2))
        assert list(reopen().load()) == [run("a", attempt=2), run("b")]

    asyncio.run(check())


def test_what_was_dropped_may_be_kept_again(reopen: Reopen) -> None:
    async def check() -> None:
        journal = reopen()
        await journal.keep(run("a"))
        journal.drop(RunId("a"))
        await journal.keep(run("a", attempt=2))
        assert list(reopen().load()) == [run("a", attempt=2)]

    asyncio.run(check())


def test_many_at_once_are_all_kept(reopen: Reopen) -> None:
    async def check() -> None:
        journal = reopen()
        runs = [run(f"r{number}") for number in range(500)]
        await asyncio.gather(*(journal.keep(it) for it in runs))
        assert {it.key.run_id for it in reopen().load()} == {it.key.run_id for it in runs}

    asyncio.run(check())


KEEPER = """
import asyncio, sys
from pathlib import Path
from reconciler.adapters.journal import SqliteJournal
from tests.contract.test_journal import run

async def main():
    journal = SqliteJournal(Path(sys.argv[1]))
    number = 0
    while True:
        await asyncio.gather(*(journal.keep(run(f"r{number + n}")) for n in range(20)))
        number += 20
        print(number, flush=True)

asyncio.run(main())
"""


def test_what_was_kept_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    child = subprocess.Popen([sys.executable, "-c", KEEPER, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    said = [int(child.stdout.readline()) for _ in range(5)][-1]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with closing(SqliteJournal(path)) as journal:
        names = {it.key.run_id for it in journal.load()}
    assert {f"r{number}" for number in range(said)} <= names


def test_damaged_rows_are_left_out_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def fill() -> None:
        with closing(SqliteJournal(path)) as journal:
            await journal.keep(run("good"))

    asyncio.run(fill())
    with closing(sqlite3.connect(path)) as connection, connection:
        for name, data in (("a", b"{"), ("b", b"[]"), ("c", b'{"attempt": "x"}'), ("d", "text")):
            connection.execute(
                "INSERT INTO runs (id, data, event) VALUES (?, ?, X'')", (name, data)
            )
    with closing(SqliteJournal(path)) as journal:
        assert list(journal.load()) == [run("good")]


def test_a_full_disk_refuses_and_what_there_was_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def check() -> None:
        with closing(SqliteJournal(path)) as journal:
            await journal.keep(run("a"))
            await journal.keep(run("b"))
            journal._connection.execute("PRAGMA max_page_count = 10")
            large = replace(run("large"), event=b"1" * 1_000_000)
            journal.drop(RunId("a"))
            with pytest.raises(Transient, match=r"journal\.db cannot be written"):
                await journal.keep(large)
            # What was dropped together with it waits for the next write.
            await journal.keep(run("c"))
        with closing(SqliteJournal(path)) as journal:
            assert list(journal.load()) == [run("b"), run("c")]

    asyncio.run(check())
