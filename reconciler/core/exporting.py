"""Recordings as a test file: what happened once, to be held to from now on."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import orjson

from reconciler.core.objects import Json, JsonObject, mapping, sequence, text
from reconciler.core.recordings import Completion, Recorded
from reconciler.core.runs import Outcome

# Outcomes that say something of the machine and nothing of the script.
_OF_THE_MACHINE: Final = frozenset({Outcome.LOST, Outcome.UNAVAILABLE, Outcome.UNKNOWN})

# Headers that differ from answer to answer and mean nothing to a script.
_OF_THE_SERVER: Final = frozenset(
    {"alt-svc", "connection", "content-length", "date", "keep-alive", "server", "via"}
)


def test_document(recorded: Iterable[Recorded]) -> JsonObject:
    """A test file with a case for each run that is unlike the others; the oldest run first.

    All runs must be of one version. Runs that differ only in their clock and randomness, and
    answered the same, are one case.
    """
    cases: list[Json] = []
    seen: set[bytes] = set()
    for it in recorded:
        if it.completion.outcome in _OF_THE_MACHINE:
            continue
        case = _case(it)
        given = {k: v for k, v in mapping(case["given"]).items() if k not in {"now", "seed"}}
        key = orjson.dumps([given, case["when"], case["then"]], option=orjson.OPT_SORT_KEYS)
        if key not in seen:
            seen.add(key)
            cases.append(case)
    return {"cases": cases}


def _case(recorded: Recorded) -> dict[str, Json]:
    activation = recorded.activation
    given: dict[str, Json] = {
        "now": _instant(activation.get("now")),
        "seed": activation.get("seed"),
        "env": activation.get("env"),
        "devices": {
            alias: values for alias, values in mapping(activation.get("read")).items() if values
        },
        "write": activation.get("write"),
    }
    if activation.get("state"):
        given["state"] = activation.get("state")
    replies = sorted(map(mapping, sequence(activation.get("replies"))), key=_number)
    fetched = [reply for reply in replies if reply.get("op") != "commit"]
    if fetched:
        given["fetch"] = [_fetch(reply) for reply in fetched]
    if len(fetched) < len(replies):
        given["commit"] = [_commit(it) for it in replies if it.get("op") == "commit"]
    when: dict[str, Json] = {"cause": activation.get("cause")}
    if activation.get("event") is not None:
        when["event"] = activation.get("event")
    then = _then(recorded.completion)
    if fetched:
        then["fetches"] = [text(reply.get("request")) for reply in fetched]
    name = f"{_title(recorded)} ({recorded.run_id})"
    return {"name": name, "given": given, "when": when, "then": then}


def _title(recorded: Recorded) -> str:
    writes = recorded.completion.writes
    if recorded.completion.outcome is not Outcome.SUCCEEDED:
        return recorded.completion.outcome.value
    if not writes:
        return "writes nothing"
    return f"writes {', '.join(dict.fromkeys(f'{w.alias}.{w.property}' for w in writes))}"[:150]


def _then(completion: Completion) -> dict[str, Json]:
    then: dict[str, Json] = {"outcome": completion.outcome.value}
    if completion.message:
        then["message"] = completion.message
    if completion.outcome is Outcome.SUCCEEDED:
        writes: dict[str, dict[str, Json]] = {}
        for write in completion.writes:
            value: Json = write.value
            if write.qos or write.force:
                value = {"value": write.value, "qos": write.qos, "force": write.force}
            writes.setdefault(write.alias, {})[write.property] = value
        then["writes"] = writes
    then["logs"] = [
        line.text if line.level == "info" else line._asdict() for line in completion.logs
    ]
    if completion.state is not None:
        then["state"] = completion.state
    return then


def _fetch(reply: JsonObject) -> JsonObject:
    method, _, url = text(reply.get("request")).partition(" ")
    fetch: dict[str, Json] = {"url": url}
    if method != "GET":
        fetch["method"] = method
    if reply.get("ok") is not True:
        return {**fetch, "error": text(reply.get("code")) or "Failed"}
    fetch["status"] = reply.get("status")
    headers: dict[str, Json] = {}
    for pair in map(sequence, sequence(reply.get("headers"))):
        if len(pair) == 2 and text(pair[0]).lower() not in _OF_THE_SERVER:
            headers[text(pair[0])] = text(pair[1])
    body = base64.b64decode(text(reply.get("body")))
    if headers.get("content-type") == "application/json" and _is_plain_json(body):
        del headers["content-type"]
        fetch["json"] = orjson.loads(body)
    elif body:
        fetch["body"] = body.decode(errors="replace")
    if headers:
        fetch["headers"] = headers
    return fetch


def _commit(reply: JsonObject) -> JsonObject:
    commit: dict[str, Json] = {"device": reply.get("alias")}
    if reply.get("ms"):
        commit["ms"] = reply.get("ms")
    if reply.get("ok") is not True:
        return {**commit, "error": text(reply.get("code")) or "Failed"}
    return {**commit, "reached": reply.get("reached")}


def _is_plain_json(body: bytes) -> bool:
    """Whether it is what a test would answer with where it says it as JSON."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return value is not None and orjson.dumps(value) == body


def _number(reply: JsonObject) -> int:
    number = reply.get("n")
    return number if isinstance(number, int) else 0


def _instant(milliseconds: Json) -> str:
    number = milliseconds if isinstance(milliseconds, int) else 0
    moment = datetime.fromtimestamp(number / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
