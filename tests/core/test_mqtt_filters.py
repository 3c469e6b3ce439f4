"""Topic filters, held against paho's own idea of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub
from pydantic import ValidationError

from reconciler.api.script import MqttTrigger
from reconciler.core import mqtt_filters
from reconciler.core.mqtt_filters import Subscriptions

LEVELS = st.sampled_from(["", "a", "b", "$a", "é", "a b"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)


@st.composite
def filters(draw: st.DrawFn) -> str:
    levels = draw(st.lists(st.one_of(LEVELS, st.just("+")), max_size=4))
    if draw(st.booleans()) or not any(levels):
        levels.append("#")
    return "/".join(levels)


@given(filters(), TOPICS)
def test_a_filter_matches_what_paho_says(topic_filter: str, topic: str) -> None:
    assert mqtt_filters.matches(topic_filter, topic) == topic_matches_sub(topic_filter, topic)


@given(st.lists(filters(), max_size=8), st.lists(filters(), max_size=8), TOPICS)
def test_subscriptions_are_found_by_topic_as_one_by_one(
    kept: list[str], removed: list[str], topic: str
) -> None:
    found = Subscriptions()
    for it in [*removed, *kept]:
        found.add(it)
    for it in removed:
        found.remove(it)
    left = set(kept) - set(removed)
    assert found.matching(topic) == {it for it in left if mqtt_filters.matches(it, topic)}


@given(st.lists(filters(), max_size=8))
def test_removed_subscriptions_leave_nothing(some: list[str]) -> None:
    found = Subscriptions()
    for it in some:
        found.add(it)
    for it in some:
        found.remove(it)
        found.remove(it)
    assert found._root.children == {}


def test_a_shared_subscription_matches_by_its_filter() -> None:
    found = Subscriptions()
    found.add(mqtt_filters.shared("g", "a/+"))
    found.add("a/b")
    assert found.matching("a/b") == {"$share/g/a/+", "a/b"}
    assert mqtt_filters.unshared("$share/g/a/+") == "a/+"


@given(filters())
def test_a_well_formed_filter_is_taken(topic_filter: str) -> None:
    assert MqttTrigger(topics=[topic_filter]).topics == [topic_filter]


@pytest.mark.parametrize(
    "trigger",
    [
        pytest.param({"topics": []}, id="no filter"),
        pytest.param({"topics": [""]}, id="an empty filter"),
        pytest.param({"topics": ["a/#/b"]}, id="# before the end"),
        pytest.param({"topics": ["a#"]}, id="# with something"),
        pytest.param({"topics": ["a/b+"]}, id="+ with something"),
        pytest.param({"topics": ["a\0b"]}, id="a NUL"),
        pytest.param({"topics": ["$share/g/a"]}, id="a group in the filter"),
        pytest.param({"topics": ["a"], "qos": 2}, id="quality of service 2"),
        pytest.param({"topics": ["a"], "group": "a/b"}, id="a group with a level"),
    ],
)
def test_a_trigger_that_cannot_be_is_refused(trigger: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MqttTrigger.model_validate(trigger)


@given(filters(), filters(), TOPICS)
def test_what_a_filter_covers_matches_nothing_that_it_does_not(
    granted: str, wanted: str, topic: str
) -> None:
    if mqtt_filters.covers(granted, wanted) and mqtt_filters.matches(wanted, topic):
        assert mqtt_filters.matches(granted, topic)


@given(filters())
def test_a_filter_covers_itself(topic_filter: str) -> None:
    assert mqtt_filters.covers(topic_filter, topic_filter)


@pytest.mark.parametrize(
    ("granted", "wanted", "covered"),
    [
        ("rooms/#", "rooms/kitchen/+", True),
        ("rooms/#", "rooms", True),
        ("rooms/+/door", "rooms/kitchen/door", True),
        ("rooms/+/door", "rooms/+/+", False),
        ("rooms/kitchen", "rooms/+", False),
        ("rooms/+", "rooms/#", False),
        ("rooms/#", "#", False),
        ("#", "$SYS/broker", False),
        ("#", "$share/group/rooms", False),
    ],
)
def test_covers(granted: str, wanted: str, covered: bool) -> None:  # noqa: FBT001 - a column of the table
    assert mqtt_filters.covers(granted, wanted) is covered
