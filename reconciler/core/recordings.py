"""What a run was given and what it answered, kept so that it can be run again.

A run is a function of its activation, so the activation and the artifact's digest are all that a
replay needs; the completion is kept to be compared with. One document serves the store, the API and
whoever reads a recording from a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from reconciler.core.conditions import rfc3339
from reconciler.core.objects import Json, JsonObject, ObjectKey, mapping, sequence, text
from reconciler.core.redacting import (
    SHORTEST_SECRET,
    SUSPECT,
    Hiding,
    named_secrets,
    stand_in,
)
from reconciler.core.runs import (
    Isolation,
    LogLine,
    Outcome,
    RunId,
    RunLimits,
    RunRecord,
    RunResult,
    Scalar,
    ScriptRef,
    Write,
)

# What a reader must know to read a document; raised when an old reader would misread a new one.
FORMAT: Final = 1

# Fields whose words are the format's own, and those that are gone through one by one.
_OURS_IN_ACTIVATION: Final = frozenset({"cause", "run", "env", "replies"})
_OURS_IN_REPLIES: Final = frozenset({"code", "body", "op", "alias"})
_OURS_IN_COMPLETION: Final = frozenset({"outcome", "logs", "writes"})
_OURS_IN_LOGS: Final = frozenset({"level"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A finished run with its inputs, as it lies in memory: its `secrets` are not hidden yet.

    `secrets` are names of the environment whose values came from Secrets.
    """

    ref: ScriptRef
    uid: str
    secrets: frozenset[str]
    activation: bytes
    result: RunResult
    record: RunRecord

    @property
    def size(self) -> int:
        """About what it occupies."""
        return len(self.activation) + len(self.result.replies) + len(self.result.state) + 1024


def encoded(recording: Recording, *, key: bytes) -> bytes:
    """The document of a recording, as JSON. Secrets are replaced by stand-ins.

    A stand-in is the HMAC of the value under `key`: equal values have equal stand-ins, so a replay
    takes the same turns wherever a script only compares them or passes them on. Which values are
    secret and what cannot be found `core.redacting` says.
    """
    raw = orjson.dumps(_document(recording))
    replies, state = recording.result.replies, recording.result.state
    if not (
        recording.secrets
        or replies
        or SUSPECT.search(recording.activation)
        or SUSPECT.search(state)
    ):
        return raw
    document: dict[str, Json] = orjson.loads(raw)
    activation = dict(mapping(document["activation"]))
    if replies:
        activation["replies"] = orjson.loads(replies)
    document["activation"] = activation
    env = mapping(activation.get("env"))
    of_env = {text(env[name]) for name in recording.secrets & set(env)} - {""}
    found = named_secrets(activation, mapping(document["completion"]).get("state"))
    found |= {value for value in of_env if len(value) >= SHORTEST_SECRET}
    hide = Hiding({value: stand_in(value, key) for value in found})
    document = _hidden(document, hide)
    activation = dict(mapping(document["activation"]))
    activation["env"] = {
        name: stand_in(text(value), key) if name in recording.secrets and value else hide(value)
        for name, value in env.items()
    }
    document["activation"] = activation
    return orjson.dumps(document)


def _hidden(document: Mapping[str, Json], hide: Hiding) -> dict[str, Json]:
    """With stand-ins wherever a script or the world may have put a secret.

    The words of the format stay: a secret that is one of them must not make it illegible.
    """

    def hidden(fields: Mapping[str, Json], ours: frozenset[str]) -> dict[str, Json]:
        return {k: v if k in ours else hide(v) for k, v in fields.items()}

    activation = hidden(mapping(document["activation"]), _OURS_IN_ACTIVATION)
    if "replies" in activation:
        replies = [
            (it, hidden(it, _OURS_IN_REPLIES))
            for it in map(mapping, sequence(activation["replies"]))
        ]
        activation["replies"] = [
            {**reply, "body": hide.encoded_body(text(it["body"]))} if it.get("body") else reply
            for it, reply in replies
        ]
    completion = hidden(mapping(document["completion"]), _OURS_IN_COMPLETION)
    for name in ("logs", "writes"):
        lines = map(mapping, sequence(completion[name]))
        completion[name] = [hidden(it, _OURS_IN_LOGS) for it in lines]
    return {
        **document,
        "activation": activation,
        "completion": completion,
        **{name: hide(document[name]) for name in ("message", "changed", "unchanged", "refused")},
    }


