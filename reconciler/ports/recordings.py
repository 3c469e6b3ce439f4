"""Runs as they were: the inputs and answers of the newest runs of each Script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reconciler.core.objects import JsonObject
from reconciler.core.recordings import Recording
from reconciler.core.runs import RunId


class Recordings(Protocol):
    """A bounded ring per Script (by its UID), and a bound on all of them together.

    What is read has the values of secrets replaced by stand-ins, always. Not promised: that a run
    is recorded at all. Under load the older of a Script's runs make place before they are written,
    a run of unusual size is left out, and a crash loses what was put after the last flush.
    """

    def put(self, recording: Recording) -> bool:
        """Remember a run. Returns at once; it can be read at once.

        False where it is not kept: it is too large, or too much waits to be written.
        """
        ...

    async def get(self, run_id: RunId) -> JsonObject | None:
        """The document of `core.recordings`."""
        ...

    async def newest(
        self, *, namespace: str | None, script: str | None, limit: int
    ) -> Sequence[JsonObject]:
        """Whole documents, newest first."""
        ...

    async def artifact(self, digest: str) -> bytes | None:
        """The bytes that recorded runs of this digest ran, whatever the registry holds now."""
        ...

    async def flush(self) -> None:
        """Write a part of what was put; to be called about once a second. Raises `Transient`."""
        ...

    def close(self) -> None:
        """Write the rest, and close."""
        ...
