"""What a replica remembers of devices for the time that it may have to lead."""

from __future__ import annotations

from math import inf

from reconciler.controllers.meanwhile import Meanwhile
from reconciler.core.objects import ObjectKey
from reconciler.core.twins import DeviceRecord, decode_device
from tests.fakes.clock import FakeClock

DOOR = ObjectKey("team", "door")


def door(value: str, namespace: str = "team") -> DeviceRecord:
    return decode_device(
        {
            "apiVersion": "devices.kubeedge.io/v1beta1",
            "kind": "Device",
            "metadata": {
                "name": "door",
                "namespace": namespace,
                "uid": "u",
                "resourceVersion": "1",
            },
            "spec": {"deviceModelRef": {"name": "sensor"}, "properties": [{"name": "open"}]},
            "status": {"twins": [{"propertyName": "open", "reported": {"value": value}}]},
        }
    )


def remembering() -> tuple[Meanwhile, FakeClock]:
    clock = FakeClock()
    return Meanwhile(clock, shard_of=lambda name: int(name != "team"), seconds=30), clock


def test_what_changed_since_somebody_led_is_known_as_it_was_before() -> None:
    it, clock = remembering()
    for value in ("1", "2", "2", "3"):
        it.changed(door(value))
        clock.jump(5)
    it.begin(0, since=4)
    assert it.missed == {DOOR: {"open": "1"}}
    it.begin(0, since=6)
    assert it.missed == {DOOR: {"open": "2"}}
    it.begin(0, since=16)
    assert it.missed == {}


def test_a_change_that_comes_before_its_scripts_are_taken_up_counts_too() -> None:
    it, _ = remembering()
    it.changed(door("1"))
    it.begin(0, since=-inf)
    assert it.missed == {}
    it.changed(door("2"))
    it.changed(door("3"))
    assert it.missed == {DOOR: {"open": "1"}}
    it.end(0)
    assert it.missed == {}


def test_other_shards_are_the_business_of_others() -> None:
    it, _ = remembering()
    for value in ("1", "2"):
        it.changed(door(value, "elsewhere"))
    it.begin(0, since=-inf)
    assert it.missed == {}
    it.begin(1, since=-inf)
    assert it.missed == {ObjectKey("elsewhere", "door"): {"open": "1"}}


def test_it_is_forgotten_in_time_and_with_the_device() -> None:
    it, clock = remembering()
    it.changed(door("1"))
    it.changed(door("2"))
    clock.jump(31)
    it.changed(door("3"))
    it.begin(0, since=-inf)
    assert it.missed == {DOOR: {"open": "2"}}
    it.gone(DOOR)
    assert it.missed == {}
    it.changed(door("4"))
    assert it.missed == {}
