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
    from collections.abc import Callable, Mapping

ENGINES: Final[Mapping[ScriptType, str]] = {ScriptType.JS: "executor.engines.js.engine"}
"""Which module runs which type. A type that is not here is answered `Unavailable`."""


class Engine(Protocol):
    """Holds the scripts of one namespace. Blocks; may never return from a script."""

    version: str

    def open(self, script: str, source: str, file: str) -> None:
        """Hold `source` under the name `script`; raises `ScriptRefused`."""

    def close(self, script: str) -> None:
        """Forget `script`, if it is held."""

    def check(self, source: str, file: str) -> None:
        """Raise `ScriptRefused` when `source` could not be run."""

    def run(self, script: str, batch: str) -> str:
        """The completions of `batch`, as JSON; raises `BatchRefused`."""


def start(script_type: ScriptType, loop: asyncio.AbstractEventLoop) -> Engine:
    """Start the engine for `script_type` in this process."""
    make = cast(
        "Callable[[asyncio.AbstractEventLoop], Engine]",
        import_module(ENGINES[script_type]).start,
    )
    return make(loop)
