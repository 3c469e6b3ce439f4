"""Runs that promise something, in JetStream: for controllers that share the work.

A run is a message of a work queue until it is done; what becomes of it meanwhile is a value in a
bucket, written by compare-and-set. Whoever leads a shard has its one consumer. To take over is to
write a higher epoch, and to take the consumer away from whoever had it, with all that it would
still have acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Final

from nats.aio.msg import Msg
from nats.errors import Error, NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, KeyNotFoundError, NotFoundError
from nats.js.kv import KeyValue

from reconciler.adapters import journaled
from reconciler.adapters.nats.connection import ANSWER_SECONDS, Nats
from reconciler.core.deliveries import Delivery
from reconciler.core.runs import RunId
from reconciler.errors import Fenced, Stalled, Transient
from reconciler.ports.clock import Clock
from reconciler.ports.journal import RETENTION

log = logging.getLogger(__name__)

RUNS: Final = "scriptops-runs"
SUBJECT: Final = "scriptops.runs"
# How long the server tells the same message from a second one by itself; later we do.
DUPLICATES_SECONDS: Final = 120.0
# A message that is not acknowledged comes again after this; of those that we hold already nothing
# comes of it, and one that was lost on its way is not lost.
AGAIN_SECONDS: Final = 30.0
FETCHED: Final = 256
# A message comes back to who kept it within milliseconds.
HEAR_SECONDS: Final = 1.0
# Beyond it the server delivers no more before some are done; far above what may be open.
MOST_OPEN: Final = 200_000
CLAIM_TRIES: Final = 10


class JetStreamJournal:
    """Keeps the promises of `Journal`. `open` makes one."""

    def __init__(self, nats: Nats, clock: Clock, shard_of: Callable[[str], int]) -> None:
        self._nats = nats
        self._clock = clock
        # Set when a message has come.
        self._heard = asyncio.Event()
        self._shard_of = shard_of
        self._epochs: dict[int, int] = {}
        # Revisions of what became of open runs; 0 where that is nothing yet.
        self._open: dict[RunId, Delivery] = {}
        self._revisions: dict[RunId, int] = {}
        # How to acknowledge, by run: mostly one message each.
        self._replies: defaultdict[RunId, list[str]] = defaultdict(list)
        self._dropped: dict[RunId, Delivery] = {}
        self._consumers: dict[int, asyncio.Task[None]] = {}
        self._highest: dict[int, int] = {}
        self.on_found: Callable[[Delivery], None] = _ignore
        self._values: KeyValue
        self._epoch_values: KeyValue
        self._ended: KeyValue

    @classmethod
    async def open(
        cls,
        nats: Nats,
        *,
        clock: Clock,
        shards: int = 1,
        shard_of: Callable[[str], int] = lambda _: 0,
    ) -> JetStreamJournal:
        """Raises `Transient`, and `Stalled` when others count another number of shards."""
        journal = cls(nats, clock, shard_of)
        await nats.stream(
            StreamConfig(
                name=RUNS,
                subjects=[f"{SUBJECT}.>"],
                retention=RetentionPolicy.WORK_QUEUE,
                storage=StorageType.FILE,
                duplicate_window=DUPLICATES_SECONDS,
            )
        )
        journal._values = await nats.bucket("scriptops-deliveries")
        journal._epoch_values = await nats.bucket("scriptops-epochs")
        journal._ended = await nats.bucket("scriptops-ended", seconds=RETENTION.total_seconds())
        counted = await journal._count(shards)
        if counted != shards:
            raise Stalled(
                f"{nats.url} holds runs of {counted} shards, not of {shards}; give all controllers "
                f"--shards {counted}, or another NATS account",
                reason="SettingsInvalid",
            )
        return journal

    async def claim(self, shard: int, *, at_least: int = 1) -> int:
        async with self._nats.asking():
            for _ in range(CLAIM_TRIES):
                known, revision = await _read(self._epoch_values, str(shard))
                epoch = max(int(known or b"0") + 1, at_least)
                try:
                    await self._epoch_values.update(str(shard), b"%d" % epoch, last=revision)
                except BadRequestError:
                    continue
                self._epochs[shard] = epoch
                return epoch
        raise Transient(f"shard {shard} is claimed by others all the time")

    async def load(self, shard: int) -> Sequence[Delivery]:
        await self.flush()
        await self._leave(shard)
        mine = [i for i, it in self._open.items() if self._shard(it) == shard]
        for run_id in mine:
            self._forget(run_id)
        jetstream, name = self._nats.jetstream, f"shard-{shard}-"
        async with self._nats.asking():
            for info in await jetstream.consumers_info(RUNS):
                if info.name.startswith(name):
                    with contextlib.suppress(NotFoundError):
                        await jetstream.delete_consumer(RUNS, info.name)
            subscription = await jetstream.pull_subscribe(
                f"{SUBJECT}.{shard}.>",
                # Of a name of its own, or acknowledgements to the one before would count.
                durable=f"{name}{self._epochs.get(shard, 0)}-{token_hex(4)}",
                stream=RUNS,
                config=ConsumerConfig(ack_wait=AGAIN_SECONDS, max_ack_pending=MOST_OPEN),
            )
            left = (await subscription.consumer_info()).num_pending or 0
        values = await self._nats.values(self._values, f"{shard}.>")
        found: dict[RunId, Delivery] = {}
        async with self._nats.asking():
            while left > 0:
                messages = await subscription.fetch(min(FETCHED, left), timeout=ANSWER_SECONDS)
                left -= len(messages)
                for message in messages:
                    it = self._received(message)
                    if it is not None:
                        found[it.run.key.run_id] = it
        for run_id, it in found.items():
            data, revision = values.get(f"{shard}.{run_id}", (b"", 0))
            became = journaled.decode(run_id, data, it.run.event) if data else None
            self._open[run_id] = found[run_id] = became or it
            self._revisions[run_id] = revision
        self._highest[shard] = max((revision for _, revision in values.values()), default=0)
        self._consumers[shard] = asyncio.create_task(self._listen(shard, subscription))
        return list(found.values())

    async def keep(self, delivery: Delivery) -> None:
        self._fence(delivery)
        run_id = delivery.run.key.run_id
        if run_id in self._dropped:
            await self.flush()
        if run_id in self._open:
            await self._write(delivery)
        else:
            shard = self._shard(delivery)
            payload = b"%s\n%s" % (journaled.encode(delivery), delivery.run.event)
            # It may be delivered before it is acknowledged.
            self._open[run_id] = delivery
            async with self._unless_refused(run_id), self._nats.asking():
                await self._nats.jetstream.publish(
                    f"{SUBJECT}.{shard}.{run_id}",
                    payload,
                    headers={"Nats-Msg-Id": "/".join(map(str, delivery.run.key))},
                )
            self._revisions.setdefault(run_id, 0)
        self._open[run_id] = delivery

    @asynccontextmanager
    async def _unless_refused(self, run_id: RunId) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            self._open.pop(run_id, None)
            raise

    async def accept(self, delivery: Delivery) -> Delivery:
        self._fence(delivery)
        run_id = delivery.run.key.run_id
        known = self._open.get(run_id)
        if known is not None and known.result is not None:
            return known
        accepted = await self._write(delivery)
        self._open[run_id] = accepted
        return accepted

    def drop(self, run_id: RunId) -> None:
        it = self._open.pop(run_id, None)
        if it is not None:
            self._dropped[run_id] = it

    async def has_ended(self, run_id: RunId) -> bool:
        if run_id in self._dropped:
            return self._dropped[run_id].run.is_keyed
        async with self._nats.asking():
            until, _ = await _read(self._ended, run_id)
        return until is not None and float(until or b"0") > self._clock.now()

    async def flush(self) -> None:
        await self._hear(self._dropped)
        dropped = {i: it for i, it in self._dropped.items() if self._replies.get(i)}
        if not dropped:
            return
        until = b"%f" % (self._clock.now() + RETENTION.total_seconds())
        keyed = [i for i, it in dropped.items() if it.run.is_keyed]
        async with self._nats.asking():
            await asyncio.gather(*(self._ended.put(run_id, until) for run_id in keyed))
            await asyncio.gather(*(self._acknowledge(run_id) for run_id in dropped))
            for shard in {self._shard(it) for it in dropped.values()}:
                await self._purge(shard)

    async def close(self) -> None:
        try:
            await self.flush()
        except Transient as error:
            log.warning("journal not written", extra={"error": str(error)})
        for shard in tuple(self._consumers):
            await self._leave(shard)

    def _shard(self, delivery: Delivery) -> int:
        return self._shard_of(delivery.run.script.namespace)

    def _fence(self, delivery: Delivery) -> None:
        shard, epoch = self._shard(delivery), delivery.run.key.epoch
        newest = self._epochs.get(shard, 0)
        if epoch < newest:
            raise Fenced(f"shard {shard} was claimed again: epoch {epoch}, now {newest}")

    async def _count(self, shards: int) -> int:
        async with self._nats.asking():
            try:
                await self._epoch_values.create("shards", b"%d" % shards)
            except BadRequestError:
                counted, _ = await _read(self._epoch_values, "shards")
                return int(counted or b"0")
        return shards

    async def _write(self, delivery: Delivery) -> Delivery:
        """What is on record then: this, or an outcome that was accepted before."""
        run_id, shard = delivery.run.key.run_id, self._shard(delivery)
        key, data = f"{shard}.{run_id}", journaled.encode(delivery)
        async with self._nats.asking():
            for _ in range(CLAIM_TRIES):
                before = self._revisions.get(run_id, 0)
                try:
                    revision = await self._values.update(key, data, last=before)
                except BadRequestError:
                    # Somebody has written since, or we have and never heard of it.
                    found, self._revisions[run_id] = await _read(self._values, key)
                    other = journaled.decode(run_id, found, delivery.run.event)
                    if other is not None and other.result is not None:
                        return other
                    newest = 0 if other is None else other.run.key.epoch
                    if newest > delivery.run.key.epoch:
                        raise Fenced(f"run {run_id} is kept by epoch {newest}") from None
                    continue
                self._revisions[run_id] = revision
                self._highest[shard] = max(self._highest.get(shard, 0), revision)
                return delivery
        raise Transient(f"run {run_id} is written by others all the time")

    async def _acknowledge(self, run_id: RunId) -> None:
        """Acknowledged, and heard that it was: the message is gone."""
        for reply in self._replies[run_id]:
            # Nobody is there any more when another has taken the shard over: it is theirs to end.
            with contextlib.suppress(NoRespondersError):
                await self._nats.client.request(reply, b"+ACK", timeout=ANSWER_SECONDS)
        self._dropped.pop(run_id, None)
        self._forget(run_id)

    async def _hear(self, run_ids: Iterable[RunId]) -> None:
        """Until the messages of these runs have come back to us, or for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAR_SECONDS):
                while not all(self._replies.get(run_id) for run_id in tuple(run_ids)):
                    self._heard.clear()
                    await self._heard.wait()

    async def _purge(self, shard: int) -> None:
        """Take away what became of runs that are done: all below the first that is not.

        What others write after us has higher revisions than all that we know.
        """
        held: Iterable[int] = (
            self._revisions.get(i, 0)
            for i, it in (*self._open.items(), *self._dropped.items())
            if self._shard(it) == shard
        )
        first = min((it for it in held if it), default=self._highest.get(shard, 0) + 1)
        if first <= 1:
            # We have written nothing there, and to the server this would mean everything.
            return
        await self._nats.jetstream.purge_stream(
            "KV_scriptops-deliveries", seq=first, subject=f"$KV.scriptops-deliveries.{shard}.>"
        )

    def _forget(self, run_id: RunId) -> None:
        self._open.pop(run_id, None)
        self._revisions.pop(run_id, None)
        self._replies.pop(run_id, None)

    def _received(self, message: Msg) -> Delivery | None:
        """A delivered message; None for one that is known, or is not ours to read."""
        run_id = RunId(message.subject.rpartition(".")[2])
        self._heard.set()
        if message.reply not in self._replies[run_id]:
            self._replies[run_id] = [*self._replies[run_id][-3:], message.reply]
        if run_id in self._open or run_id in self._dropped:
            return None
        data, _, event = message.data.partition(b"\n")
        it = journaled.decode(run_id, data, event)
        if it is None:
            log.error("damaged run left out", extra={"run_id": run_id})
        return it

    async def _leave(self, shard: int) -> None:
        listening = self._consumers.pop(shard, None)
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, shard: int, subscription: JetStreamContext.PullSubscription) -> None:
        """Hear of what is kept: our own, to acknowledge it, and what others keep for us."""
        me = asyncio.current_task()
        # The client may take a cancellation for its own.
        while me is not None and not me.cancelling():
            try:
                messages = await subscription.fetch(FETCHED, timeout=ANSWER_SECONDS)
            except (TimeoutError, Error, OSError):
                await asyncio.sleep(0 if self._nats.client.is_connected else 0.2)
                continue
            for message in messages:
                it = self._received(message)
                if it is not None and self._shard(it) == shard:
                    run_id = it.run.key.run_id
                    self._open[run_id] = it
                    self._revisions[run_id] = 0
                    self.on_found(it)


def _ignore(_delivery: Delivery) -> None:
    """Nobody asks."""


async def _read(bucket: KeyValue, key: str) -> tuple[bytes | None, int]:
    """A value and its revision; None and 0 where there is none."""
    try:
        entry = await bucket.get(key)
    except KeyNotFoundError as error:
        # Of one that was deleted the revision counts.
        return None, getattr(getattr(error, "entry", None), "revision", 0) or 0
    return entry.value or b"", entry.revision or 0
