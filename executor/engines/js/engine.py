"""The JavaScript engine of one worker: an isolate per script, and one to check scripts in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from executor.engines.errors import BatchRefused
from executor.engines.js.isolate import Isolate, start_v8

if TYPE_CHECKING:
    import asyncio


class JavaScript:
    """Isolates cost about 10 ms each, so one is made per script that runs and none per check.

    Checks share an isolate: hardened intrinsics keep scripts apart there as they keep runs apart
    elsewhere. How many isolates are held is the caller's business.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.version = start_v8()
        self._loop = loop
        self._scratch = Isolate(loop)
        self._isolates: dict[str, Isolate] = {}

    def open(self, script: str, source: str, file: str) -> None:
        isolate = Isolate(self._loop)
        isolate.compile(source, file)
        self._isolates[script] = isolate

    def close(self, script: str) -> None:
        isolate = self._isolates.pop(script, None)
        if isolate is not None:
            isolate.close()

    def check(self, source: str, file: str) -> None:
        self._scratch.check(source, file)

    def run(self, script: str, batch: str) -> str:
        isolate = self._isolates.get(script)
        if isolate is None:
            raise BatchRefused("the script is not open")
        return isolate.run(batch)


start = JavaScript
