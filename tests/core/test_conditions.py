"""Conditions that kstatus can read."""

from __future__ import annotations

import pytest

from reconciler.api.meta import Condition
from reconciler.core import conditions
from reconciler.core.conditions import MESSAGE_LIMIT, Verdict

THEN, NOW = 1_700_000_000.0, 1_700_000_060.9


def condition(
    type_: str, status: str, reason: str, message: str = "", *, generation: int, at: float = NOW
) -> Condition:
    return Condition.model_validate(
        {
            "type": type_,
            "status": status,
            "reason": reason,
            "message": message,
            "observed_generation": generation,
            "last_transition_time": conditions.rfc3339(at),
        }
    )


def made(verdict: Verdict, *previous: Condition, generation: int = 2) -> list[Condition]:
    return conditions.conditions(verdict, previous=previous, generation=generation, now=NOW)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        pytest.param(
            conditions.ready("Deployed", "t 1"),
            [condition("Ready", "True", "Deployed", "t 1", generation=2)],
            id="ready has neither of the others",
        ),
        pytest.param(
            conditions.reconciling("Progressing", "loading"),
            [
                condition("Ready", "Unknown", "Progressing", "loading", generation=2),
                condition("Reconciling", "True", "Progressing", "loading", generation=2),
            ],
            id="reconciling leaves ready unknown",
        ),
        pytest.param(
            conditions.stalled("InvalidSpec", "bad"),
            [
                condition("Ready", "False", "InvalidSpec", "bad", generation=2),
                condition("Stalled", "True", "InvalidSpec", "bad", generation=2),
            ],
            id="stalled makes ready false",
        ),
    ],
)
def test_reconciling_and_stalled_are_there_only_while_true_and_never_both(verdict, expected):
    before = [condition(t, "True", "Old", generation=1) for t in ("Reconciling", "Stalled")]
    assert made(verdict, *before)[0] == expected[0]
    assert [c.type for c in made(verdict, *before)] == [c.type for c in expected]
    assert made(verdict) == expected


def test_time_moves_with_the_status_only():
    old = condition("Ready", "True", "Deployed", "t 1", generation=1, at=THEN)
    same = made(conditions.ready("Suspended", "t 2"), old)
    other = made(conditions.stalled("InvalidSpec", ""), old)
    assert same == [condition("Ready", "True", "Suspended", "t 2", generation=2, at=THEN)]
    assert other[0] == condition("Ready", "False", "InvalidSpec", generation=2, at=NOW)


def test_condition_without_a_time_gets_one():
    old = Condition(type="Ready", status="True", reason="Deployed")
    assert made(conditions.ready("Deployed", ""), old)[0].last_transition_time == (
        "2023-11-14T22:14:20Z"
    )


def test_others_come_last_and_foreign_ones_go():
    foreign = condition("Sunny", "True", "Summer", generation=1)
    made_ = conditions.conditions(
        conditions.stalled("X", ""),
        previous=[foreign],
        generation=1,
        now=NOW,
        others={"RunsSucceeding": ("False", "Failed", "boom")},
    )
    assert [c.type for c in made_] == ["Ready", "Stalled", "RunsSucceeding"]


@pytest.mark.parametrize("length", [MESSAGE_LIMIT, MESSAGE_LIMIT + 1])
def test_long_messages_are_cut_with_a_sign(length):
    [it] = made(conditions.ready("Deployed", "x" * length))
    assert len(it.message) == MESSAGE_LIMIT
    assert it.message.endswith("…") is (length > MESSAGE_LIMIT)
