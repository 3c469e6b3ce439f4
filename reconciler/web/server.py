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

Stop: TypeAlias = Callable[[], Awaitable[None]]

# Connections at a time, each of at most 16 KiB of head; the gate bounds what bodies take.
CONNECTIONS = 1000
# From the first byte (or the connection) to the end of the request's head.
HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 5
# Answers under way when we stop; none takes longer than a look into memory.
STOP_SECONDS = 3


async def serve(
    app: Asgi, host: str, port: int, *, head_seconds: float = HEAD_SECONDS
) -> tuple[int, Stop]:
    """Listen on `host`; the port that was bound (for port 0), and how to stop.

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
            head_seconds=head_seconds,
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
            limit_concurrency=CONNECTIONS,
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
    def __init__(self, app: Asgi, *, head_seconds: float, **options: Any) -> None:
        super().__init__(app, **options)
        self.head_seconds = head_seconds


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
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
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1.0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to `main`."""
        yield


class _Protocol(H11Protocol):
    """Closes a connection whose request does not come, or comes drop by drop.

    The server beneath bounds only the pause between two requests.
    """

    config: _Config
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the class beneath
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._patience is None:
            self._patience = self.loop.call_later(self.config.head_seconds, self.transport.abort)

    def _unwatch(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
