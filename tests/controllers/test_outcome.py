"""What a reconcile's end means for its key."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from reconciler.controllers.outcome import RESULTS, Reaction, Result, react
from reconciler.errors import Conflict, ObjectInvalid, PeerProtocolError, Stalled, Waiting

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("ended", "reaction"),
    [
        pytest.param(Result(), Reaction("success", "", DEBUG), id="well: rests"),
        pytest.param(
            Result(SECOND), Reaction("requeue", "", DEBUG, delay=SECOND), id="well, and asks again"
        ),
        pytest.param(
            Waiting("x", reason="ExecutorAbsent", requeue_after=SECOND),
            Reaction("waiting", "ExecutorAbsent", INFO, delay=SECOND),
            id="waiting: at a stated time, without backoff",
        ),
        pytest.param(
            Stalled("x", reason="InvalidSpec"),
            Reaction("stalled", "InvalidSpec", WARNING),
            id="stalled: rests until somebody changes something",
        ),
        pytest.param(
            ObjectInvalid("x"), Reaction("stalled", "Invalid", WARNING), id="refused for good"
        ),
        pytest.param(
            Conflict("x"),
            Reaction("error", "Conflict", WARNING, backoff=True),
            id="transient: backoff",
        ),
        pytest.param(
            PeerProtocolError("x"),
            Reaction("error", "PeerProtocolError", WARNING, backoff=True),
            id="any other of ours: backoff",
        ),
        pytest.param(
            KeyError("x"),
            Reaction("error", "InternalError", ERROR, backoff=True, traceback=True),
            id="a bug: backoff, with its traceback",
        ),
    ],
)
def test_every_end_has_one_reaction(ended, reaction):
    assert react(ended) == reaction
    assert reaction.result in RESULTS
