"""Requests to a worker, and its answers read with distrust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import orjson
from msgspec import Meta, Raw, Struct

from executor.model import Commit, Isolation, LogLine, Outcome, RunResult, Write
from executor.supervisor.process import MESSAGE_CHARACTERS
from executor.worker import frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from executor.model import Limits, RunRequest, ScriptRef
    from executor.supervisor.queue import Job

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


RESULT_BYTES: Final = 12 * 1024 * 1024
"""Of one run, as JSON: with the replies it was given it must fit a message of the session, or it
would end the session for everybody. A thousand writes of the longest text are up to 50 MB."""


class AnswerInvalid(ValueError):
    """The worker's answer is not what was agreed; the worker is not to be used again."""


def open_frame(script: ScriptRef, source: bytes, *, drop: Sequence[str] = ()) -> bytes:
    head = {
        "do": "open",
        "type": script.type,
        "script": opened_name(script),
        "file": script.file,
        "alone": script.isolation is Isolation.STRICT,
        "drop": drop,
        **_budgets(script),
    }
    return frames.encode(head, source)


def check_frame(script: ScriptRef, source: bytes) -> bytes:
    head = {"do": "check", "type": script.type, "file": script.file, **_budgets(script)}
    return frames.encode(head, source)


def run_frame(jobs: Sequence[Job]) -> bytes:
    """A batch of jobs that `go_together`: activations go in as they came, nothing reads them."""
    script = jobs[0].script
    limits: Limits = script.limits
    of = orjson.dumps([(opened_name(job.script), len(job.runs)) for job in jobs])
    activations = [run.activation for job in jobs for run in job.runs]
    batch = (
        b'{"writes":%d,"output":%d,"fetches":%d,"state":%d,"heap":%d,"wall":%d,"cpu":%d,'
        b'"of":%s,"count":%d,"activations":[%s]}'
    ) % (
        limits.writes,
        limits.output_bytes,
        limits.fetches if script.network_allow else 0,
        limits.state_bytes,
        limits.heap_bytes,
        limits.wall_time_ms,
        limits.cpu_time_ms,
        of,
        len(activations),
        b",".join(activations),
    )
    head = {
        "do": "run",
        "type": script.type,
        "of": orjson.Fragment(of),
        **_budgets(script, len(activations)),
    }
    return frames.encode(head, batch)


def go_together(first: ScriptRef, other: ScriptRef) -> bool:
    """Whether runs of both can be in one batch: they have the same engine and the same limits."""
    return (
        first.type == other.type
        and first.limits == other.limits
        and not first.network_allow
        and not other.network_allow
        and first.isolation is other.isolation is Isolation.SHARED
    )


def _budgets(script: ScriptRef, runs: int = 1) -> dict[str, int]:
    """What the kernel is to hold a request to. Runs are judged together, then one by one."""
    limits = script.limits
    return {"heap": limits.heap_bytes, "cpu": limits.cpu_time_ms + runs}


def opened_name(script: ScriptRef) -> str:
    """Scripts of one digest are opened once, unless stack traces must name another file.

    One whose runs are to be kept apart strictly is opened apart.
    """
    name = f"{script.type} {script.digest} {script.file}"
    return name if script.isolation is Isolation.SHARED else f"strict {name}"


class _Completion(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a worker says of a run, judged as it is read."""

    outcome: int
    message: Annotated[str, Meta(max_length=MESSAGE_CHARACTERS)]
    logs: tuple[LogLine, ...]
    writes: tuple[Write, ...]
    state: Raw
    wanted: tuple[dict[str, Any], ...]


_COMPLETIONS: Final = msgspec.json.Decoder(list[_Completion])
_COMPLETION: Final = msgspec.json.Decoder(_Completion)
_UNREAD: Final = msgspec.json.Decoder(list[Raw])
_NULL: Final = Raw(b"null")
_WAITING: Final = int(Outcome.WAITING)
_COMMIT: Final = "commit"


def results(body: bytes, runs: Sequence[RunRequest], *, duration_us: int) -> list[RunResult]:
    """The completions of `runs`, in order.

    Raises:
        AnswerInvalid: they are not one well-formed completion per run.
    """
    try:
        return [
            _result(run, completion, duration_us)
            for run, completion in zip(runs, _completions(body), strict=True)
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise AnswerInvalid("a completion is not what was agreed") from error


def _result(run: RunRequest, completion: _Completion, duration_us: int) -> RunResult:
    # It waits exactly when there is something that it waits for.
    if bool(completion.wanted) != (completion.outcome == _WAITING):
        raise TypeError
    wanted = tuple(_wanted(completion.wanted)) if completion.wanted else ()
    return RunResult(
        run.key,
        _OUTCOMES[completion.outcome],
        completion.message,
        completion.logs,
        completion.writes,
        duration_us,
        state=b"" if completion.state == _NULL else _object(completion.state),
        wanted=tuple([op for op in wanted if not isinstance(op, Commit)]) if wanted else (),
        commits=tuple([op for op in wanted if isinstance(op, Commit)]) if wanted else (),
    )


def _completions(body: bytes) -> list[_Completion]:
    if len(body) <= RESULT_BYTES:
        return _COMPLETIONS.decode(body)
    return [
        _COMPLETION.decode(part) if len(part) <= RESULT_BYTES else _too_large(len(part))
        for part in map(bytes, _UNREAD.decode(body))
    ]


def _too_large(size: int) -> _Completion:
    message = f"its result has {size} bytes; at most {RESULT_BYTES} are taken"
    return _Completion(Outcome.OUTPUT_TOO_LARGE.value, message, (), (), _NULL, ())


def _object(state: Raw) -> bytes:
    value = orjson.loads(bytes(state))
    if type(value) is not dict:
        raise TypeError
    return orjson.dumps(value)


def _wanted(ops: tuple[dict[str, Any], ...]) -> Iterator[dict[str, Any] | Commit]:
    """What a run waits for: numbered objects. Commits name one device each."""
    for op in ops:
        if type(op.get("n")) is not int or op["n"] < 0:
            raise TypeError
        if op.get("op") != _COMMIT:
            yield op
            continue
        commit = msgspec.convert(op, Commit)
        if not commit.writes or any(it.alias != commit.alias for it in commit.writes):
            raise TypeError
        yield commit
