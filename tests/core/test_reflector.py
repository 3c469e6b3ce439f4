"""When a reflector lists, watches and rests."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import reflector
from reconciler.core.reflector import (
    Effect,
    Ended,
    Event,
    Failed,
    Failure,
    List,
    Listing,
    Moved,
    PageRead,
    Replace,
    Rest,
    Rested,
    Resting,
    Seen,
    State,
    Watch,
    Watching,
    step,
)
from reconciler.errors import LocalProtocolError

E = TypeVar("E", bound=Effect)
WATCHING = Watching(Seen(resource_version="100"), since=0.0)


def follow(state: State, *events: Event, now: float = 10.0, chance: float = 0.0) -> list[Effect]:
    """All effects of `events`, one after another."""
    effects: list[Effect] = []
    for event in events:
        state, told = step(state, event, now, chance=chance)
        effects += told
    return effects


def test_the_first_list_is_the_newest_and_leads_to_a_watch_from_it() -> None:
    state, effects = reflector.start()
    assert effects == (List(""),)
    assert follow(state, PageRead("5", "t"), PageRead("5", None), chance=0.5) == [
        List("", "t"),
        Replace(),
        Watch("5", 450.0),
    ]


@pytest.mark.parametrize(
    ("chance", "seconds"),
    [
        pytest.param(0.0, 300.0, id="five minutes at least"),
        pytest.param(0.999, 599.7, id="less than ten minutes"),
    ],
)
def test_a_watch_lasts_a_random_time(chance: float, seconds: float) -> None:
    effects = follow(WATCHING, Ended(), chance=chance)
    assert effects == [Watch("100", pytest.approx(seconds))]


def test_a_watch_goes_on_from_the_last_version_told() -> None:
    effects = follow(WATCHING, Moved("101"), Moved("140"), Ended())
    assert effects == [Watch("140", 300.0)]


def test_the_version_never_goes_back() -> None:
    effects = follow(WATCHING, Moved("140"), Moved("90"), Moved(""), Ended())
    assert effects == [Watch("140", 300.0)]


def test_a_watch_that_ends_at_once_and_empty_rests_before_the_next() -> None:
    effects = follow(WATCHING, Ended(), Rested(), now=0.5)
    assert effects == [Rest(0.8), Watch("100", 300.0)]


def test_a_watch_that_ends_at_once_with_a_bookmark_is_good() -> None:
    assert follow(WATCHING, Moved("101"), Ended(), now=0.5) == [Watch("101", 300.0)]


def test_an_expired_watch_lists_not_older_than_what_was_seen_then_the_newest() -> None:
    expired = Failed(Failure.EXPIRED)
    assert follow(WATCHING, expired, Rested(), expired, PageRead("200", None)) == [
        Rest(0.8),
        List("100"),
        List(""),
        Replace(),
        Watch("200", 300.0),
    ]


def test_a_continue_token_that_expires_again_and_again_rests_longer_each_time() -> None:
    expired = Failed(Failure.EXPIRED)
    listing = Listing(Seen(), List(""))
    rounds = [PageRead("5", "t"), expired, Rested()]
    assert follow(listing, *rounds, *rounds) == [
        List("", "t"),
        Rest(0.8),
        List(""),
        List("", "t"),
        Rest(1.6),
        List(""),
    ]


def test_a_throttled_watch_waits_as_told_and_never_lists() -> None:
    throttled = Failed(Failure.THROTTLED, 7.0)
    assert follow(WATCHING, *[throttled, Rested()] * 10)[-2:] == [Rest(30.0), Watch("100", 300.0)]
    assert follow(WATCHING, throttled, Rested()) == [Rest(7.0), Watch("100", 300.0)]
    assert follow(WATCHING, Failed(Failure.THROTTLED, 1e9)) == [Rest(300.0)]


def test_a_broken_watch_goes_on_where_it_stopped_and_lists_after_five() -> None:
    effects = follow(WATCHING, *[Failed(Failure.OTHER), Rested()] * 5)
    assert [effect for effect in effects if not isinstance(effect, Rest)] == [
        *[Watch("100", 300.0)] * 4,
        List("100"),
    ]


def test_a_kind_that_is_gone_is_listed_again() -> None:
    effects = follow(WATCHING, Failed(Failure.ABSENT), Rested())
    assert effects == [Rest(0.8), List("100")]


def test_rests_double_up_to_half_a_minute_and_stretch_at_random() -> None:
    listing = Listing(Seen(), List(""))
    rounds = [Failed(Failure.OTHER), Rested()] * 8

    def rests(chance: float) -> list[float]:
        effects = follow(listing, *rounds, now=0.0, chance=chance)
        return [effect.seconds for effect in effects if isinstance(effect, Rest)]

    assert rests(0.0) == pytest.approx([0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0])
    assert rests(0.5) == pytest.approx([1.2, 2.4, 4.8, 9.6, 19.2, 38.4, 45.0, 45.0])


def test_two_healthy_minutes_forgive_earlier_faults() -> None:
    tired = replace(WATCHING, seen=replace(WATCHING.seen, faults=6, last_fault=10.0))
    failed = Failed(Failure.OTHER)
    assert follow(tired, failed, now=130.0) == [Rest(30.0)]
    assert follow(tired, failed, now=131.0) == [Rest(0.8)]


def test_a_stale_list_is_not_believed() -> None:
    listing = Listing(Seen(resource_version="100"), List("100"))
    assert follow(listing, PageRead("90", None), Rested(), PageRead("101", None)) == [
        Rest(0.8),
        List(""),
        Replace(),
        Watch("101", 300.0),
    ]


def test_a_cluster_that_insists_on_an_older_state_was_restored_from_a_backup() -> None:
    listing = Listing(Seen(resource_version="100"), List("100"))
    effects = follow(listing, *[PageRead("90", None), Rested()] * 5, PageRead("90", None))
    assert [effect for effect in effects if not isinstance(effect, Rest)] == [
        *[List("")] * 5,
        Replace(),
        Watch("90", 300.0),
    ]


@pytest.mark.parametrize(
    ("state", "event"),
    [
        pytest.param(WATCHING, PageRead("1", None), id="a page while watching"),
        pytest.param(Listing(Seen(), List("")), Moved("1"), id="a change while listing"),
        pytest.param(Resting(Seen(), None), Ended(), id="an end while resting"),
        pytest.param(WATCHING, Rested(), id="the end of a rest while watching"),
    ],
)
def test_an_event_out_of_turn_is_refused(state: State, event: Event) -> None:
    with pytest.raises(LocalProtocolError):
        step(state, event, 0.0, chance=0.0)


FAULTS = st.sampled_from([*[Failed(failure) for failure in Failure], Ended()])


@given(st.lists(FAULTS, min_size=30, max_size=60), st.floats(0, 0.99))
def test_whatever_fails_requests_stay_few(faults: list[Event], chance: float) -> None:
    """In any outage without a healthy moment: at most 40 requests in the first five minutes."""
    state, effects = reflector.start()
    now, requests = 0.0, 0
    queue = list(faults)
    while now < 300.0:
        *_, last = effects
        if isinstance(last, Rest):
            now += last.seconds
            event: Event = Rested()
        else:
            requests += 1
            event = queue.pop(0) if queue else Failed(Failure.OTHER)
            if isinstance(last, List) and not isinstance(event, Failed):
                event = Failed(Failure.OTHER)
        state, effects = step(state, event, now, chance=chance)
    assert requests <= 40
