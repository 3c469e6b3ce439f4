"""Performs what scripts ask of the network, or says in a sentence why not."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias

import aiohttp

from executor.egress import addresses
from executor.egress.places import Place, canonical
from executor.egress.request import Request, RequestRefused, url_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from yarl import URL

    from executor.model import RunKey, ScriptRef

    Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

log = logging.getLogger(__name__)

FETCH_SECONDS: Final = 10.0
"""One request, redirects and all. A rule that needs longer asks a service that answers at once."""

REDIRECTS: Final = 3

BODY_BYTES: Final = 262_144
"""Of an answer: it goes into the activation of the run, and into its recording."""

HEADER_BYTES: Final = 16_384

AT_ONCE: Final = 32
"""Requests of one namespace under way; the next is refused, so that no tenant holds all sockets."""

_AGENT: Final = "scriptops"
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
# Of one place; not for the next one that a redirect names.
_PRIVATE_HEADERS: Final = frozenset({"authorization", "idempotency-key"})


class Refused(Exception):
    """The request has no answer that the script may have."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Client:
    """Sends requests to places that the operator's list and the Script's own both name.

    Every request carries who asks (`Scriptops-Script: namespace/name`) and, unless the script sets
    it, `Idempotency-Key: <run id>-<n>`, which is the same when the run is repeated. Every request
    leaves a line in the log. Used by one event loop only.
    """

    def __init__(
        self,
        allowed: Iterable[Place],
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        fetch_seconds: float = FETCH_SECONDS,
    ) -> None:
        self._allowed = tuple(allowed)
        self._resolve = resolve or _resolve
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._seconds = fetch_seconds
        self._session: aiohttp.ClientSession | None = None
        self._under_way: Counter[str] = Counter()

    async def perform(
        self, script: ScriptRef, key: RunKey, op: Mapping[str, object], *, seconds: float
    ) -> dict[str, object]:
        """The reply to `op`, within `seconds`; whatever script and world do, there is one."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        told: dict[str, object] = {}
        try:
            reply = await self._in_time(script, key, op, min(seconds, self._seconds), told)
        except RequestRefused as error:
            reply = _bad("Denied", str(error))
        except Refused as error:
            reply = _bad(error.code, str(error))
        milliseconds = round((loop.time() - began) * 1_000)
        log.info(
            "fetch",
            extra={
                "namespace": script.namespace,
                "script": script.name,
                "run_id": key.run_id,
                "n": op.get("n"),
                **told,
                "code": reply.get("code", reply.get("status")),
                "ms": milliseconds,
            },
        )
        # What was asked stands beside its answer in the recording of the run.
        asked = f"{op.get('method', 'GET')} {op.get('url')}"
        return {"n": op.get("n"), "request": asked, **reply, "ms": milliseconds}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _in_time(
        self,
        script: ScriptRef,
        key: RunKey,
        op: Mapping[str, object],
        seconds: float,
        told: dict[str, object],
    ) -> dict[str, object]:
        request = Request.read(op)
        # Without its query and path: services take their secrets in either.
        told |= {"method": request.method, "url": str(request.url.origin())}
        if self._under_way[script.namespace] >= AT_ONCE:
            raise Refused("Failed", f"{AT_ONCE} requests of the namespace are under way already")
        self._under_way[script.namespace] += 1
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(script, _signed(request, script, key, op), request)
        except TimeoutError:
            raise Refused("TimedOut", f"no answer within {seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Refused("Failed", _why(error)) from error
        finally:
            self._under_way -= Counter({script.namespace: 1})

    async def _follow(
        self, script: ScriptRef, headers: dict[str, str], request: Request
    ) -> dict[str, object]:
        method, url, body = request.method, request.url, request.body
        for hops in range(REDIRECTS + 1):
            async with await self._send(script, method, url, headers, body) as response:
                location = response.headers.get("Location")
                if (
                    response.status not in _REDIRECTED
                    or location is None
                    or request.redirect == "manual"
                ):
                    return await _answer(response, url, redirected=hops > 0)
                if request.redirect == "error":
                    raise Refused("Failed", f"it redirects with {response.status}")
                target = _redirected(url, location)
                if response.status == 303 or (response.status < 303 and method == "POST"):
                    method, body = ("HEAD" if method == "HEAD" else "GET"), None
                    headers = {k: v for k, v in headers.items() if not _is_of_body(k)}
            if target.origin() != url.origin():
                headers = {k: v for k, v in headers.items() if k.lower() not in _PRIVATE_HEADERS}
            url = target
        raise Refused("Failed", f"it redirects more than {REDIRECTS} times")

    async def _send(
        self,
        script: ScriptRef,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> aiohttp.ClientResponse:
        """Ask the first judged address that answers; the name goes into Host and TLS only."""
        problem: Exception = Refused("Failed", f"{url.host} has no address")
        for address in await self._judged(script, url):
            try:
                return await self._sessions().request(
                    method,
                    url.with_host(address),
                    allow_redirects=False,
                    headers={**headers, "Host": url.host_port_subcomponent or ""},
                    data=body,
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
                # Connections are not kept: the next request judges anew.
                connector=aiohttp.TCPConnector(force_close=True, limit=256),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity", "User-Agent": _AGENT},
                skip_auto_headers=("Content-Type",),
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    async def _judged(self, script: ScriptRef, url: URL) -> Sequence[str]:
        """The addresses of `url`'s host, each of them judged."""
        origin = f"{url.scheme}://{url.host_port_subcomponent}"
        if not _is_named(url, _places(script.network_allow)):
            raise Refused("Denied", f"{origin} is not in spec.network.allow of the Script")
        if not _is_named(url, self._allowed):
            raise Refused("Denied", f"{origin} is not allowed by the operator of this executor")
        host = url.raw_host or ""
        try:
            found = await self._resolve(host, url.port or 0)
        except (OSError, UnicodeError) as error:
            raise Refused("Failed", f"{url.host} could not be resolved") from error
        for text in found:
            if not _may_lead(canonical(host), text):
                raise Refused(
                    "Denied",
                    f"{url.host} leads to {text}; where that is meant, name the address itself",
                )
        return found


