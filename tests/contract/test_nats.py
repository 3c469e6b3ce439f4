"""What JetStream keeps for controllers: over its own restarts, and from one to another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.nats import JetStreamEvaluations, JetStreamJournal, JetStreamStates, Nats
from reconciler.core.deliveries import Delivery
from reconciler.core.runs import RunId
from reconciler.errors import Fenced, Stalled, Transient
from reconciler.ports.state import Evaluation
from tests.contract.test_journal import accepted, kept
from tests.support.kube import free_port
from tests.support.natsserver import NatsServer, nats_server

ONE = Evaluation(1, "sha256:a", {"dht11": {"temperature": "21.5", "humidity": ""}})
TWO = Evaluation(2, "sha256:b", {"dht11": {"temperature": "22"}, "schalter-ü": {}}, 1.7e9, {"a": 1})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path / "nats") as server:
        yield server


async def journal(nats: Nats, **options: int) -> JetStreamJournal:
    return await JetStreamJournal.open(nats, clock=SystemClock(), **options)


async def led(nats: Nats) -> tuple[JetStreamJournal, list[Delivery]]:
    """By a controller that begins now; with what there was."""
    it = await journal(nats)
    await it.claim(0)
    return it, list(await it.load(0))


async def is_kept(it: JetStreamJournal, delivery: Delivery) -> bool:
    try:
        await it.keep(delivery)
    except Transient:
        return False
    return True


def test_evaluations_and_states_are_there_for_the_next(server: NatsServer) -> None:
    async def check() -> None:
        first, second = await Nats.connect(server.url), await Nats.connect(server.url)
        evaluations = await JetStreamEvaluations.open(first)
        evaluations.put("u1", ONE)
        evaluations.put("u2", TWO)
        evaluations.put("u3", ONE)
        await evaluations.flush()
        evaluations.remove("u3")
        await evaluations.flush()
        states, others = await JetStreamStates.open(first), await JetStreamStates.open(second)
        await states.keep("u1", b'{"n":1}')
        await states.keep("u2", b'{"n":2}')
        states.forget("u2")
        await states.flush()
        assert (await JetStreamEvaluations.open(second)).load() == {"u1": ONE, "u2": TWO}
        assert others.uids() == frozenset()
        await others.refresh({"u1"}.__contains__)
        assert (others.get("u1"), others.uids()) == (b'{"n":1}', {"u1"})
        await first.close()
        await second.close()

    asyncio.run(check())


def test_a_server_that_is_away_refuses_and_has_all_that_it_kept_when_it_is_back(
    server: NatsServer,
) -> None:
    async def check() -> None:
        nats = await Nats.connect(server.url)
        it, _ = await led(nats)
        await it.keep(kept("a"))
        server.kill()
        with pytest.raises(Transient):
            await it.keep(kept("b"))
        server.start()
        async with asyncio.timeout(30):
            while not await is_kept(it, kept("c")):
                await SystemClock().sleep(0.1)
        other = await Nats.connect(server.url)
        _, found = await led(other)
        assert {"a", "c"} <= {one.run.key.run_id for one in found}
        await nats.close()
        await other.close()

    asyncio.run(check())


def test_who_was_led_past_can_accept_nothing_and_end_nothing(server: NatsServer) -> None:
    async def check() -> None:
        old, new = await Nats.connect(server.url), await Nats.connect(server.url)
        before, _ = await led(old)
        await before.keep(kept("a", epoch=1))
        after, found = await led(new)
        assert found == [kept("a", epoch=1)]
        # As whoever takes over does with all that it finds.
        await after.keep(kept("a", attempt=2, epoch=2))
        late = accepted("a")
        with pytest.raises(Fenced):
            await before.accept(
                Delivery(run=kept("a", epoch=1).run, stage=late.stage, result=late.result)
            )
        before.drop(RunId("a"))
        await before.flush()
        third = await Nats.connect(server.url)
        _, left = await led(third)
        assert left == [kept("a", attempt=2, epoch=2)]
        for nats in (old, new, third):
            await nats.close()

    asyncio.run(check())


def test_a_run_that_another_keeps_is_found_by_who_leads(server: NatsServer) -> None:
    async def check() -> None:
        old, new = await Nats.connect(server.url), await Nats.connect(server.url)
        before, _ = await led(old)
        after, _ = await led(new)
        heard: asyncio.Queue[Delivery] = asyncio.Queue()
        after.on_found = heard.put_nowait
        await before.keep(kept("a", epoch=1))
        assert await asyncio.wait_for(heard.get(), 10) == kept("a", epoch=1)
        await old.close()
        await new.close()

    asyncio.run(check())


def test_nothing_is_left_of_runs_that_are_done(server: NatsServer) -> None:
    async def check() -> None:
        nats = await Nats.connect(server.url)
        it, _ = await led(nats)
        await asyncio.gather(*(it.keep(kept(f"r{n}")) for n in range(50)))
        await asyncio.gather(*(it.accept(accepted(f"r{n}")) for n in range(50)))
        for n in range(50):
            it.drop(RunId(f"r{n}"))
        await it.flush()
        infos = await nats.jetstream.streams_info()
        left = {info.config.name: info.state.messages for info in infos}
        assert (left["scriptops-runs"], left["KV_scriptops-deliveries"]) == (0, 0)
        await nats.close()

    asyncio.run(check())


def test_who_counts_other_shards_is_told(server: NatsServer) -> None:
    async def check() -> None:
        nats = await Nats.connect(server.url)
        await journal(nats, shards=2)
        with pytest.raises(Stalled, match="--shards 2"):
            await journal(nats, shards=3)
        await nats.close()

    asyncio.run(check())


def test_where_there_is_no_server_a_person_is_told() -> None:
    async def check() -> None:
        with pytest.raises(Stalled, match="start it"):
            await Nats.connect(f"nats://127.0.0.1:{free_port()}")

    asyncio.run(check())
