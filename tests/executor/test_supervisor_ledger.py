from __future__ import annotations

import pytest

from executor.model import Isolation
from executor.supervisor.ledger import (
    LARGEST_BATCH,
    PAUSE_MAX_SECONDS,
    PAUSE_SECONDS,
    STRIKES,
    Ledger,
    Pause,
)
from tests.executor.running import script

RULE = script(b"a")


def struck(ledger: Ledger, times: int, now: float = 100.0) -> None:
    for _ in range(times):
        ledger.strike(RULE, "it did not finish", now)


def test_a_script_pauses_after_its_last_runs_had_to_be_ended() -> None:
    ledger = Ledger()
    struck(ledger, STRIKES - 1)
    assert ledger.pause(RULE, 100.0) is None
    struck(ledger, 1)
    assert ledger.pause(RULE, 101.0) == Pause(PAUSE_SECONDS - 1, STRIKES, "it did not finish")


def test_a_pause_ends_by_itself_and_the_next_run_is_tried_alone() -> None:
    ledger = Ledger()
    struck(ledger, STRIKES)
    after = 100.0 + PAUSE_SECONDS
    assert (ledger.pause(RULE, after), ledger.batch_size(RULE, after)) == (None, 1)


@pytest.mark.parametrize(
    ("further", "seconds"),
    [(0, 10.0), (1, 20.0), (2, 40.0), (4, 160.0), (5, 300.0), (5_000, PAUSE_MAX_SECONDS)],
)
def test_every_further_failure_doubles_the_pause_up_to_a_limit(
    further: int, seconds: float
) -> None:
    ledger = Ledger()
    struck(ledger, STRIKES + further)
    pause = ledger.pause(RULE, 100.0)
    assert pause is not None
    assert pause.seconds == seconds


def test_one_good_run_wipes_the_slate_clean() -> None:
    ledger = Ledger()
    struck(ledger, STRIKES - 1)
    ledger.acquit(RULE)
    struck(ledger, STRIKES - 1)
    assert ledger.pause(RULE, 100.0) is None


def test_a_new_version_of_a_script_starts_afresh() -> None:
    ledger = Ledger()
    struck(ledger, STRIKES)
    assert ledger.pause(script(b"b"), 100.0) is None


def test_strict_runs_go_one_by_one() -> None:
    ledger = Ledger()
    strict = script(b"a", isolation=Isolation.STRICT)
    ledger.took(strict, 1.0)
    ledger.took(RULE, 1.0)
    assert (ledger.batch_size(strict, 0.0), ledger.batch_size(RULE, 0.0)) == (1, LARGEST_BATCH)


def test_runs_that_had_no_memory_together_go_in_smaller_batches_for_a_while() -> None:
    ledger = Ledger()
    ledger.took(RULE, 1.0)
    ledger.too_much_at_once(RULE, 400)
    assert ledger.batch_size(RULE, 0.0) == 100
    ledger.took(RULE, 1.0)
    assert ledger.batch_size(RULE, 0.0) == 101
