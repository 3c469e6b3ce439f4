"""Where a controller keeps what must outlive it: on its disk, or in NATS with the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from reconciler.adapters.evaluations import SqliteEvaluations
from reconciler.adapters.journal import SqliteJournal, one_shard
from reconciler.adapters.nats import JetStreamEvaluations, JetStreamJournal, JetStreamStates, Nats
from reconciler.adapters.scriptstates import SqliteScriptStates
from reconciler.core.shards import shard_of
from reconciler.ports.clock import Clock
from reconciler.ports.journal import Journal
from reconciler.ports.state import Evaluation, Evaluations, ScriptStates
from reconciler.settings import Settings


async def _nothing_new(_uids: Collection[str]) -> Mapping[str, Evaluation]:
    """Nobody else writes here."""
    return {}


@dataclass(frozen=True, slots=True)
class Backing:
    """`refresh` takes over what others have written of Scripts, by UID; their evaluations."""

    journal: Journal
    evaluations: Evaluations
    states: ScriptStates
    refresh: Callable[[Collection[str]], Awaitable[Mapping[str, Evaluation]]] = _nothing_new


def on_disk(settings: Settings, clock: Clock) -> Backing:
    """Raises `Stalled` where the folder cannot be written."""
    return Backing(
        SqliteJournal(settings.data / "journal.db", clock=clock, shard_of=_shards(settings)),
        SqliteEvaluations(settings.data / "evaluations.db"),
        SqliteScriptStates(settings.data / "states.db"),
    )


@asynccontextmanager
async def shared(settings: Settings, clock: Clock) -> AsyncIterator[Backing | None]:
    """None where it is not shared. Raises `Stalled` and `Transient`."""
    if settings.nats is None:
        yield None
        return
    credentials = None if settings.nats_credentials is None else str(settings.nats_credentials)
    nats = await Nats.connect(settings.nats, credentials=credentials, copies=settings.nats_copies)
    try:
        shards = settings.shards if settings.leases is not None else 1
        evaluations = await JetStreamEvaluations.open(nats)
        states = await JetStreamStates.open(nats)

        async def refresh(uids: Collection[str]) -> Mapping[str, Evaluation]:
            await states.refresh(uids.__contains__)
            found = await evaluations.read()
            return {uid: it for uid, it in found.items() if uid in uids}

        yield Backing(
            await JetStreamJournal.open(
                nats, clock=clock, shards=shards, shard_of=_shards(settings)
            ),
            evaluations,
            states,
            refresh,
        )
    finally:
        await nats.close()


def _shards(settings: Settings) -> Callable[[str], int]:
    return one_shard if settings.leases is None else partial(shard_of, shards=settings.shards)
