"""What a rule uses, by acorn: a script that an executor runs, as it runs the rules themselves.

`uses.js` is generated from `src/` (see package.json). It is a trusted tool, but what it reads is
not trusted: so it runs where scripts run. It prints one JSON document per source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import PurePosixPath
from typing import Final

import orjson

from reconciler.core.objects import Json, JsonObject, mapping, sequence, text
from reconciler.core.runs import Outcome, RunLimits, RunResult
from reconciler.core.uses import ANYTHING, Call, Uses

# A source of 1 MiB takes 3 s and 150 MB; an ordinary one less than a millisecond.
LIMITS: Final = RunLimits(
    wall_time_ms=60_000,
    cpu_time_ms=60_000,
    output_bytes=64 * 1024 * 1024,
    heap_bytes=512 * 1024 * 1024,
)
FILE: Final = "scriptops/uses.js"
# Sources of one run: the tool is evaluated anew for each, which takes some milliseconds.
BATCH_CHARACTERS: Final = 256 * 1024


def program() -> bytes:
    """The tool itself."""
    return (resources.files(__package__) / "uses.js").read_bytes()


def batches(sources: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """`sources` in order, in parts of a size that one run reads quickly."""
    batch: list[str] = []
    for source in sources:
        if batch and sum(map(len, batch)) + len(source) > BATCH_CHARACTERS:
            yield tuple(batch)
            batch = []
        batch.append(source)
    if batch:
        yield tuple(batch)


def event(sources: Sequence[str]) -> JsonObject:
    """What its `main` is handed."""
    return {"files": [{"source": source} for source in sources]}


def uses(result: RunResult, paths: Sequence[PurePosixPath]) -> list[Uses]:
    """What it found in each source, in order; anything where it did not come to an end."""
    if result.outcome is not Outcome.SUCCEEDED or len(result.logs) != len(paths):
        return [ANYTHING for _ in paths]
    return [
        _uses(mapping(orjson.loads(line.text)), path)
        for line, path in zip(result.logs, paths, strict=True)
    ]


def _uses(found: JsonObject, path: PurePosixPath) -> Uses:
    if "unread" in found:
        return ANYTHING

    def calls(kind: str) -> tuple[Call, ...]:
        return tuple(_call(mapping(it), path) for it in sequence(found.get(kind)))

    def named(kind: str, name: str) -> list[tuple[Json, Call]]:
        items = map(mapping, sequence(found.get(kind)))
        return [(it.get(name), _call(it, path)) for it in items]

    return Uses(
        reads=calls("reads"),
        writes=calls("writes"),
        commits=calls("commits"),
        env=tuple((text(name), call) for name, call in named("env", "name")),
        fetches=tuple(
            (url if isinstance(url, str) else None, call) for url, call in named("fetches", "url")
        ),
        lists=bool(sequence(found.get("lists"))),
        is_open=found.get("dynamic") is True,
        env_is_open=found.get("dynamicEnv") is True,
    )


def _call(it: JsonObject, path: PurePosixPath) -> Call:
    alias, prop = it.get("alias"), it.get("property")
    values = it.get("values")
    scalars = [v for v in sequence(values) if isinstance(v, (bool, int, float, str))]
    return Call(
        path=path,
        line=_number(it.get("line")),
        column=_number(it.get("column")),
        alias=alias if isinstance(alias, str) else None,
        property=prop if isinstance(prop, str) else None,
        values=tuple(scalars) if isinstance(values, list) else None,
    )


def _number(value: Json) -> int:
    return value if isinstance(value, int) else 0
