"""Artifacts by digest: fetched once, verified, kept in memory while there is room."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CACHE_BYTES: Final = 256 * 1024 * 1024
"""A few thousand rules with their libraries; one of 10 MB is large."""

ARTIFACT_BYTES: Final = 32 * 1024 * 1024
"""Largest artifact that is taken; what is larger is refused while it arrives."""


class ArtifactRefused(Exception):
    """There is no such artifact, or it is not what its digest says; asking again cannot help."""


class ArtifactUnavailable(Exception):
    """It could not be fetched now."""


class Artifacts:
    """A cache in front of `fetch`, which yields the chunks of an artifact or raises the above.

    Callers that ask for one digest at the same time share one fetch; a failure is not kept.
    Used by one event loop only.
    """

    def __init__(
        self, fetch: Callable[[str], AsyncIterator[bytes]], *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self._fetch = fetch
        self._cache_bytes = cache_bytes
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._held_bytes = 0
        self._fetching: dict[str, asyncio.Task[bytes]] = {}

    def held(self, digest: str) -> bytes | None:
        """The artifact, when no fetch is needed."""
        if (artifact := self._held.get(digest)) is not None:
            self._held.move_to_end(digest)
        return artifact

    async def get(self, digest: str) -> bytes:
        """The artifact, fetched when it has to be.

        Raises:
            ArtifactRefused, ArtifactUnavailable: see there.
        """
        if (artifact := self.held(digest)) is not None:
            return artifact
        task = self._fetching.get(digest)
        if task is None:
            task = self._fetching[digest] = asyncio.create_task(self._fetch_verified(digest))
            task.add_done_callback(lambda _: self._fetching.pop(digest))
        # One caller that gives up must not take the fetch from the others.
        return await asyncio.shield(task)

    async def _fetch_verified(self, digest: str) -> bytes:
        received = bytearray()
        async for chunk in self._fetch(digest):
            received += chunk
            if len(received) > ARTIFACT_BYTES:
                raise ArtifactRefused(f"artifact {digest} is larger than {ARTIFACT_BYTES} bytes")
        artifact = bytes(received)
        found = f"sha256:{hashlib.sha256(artifact).hexdigest()}"
        if found != digest:
            raise ArtifactRefused(f"artifact {digest} was delivered with other bytes ({found})")
        self._hold(digest, artifact)
        return artifact

    def _hold(self, digest: str, artifact: bytes) -> None:
        self._held[digest] = artifact
        self._held_bytes += len(artifact)
        while self._held_bytes > self._cache_bytes and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            self._held_bytes -= len(dropped)
