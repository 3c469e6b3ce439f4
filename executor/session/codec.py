"""Wire messages to values and back. Nothing else in the executor sees a message."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from scriptops.controller.v1 import controller_pb2 as wire

from executor.model import (
    Commit,
    Isolation,
    Limits,
    LogLevel,
    LogLine,
    Outcome,
    RunKey,
    RunRequest,
    RunResult,
    ScriptRef,
    ScriptType,
    Work,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PROTOCOL: Final = 1
"""The version of the protocol that this program speaks."""

MESSAGE_BYTES: Final = 32 * 1024 * 1024
"""Largest message either side may send; the controller must permit as much."""

RESULTS_BYTES: Final = 4 * 1024 * 1024
"""Where a message of results is closed and the next begun; a run's result is below 1 MB."""

SCRIPTS: Final = 4_096
"""Scripts that are remembered as they came, about 1 KB each: most runs are of one seen before."""

_DEFAULT: Final = Limits()


class PeerProtocolError(Exception):
    """The controller broke the protocol; the session ends, the program does not."""


def connect_to_wire(
    *, name: str, script_types: Iterable[ScriptType], engines: Mapping[str, str]
) -> wire.ClientMessage:
    info = wire.ClientInfo(
        protocol=PROTOCOL,
        name=name,
        script_types=[number.value for number in script_types],  # type: ignore[misc]  # same numbers
        engines=dict(engines),
    )
    return wire.ClientMessage(connect=wire.Connect(client_info=info))


def credit_to_wire(credit: int) -> wire.ClientMessage:
    return wire.ClientMessage(**{"continue": wire.Continue(credit=credit)})


def exit_to_wire(reason: str) -> wire.ClientMessage:
    return wire.ClientMessage(exit=wire.ClientExit(reason=reason))


def work_from_wire(message: wire.RunScript) -> Work:
    """One request for runs, or for a load.

    Raises:
        PeerProtocolError: it asks for neither, or for both, or does not say of what.
    """
    script = _script(message.script.SerializeToString())
    load = _key_from_wire(message.script.load) if message.script.HasField("load") else None
    if not script.namespace or not script.digest:
        raise PeerProtocolError("a RunScript names no namespace or no digest")
    if (load is None) == (not message.runs):
        raise PeerProtocolError(f"a RunScript for {script.name} has neither runs nor load, or both")
    runs = tuple(
        [
            RunRequest(
                RunKey((key := run.key).run_id, key.attempt, key.epoch),
                run.activation,
                run.waited_ms,
            )
            for run in message.runs
        ]
    )
    return Work(script, runs, load)


def work_to_wire(work: Work) -> wire.RunScript:
    script = work.script
    return wire.RunScript(
        script=wire.ScriptRef(
            namespace=script.namespace,
            name=script.name,
            digest=script.digest,
            type=script.type,  # type: ignore[arg-type]  # an open enum, as any number is
            file=script.file,
            limits=wire.Limits(
                wall_time_ms=script.limits.wall_time_ms,
                output_bytes=script.limits.output_bytes,
                writes=script.limits.writes,
                heap_bytes=script.limits.heap_bytes,
                fetches=script.limits.fetches,
                state_bytes=script.limits.state_bytes,
                cpu_time_ms=script.limits.cpu_time_ms,
                wait_ms=script.limits.wait_ms,
            ),
            isolation=script.isolation,  # type: ignore[arg-type]  # same numbers, by test
            network_allow=script.network_allow,
            load=None if work.load is None else _key_to_wire(work.load),
        ),
        runs=[
            wire.Run(key=_key_to_wire(run.key), activation=run.activation, waited_ms=run.waited_ms)
            for run in work.runs
        ],
    )


def results_to_wire(results: Sequence[RunResult]) -> Iterator[wire.ClientMessage]:
    """As few messages as their size allows."""
    message = wire.ClientMessage()
    size = 0
    for result in results:
        status = _status_to_wire(result)
        size += status.ByteSize()
        if size > RESULTS_BYTES and message.results.results:
            yield message
            message = wire.ClientMessage()
            size = status.ByteSize()
        message.results.results.append(status)
    yield message


