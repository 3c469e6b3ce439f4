"""What stands in front of the application: who speaks, how much, how long.

The application proper would wait for the first byte of a body before it looks at anything; so
sizes, encodings and hosts are judged here, from the head of the request alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from reconciler.core import addresses
from reconciler.web.problems import CONTENT_TYPE, Refusal

Scope: TypeAlias = dict[str, Any]  # as ASGI has it
Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Asgi: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# Browsers and proxies send about 30; each costs memory and time in every layer above.
MOST_HEADERS = 100
# An event is a notice, not a transfer; waiting runs hold theirs in memory.
BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0
# Push webhooks name every commit of a push and the files of each: some 10 KiB for a usual one.
# What is larger is found by polling.
HOOK_BYTES = 1024 * 1024
# Of all of them that are held at a time. Without room they are told to come again; what is no
# longer than any other body always has room.
ALL_HOOKS_BYTES = 32 * 1024 * 1024
# Of a refused body, after the answer.
LINGER_BYTES = 2 * HOOK_BYTES
LINGER_SECONDS = 1.0
# Set by a replica that hands a request on: whether it came to it from its own machine.
LOCAL: Final = b"scriptops-forwarded"
_HOOK = re.compile(r"/api/v1alpha1/repositories/[^/]+/[^/]+/push/?")

# On every answer that does not say otherwise.
HEADERS: Final[Mapping[bytes, bytes]] = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; sandbox",
    b"cache-control": b"no-store",
}


class Gate:
    """Hands over only requests with a whole, small body, from whom may speak.

    `hosts` are names by which this machine's own users may call it, besides `localhost` and
    loopback addresses. A page in their browser whose name was made to resolve to this machine
    comes with another Host and is refused.
    """

    def __init__(
        self,
        inner: Asgi,
        *,
        insecure: bool,
        hosts: Collection[str] = (),
        body_bytes: int = BODY_BYTES,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._inner = inner
        self._insecure = insecure
        self._hosts = frozenset(host.lower() for host in hosts)
        self._body_bytes = body_bytes
        self._body_seconds = body_seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                more = [item for item in HEADERS.items() if item[0] not in present]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        limit = HOOK_BYTES if is_push_webhook(scope) else self._body_bytes
        body = bytearray()
        try:
            try:
                self._judge_head(scope, limit)
                is_whole = await self._read(receive, body, limit)
            except Refusal as refusal:
                self._let_go(body)
                await _answer(refusal, receive, send_guarded)
                return
            if is_whole:  # else nobody is left to answer to
                await self._hand_over(scope, bytes(body), receive, send_guarded)
        finally:
            self._let_go(body)

    def _let_go(self, body: bytearray) -> None:
        self._held -= len(body)
        body.clear()

    async def _hand_over(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._inner(scope, replay, send)

    def _judge_head(self, scope: Scope, limit: int) -> None:
        if len(scope["headers"]) > MOST_HEADERS:
            raise Refusal(
                431, "TooManyHeaders", f"a request may have at most {MOST_HEADERS} headers"
            )
        if not (
            self._insecure
            # Signed, so that it does not matter who brings it: a proxy or a tunnel on this machine.
            or is_push_webhook(scope)
            or not is_local(scope)
            or self._is_known(header(scope, b"host"))
        ):
            raise Refusal(
                421,
                "UnknownHost",
                "on this machine, call me localhost or by a loopback address; an operator can "
                "allow more names",
            )
        if header(scope, b"content-encoding").lower() not in {"", "identity"}:
            raise Refusal(415, "UnsupportedEncoding", "send the body as it is, not compressed")
        length = header(scope, b"content-length")
        if length and int(length) > limit:  # digits only: h11 has seen to that
            raise _too_large(limit)

    def _is_known(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "") if _is_authority(host) else ""
        return name == "localhost" or name in self._hosts or addresses.is_loopback(name)

    async def _read(self, receive: Receive, body: bytearray, limit: int) -> bool:
        """Read into `body`; whether it is whole, or the client has gone."""
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return False
                    chunk = message.get("body", b"")
                    body += chunk
                    self._held += len(chunk)
                    if len(body) > limit:
                        raise _too_large(limit)
                    if len(body) > self._body_bytes and self._held > ALL_HOOKS_BYTES:
                        raise Refusal(
                            503, "Busy", "too much is being sent at once", {"Retry-After": "1"}
                        )
                    if not message.get("more_body", False):
                        return True
        except TimeoutError:
            raise Refusal(
                408, "BodyTooSlow", f"the body did not arrive within {self._body_seconds:g} s"
            ) from None


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "BodyTooLarge", f"a body may have at most {limit} bytes")


async def _answer(refusal: Refusal, receive: Receive, send: Send) -> None:
    """Refuse and close: the rest of a body that nobody reads must not come in either.

    A client that is about to send a little more is let finish, unread: a socket that is closed on
    arriving bytes is reset, and its client would never see the answer.
    """
    body = refusal.body()
    headers = {
        "content-type": CONTENT_TYPE,
        "content-length": str(len(body)),
        "connection": "close",
        **refusal.headers,
    }
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await _linger(receive)
    await send({"type": "http.response.body", "body": b""})


async def _linger(receive: Receive) -> None:
    passed_over = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while passed_over <= LINGER_BYTES:
                message = await receive()
                passed_over += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def header(scope: Scope, name: bytes) -> str:
    """The first header of that lower-case name, or nothing."""
    for found, value in scope["headers"]:
        if found == name:
            return bytes(value).decode("latin-1").strip()
    return ""


def is_push_webhook(scope: Scope) -> bool:
    return _HOOK.fullmatch(scope["path"]) is not None


def is_local(scope: Scope) -> bool:
    """Whether the peer of the socket is this machine; no header makes it so.

    Another controller on this machine says it of who asked that one.
    """
    client = scope.get("client")
    is_near = client is not None and addresses.is_loopback(client[0])
    return is_near and header(scope, LOCAL) in {"", "local"}


def refuse_cross_site(scope: Scope) -> None:
    """Refuse what a page of another site made a browser send, links and pictures included.

    Browsers say so in `Sec-Fetch-Site`, those that do not at least send `Origin`; prefetching is
    no wish of a person either. Programs send none of these.
    """
    site = header(scope, b"sec-fetch-site")
    origin = header(scope, b"origin")
    purpose = header(scope, b"sec-purpose") + header(scope, b"purpose")
    foreign = bool(origin) and origin.partition("://")[2] != header(scope, b"host")
    if site not in {"", "same-origin", "none"} or foreign or "prefetch" in purpose:
        raise Refusal(403, "CrossSite", "pages of other sites may not ask for this")


def _is_authority(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").netloc == host
    except ValueError:
        return False
