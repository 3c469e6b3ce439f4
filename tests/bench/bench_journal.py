"""Runs with a promise through the controller, beside what keeps them alone.

Ours: triggering, journal, queue, dispatcher, session and finisher of a controller; executors answer
at once and devices are none, so that what is measured is what the promise costs. The references
keep the same rows with the same durability and do nothing else: SQLite by group commit, a row
inserted and removed per run; JetStream by messages that are published, delivered and acknowledged
for sure. Each in chunks of `CHUNK`, all of a chunk at once; the best of `ROUNDS` in turn counts.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig

from reconciler.adapters import journaled
from reconciler.adapters.database import open_database
from reconciler.adapters.journal import SCHEMA, SqliteJournal
from reconciler.adapters.nats import JetStreamJournal, Nats
from reconciler.core.deliveries import Delivery
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause, Run, RunId, RunKey
from tests.bench.cluster import row
from tests.controllers.runpath import SCRIPT, Rig, ok
from tests.controllers.test_schedules import connected, deployed
from tests.fakes.clock import FakeClock
from tests.support.natsserver import nats_server

if TYPE_CHECKING:
    from reconciler.ports.journal import Journal

ROUNDS = 3
CHUNKS = 6
CHUNK = 500
EVENT = b'{"temperature": 21.5, "unit": "C"}'


def rows() -> list[Delivery]:
    return [
        Delivery(
            run=Run(
                key=RunKey(RunId(f"{number:032x}"), 1, 1),
                script=ObjectKey("default", "thermostat"),
                uid="u",
                cause=Cause.WEBHOOK,
                created_at=1.7e9,
                event=EVENT,
            )
        )
        for number in range(CHUNK)
    ]


async def ours(journal: Journal, qos: str, executors: int) -> float:
    """Runs per second."""
    rig = Rig(journal=journal)
    async with rig.running():
        first = await deployed(rig, cron="", qos=qos, webhook=True, runOnDeploy=False)
        members = [first, *[await connected(rig) for _ in range(executors - 1)]]
        for member in members:
            rig.sessions.sent[member].clear()
            rig.sessions.give(member, 90_000)
        began = time.perf_counter()
        for _ in range(CHUNKS):
            await asyncio.gather(
                *(rig.triggering.accept(SCRIPT, Cause.WEBHOOK, EVENT) for _ in range(CHUNK))
            )
            left = CHUNK
            while left or rig.dispatcher.in_flight:
                for member in members:
                    keys = rig.sessions.runs(member)
                    rig.sessions.sent[member].clear()
                    left -= len(keys)
                    rig.sessions.answer(member, *(ok(key) for key in keys))
                await asyncio.sleep(0)
            await rig.deliveries.flush()
        return CHUNKS * CHUNK / (time.perf_counter() - began)


def sqlite_alone(path: Path) -> float:
    connection = open_database(path, version=1, schema=SCHEMA)
    began = time.perf_counter()
    for _ in range(CHUNKS):
        kept = [(it.run.key.run_id, journaled.encode(it), EVENT) for it in rows()]
        with connection:
            connection.executemany("INSERT INTO runs (id, data, event) VALUES (?, ?, ?)", kept)
        with connection:
            connection.executemany("DELETE FROM runs WHERE id = ?", [(it[0],) for it in kept])
    seconds = time.perf_counter() - began
    connection.close()
    return CHUNKS * CHUNK / seconds


async def jetstream_alone(nats: Nats) -> float:
    jetstream = nats.jetstream
    await jetstream.add_stream(
        StreamConfig(name="alone", subjects=["alone.>"], retention=RetentionPolicy.WORK_QUEUE)
    )
    pulled = await jetstream.pull_subscribe(
        "alone.>", durable="alone", stream="alone", config=ConsumerConfig(max_ack_pending=10_000)
    )
    began = time.perf_counter()
    for chunk in range(CHUNKS):
        await asyncio.gather(
            *(
                jetstream.publish(
                    f"alone.0.{it.run.key.run_id}",
                    b"%s\n%s" % (journaled.encode(it), EVENT),
                    headers={"Nats-Msg-Id": f"{chunk}/{it.run.key.run_id}"},
                )
                for it in rows()
            )
        )
        left = CHUNK
        while left:
            messages = await pulled.fetch(min(left, 256))
            left -= len(messages)
            await asyncio.gather(*(it.ack_sync() for it in messages))
    seconds = time.perf_counter() - began
    await jetstream.delete_stream("alone")
    return CHUNKS * CHUNK / seconds


async def on_disk(folder: Path) -> tuple[float, float]:
    best, alone = 0.0, 0.0
    for number in range(ROUNDS):
        journal = SqliteJournal(folder / f"{number}.db", clock=FakeClock())
        best = max(best, await ours(journal, "AtLeastOnce", 1))
        await journal.close()
        alone = max(alone, await asyncio.to_thread(sqlite_alone, folder / f"alone{number}.db"))
    return best, alone


async def in_jetstream(url: str) -> tuple[float, float]:
    best, alone = 0.0, 0.0
    for _ in range(ROUNDS):
        nats = await Nats.connect(url)
        journal = await JetStreamJournal.open(nats, clock=FakeClock())
        best = max(best, await ours(journal, "OnlyOnce", 3))
        await journal.close()
        alone = max(alone, await jetstream_alone(nats))
        await nats.close()
    return best, alone


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        least, sqlite = uvloop.run(on_disk(folder))
        with nats_server(folder / "nats") as server:
            once, jetstream = uvloop.run(in_jetstream(server.url))
    return [
        row(
            "AtLeastOnce, journaled with fsync, executors that answer at once",
            least,
            "runs/s",
            reference=sqlite,
            target=0.5,
            less=False,
        ),
        row(
            "OnlyOnce on JetStream, 3 executors that answer at once",
            once,
            "runs/s",
            reference=jetstream,
            target=0.5,
            less=False,
        ),
    ]
