"""When a device that is not as it is wanted is told so again: soon at first, then ever later.

A delta goes out at quality of service 0, and nobody says that it was lost. The newest wish starts
anew; a device that speaks is told with its own messages, so the clock waits for its silence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

# Seconds between two deltas: as often as KubeEdge sends again, and at last once a minute.
FIRST_REST: Final = 5.0
LONGEST_REST: Final = 60.0


@dataclass(frozen=True, slots=True)
class Drive:
    """The next delta is due at `at`, in seconds of a clock that never goes back."""

    at: float
    rest: float


def begun(now: float) -> Drive:
    """Something new was wanted, and has just been sent."""
    return Drive(now + FIRST_REST, FIRST_REST)


def heard(drive: Drive, now: float) -> Drive:
    """The device spoke, and was told in the same breath."""
    return replace(drive, at=now + drive.rest)


def driven(drive: Drive, now: float) -> Drive:
    """It was due, and was sent."""
    rest = min(drive.rest * 2, LONGEST_REST)
    return Drive(now + rest, rest)
