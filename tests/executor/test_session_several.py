"""One executor, several controllers: each is answered what it asked for, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from executor.main import Executor
from executor.model import Limits, Outcome, RunKey, RunResult, ScriptType, Work
from executor.session.client import Identity
from executor.session.purse import CAPACITY, FIRST, SESSIONS, Purse
from executor.session.sessions import Sessions
from tests.executor.controller import Controller, Session, serving
from tests.executor.running import activation, digest_of, eventually, key, runs, script

if TYPE_CHECKING:
    from collections.abc import Sequence

RULE = b"function main() {}"
SLOW = b"function main() { for (let i = 0; i < 3e6; i++); }"


@asynccontextmanager
async def executing(*controllers: Controller) -> AsyncIterator[Executor]:
    addresses = [f"127.0.0.1:{controller.port}" for controller in controllers]
    executor = Executor(*addresses, name="test", workers=1)
    running = asyncio.create_task(executor.run())
    try:
        for controller in controllers:
            await up(controller)
        yield executor
        executor.drain()
        await asyncio.wait_for(running, 10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def up(controller: Controller, sessions: int = 1) -> Session:
    def is_up() -> bool:
        return len(controller.sessions) >= sessions and bool(controller.sessions[-1].credit)

    await eventually(is_up, what="a session with credit")
    return controller.sessions[-1]


def test_each_controller_is_answered_what_it_asked_for() -> None:
    async def play() -> list[set[RunKey]]:
        first, second = Controller(), Controller()
        for controller in (first, second):
            controller.publish(RULE)
        async with serving(first), serving(second), executing(first, second):
            sessions = [first.sessions[0], second.sessions[0]]
            assert [session.credit for session in sessions] == [[FIRST], [FIRST]]
            for n, session in enumerate(sessions):
                asked = runs(*[activation()] * 40, first=1 + 100 * n)
                await session.ask(Work(script(RULE), asked))
            await eventually(lambda: all(len(s.results) == 40 for s in sessions), what="answers")
        return [set(session.results) for session in sessions]

    assert asyncio.run(play()) == [
        {key(n) for n in range(1, 41)},
        {key(n) for n in range(101, 141)},
    ]


def test_a_controller_that_goes_takes_only_its_own_runs_with_it() -> None:
    async def play() -> tuple[set[RunKey], int]:
        first, second = Controller(), Controller()
        for controller in (first, second):
            controller.publish(SLOW, RULE)
        patient = script(SLOW, limits=Limits(wall_time_ms=5_000))
        server = serving(first)
        await server.__aenter__()
        async with serving(second), executing(first, second):
            asked = first.sessions[0], second.sessions[0]
            await asked[0].ask(Work(patient, runs(*[activation()] * 40)))
            await asked[1].ask(Work(patient, runs(*[activation()] * 40, first=101)))
            await eventually(lambda: bool(asked[1].results), what="begun")
            await server.__aexit__(None, None, None)
            await eventually(lambda: len(asked[1].results) == 40, what="answers")
            other = Controller()
            other.publish(RULE)
            async with serving(other, first.port):
                later = await up(other)
                await later.ask(Work(script(RULE), runs(activation(), first=1_000)))
                await eventually(lambda: bool(later.results), what="an answer")
            return set(later.results), len(asked[1].results)

    assert asyncio.run(play()) == ({key(1_000)}, 40)


def test_an_artifact_is_had_from_whoever_has_it() -> None:
    async def play() -> list[Outcome]:
        first, second = Controller(), Controller()
        second.publish(RULE)
        async with serving(first), serving(second), executing(first, second):
            session = first.sessions[0]
            await session.ask(Work(script(RULE), runs(activation())))
            await eventually(lambda: bool(session.results), what="an answer")
            assert (first.fetches, second.fetches) == ([digest_of(RULE)], [digest_of(RULE)])
            await session.ask(Work(script(b"nobody"), runs(activation(), first=2)))
            await eventually(lambda: len(session.results) == 2, what="an answer")
            return [result.outcome for result in session.results.values()]

    assert asyncio.run(play()) == [Outcome.SUCCEEDED, Outcome.LOAD_FAILED]


def test_who_asks_for_more_gets_more_until_another_does() -> None:
    async def play() -> None:
        first, second = Controller(), Controller()
        for controller in (first, second):
            controller.publish(RULE)
        most = CAPACITY - (SESSIONS - 1) * FIRST
        async with serving(first), serving(second), executing(first, second):
            await use(first, most, first_number=1)
            assert sum(second.sessions[-1].credit) == FIRST
            # What the first one does not use any more goes to the second.
            await use(second, most, first_number=100_001)
            await eventually(lambda: len(first.sessions) == 2, what="it began anew")
            assert (await up(first, 2)).credit == [FIRST]

    asyncio.run(play())


async def use(controller: Controller, window: int, *, first_number: int) -> None:
    """Ask for as much as there is credit for, until that is `window`."""
    session, asked, number = controller.sessions[-1], 0, first_number

    def free() -> int:
        return sum(session.credit) - asked

    while free() < window * 9 // 10:
        await eventually(lambda: free() > 0, what="credit")
        count = free()
        await session.ask(Work(script(RULE), runs(*[activation()] * count, first=number)))
        asked, number = asked + count, number + count
        await eventually(lambda: len(session.results) == asked, what="answers")  # noqa: B023 - awaited here


@dataclass
class Lookup:
    """A name, and what it leads to."""

    hosts: list[str] = field(default_factory=list)

    async def __call__(self, _host: str, _port: int) -> list[str]:
        if not self.hosts:
            raise OSError("no such name")
        return list(self.hosts)


@asynccontextmanager
async def following(
    lookup: Lookup, port: int, connected: Callable[[bool], None] = lambda _: None
) -> AsyncIterator[Sessions]:
    def answer(work: Work) -> None:
        found.deliver([RunResult(run.key, Outcome.SUCCEEDED) for run in work.runs])

    def lost(_keys: Collection[RunKey] | None) -> None:
        """Nothing was begun that could be abandoned."""

    found = Sessions(
        [f"controllers.test:{port}"],
        identity=Identity(name="test", script_types=(ScriptType.JS,), engines={}),
        handle=answer,
        lost=lost,
        connected=connected,
        resolve=lookup,
        resolve_seconds=0.1,
    )
    running = asyncio.create_task(found.run())
    try:
        yield found
        found.drain()
        await asyncio.wait_for(running, 10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await found.close()


def test_a_name_leads_to_all_who_have_it_as_they_come_and_go() -> None:
    async def play() -> None:
        first, second, third = Controller(), Controller(), Controller()
        told: list[bool] = []
        async with (
            serving(first, host="127.0.0.1"),
            serving(second, first.port, host="127.0.0.2"),
        ):
            lookup = Lookup(["127.0.0.1", "127.0.0.2"])
            async with following(lookup, first.port, told.append):
                sessions = [await up(first), await up(second)]
                for n, session in enumerate(sessions):
                    work = Work(script(RULE), runs(activation(), first=n + 1))
                    await session.ask(work)
                    await eventually(lambda s=session: bool(s.results), what="an answer")
                assert [set(s.results) for s in sessions] == [{key(1)}, {key(2)}]
                async with serving(third, first.port, host="127.0.0.3"):
                    lookup.hosts.append("127.0.0.3")
                    await up(third)
                assert told == [True]
                # Names that are not known for a while lead where they led.
                lookup.hosts.clear()
                again = Controller()
                async with serving(again, first.port, host="127.0.0.3"):
                    await up(again)
            assert [len(it.sessions) for it in (first, second)] == [1, 1]
        assert told == [True, False]

    asyncio.run(play())


def test_a_purse_never_holds_more_than_there_is() -> None:
    purse = Purse(is_shared=True)
    holders = [Busy() for _ in range(SESSIONS)]
    held = [purse.begin(it) for it in holders]
    for _ in range(100):
        for n, holder in enumerate(holders):
            held[n] += purse.more(holder, 97)
    assert sum(held) <= CAPACITY
    assert min(held) >= FIRST
    assert not any(it.asked for it in holders)
    holders[0].is_idle = True
    assert purse.more(holders[1], CAPACITY) == 0
    assert [it.asked for it in holders] == [1, *[0] * (SESSIONS - 1)]
    purse.end(holders[0])
    assert purse.begin(holders[0]) == FIRST
    assert purse.more(holders[1], CAPACITY) == held[0] - FIRST


@dataclass(eq=False)
class Busy:
    is_idle: bool = False
    asked: int = 0

    def give_back(self) -> None:
        self.asked += 1


def test_one_controller_has_all_the_credit_there_is() -> None:
    purse, alone = Purse(is_shared=False), Busy()
    assert purse.begin(alone) == CAPACITY
    assert purse.more(alone, 200) == 0


@pytest.mark.parametrize("hosts", [["127.0.0.1"], []], ids=["one address", "an unknown name"])
def test_a_name_of_one_is_left_to_grpc(hosts: Sequence[str]) -> None:
    """It is the name that is connected to: what it leads to is looked up for each connection."""

    async def play() -> None:
        async with following(Lookup(list(hosts)), 1) as sessions:
            await eventually(lambda: bool(sessions._clients), what="somebody to speak with")
            assert list(sessions._clients) == ["controllers.test:1"]

    asyncio.run(play())
