"""Registers of others: files of a web server, and artifacts of an OCI registry."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import aiohttp
from yarl import URL

from reconciler.adapters import judged
from reconciler.adapters.cosign import PublicKey
from reconciler.adapters.judged import Judged, Origin, Resolve
from reconciler.adapters.oci import OciRegistries
from reconciler.core import oci
from reconciler.core.layout import MAX_SCRIPT_BYTES
from reconciler.core.oci import Place
from reconciler.errors import ArtifactNotFound, Forbidden, SourceUnavailable

__all__ = ["LONGEST_BYTES", "HttpRegisters", "Origin"]

# From the first look-up to the last byte, redirects and all.
DEADLINE_SECONDS = 10.0
# An artifact; the same that a repository may hold as one script.
LONGEST_BYTES = MAX_SCRIPT_BYTES
REDIRECTS = 3


class HttpRegisters:
    """Keeps the promises of `Registers`, as `Judged` does for every request.

    `config` is a file of credentials as `docker login` keeps them, for OCI registries alone: a web
    server is sent none. With `keys`, only what one of them signed in an OCI registry is taken.
    """

    def __init__(
        self,
        allowed: Iterable[str],
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        config: Path | None = None,
        keys: Sequence[PublicKey] = (),
    ) -> None:
        self._judged = Judged(allowed, resolve=resolve, tls=tls)
        self._oci = OciRegistries(self._judged, config=config, keys=keys)
        self._has_keys = bool(keys)
        self._deadline = deadline_seconds

    async def fetch(self, register: str, name: str, version: str, ext: str) -> bytes:
        if register.startswith(oci.SCHEME):
            place = Place.parse(register, name, version)
            return await self._in_time(str(place), self._oci.pull(place, ext))
        if self._has_keys:
            raise Forbidden(
                f"what register {register} has cannot be signed, and signatures are asked for; "
                "push it to an OCI registry"
            )
        file = f"{version}.{ext}"
        url = _artifact_url(register, f"{quote(name, safe='')}/{quote(file, safe='')}")
        return await self._in_time(str(url), self._follow(url))

    async def close(self) -> None:
        await self._judged.close()

    async def _in_time(self, what: str, work: Coroutine[object, object, bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._deadline):
                return await work
        except TimeoutError as error:
            raise SourceUnavailable(
                f"{what} was not fetched within {self._deadline:g} s"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SourceUnavailable(f"{what} could not be fetched ({error})") from error

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
        async with await self._judged.request("GET", url) as response:
            match response.status:
                case 200:
                    return await judged.read(url, response, limit=LONGEST_BYTES)
                case 301 | 302 | 303 | 307 | 308:
                    return url.join(URL(response.headers.get("Location", "")))
                case 404 | 410:
                    raise ArtifactNotFound(f"{url} does not exist")
                case 401 | 403:
                    raise Forbidden(f"{url} is not given to us ({response.status})")
                case status:
                    raise SourceUnavailable(f"{url} was answered with {status}")


def _artifact_url(register: str, path: str) -> URL:
    try:
        url = URL(register)
    except ValueError as error:
        raise Forbidden(f"register {register!r} is not a URL") from error
    if url.raw_query_string or url.raw_fragment:
        raise Forbidden(f"register {url.origin()} must have neither a query nor a fragment")
    return url.joinpath(path, encoded=True)
