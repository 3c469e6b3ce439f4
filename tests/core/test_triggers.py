"""Which Scripts a changed device concerns."""

from __future__ import annotations

from reconciler.core.objects import ObjectKey
from reconciler.core.triggers import Subscription, TriggerIndex, known_values
from reconciler.core.twins import DeviceRecord, Layout, Twin

SCRIPT = ObjectKey("default", "thermostat")
DHT11 = ObjectKey("default", "dht11")


def device(version: str = "1", **reported: str | None) -> DeviceRecord:
    return DeviceRecord(
        key=DHT11,
        uid="u",
        resource_version=version,
        generation=1,
        model="m",
        layout=Layout.V1BETA1,
        twins=tuple(
            Twin(name, value, int(version), None, None, 0) for name, value in reported.items()
        ),
        repository_uid="",
        digest="",
        has_annotations=False,
        has_list=True,
        has_parent=True,
    )


def subscription(
    *reads: str, key: ObjectKey = SCRIPT, uid: str = "s", read_change: bool = True
) -> Subscription:
    return Subscription(
        key=key,
        uid=uid,
        generation=1,
        digest="sha256:0",
        reads=frozenset(reads),
        read_change=read_change,
        run_on_deploy=True,
    )


def test_known_values_leave_out_what_is_unknown():
    assert known_values(device(t="21", h=None)) == {"t": "21"}


def test_index_finds_the_readers_of_a_device_in_their_own_namespace_only():
    index = TriggerIndex()
    here = subscription("dht11")
    elsewhere = subscription("dht11", key=ObjectKey("other", "thermostat"))
    index.put(here)
    index.put(elsewhere)
    index.put(subscription("dht22", key=ObjectKey("default", "another")))
    assert list(index.readers(DHT11)) == [here]


def test_script_without_read_change_is_known_and_reads_nothing_that_wakes_it():
    index = TriggerIndex()
    quiet = subscription("dht11", read_change=False)
    index.put(quiet)
    assert (list(index.readers(DHT11)), index.get(SCRIPT), len(index)) == ([], quiet, 1)
    index.remove(SCRIPT)
    assert len(index) == 0


def test_put_replaces_what_the_script_read_before():
    index = TriggerIndex()
    index.put(subscription("dht11", "dht22"))
    newer = subscription("dht22", "dht33")
    index.put(newer)
    found = [list(index.readers(ObjectKey("default", n))) for n in ("dht11", "dht22", "dht33")]
    assert (found, len(index)) == ([[], [newer], [newer]], 1)


def test_removed_scripts_leave_nothing_behind():
    index = TriggerIndex()
    index.put(subscription("dht11", "dht22"))
    index.remove(SCRIPT)
    index.remove(SCRIPT)
    assert (list(index.all()), index._by_device) == ([], {})
