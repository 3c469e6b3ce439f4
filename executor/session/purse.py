"""How many runs this executor holds, shared by its sessions."""

from __future__ import annotations

from typing import Final, Protocol

CAPACITY: Final = 2_000
"""Runs this executor holds: at 30,000 runs/s 70 ms of work, more than a round trip."""

SESSIONS: Final = 8
"""Controllers that one executor serves at most."""

FIRST: Final = CAPACITY // 40
"""Of several sessions each begins with so much; who uses it gets more. It stays in reserve for
sessions that are not open: whoever comes to lead has work done at once."""


class Holder(Protocol):
    """A session that has credit. `is_idle`: all it was asked for is answered."""

    @property
    def is_idle(self) -> bool: ...

    def give_back(self) -> None:
        """End in order, and begin again with the first credit."""
        ...


class Purse:
    """Promised: what all sessions hold together is at most `CAPACITY`, while there are at most
    `SESSIONS` of them. One that is alone has all of it. Credit cannot be taken back from a session,
    so one that does not use its own begins anew when another could.
    """

    def __init__(self, *, is_shared: bool) -> None:
        self._is_shared = is_shared
        self._held: dict[Holder, int] = {}

    def share(self) -> None:
        """There are several controllers from now on."""
        self._is_shared = True

    def begin(self, holder: Holder) -> int:
        """The credit that a session begins with."""
        self._held[holder] = FIRST if self._is_shared else CAPACITY
        return self._held[holder]

    def more(self, holder: Holder, wanted: int) -> int:
        """Credit on top for a session that uses what it has."""
        if not self._is_shared:
            return 0
        unopened = max(SESSIONS - len(self._held), 0)
        free = CAPACITY - sum(self._held.values()) - FIRST * unopened
        if free < wanted:
            for other, held in self._held.items():
                if other is not holder and held > FIRST and other.is_idle:
                    other.give_back()
        granted = max(min(wanted, free), 0)
        self._held[holder] += granted
        return granted

    def end(self, holder: Holder) -> None:
        self._held.pop(holder, None)
