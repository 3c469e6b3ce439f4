"""Tests in JavaScript: a test file as a script that an executor runs.

The file calls `test(name, {given, when, then}, check)`. It runs where scripts run, under the same
law: no files, no network, a clock that stands still. It runs once to say what its cases are, and
once more to look at the runs for which it has checks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import PurePosixPath
from typing import Final

import orjson

from reconciler.core.fixtures import InJavaScript
from reconciler.core.objects import Json, JsonObject, mapping, sequence, text
from reconciler.core.problems import Problem
from reconciler.core.recordings import Completion
from reconciler.core.runs import Outcome, RunLimits, RunResult
from reconciler.core.verdicts import Mismatch
from reconciler.core.yamlbuild import Lines
from reconciler.core.yamldocs import Document

# Ten thousand cases with checks take a second.
LIMITS: Final = RunLimits(
    wall_time_ms=30_000,
    cpu_time_ms=30_000,
    output_bytes=64 * 1024 * 1024,
    heap_bytes=256 * 1024 * 1024,
)
LISTING: Final[JsonObject] = {}
_PLACE: Final = re.compile(r" \([^()]*?:(\d+)(?::\d+)?\)\Z")
_MODULE: Final = re.compile(r"\A(?:import\b|.* exports no function main)")


def program(source: bytes) -> bytes:
    """The artifact: what tests call, in one line, and then the file with its lines as they are."""
    lines = (resources.files(__package__) / "harness.js").read_text("utf-8").splitlines()
    code = (line.strip() for line in lines)
    return " ".join(it for it in code if it and not it.startswith("//")).encode() + b" " + source


def file_of(path: PurePosixPath) -> str:
    """The name that it has in messages."""
    return str(PurePosixPath(*path.parts[1:]))


def listed(path: PurePosixPath, result: RunResult) -> InJavaScript | tuple[Problem, ...]:
    """The cases that a test file has, or why it has none."""
    if result.outcome is not Outcome.SUCCEEDED or not result.logs:
        return (_problem(path, _line_at_end(result.message), _advised(result)),)
    said = mapping(orjson.loads(result.logs[-1].text))
    wrong = [mapping(it) for it in sequence(said.get("problems"))]
    cases = [mapping(it) for it in sequence(said.get("cases"))]
    if wrong:
        return tuple(_problem(path, _line(it), text(it.get("message"))) for it in wrong)
    if not cases:
        message = "it has no case; call test(name, { given, when, then })"
        return (_problem(path, 1, message),)
    value: dict[str, Json] = {"cases": [it.get("parts") for it in cases]}
    children: dict[str, Lines] = {"cases": (1, [(_line(it), None) for it in cases])}
    for name in ("given", "script"):
        if isinstance(part := said.get(name), Mapping):
            value[name] = part.get("value")
            children[name] = (_line(part), None)
    checked = frozenset(number for number, it in enumerate(cases) if it.get("check") is True)
    document = Document(
        path=path, index=0, line=1, value=value, pointer="", faults=(), lines=(1, children)
    )
    return InJavaScript(document, checked)


def judging(runs: Sequence[tuple[int, Completion, Sequence[str]]]) -> JsonObject:
    """What its `main` is handed to look at runs: the number of each one's case, and the run."""
    return {"runs": [[number, _run(it, requests)] for number, it, requests in runs]}


def _run(completion: Completion, requests: Sequence[str]) -> JsonObject:
    writes: dict[str, dict[str, Json]] = {}
    for write in completion.writes:
        writes.setdefault(write.alias, {})[write.property] = write.value
    return {
        "outcome": completion.outcome.value,
        "message": completion.message,
        "logs": [line._asdict() for line in completion.logs],
        "writes": writes,
        "state": completion.state,
        "fetches": list(requests),
    }


def judged(path: PurePosixPath, result: RunResult, count: int) -> list[tuple[Mismatch, ...]]:
    """What the checks said, run by run."""
    if result.outcome is not Outcome.SUCCEEDED or not result.logs:
        return [(Mismatch("check", f"the checks did not end: {result.message}"),)] * count
    return [_mismatch(path, it) for it in sequence(orjson.loads(result.logs[-1].text))]


def _mismatch(path: PurePosixPath, found: Json) -> tuple[Mismatch, ...]:
    if not isinstance(found, Mapping):
        return ()
    lines: tuple[str, ...] = ()
    if "came" in found and "wanted" in found:
        lines = (f"-{found['wanted']}", f"+{found['came']}")
    message = f"{text(found.get('message'))} ({path}:{_line(found)})"
    return (Mismatch("check", message, lines),)


def _problem(path: PurePosixPath, line: int, message: str) -> Problem:
    return Problem(path=path, line=line, pointer="", reason="InvalidTest", message=message)


def _line(found: JsonObject) -> int:
    line = found.get("line")
    return line if isinstance(line, int) else 1


def _line_at_end(message: str) -> int:
    place = _PLACE.search(message)
    return int(place[1]) if place else 1


def _advised(result: RunResult) -> str:
    if _MODULE.match(result.message):
        return "a test file imports and exports nothing; what it calls is there: test, assert"
    return _PLACE.sub("", result.message) or f"it ended as {result.outcome.value}"
