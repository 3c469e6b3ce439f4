"""Listening for HTTP inside our own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from reconciler.errors import Stalled
from reconciler.web.gate import Asgi
from reconciler.web.tls import Tls

Stop: TypeAlias = Callable[[], Awaitable[None]]

# Connections at a time, each of at most 16 KiB of head; the gate bounds what bodies take. Without
# room, the oldest one whose client is slow makes some.
CONNECTIONS = 1000
# From the first byte (or the connection) to the end of the request's head.
HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 5
# For a client to take what we answered: megabytes, over a slow line. Until then they are in memory.
SEND_SECONDS = 60.0
# Answers under way when we stop; none takes longer than a look into memory.
STOP_SECONDS = 3


async def serve(
    app: Asgi,
    host: str,
    port: int,
    *,
    tls: Tls | None = None,
    head_seconds: float = HEAD_SECONDS,
    send_seconds: float = SEND_SECONDS,
    connections: int = CONNECTIONS,
) -> tuple[int, Stop]:
    """Listen on `host`, with `tls` if given; the port that was bound (for port 0), how to stop.

    Answers are served when this returns. Signals are left alone. Raises `Stalled` when the
    address cannot be bound.
    """
    try:
        listener = _bind(host, port)
    except OSError as error:
        raise Stalled(
            f"cannot listen on {host}:{port} ({error.strerror or error}); choose another address",
            reason="AddressUnavailable",
        ) from error
    server = _Server(
        _Config(
            app,
            tls=tls,
            head_seconds=head_seconds,
            send_seconds=send_seconds,
            http=_Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            # Would let X-Forwarded-For say who the peer is.
            proxy_headers=False,
            server_header=False,
            limit_concurrency=connections,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]), name="web")
    listening = asyncio.create_task(server.listening.wait())
    await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
    if not server.listening.is_set():
        listening.cancel()
        await task  # raises what went wrong

    async def stop() -> None:
        server.stop()
        await task

    return int(listener.getsockname()[1]), stop


def _bind(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    both = host == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server(address, family=family, dualstack_ipv6=both)
    # Inherited by connections: head and body go out in two writes, and the second would otherwise
    # wait 40 ms for the peer's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


class _Config(uvicorn.Config):
    def __init__(
        self,
        app: Asgi,
        *,
        tls: Tls | None,
        head_seconds: float,
        send_seconds: float,
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self.tls = tls
        self.head_seconds = head_seconds
        self.send_seconds = send_seconds

    def load(self) -> None:
        super().load()
        self.ssl = None if self.tls is None else self.tls.context


class _Server(uvicorn.Server):
    config: _Config

    def __init__(self, config: _Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stopping.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Once a second instead of ten times, for the Date header; and no wait at the end."""
        while not await self.on_tick(0):
            if self.config.tls is not None:
                self.config.tls.renew()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1.0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to `main`."""
        yield


class _Protocol(H11Protocol):
    """Closes a connection whose request does not come, or comes drop by drop, and one whose answers
    are not read.

    The server beneath bounds only the pause between two requests.
    """

    config: _Config
    connections: set[_Protocol]  # type: ignore[assignment]  # all are of this class
    _patience: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None
    made_at = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the class beneath
        super().connection_made(transport)
        # Then we are told of all that is not taken, be it little. With 0, TLS is never done.
        transport.set_write_buffer_limits(high=1, low=0)
        self.made_at = self.loop.time()
        self._make_room()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()
        self._sent()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending = self.loop.call_later(self.config.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sent()

    def _make_room(self) -> None:
        """Who sends or reads slowly, on many connections, does not keep out those who do not."""
        if len(self.connections) >= (self.limit_concurrency or CONNECTIONS):
            slow = (it for it in self.connections if it.is_waited_for and it is not self)
            oldest = min(slow, key=lambda it: it.made_at, default=None)
            if oldest is not None:
                oldest.transport.abort()

    @property
    def is_waited_for(self) -> bool:
        """Whether the next step is the client's."""
        is_whole = self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}
        return not self.transport.is_closing() and not (is_whole and self._sending is None)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._patience is None:
            self._patience = self.loop.call_later(self.config.head_seconds, self.transport.abort)

    def _unwatch(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _sent(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
