"""Other controllers, asked over HTTP."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from reconciler.errors import Transient
from reconciler.ports.peers import Headers, PeerAnswer

# A webhook may wait 55 s for its run.
SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 5.0
# A listing of a thousand runs with their logs.
MOST_BYTES: Final = 32 * 1024 * 1024
CONNECTIONS: Final = 64


class HttpPeers:
    """Keeps the promises of `Peers`.

    With `cert`, the file of our own certificate, a peer has to show the same one: it is known by
    its key, whatever name it is called by. Without, https is not spoken.
    """

    def __init__(self, cert: Path | None = None) -> None:
        self._cert = cert
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self, address: str, *, method: str, target: str, headers: Headers, body: bytes
    ) -> PeerAnswer:
        try:
            async with self._opened().request(
                method,
                URL(f"{address}{target}", encoded=True),
                headers=[
                    (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
                ],
                data=body or None,
                allow_redirects=False,
                ssl=await asyncio.to_thread(self._trust) if address.startswith("https:") else True,
            ) as response:
                content = await response.content.read(MOST_BYTES)
                return PeerAnswer(response.status, tuple(response.raw_headers), content)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise Transient(f"who leads does not answer ({why})", reason="LeaderAway") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=SECONDS, sock_connect=CONNECT_SECONDS),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _trust(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        if self._cert is not None:
            # The first of the file: those behind it have signed others, too.
            first, end, _ = self._cert.read_text().partition("-----END CERTIFICATE-----")
            context.load_verify_locations(cadata=f"{first}{end}\n")
        return context
