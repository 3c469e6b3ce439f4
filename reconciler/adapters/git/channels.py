"""How a conversation with a git server is carried: over its own socket, over HTTP, or over the
pipes of one that is started for it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import aiohttp
from yarl import URL

from reconciler.adapters.git import program, wire
from reconciler.adapters.git.address import Address

_PORT: Final = 9418
# A server writes no file of any size when it is asked for something.
_LONGEST_FILE: Final = 1024 * 1024
# Paths that mean the same whether or not somebody decodes them.
_PLAIN: Final = re.compile(r"/[A-Za-z0-9._+-][A-Za-z0-9._+/-]*")
_SERVICE: Final = "git-upload-pack"
# Forges tell programs from browsers by the first word.
_HEADERS: Final = {
    "User-Agent": "git/2 (scriptops)",
    "Git-Protocol": "version=2",
    "Accept-Encoding": "identity",
}


def is_spoken(address: Address) -> bool:
    """Whether a conversation may be tried: where there is a proxy, git knows the way."""
    path = urlsplit(address.url).path
    if address.protocol in {"https", "http"} and getproxies():
        return False
    if address.path is not None:
        return True
    return address.protocol in {"git", "https", "http"} and bool(_PLAIN.fullmatch(path))


@asynccontextmanager
async def conversation(
    address: Address, *, environment: Mapping[str, str] | None = None, authority: str = ""
) -> AsyncIterator[wire.Conversation]:
    """Where the body is left, the connection ends. `authority` stands in for the system's;
    `environment` is that of a server which is started for a repository of this machine.

    Raises `wire.Unspoken` where it is no use to try again, else `OSError` or `EOFError`.
    """
    async with AsyncExitStack() as stack:
        if address.path is not None:
            carried = _over_pipes(str(address.path), environment or {})
        elif address.protocol == "git":
            carried = _over_tcp(address)
        else:
            carried = _over_http(address, authority)
        server = await stack.enter_async_context(carried)
        await server.greet()
        yield server


@asynccontextmanager
async def _over_pipes(
    path: str, environment: Mapping[str, str]
) -> AsyncIterator[wire.Conversation]:
    spoken = {**environment, "GIT_PROTOCOL": "version=2"}
    async with program.talking(
        ("upload-pack", "--", path), environment=spoken, file_limit=_LONGEST_FILE
    ) as (reader, transport):

        async def request(data: bytes) -> wire.Reader:
            transport.write(data)
            return reader

        yield wire.Conversation(reader, request)


@asynccontextmanager
async def _over_tcp(address: Address) -> AsyncIterator[wire.Conversation]:
    parts = urlsplit(address.url)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, protocol = await loop.create_connection(
        lambda: _Prompt(reader), parts.hostname or "", parts.port or _PORT
    )
    try:
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)

        async def request(data: bytes) -> wire.Reader:
            # In one write: a second one may have to wait until the first is acknowledged.
            writer.write(data)
            await writer.drain()
            return reader

        # Two NULs: what follows, older servers do not look at.
        await request(wire.framed(f"{_SERVICE} {parts.path}\0host={parts.netloc}\0\0version=2\0"))
        yield wire.Conversation(reader, request)
    finally:
        transport.abort()


class _Prompt(asyncio.StreamReaderProtocol):
    """Acknowledges at once. A server that writes in small pieces waits for that, else 40 ms."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if hasattr(socket, "TCP_QUICKACK"):
            # Holds until the next time we write.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


@asynccontextmanager
async def _over_http(address: Address, authority: str) -> AsyncIterator[wire.Conversation]:
    headers = dict(_HEADERS)
    if address.password:
        login = f"{address.username}:{address.password}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=_trusting(authority)),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        # Who calls sets the deadline.
        timeout=aiohttp.ClientTimeout(),
        auto_decompress=False,
        trust_env=False,
    )
    try:
        async with session, AsyncExitStack() as answers:

            async def ask(method: str, path: str, kind: str, data: bytes | None) -> wire.Reader:
                url = URL(f"{address.url}/{path}", encoded=True)
                sent = {"Content-Type": f"application/x-{_SERVICE}-request"} if data else {}
                answer = await answers.enter_async_context(
                    session.request(method, url, data=data, headers=sent, allow_redirects=False)
                )
                if answer.status != 200 or answer.content_type != f"application/x-{kind}":
                    # Git finds words for it, and asks for a password first, if it must.
                    raise ConnectionError(f"{answer.status} {answer.content_type}")
                return answer.content

            async def request(data: bytes) -> wire.Reader:
                return await ask("POST", _SERVICE, f"{_SERVICE}-result", data)

            listed = f"info/refs?service={_SERVICE}"
            greeting = await ask("GET", listed, f"{_SERVICE}-advertisement", None)
            yield wire.Conversation(greeting, request)
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error


@functools.cache
def _trusting(authority: str) -> ssl.SSLContext:
    """One context for many conversations: to read the authorities of a system takes 20 ms."""
    return ssl.create_default_context(cadata=authority or None)
