"""Requests for what another replica leads: handed on to it, and its answer back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from reconciler.errors import Transient
from reconciler.ports.peers import PeerAnswer, Peers
from reconciler.web.gate import LOCAL, Asgi, Message, Receive, Scope, Send, header, is_local
from reconciler.web.openapi import API, OLD_WEBHOOK
from reconciler.web.problems import CONTENT_TYPE, Refusal, refusal_of

# Of one Script or repository, whose namespace is in the path.
_OBJECT: Final = re.compile(rf"{API}/(?:scripts|repositories)/([^/]+)/[^/]+/.+")
# Those whose namespace is a parameter; what it is where there is none.
_DEFAULTS: Final = {
    f"{API}/webhook": "default",
    OLD_WEBHOOK: "default",
    f"{API}/runs": "",
    f"{API}/recordings": "",
}
# Between two hops, not of the message.
_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade"}
    | {b"content-length", b"proxy-connection", LOCAL, b"date", b"server"}
)


class Forwarding:
    """In front of the application, behind the gate: a request goes where its namespace is led.

    `elsewhere` says of a namespace None where we lead it, else the address of who does, or "" when
    nobody is known. The other replica asks the same of the token as this one would. It is handed on
    once: a replica that does not lead either says so.
    """

    def __init__(
        self,
        inner: Asgi,
        peers: Peers,
        *,
        elsewhere: Callable[[str], str | None],
        local_users: bool,
    ) -> None:
        self._inner = inner
        self._peers = peers
        self._elsewhere = elsewhere
        self._local_users = local_users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        namespace = namespace_of(scope)
        address = self._elsewhere(namespace) if namespace else None
        if address is None:
            await self._inner(scope, receive, send)
            return
        if not address or header(scope, LOCAL):
            nobody = f"nobody is known to lead namespace {namespace} just now"
            await _refuse(refusal_of(Transient(nobody, reason="NoLeader")), send)
            return
        try:
            answer = await self._asked(address, scope, receive)
        except Transient as error:
            await _refuse(refusal_of(error), send)
        else:
            await _send(answer, send)

    async def _asked(self, address: str, scope: Scope, receive: Receive) -> PeerAnswer:
        # The gate has read it: it comes whole.
        body = bytes((await receive()).get("body", b""))
        trusted = self._local_users and is_local(scope)
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP]
        headers.append((LOCAL, b"local" if trusted else b"remote"))
        query = scope.get("query_string", b"").decode("latin-1")
        path = scope.get("raw_path") or scope["path"].encode()
        target = path.decode("latin-1").partition("?")[0] + (f"?{query}" if query else "")
        return await self._peers.ask(
            address, method=scope["method"], target=target, headers=headers, body=body
        )


def namespace_of(scope: Scope) -> str:
    """Of what a request is about; empty where any replica can answer it."""
    path = str(scope["path"]).rstrip("/")
    found = _OBJECT.fullmatch(path)
    if found is not None:
        return found[1]
    default = _DEFAULTS.get(path)
    if default is None:
        return ""
    query = parse_qs(bytes(scope.get("query_string", b"")).decode("latin-1"))
    return query.get("namespace", [default])[-1]


async def _refuse(refusal: Refusal, send: Send) -> None:
    headers = {"content-type": CONTENT_TYPE, **refusal.headers}
    encoded = tuple((name.lower().encode(), value.encode()) for name, value in headers.items())
    await _send(PeerAnswer(refusal.status, encoded, refusal.body()), send)


async def _send(answer: PeerAnswer, send: Send) -> None:
    headers = [(n.lower(), v) for n, v in answer.headers if n.lower() not in _HOP]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    start: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})
