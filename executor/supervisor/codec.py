"""Requests to a worker, and its answers read with distrust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from executor.model import LogLevel, LogLine, Outcome, RunResult, Write
from executor.worker import frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executor.model import Limits, RunRequest, ScriptRef

_OUTCOMES: Final = {
    outcome.value: outcome
    for outcome in (
        Outcome.SUCCEEDED,
        Outcome.FAILED,
        Outcome.OUTPUT_TOO_LARGE,
        Outcome.DENIED,
        Outcome.LOAD_FAILED,
    )
}
"""What a worker may say of a run. The rest is for the supervisor to find."""

_LEVELS: Final = {level.value: level for level in LogLevel}


class AnswerInvalid(ValueError):
    """The worker's answer is not what was agreed; the worker is not to be used again."""


def open_frame(script: ScriptRef, source: bytes, *, drop: str | None) -> bytes:
    head = {"do": "open", "script": isolate_name(script), "file": script.file, "drop": drop}
    return frames.encode(head, source)


def check_frame(script: ScriptRef, source: bytes) -> bytes:
    return frames.encode({"do": "check", "file": script.file}, source)


def run_frame(script: ScriptRef, runs: Sequence[RunRequest]) -> bytes:
    """A batch: the activations go in as they came, nothing here reads them."""
    limits: Limits = script.limits
    batch = b'{"writes":%d,"output":%d,"count":%d,"activations":[%s]}' % (
        limits.writes,
        limits.output_bytes,
        len(runs),
        b",".join([run.activation for run in runs]),
    )
    return frames.encode({"do": "run", "script": isolate_name(script)}, batch)


def isolate_name(script: ScriptRef) -> str:
    """Scripts of one digest share an isolate, unless stack traces must name another file."""
    return f"{script.digest} {script.file}"


def results(body: bytes, runs: Sequence[RunRequest], *, duration_us: int) -> list[RunResult]:
    """The completions of `runs`, in order.

    Raises:
        AnswerInvalid: they are not one well-formed completion per run.
    """
    try:
        completions = orjson.loads(body)
        return [
            RunResult(
                run.key,
                _OUTCOMES[outcome],
                _text(message),
                tuple([LogLine(_LEVELS[level], _text(text)) for level, text in logs]),
                tuple([_write(*write) for write in writes]),
                duration_us,
            )
            for run, (outcome, message, logs, writes) in zip(runs, completions, strict=True)
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise AnswerInvalid("a completion is not what was agreed") from error


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _write(alias: object, name: object, value: object, qos: object, force: object) -> Write:
    kind = type(value)
    if kind is int:
        value = float(value)  # type: ignore[arg-type]  # judged by `kind`
    elif kind is not str and kind is not float and kind is not bool:
        raise TypeError
    if type(qos) is not int or not 0 <= qos <= 2 or type(force) is not bool:
        raise TypeError
    return Write(_text(alias), _text(name), value, qos, force)  # type: ignore[arg-type]  # judged
