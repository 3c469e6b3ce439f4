"""Requests to a Kubernetes API server: bounded in time, size, number and rate."""

from __future__ import annotations

import asyncio
import copy
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import orjson
from kubernetes.aio.config import ConfigException
from yarl import URL

from reconciler.adapters.kube.failures import translate
from reconciler.adapters.kube.stream import Stream
from reconciler.core.objects import Json, JsonObject, mapping
from reconciler.core.pacing import REQUESTS, Bucket, Rate
from reconciler.errors import ClusterUnavailable

CONNECT_SECONDS = 10.0
# The server itself gives up on a request after 60 s by default.
REQUEST_SECONDS = 65.0
# 32 at once saturate a small API server (16 clients reach 840 status patches/s) and leave most of
# its 400 places in flight to others.
CONCURRENT_REQUESTS = 32
# A page of 500 objects of 128 KiB each; etcd refuses single objects above 1.5 MiB.
BODY_BYTES = 64 * 2**20
# A peer that vanished without a word is found out 30 + 3 * 10 s after its last one.
KEEPALIVE = (
    (socket.SO_KEEPALIVE, socket.SOL_SOCKET, 1),
    (socket.TCP_KEEPIDLE, socket.IPPROTO_TCP, 30),
    (socket.TCP_KEEPINTVL, socket.IPPROTO_TCP, 10),
    (socket.TCP_KEEPCNT, socket.IPPROTO_TCP, 3),
)

JSON = "application/json"

Query = Mapping[str, str]


