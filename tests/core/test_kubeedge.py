"""What cloudcore writes of reports, with the defects of each release and without them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core import kubeedge
from reconciler.core.kubeedge import RELEASES, Release, Twins
from reconciler.core.twins import Layout, decode_device

PLAIN = Release(layout=Layout.V1BETA1, writes_every_report=False)
OF = frozenset({"speed"})


def report(value: str, time: str = "1") -> Twins:
    metadata = {"timestamp": time, "type": "string"}
    return {"speed": {"reported": {"value": value, "metadata": metadata}}}


def stored(value: str, time: str = "1") -> Twins:
    return {"speed": {"propertyName": "speed", **report(value, time)["speed"]}}


def test_a_release_without_defects_stores_what_is_reported_once() -> None:
    twins = kubeedge.reported({}, report("7"), OF, PLAIN)
    assert twins == stored("7")
    assert kubeedge.reported(stored("7"), report("7", "2"), OF, PLAIN) is None
    assert kubeedge.reported(stored("7"), report("8", "2"), OF, PLAIN) == stored("8", "2")


def test_the_first_report_is_lost_and_the_second_is_not() -> None:
    release = replace(PLAIN, loses_first_report=True)
    nothing = {
        "speed": {
            "propertyName": "speed",
            "reported": {"value": ""},
            "observedDesired": {"value": ""},
        }
    }
    twins = kubeedge.reported({}, report("7"), OF, release)
    assert twins == nothing
    told = kubeedge.reported(twins, report("7", "2"), OF, release)
    assert told == {"speed": {**nothing["speed"], **report("7", "2")["speed"]}}


def test_the_same_again_is_written_with_a_new_time() -> None:
    release = replace(PLAIN, writes_every_report=True)
    assert kubeedge.reported(stored("7"), report("7", "2"), OF, release) == stored("7", "2")


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_what_the_device_does_not_have_is_passed_over(release: Release) -> None:
    assert kubeedge.reported({}, report("7"), frozenset(), release) is None


def test_where_twins_hold_what_is_desired_it_is_written_as_it_was_seen() -> None:
    seen = {"status": {"twins": [{"propertyName": "speed", "desired": {"value": "old"}}]}}
    twins = kubeedge.remembered({}, seen)
    assert kubeedge.reported(twins, report("7"), OF, RELEASES["1.14"]) == {
        "speed": {"propertyName": "speed", "desired": {"value": "old"}, **report("7")["speed"]}
    }


def test_there_a_property_whose_twin_was_not_declared_is_never_stored() -> None:
    assert kubeedge.reported({}, report("7"), OF, RELEASES["1.14"]) is None


def test_what_was_reported_is_known_better_here_than_in_what_is_seen_later() -> None:
    older = {"status": {"twins": [{**stored("7")["speed"], "desired": {"value": "1"}}, {"propertyName": "new"}]}}  # fmt: skip
    assert kubeedge.remembered(stored("8", "2"), older) == {
        "speed": {**stored("8", "2")["speed"], "desired": {"value": "1"}},
        "new": {"propertyName": "new"},
    }


def test_properties_are_those_of_the_list_that_holds_what_is_desired() -> None:
    device = {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "metadata": {"name": "fan", "namespace": "default", "uid": "1"},
        "spec": {"properties": [{"name": "speed"}]},
        "status": {"twins": [{"propertyName": "gone"}]},
    }
    assert kubeedge.properties(decode_device(device)) == OF