def results_from_wire(message: wire.ClientMessage) -> tuple[RunResult, ...]:
    """Raises `PeerProtocolError` for an outcome or level that we do not know."""
    try:
        return tuple(
            RunResult(
                key=_key_from_wire(status.key),
                outcome=Outcome(status.outcome),
                message=status.message,
                logs=tuple(LogLine(LogLevel(line.level), line.text) for line in status.logs),
                writes=tuple(_write_from_wire(write) for write in status.writes),
                duration_us=status.duration_us,
                load=status.load,
                state=status.state,
                replies=status.replies,
                commits=tuple(_commit_from_wire(commit) for commit in status.commits),
                waited_ms=status.waited_ms,
            )
            for status in message.results.results
        )
    except ValueError as error:
        raise PeerProtocolError("a result has an outcome or log level we do not know") from error


@lru_cache(SCRIPTS)
def _script(message: bytes) -> ScriptRef:
    """The script that is asked for; the same object as long as it is remembered."""
    return _script_from_wire(wire.ScriptRef.FromString(message))


def _script_from_wire(script: wire.ScriptRef) -> ScriptRef:
    limits = script.limits
    return ScriptRef(
        namespace=script.namespace,
        name=script.name,
        digest=script.digest,
        type=script.type,
        file=script.file,
        limits=Limits(
            wall_time_ms=limits.wall_time_ms or _DEFAULT.wall_time_ms,
            output_bytes=limits.output_bytes or _DEFAULT.output_bytes,
            writes=limits.writes or _DEFAULT.writes,
            heap_bytes=limits.heap_bytes or _DEFAULT.heap_bytes,
            fetches=limits.fetches or _DEFAULT.fetches,
            state_bytes=limits.state_bytes or _DEFAULT.state_bytes,
            # Who gives a script more time means time to compute.
            cpu_time_ms=limits.cpu_time_ms or limits.wall_time_ms or _DEFAULT.cpu_time_ms,
            wait_ms=limits.wait_ms or _DEFAULT.wait_ms,
        ),
        isolation=_isolation_from_wire(script.isolation),
        network_allow=tuple(script.network_allow),
    )


def _isolation_from_wire(number: int) -> Isolation:
    try:
        return Isolation(number)
    except ValueError as error:
        # To run it with less than was asked for would be worse than not to run it.
        raise PeerProtocolError(f"isolation {number} is not known to this executor") from error


def _key_from_wire(key: wire.RunKey) -> RunKey:
    return RunKey(key.run_id, key.attempt, key.epoch)


def _key_to_wire(key: RunKey) -> wire.RunKey:
    return wire.RunKey(run_id=key.run_id, attempt=key.attempt, epoch=key.epoch)


def _status_to_wire(result: RunResult) -> wire.UpdateScriptStatus:
    return wire.UpdateScriptStatus(
        key=_key_to_wire(result.key),
        outcome=result.outcome,  # type: ignore[arg-type]  # same numbers, by test
        message=result.message,
        logs=[wire.LogLine(level=line.level, text=line.text) for line in result.logs],  # type: ignore[arg-type]  # same numbers, by test
        writes=[_write_to_wire(write) for write in result.writes],
        duration_us=result.duration_us,
        load=result.load,
        state=result.state,
        replies=result.replies,
        commits=[_commit_to_wire(commit) for commit in result.commits],
        waited_ms=result.waited_ms,
    )


def _commit_to_wire(commit: Commit) -> wire.Commit:
    return wire.Commit(
        n=commit.n,
        alias=commit.alias,
        qos=commit.qos,
        writes=[_write_to_wire(write) for write in commit.writes],
        timeout_ms=commit.ms,
    )


def _commit_from_wire(commit: wire.Commit) -> Commit:
    writes = tuple(_write_from_wire(write) for write in commit.writes)
    return Commit(commit.n, commit.alias, commit.qos, writes, commit.timeout_ms)


def _write_to_wire(write: Write) -> wire.UpdateDeviceDesired:
    desired = wire.UpdateDeviceDesired(
        alias=write.alias,
        property=write.property,
        qos=write.qos,
        force=write.force,
        done=write.done,
    )
    match write.value:
        case bool(value):
            desired.bool_value = value
        case str(value):
            desired.string_value = value
        case value:
            desired.number_value = value
    return desired


def _write_from_wire(desired: wire.UpdateDeviceDesired) -> Write:
    kind = desired.WhichOneof("value")
    if kind is None:
        raise PeerProtocolError(f"a write of {desired.alias}.{desired.property} has no value")
    value: str | float | bool = getattr(desired, kind)
    return Write(desired.alias, desired.property, value, desired.qos, desired.force, desired.done)
