from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from executor.session import artifacts
from executor.session.artifacts import ArtifactRefused, Artifacts, ArtifactUnavailable
from tests.executor.running import digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Shelf:
    """A controller's artifacts; counts how often it is asked."""

    def __init__(self, *held: bytes) -> None:
        self.held = {digest_of(artifact): artifact for artifact in held}
        self.asked: list[str] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.fault: Exception | None = None

    async def fetch(self, digest: str) -> AsyncIterator[bytes]:
        self.asked.append(digest)
        await self.is_open.wait()
        if self.fault is not None:
            raise self.fault
        artifact = self.held[digest]
        for start in range(0, len(artifact), 3):
            yield artifact[start : start + 3]


def test_an_artifact_is_fetched_once_and_kept() -> None:
    async def twice() -> None:
        shelf = Shelf(b"source one")
        kept = Artifacts(shelf.fetch)
        digest = digest_of(b"source one")
        assert kept.held(digest) is None
        assert [await kept.get(digest), await kept.get(digest)] == [b"source one"] * 2
        assert (kept.held(digest), shelf.asked) == (b"source one", [digest])

    asyncio.run(twice())


def test_requests_at_the_same_time_share_a_fetch_even_when_one_gives_up() -> None:
    async def together() -> None:
        shelf = Shelf(b"source")
        shelf.is_open.clear()
        kept = Artifacts(shelf.fetch)
        digest = digest_of(b"source")
        callers = [asyncio.create_task(kept.get(digest)) for _ in range(5)]
        await asyncio.sleep(0)
        callers[0].cancel()
        await asyncio.sleep(0)
        shelf.is_open.set()
        assert await asyncio.gather(*callers[1:]) == [b"source"] * 4
        assert shelf.asked == [digest]

    asyncio.run(together())


def test_other_bytes_than_the_digest_says_are_refused_and_not_kept() -> None:
    async def tampered() -> None:
        shelf = Shelf(b"source")
        digest = digest_of(b"source")
        shelf.held[digest] = b"other source"
        kept = Artifacts(shelf.fetch)
        with pytest.raises(ArtifactRefused, match="delivered with other bytes"):
            await kept.get(digest)
        shelf.held[digest] = b"source"
        assert await kept.get(digest) == b"source"

    asyncio.run(tampered())


def test_a_failure_is_told_to_all_who_wait_and_tried_again_for_the_next() -> None:
    async def unavailable() -> None:
        shelf = Shelf(b"source")
        shelf.fault = ArtifactUnavailable("no connection")
        kept = Artifacts(shelf.fetch)
        digest = digest_of(b"source")
        both = await asyncio.gather(kept.get(digest), kept.get(digest), return_exceptions=True)
        assert both == [shelf.fault, shelf.fault]
        shelf.fault = None
        assert await kept.get(digest) == b"source"

    asyncio.run(unavailable())


def test_the_least_recently_used_artifact_goes_first() -> None:
    async def fill() -> None:
        sources = [b"a" * 40, b"b" * 40, b"c" * 40]
        shelf = Shelf(*sources)
        kept = Artifacts(shelf.fetch, cache_bytes=100)
        a, b, c = map(digest_of, sources)
        for digest in (a, b, a, c):
            await kept.get(digest)
        assert [kept.held(digest) is not None for digest in (a, b, c)] == [True, False, True]

    asyncio.run(fill())


def test_an_artifact_without_end_is_refused_while_it_arrives() -> None:
    async def endless() -> None:
        async def fetch(digest: str) -> AsyncIterator[bytes]:
            while True:
                yield b"x" * (artifacts.ARTIFACT_BYTES // 4)

        with pytest.raises(ArtifactRefused, match="is larger than"):
            await Artifacts(fetch).get("sha256:0")

    asyncio.run(endless())