def _places(texts: Iterable[str]) -> Iterable[Place]:
    for text in texts:
        try:
            yield Place.parse(text)
        except ValueError:
            # Refused when the manifest was read; an older controller may have let it through.
            log.debug("place passed over", extra={"place": text})


def _is_named(url: URL, places: Iterable[Place]) -> bool:
    return any(place.covers(url) for place in places)


def _may_lead(host: str, text: str) -> bool:
    """Whether an allowed `host` may be at the address `text`.

    It may when it is itself that address (or `localhost`): then the operator meant it.
    """
    address = addresses.parse(text)
    if address is None:
        return False
    if host == "localhost":
        return address.is_loopback
    return addresses.is_reachable(address) or addresses.parse(host) == address


def _signed(
    request: Request, script: ScriptRef, key: RunKey, op: Mapping[str, object]
) -> dict[str, str]:
    headers: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for name, value in request.headers:
        known = spelled.setdefault(name.lower(), name)
        headers[known] = f"{headers[known]}, {value}" if known in headers else value
    if "idempotency-key" not in spelled:
        headers["Idempotency-Key"] = f"{key.run_id}-{op.get('n')}"
    return headers | {"Scriptops-Script": f"{script.namespace}/{script.name}"}


def _is_of_body(name: str) -> bool:
    return name.lower().startswith("content-")


def _redirected(url: URL, location: str) -> URL:
    try:
        target = url_of(str(url.join(type(url)(location))))
    except ValueError as error:
        raise Refused("Failed", "it redirects to what is no http or https URL") from error
    if url.scheme == "https" and target.scheme != "https":
        raise Refused("Denied", "it redirects from https to http")
    return target


async def _answer(
    response: aiohttp.ClientResponse, url: URL, *, redirected: bool
) -> dict[str, object]:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("Failed", "the answer was sent compressed, unasked")
    headers = [
        [name.lower(), _byte_by_byte(value)]
        for name, value in response.headers.items()
        if name.lower() not in {"set-cookie", "set-cookie2"}
    ]
    if sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        raise Refused("TooLarge", f"the answer has more than {HEADER_BYTES} bytes of headers")
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > BODY_BYTES:
            raise Refused("TooLarge", f"the answer has more than {BODY_BYTES} bytes")
    return {
        "ok": True,
        "status": response.status,
        "statusText": _byte_by_byte(response.reason or ""),
        "url": str(url),
        "redirected": redirected,
        "headers": headers,
        "body": base64.b64encode(content).decode(),
    }


def _byte_by_byte(text: str) -> str:
    """What came over the wire as Latin-1, as browsers have it: any byte is a character."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _bad(code: str, message: str) -> dict[str, object]:
    return {"ok": False, "code": code, "message": message}


def _why(error: Exception) -> str:
    """A sentence without what only the operator should read: no paths, no addresses."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "its certificate was not accepted"
        case aiohttp.ClientConnectorError():
            return "it could not be connected to"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return "it hung up before the answer was whole"
        case _:
            return "its answer was not HTTP as we know it"


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))
