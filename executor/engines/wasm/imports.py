"""What a guest may import from `scriptops_v1`: the ABI, one table.

Strings are UTF-8 in the guest's exported `memory`, given as address and length. What comes back as
a string goes into a buffer of the guest's, given as address and size: the answer is how many bytes
it has, and it was written only if that is not more than the size. Negative answers are the codes of
`run`. An import whose op is not in the table of ops does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from executor import ops
from executor.engines.wasm.run import ABSENT, DENIED, INVALID, Ended, Refused, Run
from executor.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from executor.engines.wasm.native import Memory

MODULE: Final = "scriptops_v1"

TEXT_BYTES: Final = 4 * ops.VALUE_CHARACTERS
"""Longest name, key or device value in UTF-8; more than that is refused without being read."""


@dataclass(frozen=True, slots=True)
class Import:
    """One function: `signature` as `native.Machine.define` has it."""

    name: str
    signature: str
    call: Callable[..., float | None]


def _text(memory: Memory, at: int, length: int, limit: int = TEXT_BYTES) -> str:
    if length > limit:
        raise Refused(INVALID, f"a text of {length} bytes is too long")
    try:
        return memory.read(at, length).decode()
    except UnicodeDecodeError as error:
        raise Refused(INVALID, "a text is not UTF-8") from error


# devices


def _readable(run: Run, memory: Memory, index: int, to: int, room: int) -> int:
    return _item(memory, list(run.read), index, to, room)


def _writable(run: Run, memory: Memory, index: int, to: int, room: int) -> int:
    return _item(memory, run.write, index, to, room)


def _item(memory: Memory, names: list[str], index: int, to: int, room: int) -> int:
    return ABSENT if index >= len(names) else memory.give(names[index].encode(), to, room)


def _value(run: Run, memory: Memory, alias: int, long: int, name: int, size: int) -> object:
    return run.reported(_text(memory, alias, long), _text(memory, name, size))


def _type(run: Run, memory: Memory, *names: int) -> int:
    value = _value(run, memory, *names)
    return _KINDS.get(type(value), ABSENT)


_KINDS: Final = {bool: 1, int: 2, float: 2, str: 3}


def _number(run: Run, memory: Memory, *names: int) -> float:
    value = _value(run, memory, *names)
    return float(value) if isinstance(value, int | float) and type(value) is not bool else _NAN


_NAN: Final = float("nan")


def _bool(run: Run, memory: Memory, *names: int) -> int:
    value = _value(run, memory, *names)
    return int(value) if isinstance(value, bool) else ABSENT


def _string(
    run: Run, memory: Memory, alias: int, long: int, name: int, size: int, to: int, room: int
) -> int:
    value = _value(run, memory, alias, long, name, size)
    if value is None:
        return ABSENT
    data = value.encode() if isinstance(value, str) else orjson.dumps(value)
    return memory.give(data, to, room)


def _set_number(
    run: Run, memory: Memory, alias: int, long: int, name: int, size: int, value: float
) -> int:
    run.stage(_text(memory, alias, long), _text(memory, name, size), value)
    return 0


def _set_bool(
    run: Run, memory: Memory, alias: int, long: int, name: int, size: int, value: int
) -> int:
    run.stage(_text(memory, alias, long), _text(memory, name, size), value != 0)
    return 0


def _set_string(
    run: Run, memory: Memory, alias: int, long: int, name: int, size: int, text: int, length: int
) -> int:
    value = _text(memory, text, length)
    run.stage(_text(memory, alias, long), _text(memory, name, size), value)
    return 0


def _commit(run: Run, memory: Memory, alias: int, long: int, qos: int, force: int) -> int:
    return run.commit(_text(memory, alias, long), qos, force=force != 0)


# env, event, log, clock, randomness


def _env(run: Run, memory: Memory, name: int, size: int, to: int, room: int) -> int:
    value = run.env.get(_text(memory, name, size))
    return ABSENT if value is None else memory.give(str(value).encode(), to, room)


def _event(run: Run, memory: Memory, to: int, room: int) -> int:
    return memory.give(orjson.dumps(run.event), to, room)


def _log(run: Run, memory: Memory, level: int, at: int, length: int) -> int:
    if length > run.flood_bytes:
        run.flood()
    run.print(level, memory.read(at, length).decode(errors="replace"), length)
    return 0


def _now(run: Run, _: Memory) -> float:
    return run.now


def _random(run: Run, _: Memory) -> float:
    return run.random_bits() / 2**32


# state


def _state_get(run: Run, memory: Memory, key: int, size: int, to: int, room: int) -> int:
    value = run.remembered().get(_text(memory, key, size))
    return ABSENT if value is None else memory.give(value, to, room)


def _state_set(run: Run, memory: Memory, key: int, size: int, at: int, length: int) -> int:
    if length > run.state_limit:
        raise Refused(DENIED, f"a state value of {length} bytes is more than may be kept")
    run.remember(_text(memory, key, size), memory.read(at, length))
    return 0


def _state_delete(run: Run, memory: Memory, key: int, size: int) -> int:
    return int(run.forget(_text(memory, key, size)))


def _state_key(run: Run, memory: Memory, index: int, to: int, room: int) -> int:
    return _item(memory, list(run.remembered()), index, to, room)


# fetch


def _fetch(run: Run, memory: Memory, at: int, length: int) -> int:
    try:
        request = orjson.loads(_text(memory, at, length, ops.REQUEST_CHARACTERS))
    except orjson.JSONDecodeError as error:
        raise Refused(INVALID, "a request must be a JSON object") from error
    return run.ask(request)


def _fetch_reply(run: Run, memory: Memory, number: int, to: int, room: int) -> int:
    return memory.give(orjson.dumps(run.reply(number)), to, room)


# errors


def _refusal(run: Run, memory: Memory, to: int, room: int) -> int:
    return ABSENT if run.refusal is None else memory.give(str(run.refusal).encode(), to, room)


def _fail(_: Run, memory: Memory, at: int, length: int) -> None:
    text = memory.read(at, min(length, 4 * ops.MESSAGE_CHARACTERS)).decode(errors="replace")
    raise Ended(Outcome.FAILED, text)


_TABLE: Final[tuple[tuple[str, str, str, Callable[..., float | None]], ...]] = (
    ("Device.listReadableDevices", "device_readable", "iii>i", _readable),
    ("Device.listWritableDevices", "device_writable", "iii>i", _writable),
    ("Device.getDeviceStatus", "device_type", "iiii>i", _type),
    ("Device.getDeviceStatus", "device_number", "iiii>d", _number),
    ("Device.getDeviceStatus", "device_bool", "iiii>i", _bool),
    ("Device.getDeviceStatus", "device_string", "iiiiii>i", _string),
    ("Device.setDeviceStatus", "device_set_number", "iiiid>i", _set_number),
    ("Device.setDeviceStatus", "device_set_bool", "iiiii>i", _set_bool),
    ("Device.setDeviceStatus", "device_set_string", "iiiiii>i", _set_string),
    ("Device.commitDevice", "device_commit", "iiii>i", _commit),
    ("console.log", "log", "iii>i", _log),
    ("State.get", "state_get", "iiii>i", _state_get),
    ("State.set", "state_set", "iiii>i", _state_set),
    ("State.delete", "state_delete", "ii>i", _state_delete),
    ("State.keys", "state_key", "iii>i", _state_key),
    ("", "env", "iiii>i", _env),
    ("", "event", "ii>i", _event),
    ("", "now", ">d", _now),
    ("", "random", ">d", _random),
    ("", "refusal", "ii>i", _refusal),
    ("", "fail", "ii", _fail),
    ("", "fetch", "ii>i", _fetch),
    ("", "fetch_reply", "iii>i", _fetch_reply),
)


def _guarded(
    name: str, signature: str, function: Callable[..., float | None]
) -> Callable[..., float | None]:
    """`function`, whose refusals become codes and lines of the log."""
    is_number = signature.endswith(">d")

    def call(run: Run, memory: Memory, *values: float) -> float | None:
        try:
            return function(run, memory, *values)
        except Refused as refusal:
            run.refuse(name, refusal)
            return _NAN if is_number else refusal.code

    return call


_EXISTING: Final = {f"{op.global_name}.{op.name}" for op in ops.SURFACE} | {""}

IMPORTS: Final = tuple(
    Import(name, signature, _guarded(name, signature, function))
    for op, name, signature, function in _TABLE
    if op in _EXISTING
)
