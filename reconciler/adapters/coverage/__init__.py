"""Coverage by instrumentation: istanbul's instrumenter, as a script that an executor runs.

`instrument.js` is generated from `npm/` (see its package.json). It is a trusted tool, but what it
reads is not trusted: so it runs where scripts run. It prints the instrumented source and a map of
statements; a run of that source prints a line for each statement that it reaches first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Final

import orjson

from reconciler.core.coverage import Statements
from reconciler.core.objects import Json, JsonObject, mapping
from reconciler.core.runs import LogLine, Outcome, RunLimits, RunResult

# Nothing that a script prints by accident.
MARK: Final = "\0coverage "
# A script of 1 MiB takes 20 s and 200 MB; an ordinary one 50 ms.
LIMITS: Final = RunLimits(
    wall_time_ms=60_000,
    cpu_time_ms=60_000,
    output_bytes=64 * 1024 * 1024,
    heap_bytes=512 * 1024 * 1024,
)
# What instrumentation adds to the output of a run, whatever its own limit is.
HITS_BYTES: Final = 8 * 1024 * 1024
FILE: Final = "scriptops/instrument.js"


@dataclass(frozen=True, slots=True)
class Instrumented:
    """A source that tells which of its statements were reached."""

    code: bytes
    statements: Statements


def program() -> bytes:
    """The instrumenter itself."""
    return (resources.files(__package__) / "instrument.js").read_bytes()


def event(source: str, file: str) -> JsonObject:
    """What its `main` is handed."""
    return {"source": source, "file": file, "mark": MARK}


def instrumented(result: RunResult) -> Instrumented | str:
    """What it made of a source, or why it could not."""
    if result.outcome is not Outcome.SUCCEEDED or not result.logs:
        return result.message or "the instrumenter printed nothing"
    answer = mapping(orjson.loads(result.logs[0].text))
    lines: dict[str, int] = {}
    for number, place in mapping(mapping(answer.get("coverage")).get("statementMap")).items():
        lines[number] = _line(place)
    return Instrumented(str(answer.get("code")).encode(), Statements(lines))


def _line(place: Json) -> int:
    line = mapping(mapping(place).get("start")).get("line")
    return line if isinstance(line, int) else 0


def hits(logs: Iterable[LogLine]) -> frozenset[str]:
    """The statements that a run reached."""
    prefix = f"{MARK}s"
    return frozenset(
        line.text.removeprefix(prefix) for line in logs if line.text.startswith(prefix)
    )
