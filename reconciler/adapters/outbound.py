"""Requests to others, over connections whose addresses are judged."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from reconciler.core import addresses
from reconciler.core.addresses import Reach
from reconciler.core.outgoing import Reply, Request
from reconciler.errors import Forbidden, ReceiverUnavailable

# From the look-up of the name to the last byte: a forge under load answers within this.
DEADLINE_SECONDS = 10.0
# Of an answer: enough for the sentence that says what is wrong.
MOST_BYTES = 4096
CONNECTIONS = 8
# What a name may lead to. Tokens do not cross the internet in the clear.
_NAMED = {
    "https": frozenset({Reach.GLOBAL, Reach.PRIVATE}),
    "http": frozenset({Reach.PRIVATE}),
}
# An address that is written as such is meant: a forge on this machine. The local link stays closed,
# where clouds hand out credentials.
_LITERAL = frozenset({Reach.LOOPBACK, Reach.SHARED})


# Addresses of a name, as the system's own resolver gives them.
Resolve: TypeAlias = Callable[[str, int, socket.AddressFamily], Awaitable[Sequence[str]]]


class HttpOutbound:
    """Keeps the promises of `Outbound`."""

    def __init__(
        self, *, deadline_seconds: float = DEADLINE_SECONDS, resolve: Resolve | None = None
    ) -> None:
        self._resolve = resolve or _resolve
        self._deadline = aiohttp.ClientTimeout(total=deadline_seconds)
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def post(self, request: Request) -> Reply:
        url = URL(request.url)
        _judge_literal(url)
        where = str(url.origin())
        try:
            async with self._session(url.scheme).post(
                url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                ssl=_trust(request.authority),
            ) as response:
                content = await response.content.read(MOST_BYTES)
                return Reply(
                    response.status,
                    {name.lower(): value for name, value in response.headers.items()},
                    content.decode("utf-8", "replace"),
                )
        except TimeoutError as error:
            raise ReceiverUnavailable(f"{where} did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ReceiverUnavailable(f"{where} cannot be reached ({error})") from error

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        if scheme not in self._sessions:
            self._sessions[scheme] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS,
                    resolver=_JudgedResolver(_NAMED[scheme], self._resolve),
                    use_dns_cache=False,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "scriptops", "Accept-Encoding": "identity"},
                timeout=self._deadline,
                auto_decompress=False,
                trust_env=False,
            )
        return self._sessions[scheme]


class _JudgedResolver(AbstractResolver):
    """Names lead to where they may or nowhere; `localhost` to this machine."""

    def __init__(self, allowed: frozenset[Reach], resolve: Resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolve(host, port, family)
        allowed = {Reach.LOOPBACK} if host == "localhost" else self._allowed
        for address in found:
            if _reach(address) not in allowed:
                where = f"{host} leads to {address}, {_reach(address)}"
                raise OSError(errno.EHOSTUNREACH, where)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """It holds nothing."""


async def _resolve(host: str, port: int, family: socket.AddressFamily) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, family=family
    )
    return [str(address[0]) for *_, address in found]


def _judge_literal(url: URL) -> None:
    """Addresses in URLs are not looked up, and so are judged here."""
    if url.scheme not in _NAMED or not url.raw_host:
        raise Forbidden(f"{url.scheme}:// is not spoken; use https")
    literal = addresses.parse(url.raw_host)
    reach = None if literal is None else addresses.judge(literal)
    if reach is not None and reach not in _NAMED[url.scheme] | _LITERAL:
        raise Forbidden(f"{url.raw_host} is {reach}, which is not spoken to over {url.scheme}")


def _reach(text: str) -> Reach:
    address = addresses.parse(text)
    return Reach.RESERVED if address is None else addresses.judge(address)


def _trust(authority: str) -> Any:
    return ssl.create_default_context(cadata=authority) if authority else True
