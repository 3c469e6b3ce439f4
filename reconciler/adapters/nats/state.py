"""What Scripts were run for and what they remember, in buckets: read once, written behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec
import orjson
from nats.js.kv import KeyValue

from reconciler.adapters.nats.connection import Nats
from reconciler.errors import Transient
from reconciler.ports.state import Evaluation

V = TypeVar("V")
log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    """All but its gate, which may be anything."""

    generation: int
    digest: str
    values: dict[str, dict[str, str]]
    ticked: float


_DECODER = msgspec.json.Decoder(_Kept)


class JetStreamEvaluations:
    """Keeps the promises of `Evaluations`. What others have put since is seen by `read`."""

    def __init__(self, nats: Nats, bucket: KeyValue, known: Mapping[str, Evaluation]) -> None:
        self._nats = nats
        self._bucket = bucket
        self._known = known
        self._pending: dict[str, Evaluation | None] = {}
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, nats: Nats) -> JetStreamEvaluations:
        bucket = await nats.bucket("scriptops-evaluations")
        opened = cls(nats, bucket, {})
        opened._known = await opened.read()
        return opened

    def load(self) -> Mapping[str, Evaluation]:
        return self._known

    async def read(self) -> Mapping[str, Evaluation]:
        """As they are now. Raises `Transient`."""
        found = {}
        for uid, (data, _) in (await self._nats.values(self._bucket)).items():
            try:
                it = _DECODER.decode(data)
                gate = orjson.loads(data)["gate"]
            except msgspec.DecodeError:
                log.exception("damaged evaluation left out", extra={"uid": uid})
                continue
            found[uid] = Evaluation(it.generation, it.digest, it.values, it.ticked, gate)
        return found

    def put(self, uid: str, evaluation: Evaluation) -> None:
        self._pending[uid] = evaluation

    def remove(self, uid: str) -> None:
        self._pending[uid] = None

    async def flush(self) -> None:
        async with self._writing:
            batch, self._pending = self._pending, {}
            try:
                await _write(self._nats, self._bucket, batch, _encoded)
            except Transient:
                self._pending = batch | self._pending
                raise

    def close(self) -> None:
        """What was put since the last flush is lost."""


class JetStreamStates:
    """Keeps the promises of `ScriptStates`. What others have kept since is seen after `refresh`."""

    def __init__(self, nats: Nats, bucket: KeyValue) -> None:
        self._nats = nats
        self._bucket = bucket
        self._states: dict[str, bytes] = {}
        self._gone: dict[str, bytes | None] = {}

    @classmethod
    async def open(cls, nats: Nats) -> JetStreamStates:
        opened = cls(nats, await nats.bucket("scriptops-states"))
        await opened.refresh(lambda _: True)
        return opened

    async def refresh(self, wanted: Callable[[str], bool]) -> None:
        """Take those of the Scripts, by UID, that are `wanted` as they are now."""
        values = await self._nats.values(self._bucket)
        self._states |= {uid: data for uid, (data, _) in values.items() if wanted(uid)}

    def get(self, uid: str) -> bytes:
        return self._states.get(uid, b"")

    def uids(self) -> frozenset[str]:
        return frozenset(self._states)

    async def keep(self, uid: str, state: bytes) -> None:
        async with self._nats.asking():
            await self._bucket.put(uid, state)
        self._gone.pop(uid, None)
        self._states[uid] = state

    def forget(self, uid: str) -> None:
        self._states.pop(uid, None)
        self._gone[uid] = None

    async def flush(self) -> None:
        gone, self._gone = self._gone, {}
        try:
            await _write(self._nats, self._bucket, gone, bytes)
        except Transient:
            self._gone = gone | self._gone
            raise

    def close(self) -> None:
        """What was forgotten since the last flush is found again."""


def _encoded(it: Evaluation) -> bytes:
    return orjson.dumps(
        {
            "generation": it.generation,
            "digest": it.digest,
            "values": it.values,
            "ticked": it.ticked,
            "gate": it.gate,
        },
        default=dict,
    )


async def _write(
    nats: Nats,
    bucket: KeyValue,
    batch: Mapping[str, V | None],
    encode: Callable[[V], bytes],
) -> None:
    """All of it at once; nothing is left of what has no value."""

    def written(key: str, value: V | None) -> Awaitable[object]:
        return bucket.purge(key) if value is None else bucket.put(key, encode(value))

    async with nats.asking():
        await asyncio.gather(*(written(key, value) for key, value in batch.items()))
