"""The channel to the controller: one session after another, for ever, until drained."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio
from scriptops.controller.v1 import controller_pb2 as wire
from scriptops.controller.v1 import controller_pb2_grpc

from executor.session import codec
from executor.session.artifacts import ArtifactRefused, ArtifactUnavailable
from executor.session.codec import PeerProtocolError
from executor.session.stream import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from executor.model import RunResult, ScriptType, Work
    from executor.session.purse import Purse
    from executor.session.tls import Files

log = logging.getLogger(__name__)

BACKOFF_SECONDS: Final = 0.2
BACKOFF_MAX_SECONDS: Final = 20.0
"""Doubled after every failure, and a random share of it waited: 500 executors that lost their
controller come back spread over this time."""

FETCH_SECONDS: Final = 30.0
"""For one artifact of at most 32 MB."""

KEEPALIVE_MS: Final = 30_000
KEEPALIVE_TIMEOUT_MS: Final = 10_000
"""A controller that is black-holed is seen dead within 40 s. A session is a call that is always
open, so a gRPC server's default of one ping per 5 minutes *without calls* does not apply, but its
default minimum of 5 minutes *between* pings does: the controller's server must set
`grpc.http2.min_ping_interval_without_data_ms` and `min_recv_ping_interval_without_data_ms` to
20 s or less, else it answers GOAWAY too_many_pings."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", codec.MESSAGE_BYTES),
    ("grpc.max_send_message_length", codec.MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # Without it an unanswered ping is given a minute, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # Reconnection is ours; gRPC's own backoff beneath it would add up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What Connect says of this executor."""

    name: str
    script_types: tuple[ScriptType, ...]
    engines: Mapping[str, str]


class Client:
    """Keeps a session with the controller at `address`.

    `handle` gets the work of the session that is open; `opened` is called when one begins, `lost`
    when it ends and with it the right to answer. Each session begins with what stands in the files
    of `tls` then; `name` is whom its certificate is for where `address` does not say it. Used by
    one event loop only.
    """

    def __init__(
        self,
        address: str,
        *,
        name: str = "",
        purse: Purse,
        identity: Identity,
        handle: Callable[[Work], None],
        lost: Callable[[], None],
        opened: Callable[[], None] = lambda: None,
        tls: Files | None = None,
    ) -> None:
        self._address = address
        self.name = name
        self._purse = purse
        self._handle = handle
        self._lost = lost
        self._opened = opened
        self._tls = tls
        self._content = None if tls is None else tls.read()
        self._connect = codec.connect_to_wire(
            name=identity.name, script_types=identity.script_types, engines=identity.engines
        )
        self._channel = self._new_channel()
        self._stub = controller_pb2_grpc.ControllerServiceStub(self._channel)
        self._stream: Stream | None = None
        self._draining = asyncio.Event()

    def deliver(self, results: Sequence[RunResult]) -> None:
        """Send results of the open session; without one there is nobody to tell."""
        if self._stream is not None:
            self._stream.deliver(results)

    def drain(self) -> None:
        """End the session when what is in flight is answered; `run` then returns."""
        self._draining.set()
        if self._stream is not None:
            self._stream.drain()

    async def run(self) -> None:
        """Serve session after session until drained."""
        backoff = BACKOFF_SECONDS
        while not self._draining.is_set():
            was_connected, delay = await self._session()
            backoff = BACKOFF_SECONDS if was_connected else min(backoff * 2, BACKOFF_MAX_SECONDS)
            # Half of it is certain, so that a crash loop of the controller is not made worse.
            # So that all who served a controller that ends do not come back in one moment.
            delay *= 1 + random.random()  # noqa: S311 - spreads, hides nothing
            wait = delay + backoff * (0.5 + random.random() / 2)  # noqa: S311 - spreads, hides nothing
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), wait)

    async def close(self) -> None:
        await self._channel.close()

    async def _session(self) -> tuple[bool, float]:
        """One session: whether it came to be, and the delay that its end asks for, in seconds."""
        await self._renew()
        call = self._stub.Run()
        self._stream = stream = Stream(
            call,
            connect=self._connect,
            purse=self._purse,
            handle=self._handle,
            opened=self._opened,
        )
        delay = 0.0
        try:
            ended = await stream.run()
            delay = ended.reconnect_after_ms / 1_000
            log.info("session ended", extra={"reason": ended.reason})
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            reason = _told(error)
            if "Socket closed" in reason and not stream.is_connected:
                # All that gRPC tells of a certificate that the other side missed or did not want.
                reason += "; does the controller want a certificate that its --client-ca signed?"
            log.warning("session lost", extra={"reason": reason, "address": self._address})
        except PeerProtocolError as error:
            log.warning("session refused", extra={"reason": str(error)})
        finally:
            self._stream = None
            self._lost()
            call.cancel()
        return stream.is_connected, delay

    async def _renew(self) -> None:
        """Another channel where the files have changed."""
        if self._tls is None:
            return
        try:
            found = self._tls.read()
        except OSError as error:
            log.warning("certificate not renewed", extra={"reason": str(error)})
            return
        if found != self._content:
            self._content = found
            await self._channel.close()
            self._channel = self._new_channel()
            self._stub = controller_pb2_grpc.ControllerServiceStub(self._channel)
            log.info("certificate renewed")

    def _new_channel(self) -> grpc.aio.Channel:
        if self._content is None:
            return grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        credentials = self._content.credentials()
        named = (("grpc.ssl_target_name_override", self.name),) if self.name else ()
        return grpc.aio.secure_channel(self._address, credentials, options=_OPTIONS + named)

    async def fetch(self, digest: str) -> AsyncIterator[bytes]:
        """The chunks of an artifact.

        Raises:
            ArtifactRefused: the controller does not know it.
            ArtifactUnavailable: it could not be fetched now.
        """
        try:
            call = self._stub.FetchArtifact(
                wire.FetchArtifactRequest(digest=digest), timeout=FETCH_SECONDS
            )
            async for response in call:
                yield response.chunk
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise ArtifactRefused(f"the controller has no artifact {digest}") from error
            raise ArtifactUnavailable(
                f"artifact {digest} could not be fetched ({error.code().name})"
            ) from error


def _told(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error)
