"""The check of histories finds each fault that it is there for, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.api.script import Qos
from tests.chaos.history import Fault, History, Start, Verdict, faults

AMO, ALO, OO = Qos.AT_MOST_ONCE, Qos.AT_LEAST_ONCE, Qos.ONLY_ONCE
GOOD = History(
    accepted=(1, 2),
    refused=(3,),
    unanswered=(4,),
    starts=(Start(1, "a", 1), Start(2, "b", 1), Start(4, "d", 1)),
    effects=(1, 2, 4),
)
TWICE = (*GOOD.starts, Start(1, "a", 2))


@pytest.mark.parametrize("qos", Qos)
def test_what_went_as_promised_has_no_fault(qos: Qos) -> None:
    assert faults(GOOD, qos) == []
    assert faults(replace(GOOD, starts=GOOD.starts[:2], effects=(1, 2)), qos) == []
    assert faults(History(), qos) == []


@pytest.mark.parametrize(
    ("qos", "found"),
    [(AMO, []), (ALO, [Verdict(Fault.LOST, 2)]), (OO, [Verdict(Fault.LOST, 2)])],
)
def test_what_was_accepted_and_left_no_trace_is_lost_unless_it_was_promised_at_most(
    qos: Qos, found: list[Verdict]
) -> None:
    lost = replace(GOOD, effects=(1, 4))
    assert faults(lost, qos) == found
    assert faults(replace(lost, undecided=(2,)), qos) == []
    assert faults(replace(GOOD, starts=GOOD.starts[:2], effects=(1, 2)), qos) == []


@pytest.mark.parametrize(
    ("qos", "found"),
    [
        (AMO, [Verdict(Fault.DUPLICATED, 1), Verdict(Fault.REPEATED, 1)]),
        (ALO, []),
        (OO, [Verdict(Fault.DUPLICATED, 1)]),
    ],
)
def test_a_second_effect_of_a_second_start_is_a_duplicate_unless_it_was_promised_at_least(
    qos: Qos, found: list[Verdict]
) -> None:
    assert faults(replace(GOOD, starts=TWICE, effects=(1, 2, 1, 4)), qos) == found


@pytest.mark.parametrize("qos", Qos)
def test_more_effects_than_starts_are_duplicates_whatever_was_promised(qos: Qos) -> None:
    assert faults(replace(GOOD, effects=(1, 2, 1, 4)), qos) == [Verdict(Fault.DUPLICATED, 1)]


@pytest.mark.parametrize("qos", Qos)
@pytest.mark.parametrize("operation", [3, 9])
def test_what_was_refused_or_never_asked_for_is_unexpected(qos: Qos, operation: int) -> None:
    started = replace(GOOD, starts=(*GOOD.starts, Start(operation, "x", 1)))
    assert faults(started, qos) == [Verdict(Fault.UNEXPECTED, operation)]
    effected = replace(started, effects=(1, 2, 4, operation))
    assert faults(effected, qos) == [Verdict(Fault.UNEXPECTED, operation)]


@pytest.mark.parametrize("qos", Qos)
def test_an_effect_that_nobody_began_is_unfounded(qos: Qos) -> None:
    assert faults(replace(GOOD, starts=GOOD.starts[1:]), qos) == [Verdict(Fault.UNFOUNDED, 1)]


@pytest.mark.parametrize("qos", Qos)
def test_an_attempt_that_begins_twice_is_repeated(qos: Qos) -> None:
    repeated = replace(GOOD, starts=(*GOOD.starts, Start(1, "a", 1)))
    assert faults(repeated, qos) == [Verdict(Fault.REPEATED, 1)]


@pytest.mark.parametrize("qos", Qos)
def test_two_runs_of_one_request_are_repeated(qos: Qos) -> None:
    repeated = replace(GOOD, starts=(*GOOD.starts, Start(1, "other", 1)))
    assert faults(repeated, qos) == [Verdict(Fault.REPEATED, 1)]


@pytest.mark.parametrize(
    ("qos", "found"), [(AMO, [Verdict(Fault.REPEATED, 1)]), (ALO, []), (OO, [])]
)
def test_a_second_attempt_is_repeated_only_where_at_most_one_was_promised(
    qos: Qos, found: list[Verdict]
) -> None:
    assert faults(replace(GOOD, starts=TWICE), qos) == found