def _document(recording: Recording) -> dict[str, object]:
    record, ref, result = recording.record, recording.ref, recording.result
    return {
        "recording": FORMAT,
        "id": record.run_id,
        "script": {"namespace": ref.key.namespace, "name": ref.key.name, "uid": recording.uid},
        "cause": record.cause.value,
        "createdAt": rfc3339(record.created_at),
        "finishedAt": rfc3339(record.finished_at),
        "durationMicroseconds": record.duration_us,
        "revision": record.revision,
        "digest": ref.digest,
        "type": ref.script_type,
        "file": ref.file,
        "isolation": ref.isolation.value,
        "networkAllow": ref.network_allow,
        "limits": ref.limits._asdict(),
        "secrets": sorted(recording.secrets),
        "activation": orjson.Fragment(recording.activation),
        "completion": {
            "outcome": result.outcome.value,
            "message": result.message,
            "logs": [line._asdict() for line in result.logs],
            "writes": [_write_document(write) for write in result.writes],
            "state": orjson.Fragment(result.state) if result.state else None,
        },
        "outcome": record.outcome.value,
        "message": record.message,
        "changed": record.changed,
        "unchanged": record.unchanged,
        "refused": record.refused,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a run answered, as far as two runs can be compared: how long it took is no part of it.

    `state` is the whole state after the run; None where the run left it alone.
    """

    outcome: Outcome
    message: str = ""
    logs: tuple[LogLine, ...] = ()
    writes: tuple[Write, ...] = ()
    state: JsonObject | None = None


def completion_of(result: RunResult) -> Completion:
    return Completion(
        outcome=result.outcome,
        message=result.message,
        logs=result.logs,
        writes=result.writes,
        state=orjson.loads(result.state) if result.state else None,
    )


def completion_document(completion: Completion) -> dict[str, Json]:
    return {
        "outcome": completion.outcome.value,
        "message": completion.message,
        "logs": [line._asdict() for line in completion.logs],
        "writes": [_write_document(write) for write in completion.writes],
        "state": completion.state,
    }


def _write_document(write: Write) -> dict[str, Json]:
    document: dict[str, Json] = write._asdict()
    # Of the few that were waited for.
    done = document.pop("done")
    return {**document, "done": True} if done else document


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recording that was read back: everything that a replay needs but the artifact."""

    run_id: RunId
    ref: ScriptRef
    revision: str
    secrets: frozenset[str]
    activation: JsonObject
    completion: Completion


def read(document: JsonObject) -> Recorded:
    """Raises ValueError, with a sentence, for what is no recording that this version can read."""
    if document.get("recording") != FORMAT:
        raise ValueError(
            f"it is no recording of format {FORMAT}; take one from scriptops recordings or from "
            "/api/v1alpha1/runs/<id>/recording"
        )
    script, activation = mapping(document.get("script")), mapping(document.get("activation"))
    completion = mapping(document.get("completion"))
    limits = mapping(document.get("limits"))
    try:
        return Recorded(
            run_id=RunId(text(document.get("id"))),
            ref=ScriptRef(
                key=ObjectKey(text(script.get("namespace")), text(script.get("name"))),
                digest=text(document.get("digest")),
                script_type=text(document.get("type")),
                file=text(document.get("file")),
                limits=RunLimits(
                    **{n: _whole(limits[n]) for n in RunLimits._fields if n in limits}
                ),
                isolation=Isolation(text(document.get("isolation"))),
                network_allow=tuple(map(text, sequence(document.get("networkAllow")))),
            ),
            revision=text(document.get("revision")),
            secrets=frozenset(map(text, sequence(document.get("secrets")))),
            activation=activation,
            completion=Completion(
                outcome=Outcome(text(completion.get("outcome"))),
                message=text(completion.get("message")),
                logs=tuple(_lines(sequence(completion.get("logs")))),
                writes=tuple(_writes(sequence(completion.get("writes")))),
                state=_state(completion.get("state")),
            ),
        )
    except ValueError as error:
        raise ValueError(f"the recording of run {document.get('id')} is damaged: {error}") from None


def _whole(value: Json) -> int:
    if not isinstance(value, int):
        raise ValueError("a limit is no number")  # noqa: TRY004 - one error for what is read wrong
    return value


def _state(value: Json) -> JsonObject | None:
    return None if value is None else mapping(value)


def _lines(lines: Sequence[Json]) -> Iterator[LogLine]:
    for line in map(mapping, lines):
        yield LogLine(text(line.get("level")), text(line.get("text")))


def _writes(writes: Sequence[Json]) -> Iterator[Write]:
    for write in map(mapping, writes):
        value, qos = write.get("value"), write.get("qos")
        yield Write(
            text(write.get("alias")),
            text(write.get("property")),
            _scalar(value),
            qos if isinstance(qos, int) else 0,
            write.get("force") is True,
            write.get("done") is True,
        )


def _scalar(value: Json) -> Scalar:
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError("a written value is no scalar")  # noqa: TRY004 - as above
    return value
