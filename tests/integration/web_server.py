"""A running HTTP door, asked by real requests from outside its event loop."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from reconciler import web
from reconciler.controllers.metrics import Metrics
from reconciler.web import Tls, server
from tests.fakes.access import FakeAccess
from tests.fakes.commands import FakeCommands
from tests.fakes.hooks import FakeHooks
from tests.fakes.operations import FakeOperations
from tests.fakes.registry import FakeRegistry

# Longer than any answer takes; a test that waits this long has failed.
PATIENCE = 20.0


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str]:
        """The status and reason of a problem; checks that it is one."""
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status
        assert self.json["detail"] == self.json["message"] != ""
        return self.status, self.json["reason"]


def read(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


@dataclass
class Door:
    """Where it listens, and what stands behind it."""

    port: int
    operations: FakeOperations
    registry: FakeRegistry
    metrics: Metrics
    hooks: FakeHooks
    commands: FakeCommands
    access: FakeAccess
    host: str = "127.0.0.1"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers or {}))
            return read(connection)
        finally:
            connection.close()

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask(
            path, method="POST", body=body, headers={"Content-Type": "application/json"} | given
        )

    def dial(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=PATIENCE)

    def say(self, raw: bytes) -> bytes:
        """All that comes back for these bytes, until the other side closes."""
        with self.dial() as connection:
            connection.sendall(raw)
            return rest(connection)


def rest(connection: socket.socket) -> bytes:
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


@contextmanager
def listening(
    operations: FakeOperations | None = None,
    *,
    host: str = "127.0.0.1",
    ask_at: str | None = None,
    head_seconds: float = server.HEAD_SECONDS,
    send_seconds: float = server.SEND_SECONDS,
    connections: int = server.CONNECTIONS,
    local_users: bool = True,
    tls: Tls | None = None,
    **options: Any,
) -> Iterator[Door]:
    """A door on a free port of `host`, asked at `ask_at`, closed at the end.

    Users of this machine need no token, unless `local_users` is off.
    """
    collectors = CollectorRegistry()
    metrics = Metrics(collectors)
    operations = operations or FakeOperations()
    registry = FakeRegistry()
    hooks = FakeHooks()
    commands = FakeCommands()
    access = FakeAccess()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[int, Callable[[], Awaitable[None]]]:
        app = web.app(
            operations,
            registry,
            push_hooks=hooks,
            commands=commands,
            metrics=collectors,
            access=access,
            local_users=local_users,
            **options,
        )
        return await web.serve(
            app,
            host,
            0,
            tls=tls,
            head_seconds=head_seconds,
            send_seconds=send_seconds,
            connections=connections,
        )

    async def end(stop: Callable[[], Awaitable[None]]) -> None:
        await stop()
        if "peers" in options:
            await options["peers"].close()

    try:
        port, stop = asyncio.run_coroutine_threadsafe(start(), loop).result(PATIENCE)
        try:
            at = ask_at or host
            yield Door(port, operations, registry, metrics, hooks, commands, access, at)
        finally:
            asyncio.run_coroutine_threadsafe(end(stop), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
