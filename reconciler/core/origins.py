"""Who set what is desired: kept beside it, as JSON in one annotation of the Device.

A list of runs, the newest first, each with the properties whose present desired value is its own:

    [{"run": "6f0c...", "script": "thermostat", "at": 1795296000.25, "set": {"power": "a3c1d2e4"},
      "depth": 2, "chain": "91be...", "priority": 10, "until": 1795296060.25}]

What somebody else desires since then no longer has the mark of its value, so nothing else has to be
written for a person to be the newest. What is no such list, among it the bare run id of earlier
versions, says nothing and is replaced by the next write.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Final, TypeAlias

import msgspec

from reconciler.core.runs import RunId

# Bytes of older runs that are kept beside the newest. Several tens of them, far below the 256 KiB
# that the annotations of an object may have.
MOST_KEPT: Final = 16 * 1024
# Larger than any that is written: the newest run of a device with very many properties is kept.
_LARGEST: Final = 256 * 1024
# Texts kept decoded: a device is looked at by each Script that reads it, a few times in a row.
_DECODED: Final = 4_096


# Who may write a Device may write anything here, and all of it is shown somewhere.
_Id: TypeAlias = Annotated[RunId, msgspec.Meta(max_length=64)]
# Up to the year 9999.
_Time: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run, and which desired values of one device are its own.

    `script` is the name of its Script, in the namespace of the device; `at` is in seconds since the
    epoch. `depth` is how many runs led to it by what they wrote, and `chain` the first of them;
    empty for a run that is the first. It holds what it set against lower priorities than
    `priority` until `until`. `is_last` says that a run which may be performed again has written all
    that it writes here. `marks` has a mark of each value by property.
    """

    run_id: _Id = msgspec.field(name="run")
    script: Annotated[str, msgspec.Meta(max_length=253)]
    at: _Time
    depth: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    chain: _Id = RunId("")
    priority: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 0
    until: _Time = 0.0
    is_last: bool = msgspec.field(name="last", default=False)
    marks: dict[str, str] = msgspec.field(name="set", default_factory=dict)

    @property
    def first(self) -> RunId:
        """The run that its chain began with."""
        return self.chain or self.run_id


def no_run(_run_id: RunId) -> bool:
    return False


_DECODER: Final = msgspec.json.Decoder(tuple[Origin, ...])
_ENCODER: Final = msgspec.json.Encoder()


@lru_cache(maxsize=_DECODED)
def read(kept: str) -> tuple[Origin, ...]:
    """The newest first; none for anything that `written` does not make."""
    if not kept.startswith("[") or len(kept) > _LARGEST:
        return ()
    try:
        return _DECODER.decode(kept)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return ()


def written(kept: str, newest: Origin, undone: Callable[[RunId], bool] = no_run) -> str:
    """What to keep when `newest` sets the properties that it has marks of.

    The last of runs that are `undone` stays, also where nothing of what they set is left: they may
    be performed again, and must be found to have been.
    """
    parts = [_ENCODER.encode(newest)]
    room = MOST_KEPT
    for it in read(kept):
        marks = {name: mark for name, mark in it.marks.items() if name not in newest.marks}
        is_undone = it.is_last and undone(it.run_id)
        if not marks and not is_undone:
            continue
        part = _ENCODER.encode(msgspec.structs.replace(it, marks=marks))
        room -= len(part) + 1
        if room < 0 and not is_undone:
            continue
        parts.append(part)
    return f"[{b','.join(parts).decode()}]"


def has_last(kept: str, run_id: RunId) -> bool:
    """Whether the last that the run writes is among what is kept."""
    return any(it.is_last and it.run_id == run_id for it in read(kept))


def of(kept: str, name: str, value: str | None) -> Origin | None:
    """The run that set the value which is desired of a property; None for somebody else's."""
    if value is None:
        return None
    for it in read(kept):
        if name in it.marks:
            return it if it.marks[name] == mark(value) else None
    return None


def holder(kept: str, name: str, value: str | None, by: Origin) -> Origin | None:
    """The run of another Script that keeps `by` from setting a property; `value` is desired."""
    held = of(kept, name, value)
    if held is None or held.script == by.script or held.priority <= by.priority:
        return None
    return held if by.at < held.until else None


def is_to_hold(kept: str, name: str, value: str | None, by: Origin) -> bool:
    """Whether `by`, which sets what is desired already, has to say so to keep others from it."""
    lease = by.until - by.at
    held = of(kept, name, value)
    if lease <= 0:
        return False
    # Often enough to leave no gap, and not with every run.
    is_held = held is not None and held.until - by.at > lease / 2
    return held is None or not is_held or held.priority < by.priority


def mark(value: str) -> str:
    """Tells values apart that stand beside it anyway; not made to keep one secret."""
    return f"{zlib.crc32(value.encode(errors='replace')):08x}"
