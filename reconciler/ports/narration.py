"""What happens, told to whoever sits in front of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from reconciler.core.objects import Json


class Narration(Protocol):
    """Told as things happen, in order. Never waits, never raises, keeps no secrets."""

    def step(
        self,
        name: str,
        detail: str = "",
        *,
        took_ms: float | None = None,
        has_failed: bool = False,
    ) -> None:
        """One thing happened: `step("synced", "main@sha1:1a2b3c4, 6 created", took_ms=41)`."""
        ...

    def chapter(self, title: str) -> None:
        """What follows belongs together."""
        ...

    def note(self, message: str) -> None:
        """Something the user should know or do, which stops nothing."""
        ...

    def ready(
        self, *, places: Mapping[str, str], hints: Sequence[str] = (), stop: str = "Ctrl-C"
    ) -> None:
        """All is up: where things are (paths, URLs) and what to try."""
        ...

    def summary(self, facts: Mapping[str, Json]) -> None:
        """How it went. Called at most once, last."""
        ...
