"""Registers of others over HTTP, with every address judged before it is spoken to."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

import aiohttp
from yarl import URL

from reconciler.core import addresses
from reconciler.core.addresses import Reach
from reconciler.errors import ArtifactNotFound, Forbidden, SourceUnavailable, Stalled

# From the first look-up to the last byte, redirects and all.
DEADLINE_SECONDS = 10.0
# An artifact; the same that a repository may hold as one script.
LONGEST_BYTES = 1 << 20
REDIRECTS = 3
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


class HttpRegisters:
    """Keeps the promises of `Registers`.

    `allowed` holds `host[:port]`. An allowed name may lead to the internet or a private network;
    to this machine, the local link and the like only when the host is named as the literal address
    (or as `localhost`). Proxies, cookies and credentials of the environment are not used, and
    nothing is decompressed.
    """

    def __init__(
        self,
        allowed: Iterable[str],
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._allowed = frozenset(map(Origin.parse, allowed))
        self._resolve = resolve or _resolve
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._deadline = deadline_seconds
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, register: str, name: str, version: str, ext: str) -> bytes:
        file = f"{version}.{ext}"
        url = _artifact_url(register, f"{quote(name, safe='')}/{quote(file, safe='')}")
        try:
            async with asyncio.timeout(self._deadline):
                return await self._follow(url)
        except TimeoutError as error:
            raise SourceUnavailable(f"{url} was not fetched within {self._deadline:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SourceUnavailable(f"{url} could not be fetched ({error})") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _follow(self, url: URL) -> bytes:
        for _ in range(REDIRECTS + 1):
            found = await self._get(url)
            if isinstance(found, bytes):
                return found
            if url.scheme == "https" and found.scheme != "https":
                raise Forbidden(f"{url} redirects from https to {found}")
            url = found
        raise SourceUnavailable(f"{url} is behind more than {REDIRECTS} redirects")

    async def _get(self, url: URL) -> bytes | URL:
        """The bytes at `url`, or where it redirects to."""
        async with await self._connect(url) as response:
            match response.status:
                case 200:
                    return await _read(url, response)
                case 301 | 302 | 303 | 307 | 308:
                    return url.join(URL(response.headers.get("Location", "")))
                case 404 | 410:
                    raise ArtifactNotFound(f"{url} does not exist")
                case 401 | 403:
                    raise Forbidden(f"{url} is not given to us ({response.status})")
                case status:
                    raise SourceUnavailable(f"{url} was answered with {status}")

    async def _connect(self, url: URL) -> aiohttp.ClientResponse:
        """Ask the first judged address that answers; the name goes into Host and TLS only."""
        problem: Exception = SourceUnavailable(f"{url} has no address")
        for address in await self._judged(url):
            try:
                return await self._sessions().get(
                    url.with_host(address),
                    allow_redirects=False,
                    headers={"Host": url.host_port_subcomponent or ""},
                    server_hostname=url.raw_host if url.scheme == "https" else None,
                    ssl=self._tls,
                )
            except aiohttp.ClientConnectorCertificateError:
                raise
            except aiohttp.ClientConnectorError as error:
                problem = error
        raise problem

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
        if not {Origin(host, port), Origin(host, url.port)} & self._allowed:
            raise Forbidden(
                f"register {host}:{url.port} is not allowed; an operator can add it to the "
                "allowed registers"
            )
        try:
            found = await self._resolve(host, url.port)
        except (OSError, UnicodeError) as error:
            raise SourceUnavailable(f"{host} could not be resolved ({error})") from error
        for text in found:
            reach = _reach(text)
            if not (reach in {Reach.GLOBAL, Reach.PRIVATE} or _names(host, text, reach)):
                raise Forbidden(
                    f"register {host} leads to {text}, {reach}; where that is meant, "
                    "allow the address itself"
                )
        return found


def _artifact_url(register: str, path: str) -> URL:
    try:
        url = URL(register)
    except ValueError as error:
        raise Forbidden(f"register {register!r} is not a URL") from error
    if url.raw_query_string or url.raw_fragment:
        raise Forbidden(f"register {url.origin()} must have neither a query nor a fragment")
    return url.joinpath(path, encoded=True)


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


async def _read(url: URL, response: aiohttp.ClientResponse) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise SourceUnavailable(f"{url} was sent compressed, unasked")
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > LONGEST_BYTES:
            raise SourceUnavailable(f"{url} is longer than {LONGEST_BYTES} bytes")
    return bytes(content)
