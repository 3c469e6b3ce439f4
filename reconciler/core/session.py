"""One executor's session, seen from the controller: what may be said when.

All that changes the state of a session is in `receive` and `send`. An illegal event raises and
changes nothing: `PeerProtocolError` when it was theirs, `LocalProtocolError` when it was ours.

    state      Connect   Continue   Results   Exit       send     stop
    Awaiting   Open      error      error     Draining   error    Draining
    Open       error     Open       Open      Draining   Open     Draining
    Draining   error     Draining   Draining  Draining   error    Draining

A session that is Draining has no credit, whatever the peer says it would still take.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias, assert_never

from reconciler.core.runs import Pause, RunResult
from reconciler.errors import LocalProtocolError, PeerProtocolError

PROTOCOL = 1
# More credit than this is a mistake of the peer, or an attack on our memory.
MAX_CREDIT = 100_000


class Phase(Enum):
    AWAITING = "Awaiting"
    OPEN = "Open"
    DRAINING = "Draining"


@dataclass(frozen=True, slots=True)
class Session:
    """`credit` is how many more runs the executor is ready to hold."""

    phase: Phase = Phase.AWAITING
    credit: int = 0


@dataclass(frozen=True, slots=True)
class Connect:
    protocol: int
    name: str
    script_types: frozenset[str]
    engines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Continue:
    credit: int


@dataclass(frozen=True, slots=True)
class Results:
    results: tuple[RunResult, ...]
    pauses: tuple[Pause, ...] = ()


@dataclass(frozen=True, slots=True)
class Exit:
    reason: str


ClientMessage: TypeAlias = Connect | Continue | Results | Exit


def receive(session: Session, message: ClientMessage) -> Session:
    """The session after the peer said `message`."""
    match message:
        case Connect():
            if session.phase is not Phase.AWAITING:
                raise PeerProtocolError("Connect came twice, or after Exit")
            if message.protocol != PROTOCOL:
                raise PeerProtocolError(
                    f"the executor speaks protocol {message.protocol}, this controller {PROTOCOL}; "
                    "run the same version of both"
                )
            return replace(session, phase=Phase.OPEN)
        case Continue():
            _connected(session, "Continue")
            if session.phase is Phase.DRAINING:
                return session
            credit = session.credit + message.credit
            if credit > MAX_CREDIT:
                raise PeerProtocolError(f"credit above {MAX_CREDIT}")
            return replace(session, credit=credit)
        case Results():
            _connected(session, "results")
            return session
        case Exit():
            return replace(session, phase=Phase.DRAINING, credit=0)
        case _:
            assert_never(message)


def send(session: Session, runs: int) -> Session:
    """The session after `runs` runs (a load counts as one) were sent."""
    if session.phase is not Phase.OPEN:
        raise LocalProtocolError(f"sent to a session that is {session.phase.value}")
    if runs > session.credit:
        raise LocalProtocolError(f"sent {runs} runs against a credit of {session.credit}")
    return replace(session, credit=session.credit - runs)


def stop(session: Session) -> Session:
    return replace(session, phase=Phase.DRAINING, credit=0)


def _connected(session: Session, what: str) -> None:
    if session.phase is Phase.AWAITING:
        raise PeerProtocolError(f"{what} before Connect")
