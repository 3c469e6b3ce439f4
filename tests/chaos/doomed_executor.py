"""An executor that writes down what it begins, and is killed at a named point.

Its arguments: a file to append to, the address of the controller, its parent's process id, and
where and when it is to be killed (or nothing).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import orjson
import uvloop

from executor.main import Executor, JsonFormatter, serve
from executor.model import RunResult, Work
from executor.worker.sandbox import leave_no_orphan
from tests.chaos.fate import Fate, Point, Reaper


class Doomed(Executor):
    """One write per run, before it begins: what is in the file may have run, nothing else has."""

    def __init__(self, starts: str, address: str, reaper: Reaper) -> None:
        super().__init__(address, name="doomed", workers=1, spare=False)
        self._reaper = reaper
        self._runs: dict[str, tuple[str, int | None]] = {}
        self._starts = os.open(starts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _handle(self, work: Work) -> None:
        for run in work.runs:
            event = orjson.loads(run.activation)["event"]
            it = (work.script.name, event if isinstance(event, int) else None)
            self._runs[run.key.run_id] = it
            line = orjson.dumps((*it, run.key.run_id, run.key.attempt, run.key.epoch))
            os.write(self._starts, line + b"\n")
            self._reaper.passes(Point.RECEIVED, *it)
        super()._handle(work)

    def _deliver(self, results: Sequence[RunResult]) -> None:
        for result in results:
            if result.key.run_id in self._runs:
                self._reaper.passes(Point.EXECUTED, *self._runs[result.key.run_id])
        super()._deliver(results)


async def live(starts: str, address: str, reaper: Reaper) -> int:
    return await serve(Doomed(starts, address, reaper))


def main(starts: str, address: str, parent: str, fate: str) -> int:
    leave_no_orphan(int(parent))
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level="INFO", handlers=[handler])
    return uvloop.run(live(starts, address, Reaper(Fate.loads(fate) if fate else None)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
