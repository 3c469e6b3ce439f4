"""Cron expressions: whether one can be kept. When it is due is decided elsewhere."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_ZONE: Final = re.compile(r"CRON_TZ=(\S+)\s+(.*)", re.DOTALL)
# An IANA name; never a path that leaves the zone database.
_ZONE_NAME: Final = re.compile(r"[A-Za-z][-+A-Za-z0-9_]*(/[A-Za-z0-9][-+A-Za-z0-9_]*){0,2}")
# Any moment will do: whether an expression ever fires does not depend on it, because the search
# spans more than the 28 years after which dates and weekdays repeat.
_SOME_DAY: Final = datetime(2024, 1, 1)  # noqa: DTZ001 - wall time of whatever zone is meant
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
