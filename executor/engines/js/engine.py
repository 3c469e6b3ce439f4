"""The JavaScript engine of one worker: an isolate for its scripts, and one to check scripts in."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import orjson

from executor.engines.errors import BatchRefused
from executor.engines.js.isolate import Isolate, prove_flags, safe_file, start_v8
from executor.engines.js.modules import Program, Programs
from executor.engines.js.positions import Positions

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence


_NO_IMPORT: Final = "Error: Not supported ("
_BUNDLE_INSTEAD: Final = "; import() is not available, bundle with `scriptops build` what it names"


class JavaScript:
    """Isolates cost about 10 ms and 2 MB each, so scripts share one, and another for checks.

    Hardened intrinsics and fresh globals keep scripts apart there as they keep their runs apart.
    Those that are to run alone have an isolate each. How many are held is the caller's business.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.version = start_v8()
        self._loop = loop
        self._programs = Programs(loop, safe_file)
        self._positions = Positions(loop)
        self._shared: Isolate | None = None
        self._opened: dict[str, tuple[Isolate, Program]] = {}

    def warm(self) -> None:
        prove_flags(self._loop)
        self._scratch = Isolate(self._loop)

    def open(self, script: str, source: bytes, file: str, *, alone: bool = False) -> None:
        self.close(script)
        if alone:
            isolate = Isolate(self._loop)
        else:
            isolate = self._shared = self._shared or Isolate(self._loop)
        try:
            program = self._programs.load(source, file, partial(isolate.compile, script=script))
        except BaseException:
            if alone:
                isolate.close()
            raise
        self._opened[script] = isolate, program

    def close(self, script: str) -> None:
        if (opened := self._opened.pop(script, None)) is None:
            return
        isolate, _ = opened
        if isolate is self._shared:
            isolate.drop(script)
        else:
            isolate.close()

    def check(self, source: bytes, file: str) -> None:
        self._programs.load(source, file, self._scratch.check)

    def run(self, scripts: Sequence[tuple[str, int]], batch: bytes) -> bytes:
        try:
            opened = [self._opened[script] for script, _ in scripts]
        except KeyError as error:
            raise BatchRefused("the script is not open") from error
        isolate = opened[0][0]
        if any(other is not isolate for other, _ in opened):
            raise BatchRefused("the scripts do not run together")
        try:
            completions = isolate.run(batch.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise BatchRefused(f"not UTF-8 at byte {error.start}") from error
        told = [
            (program.map or program.imports) and f"({program.file}:" in completions
            for _, program in opened
        ]
        # Only a message that tells of a place can have this in it.
        if not any(told):
            return completions.encode()
        runs = iter(orjson.loads(completions))
        return orjson.dumps(
            [
                self._retold(run, program) if is_told else run
                for is_told, (_, program), (_, count) in zip(told, opened, scripts, strict=True)
                for run in islice(runs, count)
            ]
        )

    def _retold(self, run: list[Any], program: Program) -> list[Any]:
        """A completion in words that the author of the script understands."""
        if program.map is not None:
            run[1] = self._positions.retold(run[1], program.file, program.map, program.places)
        if run[1].startswith(_NO_IMPORT):
            run[1] += _BUNDLE_INSTEAD
        return run


start = JavaScript
