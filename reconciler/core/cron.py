"""Cron expressions: whether one can be kept, and when it is due.

Times are those of a zone, as Debian's cron keeps them. Where clocks are put forward, what was due
in the hour that is left out is due at its end; where they are put back, what names an hour is due
once in the hour that comes twice, and what runs all through the day goes on through both.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_ZONE: Final = re.compile(r"CRON_TZ=(\S+)\s+(.*)", re.DOTALL)
# An IANA name; never a path that leaves the zone database.
_ZONE_NAME: Final = re.compile(r"[A-Za-z][-+A-Za-z0-9_]*(/[A-Za-z0-9][-+A-Za-z0-9_]*){0,2}")
# Any moment will do: whether an expression ever fires does not depend on it, because the search
# spans more than the 28 years after which dates and weekdays repeat.
_SOME_DAY: Final = datetime(2024, 1, 1)  # noqa: DTZ001 - wall time of whatever zone is meant
# A tick that is found this late is on time: so long may a busy loop, or a restart, take.
LATE_SECONDS: Final = 10.0
_FORM: Final = 'write "<minute> <hour> <day> <month> <weekday>"'


def fault(expression: str) -> str | None:
    """Why `expression` is no schedule, as a sentence that names the fix; None for a good one.

    The empty expression is good: it means no schedule. Zones are looked up among those that this
    machine knows.
    """
    if not expression.strip():
        return None
    match = _ZONE.fullmatch(expression.strip())
    if match is not None and not _known(match[1]):
        return f"{match[1]} is not a time zone; write an IANA name such as CRON_TZ=Europe/Berlin"
    fields = (match[2] if match is not None else expression).split()
    if fields and fields[0].startswith("@"):
        return f"{fields[0]} is not used here; {_FORM}"
    if len(fields) == 6:
        return f"it has six fields, and seconds are not scheduled; {_FORM}"
    if len(fields) != 5:
        return f"it has {len(fields)} fields instead of five; {_FORM}"
    try:
        next(CronSim(" ".join(fields), _SOME_DAY))
    except CronSimError as error:
        if str(error) == "Bad day-of-month" and _ever(fields):
            return "it never fires: no such month has that day"
        return f"{str(error).lower()}; {_FORM}"
    except StopIteration:
        return "it never fires"
    return None


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a schedule says.

    `tick` is the newest time, in seconds since the epoch, at which it was due and nobody has
    looked since; it `is_missed` when it is too late to start. `again_at` is when to look again.
    """

    tick: float | None
    is_missed: bool
    again_at: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due. Durations in seconds; each tick is acted on `delay` after its time."""

    expression: str
    zone: str
    starting_deadline: float
    delay: float

    def look(self, *, since: float, now: float) -> Look:
        """Ticks up to `since` are decided on. A clock that was put back brings none again."""
        tick = _tick(self.expression, self.zone, now - self.delay, is_reverse=True)
        is_new = tick is not None and tick > since
        following = _tick(self.expression, self.zone, max(now - self.delay, since), False)
        late = now - self.delay - tick if tick is not None else 0.0
        return Look(
            tick=tick if is_new else None,
            is_missed=is_new and late > max(self.starting_deadline, LATE_SECONDS),
            again_at=float("inf") if following is None else following + self.delay,
        )


def schedule(
    expression: str, *, key: str, starting_deadline: float = 0.0, jitter: float = 0.0
) -> Schedule | None:
    """Of an expression without fault; None for the empty one.

    `key` decides by which part of `jitter` each tick is delayed: the same key by the same.
    """
    if not expression.strip():
        return None
    match = _ZONE.fullmatch(expression.strip())
    zone, fields = match.groups() if match is not None else ("UTC", expression)
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return Schedule(" ".join(fields.split()), zone, starting_deadline, jitter * share)


@lru_cache(maxsize=4096)
def _tick(expression: str, zone: str, at: float, is_reverse: bool) -> float | None:  # noqa: FBT001
    """The next tick after `at`, or the last one up to it. Many Scripts share an expression."""
    start = datetime.fromtimestamp(at, UTC if zone == "UTC" else ZoneInfo(zone))
    if is_reverse:
        # Strictly before what it is given, which it takes without the fraction of the second.
        start = datetime.fromtimestamp(int(at) + 1, start.tzinfo)
    found = next(CronSim(expression, start, reverse=is_reverse), None)
    return None if found is None else found.timestamp()


def _known(zone: str) -> bool:
    if not _ZONE_NAME.fullmatch(zone):
        return False
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _ever(fields: list[str]) -> bool:
    """Whether the day is one that some other month has."""
    try:
        CronSim(" ".join([*fields[:3], "*", *fields[4:]]), _SOME_DAY)
    except CronSimError:
        return False
    return True
