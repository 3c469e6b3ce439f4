"""What a repository had applied, and which way back a wish means."""

from __future__ import annotations

import pytest

from reconciler.api.scriptrepository import AppliedRevision, RevisionOutcome, Rollback
from reconciler.core import history
from reconciler.errors import Stalled

ONE, TWO, THREE, FOUR = ("1" * 40, "2" * 40, "3" * 40, "4" * 40)
APPLIED, IN_PART = RevisionOutcome.APPLIED, RevisionOutcome.IN_PART


def entry(
    commit: str,
    outcome: RevisionOutcome = APPLIED,
    *,
    digest: str = "",
    held: str = "",
    **counts: int,
) -> AppliedRevision:
    return AppliedRevision(
        revision=f"main@sha1:{commit}",
        digest=digest or commit,
        outcome=outcome,
        rolled_back_to=held,
        **counts,
    )


def test_the_newest_is_first_and_the_oldest_falls_out():
    shown: list[AppliedRevision] = []
    for commit in (ONE, TWO, THREE):
        shown = history.recorded(shown, entry(commit), limit=2)
    assert shown == [entry(THREE), entry(TWO)]


def test_a_second_try_of_a_revision_completes_what_is_said_of_it():
    before = [entry(TWO, RevisionOutcome.FAILED, created=3, pruned=1), entry(ONE)]
    after = history.recorded(before, entry(TWO, created=2), limit=9)
    assert after == [entry(TWO, created=5, pruned=1), entry(ONE)]


def test_the_same_revision_with_files_held_is_another_entry():
    held = entry(TWO, digest="other", held=ONE)
    assert history.recorded([entry(TWO)], held, limit=9) == [held, entry(TWO)]


@pytest.mark.parametrize(
    ("wish", "left", "expected"),
    [
        pytest.param("", None, Rollback(revision=TWO, quarantined=FOUR), id="the one before"),
        pytest.param(ONE[:7], None, Rollback(revision=ONE, quarantined=FOUR), id="a prefix"),
        pytest.param("5" * 40, None, Rollback(revision="5" * 40, quarantined=FOUR), id="not kept"),
        pytest.param(
            "",
            Rollback(revision=ONE, quarantined=TWO),
            Rollback(revision=ONE, quarantined=FOUR),
            id="not into what was left before",
        ),
    ],
)
def test_where_a_wish_leads(wish: str, left: Rollback | None, expected: Rollback):
    kept = [entry(FOUR), entry(THREE, IN_PART), entry(TWO), entry(ONE)]
    assert history.target(kept, wish, left) == expected


@pytest.mark.parametrize(
    ("kept", "wish", "message"),
    [
        pytest.param([], "", "nothing has been applied", id="nothing yet"),
        pytest.param([entry(TWO), entry(ONE, IN_PART)], "", "name one", id="none without problems"),
        pytest.param([entry(TWO), entry(ONE)], TWO, "kept are: 1111111111", id="where it is"),
        pytest.param([entry(TWO), entry(ONE)], "999999999", "kept are: 1111111111", id="unknown"),
        pytest.param([entry(TWO), entry(ONE)], "111", "say more", id="too short"),
        pytest.param(
            [entry(TWO, held=ONE, digest="x"), entry(TWO)], "", "name one", id="only itself"
        ),
    ],
)
def test_a_wish_that_leads_nowhere_is_told_why(
    kept: list[AppliedRevision], wish: str, message: str
):
    with pytest.raises(Stalled, match=message) as caught:
        history.target(kept, wish, None)
    assert caught.value.reason == "NoSuchRevision"


def test_what_may_be_asked_for_is_kept():
    rollback = Rollback(revision=THREE, quarantined=FOUR)
    assert history.kept([entry(ONE), entry(ONE, held=TWO)], rollback) == {ONE, THREE, FOUR}
