"""Runs that are kept until they are done: what outlives the process, on the fake, on disk and in JetStream."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqliteJournal
from reconciler.adapters.nats import JetStreamJournal, Nats
from reconciler.api.script import Qos
from reconciler.core.deliveries import Delivery, Stage
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause, LogLine, Outcome, Run, RunId, RunKey, RunResult, Write
from reconciler.errors import Fenced, Transient
from reconciler.ports.journal import RETENTION, Journal
from tests.fakes.clock import FakeClock
from tests.fakes.journal import FakeJournal
from tests.support.natsserver import nats_server

# Opens a journal as another process would, when the one before it is closed, and claims its shard.
Reopen = Callable[[], Awaitable[Journal]]
Check = Callable[[Reopen], Coroutine[None, None, None]]
Journals = Callable[[], AbstractAsyncContextManager[Reopen]]


def shard_of(namespace: str) -> int:
    return 1 if namespace == "other" else 0


def run(run_id: str, *, attempt: int = 1, epoch: int = 9, event: bytes = b"") -> Run:
    return Run(
        key=RunKey(RunId(run_id), attempt, epoch),
        script=ObjectKey("default", "lamp-ü"),
        uid="u1",
        cause=Cause.WEBHOOK,
        created_at=1_700_000_000.5,
        devices=frozenset({"b", "a"}),
        event=event,
        is_canary=True,
        depth=3,
        chain=RunId("first"),
        qos=Qos.ONLY_ONCE,
    )


def kept(run_id: str, *, attempt: int = 1, epoch: int = 9, event: bytes = b"") -> Delivery:
    return Delivery(run=run(run_id, attempt=attempt, epoch=epoch, event=event))


def accepted(run_id: str, value: str = "on") -> Delivery:
    it = run(run_id)
    result = RunResult(
        key=it.key,
        outcome=Outcome.SUCCEEDED,
        logs=(LogLine("info", "ü"),),
        writes=(Write("fan", "state", value), Write("fan", "speed", 3, qos=1, force=True)),
        state=b'{"n": 1}',
    )
    return Delivery(run=it, stage=Stage.ACCEPTED, result=result)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def nats_url(tmp_path: Path) -> Iterator[str]:
    with nats_server(tmp_path / "nats") as server:
        yield server.url


@pytest.fixture(params=["fake", "sqlite", "jetstream"])
def journals(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Journals:
    @asynccontextmanager
    async def journals() -> AsyncIterator[Reopen]:
        opened: list[Journal] = []
        stack = AsyncExitStack()

        async def again() -> Journal:
            last = opened[-1] if opened else None
            if last is not None:
                await last.close()
            if request.param == "fake":
                before = last if isinstance(last, FakeJournal) else None
                opened.append(FakeJournal(before, clock=clock, shard_of=shard_of))
            elif request.param == "jetstream":
                url = str(request.getfixturevalue("nats_url"))
                opened.append(await on_nats(stack, url, clock))
            else:
                path = tmp_path / "journal.db"
                opened.append(SqliteJournal(path, clock=clock, shard_of=shard_of))
            await opened[-1].claim(0)
            await opened[-1].load(0)
            return opened[-1]

        try:
            yield again
        finally:
            await opened[-1].close()
            await stack.aclose()

    return journals


async def on_nats(stack: AsyncExitStack, url: str, clock: FakeClock) -> JetStreamJournal:
    nats = await Nats.connect(url)
    stack.push_async_callback(nats.close)
    return await JetStreamJournal.open(nats, clock=clock, shards=2, shard_of=shard_of)


def with_journal(journals: Journals, check: Check) -> None:
    async def do() -> None:
        async with journals() as reopen:
            await check(reopen)

    asyncio.run(do())


def test_what_was_kept_is_found_in_its_order_and_what_was_dropped_is_not(
    journals: Journals,
) -> None:
    async def check(reopen: Reopen) -> None:
        journal = await reopen()
        for name in "cab":
            await journal.keep(kept(name, event=b'{"n": "\xc3\xbc"}'))
        journal.drop(RunId("a"))
        await journal.flush()
        assert list(await (await reopen()).load(0)) == [
            kept(name, event=b'{"n": "\xc3\xbc"}') for name in "cb"
        ]

    with_journal(journals, check)


def test_a_new_attempt_takes_the_place_of_the_one_before(journals: Journals) -> None:
    async def check(reopen: Reopen) -> None:
        journal = await reopen()
        await journal.keep(kept("a", event=b"1"))
        await journal.keep(kept("b"))
        await journal.keep(kept("a", attempt=2, event=b"1"))
        assert list(await (await reopen()).load(0)) == [kept("a", attempt=2, event=b"1"), kept("b")]

    with_journal(journals, check)


def test_what_was_dropped_may_be_kept_again(journals: Journals) -> None:
    async def check(reopen: Reopen) -> None:
        journal = await reopen()
        await journal.keep(kept("a"))
        journal.drop(RunId("a"))
        await journal.keep(kept("a", attempt=2))
        assert list(await (await reopen()).load(0)) == [kept("a", attempt=2)]

    with_journal(journals, check)


def test_many_at_once_are_all_kept(journals: Journals) -> None:
    async def check(reopen: Reopen) -> None:
        journal = await reopen()
        every = [kept(f"r{number}") for number in range(500)]
        await asyncio.gather(*(journal.keep(it) for it in every))
        found = await (await reopen()).load(0)
        assert {it.run.key.run_id for it in found} == {it.run.key.run_id for it in every}

    with_journal(journals, check)


def test_of_two_outcomes_of_a_run_the_first_is_accepted_also_by_who_comes_later(
    journals: Journals,
) -> None:
    async def check(reopen: Reopen) -> None:
        journal = await reopen()
        await journal.keep(kept("a"))
        assert await journal.accept(accepted("a", "on")) == accepted("a", "on")
        assert await journal.accept(accepted("a", "off")) == accepted("a", "on")
        later = await reopen()
        assert list(await later.load(0)) == [accepted("a", "on")]
        assert await later.accept(accepted("a", "off")) == accepted("a", "on")

    with_journal(journals, check)


def test_epochs_only_rise_and_each_shard_has_its_own(journals: Journals) -> None:
    async def check(reopen: Reopen) -> None:
        first = await reopen()
        assert [await first.claim(0), await first.claim(1)] == [2, 1]
        second = await reopen()
        assert [await second.claim(0), await second.claim(1)] == [4, 2]

    with_journal(journals, check)


def test_what_comes_from_before_the_last_claim_is_refused(journals: Journals) -> None:
    async def check(reopen: Reopen) -> None:
        journal = await reopen()
        await journal.keep(kept("a", epoch=1))
        epoch = await journal.claim(0)
        with pytest.raises(Fenced):
            await journal.keep(kept("b", epoch=1))
        outcome = accepted("a")
        late = replace(outcome, run=kept("a", epoch=1).run)
        with pytest.raises(Fenced):
            await journal.accept(late)
        await journal.keep(kept("c", epoch=epoch))
        found = await (await reopen()).load(0)
        assert list(found) == [kept("a", epoch=1), kept("c", epoch=epoch)]

    with_journal(journals, check)


def test_a_shard_has_the_runs_of_its_namespaces(journals: Journals) -> None:
    async def check(reopen: Reopen) -> None:
        journal = await reopen()
        await journal.claim(1)
        other = kept("b")
        other = replace(other, run=replace(other.run, script=ObjectKey("other", "lamp")))
        await journal.keep(kept("a"))
        await journal.keep(other)
        again = await reopen()
        await again.claim(1)
        assert [list(await again.load(shard)) for shard in (0, 1)] == [[kept("a")], [other]]

    with_journal(journals, check)


def test_that_a_run_with_a_key_has_ended_is_remembered_for_a_day(
    journals: Journals, clock: FakeClock
) -> None:
    async def check(reopen: Reopen) -> None:
        journal = await reopen()
        keyed = kept("a")
        await journal.keep(replace(keyed, run=replace(keyed.run, is_keyed=True)))
        await journal.keep(kept("b"))
        for name in "ab":
            assert not await journal.has_ended(RunId(name))
            journal.drop(RunId(name))
        await journal.flush()
        later = await reopen()
        assert [await later.has_ended(RunId(name)) for name in "ab"] == [True, False]
        await clock.advance(RETENTION.total_seconds() + 1)
        assert not await later.has_ended(RunId("a"))

    with_journal(journals, check)


KEEPER = """
import asyncio, sys
from pathlib import Path
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqliteJournal
from tests.contract.test_journal import kept

