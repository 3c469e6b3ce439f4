"""An HTTP server on loopback that does what a test has it do, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from executor.egress.client import Client
from executor.egress.places import Place
from executor.model import RunKey
from tests.executor.running import script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

KEY = RunKey("run-7", 1, 1)


class Server:
    """`answers` by path; anything else is echoed as JSON."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.port = 0
        # What an answer waits for that is not to end by itself.
        self.released = asyncio.Event()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.method, request.path_qs, headers, body))
        answer = self.answers.get(request.path)
        if answer is not None:
            return await answer(request)
        return web.json_response({"method": request.method, "path": request.path_qs})


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    runner = web.ServerRunner(
        web.Server(server.handle, access_log=None),  # type: ignore[arg-type]  # a request all the same
        shutdown_timeout=0.1,
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        server.released.set()
        await runner.cleanup()


@asynccontextmanager
async def asking(*allowed: str, **options: Any) -> AsyncIterator[Client]:
    """A client whose operator allows these places."""
    client = Client([Place.parse(place) for place in allowed], **options)
    try:
        yield client
    finally:
        await client.close()


async def fetch(
    client: Client, url: object, *, granted: tuple[str, ...], seconds: float = 10.0, **op: Any
) -> dict[str, Any]:
    """The reply to a fetch by a Script that names the places `granted`; its body decoded."""
    ref = script(b"", network_allow=granted)
    wanted = {"op": "fetch", "n": 3, "url": url, **op}
    reply = await client.perform(ref, KEY, wanted, seconds=seconds)
    assert isinstance(reply.pop("ms"), int)
    assert reply.pop("n") == 3
    assert reply.pop("request") == f"{op.get('method', 'GET')} {url}"
    json.dumps(reply, ensure_ascii=False).encode()
    if "body" in reply:
        reply["body"] = base64.b64decode(str(reply["body"]))
    return reply
