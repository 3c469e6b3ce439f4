"""Simulated devices on a clock that stands still: what they report, and what the edge refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import orjson
import pytest

from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.adapters.simulator import Bridge, Simulator
from reconciler.core.objects import DEVICES_V1BETA1, JsonObject, ObjectKey, Resource
from reconciler.core.simulation import behaviour
from reconciler.errors import ObjectNotFound
from tests.fakes.clock import FakeClock

KEY = ObjectKey("default", "thing")


class Twins:
    """A store of reported twins, and the order in which values came."""

    def __init__(self, *known: ObjectKey) -> None:
        self.known = known
        self.history: list[tuple[float, str, str]] = []
        self.latest: dict[str, JsonObject] = {}

    def report_twins(
        self, resource: Resource, key: ObjectKey, reported: Mapping[str, JsonObject]
    ) -> None:
        if key not in self.known:
            raise ObjectNotFound(f"there is no Device {key}")
        self.latest.update(reported)
        for name, twin in reported.items():
            seconds = int(twin["reported"]["metadata"]["timestamp"]) / 1000 - 1_700_000_000
            self.history.append((seconds, name, twin["reported"]["value"]))


def device(config: JsonObject, *, desired: str = "", reported: str = "") -> JsonObject:
    item: dict[str, object] = {
        "name": "value",
        "visitors": {"protocolName": "simulated", "configData": config},
    }
    if desired:
        item["desired"] = {"value": desired}
    status = {"twins": [{"propertyName": "value", "reported": {"value": reported}}]}
    return {
        "metadata": {"namespace": KEY.namespace, "name": KEY.name},
        "spec": {"protocol": {"protocolName": "simulated"}, "properties": [item]},
        "status": status if reported else {},
    }


def simulate(story: Callable[[Simulator, FakeClock], Awaitable[None]]) -> Twins:
    twins = Twins(KEY)

    async def main() -> None:
        clock = FakeClock()
        simulator = Simulator(Bridge(twins, clock).receive, clock)
        await story(simulator, clock)
        await simulator.close()
        assert clock.sleepers == 0

    asyncio.run(main())
    return twins


def test_constant_reports_its_start_once():
    async def story(simulator, clock):
        simulator.observe(device({"simulate": "constant", "start": False}))
        await clock.advance(60)

    assert simulate(story).history == [(0, "value", "false")]


def test_ramp_goes_up_to_its_end_and_down_again():
    config = {"simulate": "ramp", "from": 1, "to": 2, "step": 0.4, "every": 1000}

    async def story(simulator, clock):
        simulator.observe(device(config))
        await clock.advance(6)

    assert simulate(story).history == [
        (0, "value", "1"),
        (1, "value", "1.4"),
        (2, "value", "1.8"),
        (3, "value", "2"),
        (4, "value", "1.6"),
        (5, "value", "1.2"),
        (6, "value", "1"),
    ]


def test_noise_blurs_what_is_reported_and_not_the_value():
    config = {"simulate": "ramp", "from": 1, "to": 20, "every": 1000, "noise": 0.25}

    async def story(simulator, clock):
        simulator.observe(device(config))
        await clock.advance(10)

    told = [float(value) for _, _, value in simulate(story).history]
    assert all(abs(value - exact) <= 0.25 for value, exact in zip(told, range(1, 12), strict=True))
    assert len({value - exact for value, exact in zip(told, range(1, 12), strict=True)}) > 1


def test_dropout_is_the_part_of_reports_that_get_lost():
    config = {"simulate": "constant", "start": 1, "every": 1000, "dropout": 0.5}

    async def story(simulator, clock):
        simulator.observe(device(config))
        await clock.advance(400)

    assert 100 < len(simulate(story).history) < 300


def test_toggle_flips():
    async def story(simulator, clock):
        simulator.observe(device({"simulate": "toggle", "every": 500}))
        await clock.advance(1)

    assert [value for _, _, value in simulate(story).history] == ["false", "true", "false"]


def test_follow_takes_a_desired_value_over_after_its_delay():
    config = {"simulate": "follow", "start": "off", "delay": 250}

    async def story(simulator, clock):
        simulator.observe(device(config))
        await clock.advance(1)
        simulator.observe(device(config, desired="on"))
        await clock.advance(1)

    twins = simulate(story)
    assert twins.history == [(0, "value", "off"), (1.25, "value", "on")]
    metadata = {"timestamp": "1700000001250", "type": "string"}
    assert twins.latest["value"] == {
        "reported": {"value": "on", "metadata": metadata},
        "observedDesired": {"value": "on", "metadata": metadata},
    }


def test_follow_skips_a_desired_value_that_was_replaced_meanwhile():
    config = {"simulate": "follow", "delay": 250}

    async def story(simulator, clock):
        simulator.observe(device(config, desired="1"))
        await clock.advance(0.1)
        simulator.observe(device(config, desired="2"))
        await clock.advance(1)

    assert [value for _, _, value in simulate(story).history] == ["2"]


def test_a_report_that_comes_back_changes_nothing():
    config = {"simulate": "ramp", "from": 0, "to": 9, "every": 1000}

    async def story(simulator, clock):
        simulator.observe(device(config))
        for _ in range(3):
            await clock.advance(0.9)
            simulator.observe(device(config, reported="0"))

    assert simulate(story).history == [(0, "value", "0"), (1, "value", "1"), (2, "value", "2")]


def test_a_device_goes_on_from_what_it_reported_before_a_restart():
    async def story(simulator, clock):
        simulator.observe(device({"simulate": "constant", "start": 18}, reported="23.5"))
        await clock.settle()

    assert simulate(story).history == [(0, "value", "23.5")]


def test_set_by_hand_is_reported_before_it_returns_and_the_ramp_goes_on_from_there():
    config = {"simulate": "ramp", "from": 0, "to": 9, "every": 1000}

    async def story(simulator, clock):
        simulator.observe(device(config))
        await clock.advance(0.5)
        await simulator.set(KEY, "value", 4.5)
        await clock.advance(1)

    assert simulate(story).history == [
        (0, "value", "0"),
        (0.5, "value", "4.5"),
        (1, "value", "5.5"),
    ]


def test_set_refuses_what_is_not_simulated():
    async def story(simulator, clock):
        with pytest.raises(ObjectNotFound, match="Device default/thing has no simulated property"):
            await simulator.set(KEY, "value", 1)

    assert simulate(story).history == []


def test_a_device_that_is_gone_reports_no_more():
    async def story(simulator, clock):
        simulator.observe(device({"simulate": "toggle", "every": 1000}))
        await clock.advance(1)
        simulator.forget(KEY)
        await clock.advance(5)

    assert len(simulate(story).history) == 2


def test_a_changed_behaviour_replaces_the_old_one_and_keeps_the_value():
    async def story(simulator, clock):
        simulator.observe(device({"simulate": "toggle", "every": 1000}))
        await clock.advance(1)
        simulator.observe(device({"simulate": "constant", "start": "false"}))
        await clock.advance(5)

    assert [value for _, _, value in simulate(story).history] == ["false", "true", "true"]


def test_devices_of_other_protocols_are_left_alone():
    modbus = device({"simulate": "constant", "start": 1})
    modbus["spec"]["protocol"]["protocolName"] = "modbus"

    async def story(simulator, clock):
        simulator.observe(modbus)
        await clock.advance(5)

    assert simulate(story).history == []


def test_a_bad_property_is_logged_and_the_good_ones_live(caplog):
    mixed = device({"simulate": "constant", "start": 1})
    mixed["spec"]["properties"].append(
        {"name": "bad", "visitors": {"configData": {"simulate": "sine"}}}
    )

    async def story(simulator, clock):
        simulator.observe(mixed)
        await clock.settle()

    assert simulate(story).history == [(0, "value", "1")]
    assert [(r.message, r.property, r.reason) for r in caplog.records] == [
        (
            "property not simulated",
            "bad",
            "simulate is 'sine'; write constant, toggle, ramp or follow",
        )
    ]


def test_a_desired_value_that_the_edge_rejects_blocks_the_reports_of_its_property():
    config = {"simulate": "follow", "start": "fine"}

    async def story(simulator, clock):
        simulator.observe(device(config))
        await clock.advance(1)
        simulator.observe(device(config, desired="a b"))
        await clock.advance(1)
        simulator.observe(device(config, desired="better"))
        await clock.advance(1)

    assert [value for _, _, value in simulate(story).history] == ["fine", "better"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "simulate is ''"),
        ({"simulate": "ramp", "from": 2, "to": 1}, "a ramp goes up first"),
        ({"simulate": "ramp", "from": "a", "to": 1}, "from is not a number"),
        ({"simulate": "ramp", "from": 0, "to": "Infinity"}, "to is not a finite number"),
        ({"simulate": "toggle", "every": 0}, "every is not a number of milliseconds"),
        ({"simulate": "toggle", "every": True}, "every is not a number of milliseconds"),
        ({"simulate": "toggle", "every": "1s"}, "every is not a number of milliseconds"),
    ],
)
def test_behaviour_says_what_is_wrong(config, message):
    with pytest.raises(ValueError, match=message):
        behaviour(config)


@pytest.mark.parametrize(
    ("topic", "payload", "answer"),
    [
        pytest.param(
            "$hw/events/device/default/thing/twin/update",
            b'{"event_id": "e1", "twin": {"value": {"actual": {"value": "1"}}}}',
            {
                "event_id": "e1",
                "timestamp": 1_700_000_000_000,
                "twin": {
                    "value": {
                        "actual": {"value": "1", "metadata": {"timestamp": 1_700_000_000_000}},
                        "metadata": {"type": ""},
                    }
                },
            },
            id="a good update is answered with what was stored",
        ),
        pytest.param(
            "$hw/events/device/default/other/twin/update",
            b'{"twin": {"value": {"actual": {"value": "1"}}}}',
            {
                "event_id": "",
                "timestamp": 1_700_000_000_000,
                "code": 404,
                "reason": "update rejected due to the device is not existed",
            },
            id="an unknown device is answered 404",
        ),
        pytest.param(
            "$hw/events/device/default/thing/twin/update",
            b"garbage",
            {
                "event_id": "",
                "timestamp": 1_700_000_000_000,
                "code": 400,
                "reason": "the message is not JSON",
            },
            id="garbage is answered 400",
        ),
    ],
)
def test_bridge_answers_as_an_edge_node(topic, payload, answer):
    result = asyncio.run(Bridge(Twins(KEY), FakeClock()).receive(topic, payload))
    assert result is not None
    assert (result[0], orjson.loads(result[1])) == (f"{topic}/result", answer)


def test_bridge_says_nothing_to_other_topics():
    bridge = Bridge(Twins(KEY), FakeClock())
    assert asyncio.run(bridge.receive("$hw/events/device/default/thing/twin/get", b"{}")) is None


def test_the_embedded_cluster_keeps_what_a_device_reports():
    item = device({"simulate": "follow", "start": "off", "delay": 100})
    created = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", **item}

    async def main() -> JsonObject:
        clock = FakeClock()
        cluster = EmbeddedCluster(clock=clock)
        await cluster.create(DEVICES_V1BETA1, created, field_manager="test")
        simulator = Simulator(Bridge(cluster, clock).receive, clock)
        simulator.observe(await cluster.get(DEVICES_V1BETA1, KEY))
        await clock.settle()
        patch = [{"op": "add", "path": "/spec/properties/0/desired", "value": {"value": "on"}}]
        simulator.observe(
            await cluster.json_patch(DEVICES_V1BETA1, KEY, patch, field_manager="test")
        )
        await clock.advance(1)
        await simulator.close()
        live = await cluster.get(DEVICES_V1BETA1, KEY)
        await cluster.close()
        return live

    metadata = {"timestamp": "1700000000100", "type": "string"}
    assert asyncio.run(main())["status"] == {
        "twins": [
            {
                "propertyName": "value",
                "reported": {"value": "on", "metadata": metadata},
                "observedDesired": {"value": "on", "metadata": metadata},
            }
        ]
    }
