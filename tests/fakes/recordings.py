"""Recordings in memory, with a key that tests may know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from reconciler.core import recordings
from reconciler.core.objects import JsonObject, mapping
from reconciler.core.recordings import Recording
from reconciler.core.runs import RunId

KEY = b"k" * 32


@dataclass
class FakeRecordings:
    """Keeps the promises of `Recordings`; nothing is lost, and flushing does nothing."""

    keep: int = 20
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    held: list[Recording] = field(default_factory=list)

    def put(self, recording: Recording) -> bool:
        own = [it for it in self.held if it.uid == recording.uid]
        if len(own) >= self.keep:
            self.held.remove(own[0])
        self.held.append(recording)
        return True

    async def get(self, run_id: RunId) -> JsonObject | None:
        found = (it for it in reversed(self.held) if it.record.run_id == run_id)
        return next((_document(it) for it in found), None)

    async def newest(
        self, *, namespace: str | None, script: str | None, limit: int
    ) -> Sequence[JsonObject]:
        return [
            _document(it)
            for it in reversed(self.held)
            if namespace in {None, it.ref.key.namespace} and script in {None, it.ref.key.name}
        ][:limit]

    async def artifact(self, digest: str) -> bytes | None:
        return self.artifacts.get(digest)

    async def flush(self) -> None:
        """All is where it belongs already."""

    def close(self) -> None:
        """Nothing is open."""


def _document(recording: Recording) -> JsonObject:
    return mapping(orjson.loads(recordings.encoded(recording, key=KEY)))
