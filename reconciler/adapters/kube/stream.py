"""An answer that never ends, told piece by piece: what a watch reads.

Every report of every device passes here. A pooled client would wake a task for each of them, and
that costs as much as all the rest that is done with one; so this is a connection of its own, and
whoever listens is called as soon as bytes are there. The parser is a library's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

import httptools
import orjson

from reconciler.adapters.kube.failures import translate
from reconciler.core.objects import mapping
from reconciler.errors import ClusterUnavailable

# Of an answer that is none; a Status object is far smaller.
_REFUSAL_BYTES: Final = 64 * 2**10


class Stream(asyncio.Protocol):
    """Sends `head` once connected and calls `hear` with the body as it arrives.

    `ended` is done when the answer is complete, or with the error that ended it: what the answer
    meant, what `hear` raised, or `ClusterUnavailable` when it broke off.
    """

    def __init__(self, head: bytes, hear: Callable[[bytes], None], *, doing: str) -> None:
        self._head = head
        self._hear = hear
        self._doing = doing
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._refusal = bytearray()
        self._is_good = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every loop's transports are subclasses of the one that can be written to.
        cast("asyncio.WriteTransport", transport).write(self._head)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ClusterUnavailable(f"{self._doing}: broken off ({error})"))

    def connection_lost(self, error: Exception | None) -> None:
        if self._refusal:
            self._refuse()
        self._end(ClusterUnavailable(f"{self._doing}: broken off ({error or 'closed'})"))

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").title()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._is_good = self._parser.get_status_code() == 200

    def on_body(self, body: bytes) -> None:
        if not self._is_good:
            self._refusal += body[: _REFUSAL_BYTES - len(self._refusal)]
        elif not self.ended.done():
            try:
                self._hear(body)
            except Exception as error:  # noqa: BLE001 - the parser would hide it; whoever waits gets it
                self._end(error)

    def on_message_complete(self) -> None:
        if self._is_good:
            self._end(None)
        else:
            self._refuse()

    def _refuse(self) -> None:
        try:
            status = mapping(orjson.loads(bytes(self._refusal)))
        except orjson.JSONDecodeError:
            status = {"message": self._refusal.decode(errors="replace").strip()}
        code = self._parser.get_status_code()
        self._end(translate(code, status, doing=self._doing, headers=self._headers))

    def _end(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)
