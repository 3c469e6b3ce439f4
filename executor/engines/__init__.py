"""Engines: strangers to each other, one per script type, each used inside a worker process only.

The table names modules instead of importing them, so that the supervisor can ask which types this
executor runs without having an engine in its own process.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from executor.model import ScriptType

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

ENGINES: Final[Mapping[ScriptType, str]] = {
    ScriptType.JS: "executor.engines.js.engine",
    ScriptType.WASM: "executor.engines.wasm.engine",
}
"""Which module runs which type. A type that is not here is answered `Unavailable`."""

NAMES: Final[Mapping[ScriptType, str]] = {ScriptType.JS: "v8", ScriptType.WASM: "wasmtime"}
"""What each engine is called where versions are told."""


class Engine(Protocol):
    """Holds the scripts of one namespace. Blocks; may never return from a script."""

    version: str

    def warm(self) -> None:
        """Start what has threads and prove that the engine obeys; raises `EngineUnfit`.

        Called once, before all else, in a process that can no longer open files.
        """

    def open(self, script: str, source: bytes, file: str, *, alone: bool = False) -> None:
        """Hold `source` under the name `script`; raises `ScriptRefused`.

        With `alone` nothing that other scripts or runs have used is used for its next run.
        """

    def close(self, script: str) -> None:
        """Forget `script`, if it is held."""

    def check(self, source: bytes, file: str) -> None:
        """Raise `ScriptRefused` when `source` could not be run."""

    def run(self, scripts: Sequence[tuple[str, int]], batch: bytes) -> bytes:
        """The completions of `batch`, as JSON; raises `BatchRefused`.

        `scripts` says how many runs of which script it has, in order. One that is held alone is run
        alone.
        """


def start(script_type: ScriptType, loop: asyncio.AbstractEventLoop, *, fuel: int = 0) -> Engine:
    """Load the engine for `script_type` into this process; it has no threads before `warm`.

    `fuel` is for engines that count instructions: how many a run may have, if not 0.
    """
    make = cast("Callable[..., Engine]", import_module(ENGINES[script_type]).start)
    return make(loop, fuel=fuel) if script_type is ScriptType.WASM else make(loop)
