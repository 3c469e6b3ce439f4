"""Requests over HTTP to hosts that an operator allowed, with every address judged first."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import aiohttp
from yarl import URL

from reconciler.core import addresses
from reconciler.core.addresses import Reach
from reconciler.errors import Forbidden, SourceUnavailable, Stalled

DEFAULT_PORTS = {"http": 80, "https": 443}
LARGEST_PORT = 65535
# Other alphabets are written in their ASCII form (xn--…), as they go over the wire.
ORIGIN = re.compile(
    r"(\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(:(?P<port>[0-9]{1,5}))?"
)

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]


class Origin(NamedTuple):
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Origin:
        """`host[:port]` as an operator writes it; without a port, that of the scheme is meant."""
        match = ORIGIN.fullmatch(text)
        port = int(match["port"] or 0) if match else LARGEST_PORT + 1
        if match is None or port > LARGEST_PORT:
            raise Stalled(f"{text!r} is not an allowed register; write it as host or host:port")
        return cls(_canonical(match["six"] or match["name"]), port or None)


class Judged:
    """One request, one judgement, one connection to the address that was judged.

    `allowed` holds `host[:port]`. An allowed name may lead to the internet or a private network;
    to this machine, the local link and the like only when the host is named as the literal address
    (or as `localhost`). With None any host may be asked: for a person who names it. Redirects are
    not followed. Proxies, cookies and credentials of the environment are not used, and nothing is
    decompressed.
    """

    def __init__(
        self,
        allowed: Iterable[str] | None,
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = None if allowed is None else frozenset(map(Origin.parse, allowed))
        self._resolve = resolve or _resolve
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        """The first judged address that answers; the name goes into Host and TLS only.

        Raises `Forbidden`, `SourceUnavailable`, and what aiohttp raises.
        """
        problem: Exception = SourceUnavailable(f"{url} has no address")
        for address in await self._judged(url):
            try:
                return await self._sessions().request(
                    method,
                    url.with_host(address),
                    allow_redirects=False,
                    headers={"Host": url.host_port_subcomponent or "", **(headers or {})},
                    data=content,
                    server_hostname=url.raw_host if url.scheme == "https" else None,
                    ssl=self._tls,
                )
            except aiohttp.ClientConnectorCertificateError:
                raise
            except aiohttp.ClientConnectorError as error:
                problem = error
        raise problem

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _sessions(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Connections are not kept: the next fetch judges anew.
                connector=aiohttp.TCPConnector(force_close=True, limit=8),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity", "User-Agent": "scriptops"},
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def _judged(self, url: URL) -> Sequence[str]:
        """All addresses of `url`'s host. Raises `Forbidden` when one of them may not be used."""
        if url.scheme not in DEFAULT_PORTS or not url.raw_host or url.port is None:
            raise Forbidden(f"{url} is not an http or https URL")
        if url.user is not None or url.password is not None:
            raise Forbidden(f"a URL on {url.host} holds credentials; none are sent")
        host = _canonical(url.raw_host)
        port = None if url.port == DEFAULT_PORTS[url.scheme] else url.port
        named = {Origin(host, port), Origin(host, url.port)}
        if self._allowed is not None and not named & self._allowed:
            raise Forbidden(
                f"register {host}:{url.port} is not allowed; an operator can add it to the "
                "allowed registers"
            )
        try:
            found = await self._resolve(host, url.port)
        except (OSError, UnicodeError) as error:
            raise SourceUnavailable(f"{host} could not be resolved ({error})") from error
        for text in found if self._allowed is not None else ():
            reach = _reach(text)
            if not (reach in {Reach.GLOBAL, Reach.PRIVATE} or _names(host, text, reach)):
                raise Forbidden(
                    f"register {host} leads to {text}, {reach}; where that is meant, "
                    "allow the address itself"
                )
        return found


async def read(url: URL, response: aiohttp.ClientResponse, *, limit: int) -> bytes:
    """The body. Raises `SourceUnavailable` for more than `limit` bytes."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise SourceUnavailable(f"{url} was sent compressed, unasked")
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > limit:
            raise SourceUnavailable(f"{url} is longer than {limit} bytes")
    return bytes(content)


def _canonical(host: str) -> str:
    return host.lower().rstrip(".")


def _reach(text: str) -> Reach:
    address = addresses.parse(text)
    return Reach.RESERVED if address is None else addresses.judge(address)


def _names(host: str, text: str, reach: Reach) -> bool:
    """Whether an allowed `host` is itself the address `text`, so that the operator meant it."""
    if host == "localhost":
        return reach is Reach.LOOPBACK
    literal = addresses.parse(host)
    return literal is not None and literal == addresses.parse(text)


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))
