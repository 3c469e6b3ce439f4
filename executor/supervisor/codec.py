"""Requests to a worker, and its answers read with distrust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from executor.model import Isolation, LogLevel, LogLine, Outcome, RunResult, Write
from executor.worker import frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executor.model import Limits, RunRequest, ScriptRef

_OUTCOMES: Final = {
    outcome.value: outcome
    for outcome in (
        Outcome.WAITING,
        Outcome.SUCCEEDED,
        Outcome.FAILED,
        Outcome.TIMED_OUT,
        Outcome.OUT_OF_MEMORY,
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
    head = {
        "do": "open",
        "type": script.type,
        "script": isolate_name(script),
        "file": script.file,
        "drop": drop,
        **_budgets(script),
    }
    return frames.encode(head, source)


def check_frame(script: ScriptRef, source: bytes) -> bytes:
    head = {"do": "check", "type": script.type, "file": script.file, **_budgets(script)}
    return frames.encode(head, source)


def run_frame(script: ScriptRef, runs: Sequence[RunRequest]) -> bytes:
    """A batch: the activations go in as they came, nothing here reads them."""
    limits: Limits = script.limits
    batch = (
        b'{"writes":%d,"output":%d,"fetches":%d,"state":%d,"heap":%d,"wall":%d,"cpu":%d,'
        b'"count":%d,"activations":[%s]}'
    ) % (
        limits.writes,
        limits.output_bytes,
        limits.fetches if script.network_allow else 0,
        limits.state_bytes,
        limits.heap_bytes,
        limits.wall_time_ms,
        limits.cpu_time_ms,
        len(runs),
        b",".join([run.activation for run in runs]),
    )
    head = {
        "do": "run",
        "type": script.type,
        "script": isolate_name(script),
        **_budgets(script, len(runs)),
    }
    return frames.encode(head, batch)


def _budgets(script: ScriptRef, runs: int = 1) -> dict[str, int]:
    """What the kernel is to hold a request to. Runs are judged together, then one by one."""
    limits = script.limits
    return {"heap": limits.heap_bytes, "cpu": limits.cpu_time_ms + runs}


def isolate_name(script: ScriptRef) -> str:
    """Scripts of one digest share an isolate, unless stack traces must name another file.

    One whose runs are to be kept apart strictly shares it with nobody.
    """
    name = f"{script.type} {script.digest} {script.file}"
    return name if script.isolation is Isolation.SHARED else f"strict {name}"


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
                state=b"" if state is None else _object(state),
                wanted=_wanted(outcome, wanted),
            )
            for run, (outcome, message, logs, writes, state, wanted) in zip(
                runs, completions, strict=True
            )
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise AnswerInvalid("a completion is not what was agreed") from error


def _object(value: object) -> bytes:
    if type(value) is not dict:
        raise TypeError
    return orjson.dumps(value)


def _wanted(outcome: object, ops: object) -> tuple[dict[str, object], ...]:
    """What a run waits for: numbered objects, and none exactly when it does not wait."""
    if type(ops) is not list or bool(ops) != (outcome == Outcome.WAITING.value):
        raise TypeError
    for op in ops:
        if type(op) is not dict or type(op.get("n")) is not int or op["n"] < 0:
            raise TypeError
    return tuple(ops)


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
