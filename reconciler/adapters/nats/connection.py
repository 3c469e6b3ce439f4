"""A connection to NATS, and its buckets: errors translated, sizes checked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import nats
from nats.aio.client import Client
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StreamConfig
from nats.js.errors import BadRequestError, BucketNotFoundError
from nats.js.kv import KeyValue

from reconciler.errors import Stalled, Transient

log = logging.getLogger(__name__)

# What is asked of the server has an answer within this, or is asked again later.
ANSWER_SECONDS: Final = 5.0
# At the start there is nobody who would go on meanwhile.
BEGIN_SECONDS: Final = 10.0
# The largest state and event of a run, and what stands around them.
LEAST_PAYLOAD: Final = 8 * 1024 * 1024


async def _next(watcher: KeyValue.KeyWatcher) -> KeyValue.Entry | None:
    """None after the last that there is."""
    found: KeyValue.Entry | None = await watcher.updates(  # type: ignore[no-untyped-call]  # nats-py has not typed it
        timeout=ANSWER_SECONDS
    )
    return found


class Nats:
    """One connection, which comes back by itself for as long as the process lives."""

    def __init__(self, url: str, client: Client, *, copies: int) -> None:
        self.url = url
        self.client = client
        self.jetstream: JetStreamContext = client.jetstream(timeout=ANSWER_SECONDS)
        self._copies = copies

    @classmethod
    async def connect(cls, url: str, *, credentials: str | None = None, copies: int = 1) -> Nats:
        """Raises `Stalled` where nobody answers at `url`, or not as we need it.

        `copies` is on how many servers of a cluster all is kept.
        """

        async def told(error: Exception) -> None:
            log.warning("nats", extra={"url": url, "error": repr(error)})

        async def lost() -> None:
            log.warning("nats connection lost; it is tried again", extra={"url": url})

        async def back() -> None:
            log.info("nats connection is back", extra={"url": url})

        try:
            connecting = nats.connect(
                url,
                name="scriptops",
                user_credentials=credentials,
                error_cb=told,
                disconnected_cb=lost,
                reconnected_cb=back,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.5,
                allow_reconnect=True,
                connect_timeout=2,
                # Nothing waits here while there is no connection: it is asked for again.
                pending_size=64 * 1024 * 1024,
            )
            # It would try for ever.
            client = await asyncio.wait_for(connecting, BEGIN_SECONDS)
        except (Error, OSError, TimeoutError) as error:
            raise Stalled(
                f"NATS at {url} cannot be reached ({error!r}); start it, or give another --nats",
                reason="StateUnavailable",
            ) from error
        if client.max_payload < LEAST_PAYLOAD:
            await client.close()
            raise Stalled(
                f"NATS at {url} takes messages of {client.max_payload} bytes; set max_payload: 8MB",
                reason="SettingsInvalid",
            )
        return cls(url, client, copies=copies)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Around what is asked: no answer, or one that says nothing, is `Transient`.

        At once while there is no connection.
        """
        if not self.client.is_connected:
            raise Transient(f"NATS at {self.url} is away", reason="StateUnavailable")
        try:
            yield
        except BadRequestError:
            # An answer: the revision is another.
            raise
        except (TimeoutError, Error, OSError) as error:
            raise Transient(
                f"NATS at {self.url} does not answer ({error!r})", reason="StateUnavailable"
            ) from error

    async def stream(self, config: StreamConfig) -> None:
        """There is one from now on, as it was made first."""
        config.num_replicas = self._copies
        async with self.asking():
            await self.jetstream.add_stream(config)

    async def bucket(self, name: str, *, seconds: float | None = None) -> KeyValue:
        """Values go after so many `seconds`, where that is given."""
        async with self.asking():
            try:
                return await self.jetstream.key_value(name)
            except BucketNotFoundError:
                return await self.jetstream.create_key_value(
                    KeyValueConfig(bucket=name, ttl=seconds, replicas=self._copies)
                )

    async def values(self, bucket: KeyValue, keys: str = ">") -> dict[str, tuple[bytes, int]]:
        """All that there is, by key: value and revision."""
        found: dict[str, tuple[bytes, int]] = {}
        async with self.asking():
            watcher = await bucket.watch(keys, ignore_deletes=True)
            try:
                while (entry := await _next(watcher)) is not None:
                    found[entry.key] = (entry.value or b"", entry.revision or 0)
            finally:
                await watcher.stop()  # type: ignore[no-untyped-call]  # nats-py has not typed it
        return found

    async def close(self) -> None:
        # It may have gone already, and uvloop says that in its own way.
        with contextlib.suppress(Error, OSError, RuntimeError):
            await self.client.close()
