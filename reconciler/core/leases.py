"""Who leads: client-go's leader election, as a state and what happens to it.

A lease is one record in a store that refuses a write which has not seen the newest one. Whoever
holds it writes it anew every `retry` seconds. Two clocks are never compared: a leader counts from
before it asked for its last renewal and stops after `renew` seconds; the others count from when
they saw the record change and take it after `lease` seconds. So two never lead at once while no
clock runs faster than another by more than `lease / renew` (1.5), however far apart the clocks are
and however long a process is held up. Beyond that only the epoch helps, which rises each time that
somebody begins to lead: who is told of a newer one refuses the older.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple


class Timing(NamedTuple):
    """Seconds. The usual ones are client-go's."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0

    @classmethod
    def of(cls, lease: float) -> Timing:
        """For a lease of so many seconds, in the usual proportions."""
        return cls(lease, lease * USUAL.renew / USUAL.lease, lease * USUAL.retry / USUAL.lease)


USUAL = Timing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The record. `holder` is empty where nobody holds it; `version` is the store's own.

    `address` is where others find the holder; `begun` counts the beginnings of leadership.
    """

    holder: str = ""
    address: str = ""
    seconds: int = 15
    begun: int = 0
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What one candidate knows of one lease; all times are of its own monotonic clock."""

    me: str
    address: str = ""
    timing: Timing = USUAL
    lease: Lease | None = None
    # Whether `lease` is what the store had when it was heard of last.
    is_read: bool = False
    # When `lease` was first seen as it is.
    seen_at: float = -inf
    # It leads before this.
    until: float = -inf
    # The highest number of a beginning that was ever seen, also of a lease that was deleted.
    begun: int = 0

    @property
    def epoch(self) -> int:
        """Of the leadership that it has, or had last."""
        return self.begun


def named(state: State, address: str) -> State:
    """Others find it at `address`."""
    return replace(state, address=address)


def leads(state: State, now: float) -> bool:
    return now < state.until


def is_free(state: State, now: float) -> bool:
    """Whether it may be taken."""
    lease = state.lease
    return (
        lease is None
        or lease.holder in {"", state.me}
        or now >= state.seen_at + max(lease.seconds, state.timing.lease)
    )


def wanted(state: State, now: float) -> Lease | None:
    """What to write now; None where another holds it, or where it has to be read first."""
    if not state.is_read:
        return None
    lease = state.lease or Lease()
    if leads(state, now):
        return replace(lease, holder=state.me, address=state.address, seconds=_seconds(state))
    if not is_free(state, now):
        return None
    return Lease(
        holder=state.me,
        address=state.address,
        seconds=_seconds(state),
        begun=state.begun + 1,
        version=lease.version,
    )


def saw(state: State, lease: Lease | None, now: float) -> State:
    """The store was read, and answered at `now` at the latest."""
    is_ours = lease is not None and (lease.holder, lease.begun) == (state.me, state.begun)
    return replace(
        state,
        lease=lease,
        is_read=True,
        seen_at=state.seen_at if lease is not None and lease == state.lease else now,
        until=state.until if is_ours else -inf,
        begun=max(state.begun, lease.begun if lease is not None else 0),
    )


def wrote(state: State, lease: Lease, asked_at: float, now: float) -> State:
    """The store took what was asked for at `asked_at`.

    A renewal that is answered too late renews nothing: to lead again is another beginning.
    """
    is_late = lease.begun == state.begun and not leads(state, now)
    until = state.until if is_late else asked_at + state.timing.renew
    return replace(saw(state, lease, now), until=until)


def doubted(state: State) -> State:
    """A write was refused, or nobody knows what became of it: the store has to be read."""
    return replace(state, is_read=False)


def let_go(state: State) -> tuple[State, Lease | None]:
    """Lead no more; what to write so that another need not wait for the end of the lease."""
    lease = state.lease
    mine = lease if lease is not None and lease.holder == state.me else None
    free = replace(mine, holder="", address="", seconds=1) if mine is not None else None
    return replace(state, until=-inf), free


def _seconds(state: State) -> int:
    """A whole number, as the kind wants it, and never less than is meant."""
    return max(1, -int(-state.timing.lease // 1))
