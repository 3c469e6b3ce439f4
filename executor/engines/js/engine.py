"""The JavaScript engine of one worker: an isolate per script, and one to check scripts in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from executor.engines.errors import BatchRefused
from executor.engines.js.isolate import Isolate, prove_flags, safe_file, start_v8
from executor.engines.js.modules import Program, Programs
from executor.engines.js.positions import Positions

if TYPE_CHECKING:
    import asyncio


_NO_IMPORT: Final = "Error: Not supported ("
_BUNDLE_INSTEAD: Final = "; import() is not available, bundle with `scriptops build` what it names"


class JavaScript:
    """Isolates cost about 10 ms each, so one is made per script that runs and none per check.

    Checks share an isolate: hardened intrinsics keep scripts apart there as they keep runs apart
    elsewhere. How many isolates are held is the caller's business.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.version = start_v8()
        self._loop = loop
        self._programs = Programs(loop, safe_file)
        self._positions = Positions(loop)
        self._isolates: dict[str, tuple[Isolate, Program]] = {}

    def warm(self) -> None:
        prove_flags(self._loop)
        self._scratch = Isolate(self._loop)

    def open(self, script: str, source: bytes, file: str) -> None:
        isolate = Isolate(self._loop)
        try:
            program = self._programs.load(source, file, isolate.compile)
        except BaseException:
            isolate.close()
            raise
        self._isolates[script] = isolate, program

    def close(self, script: str) -> None:
        if (opened := self._isolates.pop(script, None)) is not None:
            opened[0].close()

    def check(self, source: bytes, file: str) -> None:
        self._programs.load(source, file, self._scratch.check)

    def run(self, script: str, batch: bytes) -> bytes:
        if (opened := self._isolates.get(script)) is None:
            raise BatchRefused("the script is not open")
        isolate, program = opened
        try:
            completions = isolate.run(batch.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise BatchRefused(f"not UTF-8 at byte {error.start}") from error
        # Only a message that tells of a place can have this in it.
        if (program.map or program.imports) and f"({program.file}:" in completions:
            return self._retold(completions, program)
        return completions.encode()

    def _retold(self, completions: str, program: Program) -> bytes:
        """The completions in words that the author of the script understands."""
        runs = orjson.loads(completions)
        for run in runs:
            if program.map is not None:
                run[1] = self._positions.retold(run[1], program.file, program.map, program.places)
            if run[1].startswith(_NO_IMPORT):
                run[1] += _BUNDLE_INSTEAD
        return orjson.dumps(runs)


start = JavaScript
