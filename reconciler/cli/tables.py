"""Objects as rows: what `get` shows of each kind, narrow and wide."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeAlias

from reconciler.core.objects import Json, JsonObject, mapping, sequence, text
from reconciler.core.urls import redact

# Of what a Script remembers; all of it is in `-o json`.
STATE_CHARACTERS: Final = 60

Cell: TypeAlias = Callable[[JsonObject, datetime], str]


class Kind(StrEnum):
    SCRIPTS = "scripts"
    DEVICES = "devices"
    RUNS = "runs"
    REPOSITORIES = "repositories"
    EXECUTORS = "executors"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `wide` ones show with `-o wide` only."""

    title: str
    cell: Cell
    wide: bool = False


def identity(item: JsonObject) -> tuple[str, str]:
    """Namespace and name of an object, or of a run: its Script's namespace and its id."""
    if "metadata" in item:
        metadata = mapping(item["metadata"])
        return text(metadata.get("namespace")), text(metadata.get("name"))
    return text(mapping(item.get("script")).get("namespace")), text(item.get("id"))


def rows(
    kind: Kind, items: Sequence[JsonObject], *, wide: bool, namespaced: bool, now: datetime
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Titles and rows; `namespaced` puts the namespace first. A device has a row per property."""
    columns = [column for column in _COLUMNS[kind] if wide or not column.wide]
    if namespaced:
        columns.insert(0, Column("NAMESPACE", lambda item, _: identity(item)[0]))
    lines = [line for item in items for line in _lines(kind, item)]
    return (
        tuple(column.title for column in columns),
        tuple(tuple(column.cell(line, now) for column in columns) for line in lines),
    )


def age(timestamp: Json, now: datetime) -> str:
    """How long ago, as kubectl says it: 42s, 7m, 3h, 12d; `-` where there is no time."""
    try:
        then = datetime.fromisoformat(text(timestamp))
    except ValueError:
        return "-"
    if then.tzinfo is None:
        return "-"
    seconds = max(0, int((now - then).total_seconds()))
    for unit, length, until in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds // length}{unit}"
    return f"{seconds // 86_400}d"


def short_revision(revision: str) -> str:
    """`main@sha1:1a2b3c4` of `main@sha1:1a2b3c4d...`; anything else as it is."""
    branch, colon, commit = revision.partition("@sha1:")
    return f"{branch}@sha1:{commit[:7]}" if colon else revision


def _lines(kind: Kind, item: JsonObject) -> Sequence[JsonObject]:
    if kind is not Kind.DEVICES:
        return (item,)
    properties = [mapping(entry) for entry in sequence(item.get("properties"))]
    return [{**item, "property": entry} for entry in properties] or [{**item, "property": {}}]


def _value(value: Json, *, empty: str = "-") -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return value or empty
        case _:
            return ", ".join(text(entry) for entry in sequence(value)) or "-"


def _at(*path: str, empty: str = "-") -> Cell:
    """What stands at a path of names; `empty` for an empty string."""

    def cell(item: JsonObject, _now: datetime) -> str:
        found: Json = item
        for name in path:
            found = mapping(found).get(name)
        return _value(found, empty=empty)

    return cell


def _since(*path: str) -> Cell:
    def cell(item: JsonObject, now: datetime) -> str:
        found: Json = item
        for name in path:
            found = mapping(found).get(name)
        return age(found, now)

    return cell


def _reported(item: JsonObject, now: datetime) -> str:
    milliseconds = mapping(item.get("property")).get("timestamp")
    if not isinstance(milliseconds, int):
        return "-"
    try:
        then = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):  # the device's word, which may be anything
        return "-"
    return age(then.isoformat(), now)


def _condition(field: str) -> Cell:
    def cell(item: JsonObject, _now: datetime) -> str:
        for entry in map(mapping, sequence(mapping(item.get("status")).get("conditions"))):
            if entry.get("type") == "Ready":
                return text(entry.get(field)) or "-"
        return "Unknown" if field == "status" else "-"

    return cell


def _artifact(item: JsonObject, _now: datetime) -> str:
    manifest = mapping(mapping(item.get("spec")).get("manifest"))
    return f"{text(manifest.get('name'))} {_value(manifest.get('version'))}"


def _url(item: JsonObject, _now: datetime) -> str:
    return redact(text(mapping(item.get("spec")).get("url")))


def _revision(*path: str) -> Cell:
    at = _at(*path)
    return lambda item, now: short_revision(at(item, now))


def _short(length: int, *path: str) -> Cell:
    at = _at(*path)
    return lambda item, now: at(item, now).removeprefix("sha256:")[:length]


def _rollout(item: JsonObject, _now: datetime) -> str:
    """Its phase and, while it is under way, how far it is and how it does."""
    rollout = mapping(mapping(item.get("status")).get("rollout"))
    words = [text(rollout.get("phase"))]
    if rollout.get("candidate"):
        share = rollout.get("percent")
        words.append(f"{share}%" if share else "shadow")
    words += [
        f"{rollout[name]} {word}"
        for name, word in (("failed", "failed"), ("differing", "differ"))
        if rollout.get(name)
    ]
    return " ".join(words) or "-"


def _state(item: JsonObject, _now: datetime) -> str:
    entries = [f"{key}={json.dumps(value)}" for key, value in mapping(item.get("state")).items()]
    line = " ".join(entries)
    return (line if len(line) <= STATE_CHARACTERS else f"{line[: STATE_CHARACTERS - 1]}…") or "-"


def _took(item: JsonObject, _now: datetime) -> str:
    micros = item.get("durationMicroseconds")
    return f"{micros / 1000:.1f}ms" if isinstance(micros, int | float) else "-"


def _effects(item: JsonObject, _now: datetime) -> str:
    changed = [text(entry) for entry in sequence(item.get("changed"))]
    unchanged = len(sequence(item.get("unchanged")))
    refused = [f"refused {text(entry)}" for entry in sequence(item.get("refused"))]
    held = [f"outranked {text(entry)}" for entry in sequence(item.get("outranked"))]
    same = [f"{unchanged} unchanged"] if unchanged else []
    return ", ".join([*changed, *refused, *held, *same]) or "-"


def _logs(item: JsonObject, _now: datetime) -> str:
    entries = [text(mapping(entry).get("text")) for entry in sequence(item.get("logs"))]
    return " | ".join(entries) or "-"


_COLUMNS: Final[Mapping[Kind, tuple[Column, ...]]] = {
    Kind.SCRIPTS: (
        Column("NAME", _at("metadata", "name")),
        Column("READY", _condition("status")),
        Column("REASON", _condition("reason")),
        Column("ARTIFACT", _artifact),
        Column("REVISION", _revision("status", "revision")),
        Column("LAST RUN", _at("status", "lastRun", "outcome")),
        Column("RAN", _since("status", "lastRun", "finishedAt")),
        Column("RUNS", _at("status", "runs")),
        Column("FAILURES", _at("status", "failures")),
        Column("AGE", _since("metadata", "creationTimestamp")),
        Column("ROLLOUT", _rollout, wide=True),
        Column("DIGEST", _short(12, "status", "digest"), wide=True),
        Column("STATE", _state, wide=True),
        Column("MESSAGE", _at("status", "message"), wide=True),
        Column("READY MESSAGE", _condition("message"), wide=True),
    ),
    Kind.REPOSITORIES: (
        Column("NAME", _at("metadata", "name")),
        Column("READY", _condition("status")),
        Column("REASON", _condition("reason")),
        Column("REVISION", _revision("status", "revision")),
        Column("PROBLEMS", _at("status", "problemCount")),
        Column("STATUS COMMIT", _short(7, "status", "statusCommit")),
        Column("URL", _url),
        Column("REF", _at("spec", "ref"), wide=True),
        Column("READY MESSAGE", _condition("message"), wide=True),
    ),
    Kind.EXECUTORS: (
        Column("NAME", _at("metadata", "name")),
        Column("IDENTITY", _at("identity")),
        Column("TYPES", _at("scriptTypes")),
        Column("ID", _at("id"), wide=True),
        Column("SANDBOX", _at("engines", "sandbox"), wide=True),
        Column("V8", _at("engines", "v8"), wide=True),
    ),
    Kind.DEVICES: (
        Column("NAME", _at("metadata", "name")),
        Column("PROPERTY", _at("property", "name")),
        Column("REPORTED", _at("property", "reported", empty='""')),
        Column("DESIRED", _at("property", "desired", empty='""')),
        Column("MODEL", _at("model"), wide=True),
        Column("TYPE", _at("property", "type"), wide=True),
        Column("AGE", _reported, wide=True),
    ),
    Kind.RUNS: (
        Column("ID", _at("id")),
        Column("SCRIPT", _at("script", "name")),
        Column("CAUSE", _at("cause")),
        Column("OUTCOME", _at("outcome")),
        Column("FINISHED", _since("finishedAt")),
        Column("TOOK", _took),
        Column("EFFECTS", _effects),
        Column("REVISION", _revision("revision"), wide=True),
        Column("MESSAGE", _at("message"), wide=True),
        Column("LOGS", _logs, wide=True),
    ),
}
