"""One executor's session: what may be said when."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.core import session as machine
from reconciler.core.session import (
    MAX_CREDIT,
    PROTOCOL,
    Connect,
    Continue,
    Exit,
    Phase,
    Results,
    Session,
)
from reconciler.errors import LocalProtocolError, PeerProtocolError

HELLO = Connect(PROTOCOL, "e", frozenset({"Js"}), ())
STATES = {
    "Awaiting": Session(),
    "Open": Session(Phase.OPEN, 5),
    "Draining": Session(Phase.DRAINING, 0),
}
EVENTS: dict[str, Callable[[Session], Session]] = {
    "Connect": lambda s: machine.receive(s, HELLO),
    "Continue": lambda s: machine.receive(s, Continue(1)),
    "Results": lambda s: machine.receive(s, Results(())),
    "Exit": lambda s: machine.receive(s, Exit("")),
    "send": lambda s: machine.send(s, 1),
    "stop": machine.stop,
}


def outcome(state: str, event: str) -> str:
    try:
        return EVENTS[event](STATES[state]).phase.value
    except (PeerProtocolError, LocalProtocolError):
        return "error"


def test_table_in_the_docstring_is_the_table_of_the_code():
    lines = [line.split() for line in (machine.__doc__ or "").splitlines()]
    start = next(n for n, line in enumerate(lines) if line[:1] == ["state"])
    events = lines[start][1:]
    written = {
        (row[0], event): then
        for row in lines[start + 1 : start + 4]
        for event, then in zip(events, row[1:], strict=True)
    }
    assert written == {(s, e): outcome(s, e) for s in STATES for e in EVENTS}


def test_session_opens_with_connect_and_counts_credit_down():
    session = machine.receive(Session(), HELLO)
    session = machine.receive(session, Continue(10))
    session = machine.receive(session, Continue(2))
    assert machine.send(session, 5) == Session(Phase.OPEN, 7)


@pytest.mark.parametrize("protocol", [0, PROTOCOL + 1])
def test_other_protocol_version_is_refused_with_what_to_do(protocol):
    with pytest.raises(PeerProtocolError, match="run the same version of both"):
        machine.receive(Session(), Connect(protocol, "e", frozenset(), ()))


def test_credit_above_the_limit_is_refused():
    session = machine.receive(Session(Phase.OPEN, 1), Continue(MAX_CREDIT - 1))
    assert session.credit == MAX_CREDIT
    with pytest.raises(PeerProtocolError, match="credit above"):
        machine.receive(session, Continue(1))


def test_more_than_the_credit_is_never_sent():
    with pytest.raises(LocalProtocolError, match="sent 6 runs against a credit of 5"):
        machine.send(STATES["Open"], 6)


@pytest.mark.parametrize("end", [lambda s: machine.receive(s, Exit("")), machine.stop])
def test_draining_session_has_no_credit_whatever_the_peer_says(end):
    draining = end(STATES["Open"])
    assert machine.receive(draining, Continue(7)) == Session(Phase.DRAINING, 0)
