"""What a test expected and what came, and where two completions differ."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from reconciler.api.scripttest import LogThen, Then, Value, WriteThen
from reconciler.core.objects import Json
from reconciler.core.recordings import Completion
from reconciler.core.redacting import is_as_recorded
from reconciler.core.runs import LogLine, Write

# Up to here JavaScript writes a number without an exponent, and a double holds every whole one.
LARGEST_WHOLE: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that is not as it should be; `lines` show it, as a unified diff mostly."""

    what: str
    message: str
    lines: tuple[str, ...] = ()


def judge(then: Then, completion: Completion, fetches: Sequence[str]) -> tuple[Mismatch, ...]:
    """Everything in which `completion` is not what was expected; empty when the test passes."""
    found: list[Mismatch] = []
    if completion.outcome.value != then.outcome:
        said = f": {completion.message}" if completion.message else ""
        message = f"the run ended as {completion.outcome.value}, not {then.outcome}{said}"
        found.append(Mismatch("outcome", message))
    if then.message is not None and then.message not in completion.message:
        message = f"{_json(then.message)} is no part of {_json(completion.message)}"
        found.append(Mismatch("message", message))
    if then.writes is not None:
        wanted, came = _wanted_writes(then.writes), _writes(then.writes, completion.writes)
        found += _compared("writes", wanted, came)
    if then.logs is not None:
        came = [_line(line, then.logs, n) for n, line in enumerate(completion.logs)]
        found += _compared("logs", [_wanted_line(line) for line in then.logs], came)
    for part in then.logs_contain:
        if not any(part in line.text for line in completion.logs):
            shown = tuple(f" {line.text}" for line in completion.logs) or (" (nothing)",)
            found.append(Mismatch("logs", f"no line contains {_json(part)}; it printed:", shown))
    if then.state is not None:
        found += _compared("state", _entries(then.state), _entries(completion.state or {}))
    if then.fetches is not None:
        found += _compared("fetches", then.fetches, fetches)
    return tuple(found)


def _compared(what: str, wanted: Sequence[str], came: Sequence[str]) -> list[Mismatch]:
    came = as_recorded(wanted, came)
    if list(wanted) == came:
        return []
    message = f"{what} are not as expected" if what != "state" else "the state is not as expected"
    return [Mismatch(what, message, diff(wanted, came, "expected", "came"))]


def as_recorded(recorded: Sequence[str], came: Sequence[str]) -> list[str]:
    """Lines that came, each as it was recorded if it differs only where a stand-in stands there."""
    known = dict(enumerate(recorded))
    return [
        known[n] if n in known and is_as_recorded(known[n], line) else line
        for n, line in enumerate(came)
    ]


def diff(before: Sequence[str], after: Sequence[str], old: str, new: str) -> tuple[str, ...]:
    """A unified diff with all lines in it; empty where nothing differs."""
    most = max(len(before), len(after), 1)
    return tuple(difflib.unified_diff(before, after, old, new, n=most, lineterm=""))


def _wanted_writes(writes: Mapping[str, Mapping[str, Value | WriteThen]]) -> list[str]:
    return sorted(
        _write(alias, name, wanted.value, wanted.qos, wanted.force)
        if isinstance(wanted, WriteThen)
        else _write(alias, name, wanted)
        for alias, properties in writes.items()
        for name, wanted in properties.items()
    )


def _writes(
    wanted: Mapping[str, Mapping[str, Value | WriteThen]], writes: Iterable[Write]
) -> list[str]:
    """The last write of each property, with as much of its promise as was asked for."""
    last = {(write.alias, write.property): write for write in writes}
    lines: list[str] = []
    for (alias, name), write in last.items():
        asked = wanted.get(alias, {}).get(name)
        qos = write.qos if isinstance(asked, WriteThen) and asked.qos is not None else None
        force = write.force if isinstance(asked, WriteThen) and asked.force is not None else None
        lines.append(_write(alias, name, write.value, qos, force))
    return sorted(lines)


def _write(
    alias: str,
    name: str,
    value: Value,
    qos: int | None = None,
    force: bool | None = None,  # noqa: FBT001 - the field's value
) -> str:
    line = f"{alias}.{name} = {_json(value)}"
    if qos is not None:
        line += f" qos {qos}"
    return line if force is None else f"{line} force {_json(force)}"


def _wanted_line(line: str | LogThen) -> str:
    return line if isinstance(line, str) else f"{line.level}: {line.text}"


def _line(line: LogLine, wanted: Sequence[str | LogThen], number: int) -> str:
    """A printed line, with its level where the expected one in its place has one."""
    asked = wanted[number] if number < len(wanted) else ""
    return line.text if isinstance(asked, str) else f"{line.level}: {line.text}"


def _entries(state: Mapping[str, Json]) -> list[str]:
    return [f"{key} = {_json(state[key])}" for key in sorted(state)]


def _json(value: Json) -> str:
    return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS).decode()


def _plain(value: Json) -> Json:
    """Numbers as a script writes them: a whole one without a fraction."""
    match value:
        case float() if value.is_integer() and abs(value) < LARGEST_WHOLE:
            return int(value)
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def written(write: Write) -> str:
    """`heater.power = true`, and what is unusual about it."""
    return _write(write.alias, write.property, write.value, write.qos or None, write.force or None)


def told(completion: Completion) -> tuple[str, ...]:
    """A completion as lines, so that two of them can be laid beside each other."""
    lines = [f"outcome {completion.outcome.value}"]
    if completion.message:
        lines.append(f"message {completion.message}")
    lines += (f"log {line.level}: {line.text}" for line in completion.logs)
    lines += (f"write {written(write)}" for write in completion.writes)
    if completion.state is not None:
        lines += (f"state {entry}" for entry in _entries(completion.state))
    return tuple(lines)