class Transport:
    """Sends requests with the credentials of an `ApiClient`; raises only our errors.

    No more of them than `rate` says, watches apart. To be used and closed in one event loop.
    """

    def __init__(self, client: Any, *, rate: Rate = REQUESTS) -> None:
        self._client = client
        self._places = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self._bucket = Bucket(rate, now=asyncio.get_running_loop().time())
        self._headers: dict[str, str] = {}

    def impersonating(self, user: str) -> Transport:
        """One that asks as `user`, with the groups that the server knows a ServiceAccount to have.

        It has the same connections, places and rate.
        """
        other = copy.copy(self)
        other._headers = {"Impersonate-User": user}  # noqa: SLF001 - of the same class
        return other

    def in_front(self) -> Transport:
        """One that waits behind no other request: with places and a rate of its own."""
        other = copy.copy(self)
        other._places = asyncio.Semaphore(CONCURRENT_REQUESTS)  # noqa: SLF001 - of the same class
        other._bucket = Bucket(REQUESTS, now=asyncio.get_running_loop().time())  # noqa: SLF001 - of the same class
        return other

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Json = None,
        content_type: str = JSON,
    ) -> JsonObject:
        """The JSON object answered."""
        content = await self.read(method, path, query=query, body=body, content_type=content_type)
        try:
            return mapping(orjson.loads(content))
        except orjson.JSONDecodeError as error:
            raise ClusterUnavailable(f"{method} {path}: the answer is not JSON") from error

    async def read(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Json = None,
        content_type: str = JSON,
    ) -> bytes:
        """What is answered."""
        doing = f"{method} {path}"
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
        await self._turn()
        async with (
            self._places,
            self._request(method, path, query, timeout, body, content_type) as response,
        ):
            return await _read(response, doing)

    async def _turn(self) -> None:
        pause = self._bucket.take(asyncio.get_running_loop().time())
        if pause:
            try:
                await asyncio.sleep(pause)
            except asyncio.CancelledError:
                self._bucket.give_back()
                raise

    async def stream(
        self, path: str, *, query: Query, seconds: float, hear: Callable[[bytes], None]
    ) -> None:
        """Call `hear` with what is answered, as it arrives; return at its end, or after `seconds`.

        What `hear` raises ends it.
        """
        doing = f"watch {path}"
        try:
            async with asyncio.timeout(seconds):
                if self._is_direct():
                    await self._stream(path, query, hear, doing)
                else:
                    await self._stream_through_proxy(path, query, hear)
        except TimeoutError:
            return
        except (aiohttp.ClientError, OSError) as error:
            raise ClusterUnavailable(f"{doing}: broken off ({error})") from error

    def _is_direct(self) -> bool:
        configuration = self._client.configuration
        return not configuration.proxy and not configuration.client_session_kwargs["trust_env"]

    async def _stream(
        self, path: str, query: Query, hear: Callable[[bytes], None], doing: str
    ) -> None:
        configuration = self._client.configuration
        server = urlsplit(configuration.host)
        lines = [
            f"GET {server.path}{path}?{urlencode(query)} HTTP/1.1",
            f"Host: {server.netloc.rpartition('@')[2]}",
            *(f"{name}: {value}" for name, value in (await self._signed(JSON, doing)).items()),
        ]
        head = "\r\n".join([*lines, "", ""]).encode()
        is_secure = server.scheme == "https"
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                transport, stream = await asyncio.get_running_loop().create_connection(
                    lambda: Stream(head, hear, doing=doing),
                    server.hostname,
                    server.port or (443 if is_secure else 80),
                    ssl=self._client.rest_client.ssl_context if is_secure else None,
                    server_hostname=configuration.tls_server_name if is_secure else None,
                )
        except (OSError, TimeoutError) as error:
            raise _no_answer(doing, error) from error
        try:
            _keep_alive(transport)
            await stream.ended
        finally:
            transport.abort()

    async def _stream_through_proxy(
        self, path: str, query: Query, hear: Callable[[bytes], None]
    ) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async with self._request("GET", path, query, timeout) as response:
            if response.connection is not None and response.connection.transport is not None:
                _keep_alive(response.connection.transport)
            async for chunk in response.content.iter_any():
                hear(chunk)

    async def close(self) -> None:
        await self._client.close()
        # Connections are closed by callbacks; a loop that ends right now would not call them.
        await asyncio.sleep(0)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Query | None,
        timeout: aiohttp.ClientTimeout,
        body: Json = None,
        content_type: str = JSON,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        doing = f"{method} {path}"
        url = f"{self._client.configuration.host}{path}{'?' + urlencode(query) if query else ''}"
        headers = await self._signed(content_type, doing)
        try:
            response = await self._send(method, url, headers, body, timeout)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _no_answer(doing, error) from error
        async with response:
            if response.status >= 400:
                content = await _read(response, doing)
                try:
                    status = mapping(orjson.loads(content))
                except orjson.JSONDecodeError:
                    status = {"message": content.decode(errors="replace").strip()}
                raise translate(response.status, status, doing=doing, headers=response.headers)
            yield response

    async def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: Json,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """The client makes its session with the first request; from then on we use that.

        What the client does to a request besides, none of ours needs, and it takes time on the way
        from a change to its effect.
        """
        rest = self._client.rest_client
        session: aiohttp.ClientSession | None = rest.pool_manager
        if session is None:
            answer = await rest.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            response: aiohttp.ClientResponse = answer.response
            return response
        return await session.request(
            method,
            URL(url, encoded=True),
            headers=headers,
            data=None if body is None else orjson.dumps(body),
            timeout=timeout,
            proxy=rest.proxy,
            proxy_headers=rest.proxy_headers,
            server_hostname=self._client.configuration.tls_server_name,
        )

    async def _signed(self, content_type: str, doing: str) -> dict[str, str]:
        """The headers of a request; raises `ClusterUnavailable` without credentials."""
        configuration = self._client.configuration
        try:
            token = await configuration.get_api_key_with_prefix(
                "BearerToken", alias="authorization"
            )
        except (ConfigException, OSError) as error:
            raise ClusterUnavailable(f"{doing}: no credentials to send ({error})") from error
        return {
            "Accept": JSON,
            # Inside a cluster compressing costs more time than it saves.
            "Accept-Encoding": "identity",
            "Content-Type": content_type,
            "User-Agent": "scriptops",
            **({"Authorization": token} if token else {}),
            **self._headers,
        }


async def _read(response: aiohttp.ClientResponse, doing: str) -> bytes:
    content = bytearray()
    try:
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > BODY_BYTES:
                raise ClusterUnavailable(f"{doing}: the answer is larger than {BODY_BYTES} bytes")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise _no_answer(doing, error) from error
    return bytes(content)


def _no_answer(doing: str, error: Exception) -> ClusterUnavailable:
    return ClusterUnavailable(f"{doing}: no answer ({str(error) or type(error).__name__})")


def _keep_alive(transport: asyncio.BaseTransport) -> None:
    raw = transport.get_extra_info("socket")
    if raw is not None:
        for option, level, value in KEEPALIVE:
            raw.setsockopt(level, option, value)