async def main():
    journal = SqliteJournal(Path(sys.argv[1]), clock=SystemClock())
    number = 0
    while True:
        await asyncio.gather(*(journal.keep(kept(f"r{number + n}")) for n in range(20)))
        number += 20
        print(number, flush=True)

asyncio.run(main())
"""


def on_disk(path: Path) -> list[Delivery]:
    async def read() -> list[Delivery]:
        journal = SqliteJournal(path, clock=SystemClock())
        try:
            return list(await journal.load(0))
        finally:
            await journal.close()

    return asyncio.run(read())


def test_what_was_kept_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    child = subprocess.Popen([sys.executable, "-c", KEEPER, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    said = [int(child.stdout.readline()) for _ in range(5)][-1]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    names = {it.run.key.run_id for it in on_disk(path)}
    assert {f"r{number}" for number in range(said)} <= names


def test_damaged_rows_are_left_out_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def fill() -> None:
        journal = SqliteJournal(path, clock=SystemClock())
        await journal.keep(kept("good"))
        await journal.close()

    asyncio.run(fill())
    with closing(sqlite3.connect(path)) as connection, connection:
        for name, data in (("a", b"{"), ("b", b"[]"), ("c", b'{"attempt": "x"}'), ("d", "text")):
            connection.execute(
                "INSERT INTO runs (id, data, event) VALUES (?, ?, X'')", (name, data)
            )
    assert on_disk(path) == [kept("good")]


FIRST = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, data BLOB NOT NULL, event BLOB NOT NULL
);
PRAGMA user_version = 1
"""


def test_what_the_first_version_kept_is_run(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    data = (
        b'{"attempt":2,"epoch":1,"namespace":"default","name":"lamp-\xc3\xbc","uid":"u1",'
        b'"cause":"Webhook","createdAt":1700000000.5,"devices":["a","b"],"isCanary":true}'
    )
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST)
        with connection:
            connection.execute("INSERT INTO runs (id, data, event) VALUES ('a', ?, X'31')", (data,))
    was = replace(
        run("a", attempt=2, epoch=1, event=b"1"),
        depth=0,
        chain=RunId(""),
        qos=Qos.AT_LEAST_ONCE,
    )
    assert on_disk(path) == [Delivery(run=was)]


def test_a_full_disk_refuses_and_what_there_was_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def check() -> None:
        journal = SqliteJournal(path, clock=SystemClock())
        await journal.keep(kept("a"))
        await journal.keep(kept("b"))
        journal._connection.execute("PRAGMA max_page_count = 12")
        journal.drop(RunId("a"))
        with pytest.raises(Transient, match=r"journal\.db cannot be written"):
            await journal.keep(kept("large", event=b"1" * 1_000_000))
        # What was dropped together with it waits for the next write.
        await journal.keep(kept("c"))
        await journal.close()

    asyncio.run(check())
    assert on_disk(path) == [kept("b"), kept("c")]
