"""When a branch is looked at again after somebody said that it moved."""

from __future__ import annotations

from reconciler.core.awaiting import LONGEST_PAUSE, LOOK_AGAIN, Allowance, Awaiting


def test_a_branch_is_looked_at_until_the_push_is_there() -> None:
    awaiting = Awaiting()
    assert awaiting.told("a", "b", known="a")
    assert awaiting.seen("a", is_new=False) == LOOK_AGAIN[0]
    assert awaiting.seen("a", is_new=False) == LOOK_AGAIN[1]
    assert awaiting.seen("b", is_new=True) is None
    assert awaiting.after == ""
    assert awaiting.passed() == ()


def test_a_commit_that_never_comes_is_given_up() -> None:
    awaiting = Awaiting()
    awaiting.told("a", "never", known="a")
    assert [awaiting.seen("a", is_new=False) for _ in LOOK_AGAIN] == list(LOOK_AGAIN)
    assert awaiting.seen("a", is_new=False) is None
    assert awaiting.passed() == ()


def test_a_branch_that_is_past_the_push_has_caught_up() -> None:
    """A force-push, or a push that nobody told of: whatever is there is what counts."""
    awaiting = Awaiting()
    awaiting.told("a", "b", known="a")
    assert awaiting.seen("c", is_new=True) is None
    assert awaiting.passed() == ("b",)


def test_of_a_burst_the_last_is_awaited_and_the_others_are_passed() -> None:
    awaiting = Awaiting()
    assert [awaiting.told(f"c{n}", f"c{n + 1}", known="c0") for n in range(5)] == [True] * 5
    # A replica of the forge that is two pushes behind.
    assert awaiting.seen("c3", is_new=True) == LOOK_AGAIN[0]
    assert awaiting.seen("c5", is_new=True) is None
    assert awaiting.passed() == ("c1", "c2", "c3", "c4")
    assert awaiting.passed() == ()


def test_pushes_told_in_the_wrong_order_await_the_later() -> None:
    awaiting = Awaiting()
    awaiting.told("b", "c", known="a")
    assert awaiting.told("a", "b", known="a")
    assert awaiting.after == "c"


def test_what_is_there_already_needs_no_look() -> None:
    awaiting = Awaiting()
    assert not awaiting.told("a", "b", known="b")


def test_a_way_back_is_looked_at() -> None:
    awaiting = Awaiting()
    awaiting.told("a", "b", known="a")
    assert awaiting.told("b", "a", known="a")


def test_a_deleted_branch_is_looked_at_once() -> None:
    awaiting = Awaiting()
    assert awaiting.told("a", "", known="a")
    assert awaiting.seen("a", is_new=False) is None


def test_polling_slows_down_only_while_webhooks_tell_of_every_change() -> None:
    awaiting = Awaiting()
    assert awaiting.pause == 1
    awaiting.told("a", "b", known="a")
    awaiting.seen("b", is_new=True)
    pauses = []
    for _ in range(6):
        awaiting.seen("b", is_new=False)
        pauses.append(awaiting.pause)
    assert pauses == [2, 4, 8, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    awaiting.seen("c", is_new=True)
    assert awaiting.pause == 1
    awaiting.seen("c", is_new=False)
    assert awaiting.pause == 1


def test_an_allowance_is_spent_at_once_and_comes_back_with_time() -> None:
    allowance = Allowance(3, 2.0)
    assert [allowance.take(0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert allowance.take(0.25) == 0.25
    assert allowance.take(0.5) == 0.5
    assert [allowance.take(100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
