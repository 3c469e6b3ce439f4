"""Executors, as the scheduler sees them: sessions that take dispatches and give results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from reconciler.core.runs import Dispatch, ExecutorId, Pause, RunResult


@dataclass(frozen=True, slots=True)
class ExecutorInfo:
    """`name` is what it says of itself; `identity` what its certificate proves, if it has one."""

    id: ExecutorId
    name: str
    script_types: frozenset[str]
    engines: tuple[tuple[str, str], ...]
    identity: str = ""


class SessionHandler(Protocol):
    """Called from the event loop, in order for one session; must not block."""

    def connected(self, executor: ExecutorInfo) -> None: ...

    def credited(self, executor: ExecutorId, credit: int) -> None: ...

    def draining(self, executor: ExecutorId) -> None:
        """It takes no more runs; results of those in flight may still come."""
        ...

    def finished(self, executor: ExecutorId, results: Sequence[RunResult]) -> None: ...

    def paused(self, executor: ExecutorId, pauses: Sequence[Pause]) -> None:
        """Runs that the executor has put aside and forgotten: they go on when sent again."""
        ...

    def disconnected(self, executor: ExecutorId, reason: str) -> None: ...


class SessionServer(Protocol):
    """Promises that a peer which breaks the protocol loses its session and nothing else, that a
    dead peer is noticed within a minute, and that memory per slow session is bounded by credit.
    """

    async def start(self, handler: SessionHandler, artifact: Callable[[str], bytes | None]) -> int:
        """Listen; the port that was bound."""
        ...

    def send(self, executor: ExecutorId, dispatches: Sequence[Dispatch]) -> bool:
        """Hand over to the session; False when it is gone. Never waits."""
        ...

    async def stop(self) -> None:
        """Say ServerExit to all, wait a moment for results in flight, close."""
        ...
