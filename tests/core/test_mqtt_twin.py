"""KubeEdge's twin messages, read and written as an edge node does."""

from __future__ import annotations

import orjson
import pytest

from reconciler.core import mqtt_twin
from reconciler.core.mqtt_twin import Twin, TwinMessageInvalid, TwinUpdate
from reconciler.core.objects import ObjectKey

THERMOMETER = ObjectKey("default", "thermometer")


def test_topic_names_namespace_and_device():
    assert (
        mqtt_twin.topic(THERMOMETER, mqtt_twin.TWIN_UPDATE)
        == "$hw/events/device/default/thermometer/twin/update"
    )


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        pytest.param(
            "$hw/events/device/default/thermometer/twin/update",
            (THERMOMETER, "twin/update", False),
            id="an update",
        ),
        pytest.param(
            "$hw/events/device/thermometer/twin/update",
            (THERMOMETER, "twin/update", True),
            id="an update of a device that is named without its namespace",
        ),
        pytest.param(
            "$hw/events/device/twin/twin/update/delta",
            (ObjectKey("default", "twin"), "twin/update/delta", True),
            id="a device called as a part of the suffix",
        ),
        pytest.param(
            "$hw/events/device/state/twin/state/update",
            (ObjectKey("state", "twin"), "state/update", False),
            id="and a namespace",
        ),
        pytest.param("$hw/events/device/thermometer/updated", None, id="attributes"),
        pytest.param(
            "$hw/events/device/default/thermometer/twin/update/delta",
            (THERMOMETER, "twin/update/delta", False),
            id="a delta",
        ),
        pytest.param("$hw/events/node/edge-1/membership/get", None, id="a node's topic"),
        pytest.param("$hw/events/device/+/+/twin/update", None, id="wildcards name no device"),
        pytest.param("thermometer", None, id="no topic of an edge node"),
    ],
)
def test_parse_topic_knows_device_topics_only(topic, expected):
    assert mqtt_twin.parse_topic(topic) == expected


def test_update_is_encoded_as_mappers_send_it():
    payload = mqtt_twin.encode_update(
        TwinUpdate({"temperature": Twin(actual="21.5", expected="22", type="float")}),
        timestamp_ms=1753257600123,
    )
    assert orjson.loads(payload) == {
        "event_id": "",
        "timestamp": 1753257600123,
        "twin": {
            "temperature": {
                "expected": {"value": "22", "metadata": {"timestamp": 1753257600123}},
                "actual": {"value": "21.5", "metadata": {"timestamp": 1753257600123}},
                "metadata": {"type": "float"},
            }
        },
    }


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(
            {
                "event_id": "",
                "timestamp": 1753257600123,
                "twin": {
                    "temperature-switch": {
                        "expected": {"value": "1"},
                        "actual": {"value": "0"},
                        "metadata": {"type": "int"},
                    }
                },
            },
            TwinUpdate({"temperature-switch": Twin(expected="1", actual="0", type="int")}),
            id="as the mapper framework sends it",
        ),
        pytest.param(
            {"twin": {"red": {"actual": {"value": "ON"}, "metadata": {"type": "string"}}}},
            TwinUpdate({"red": Twin(actual="ON", type="string")}),
            id="everything but the value is optional",
        ),
        pytest.param(
            {"twin": {"red": None}}, TwinUpdate({"red": None}), id="null takes a twin away"
        ),
        pytest.param(
            {"twin": {"red": {"actual": {"value": ""}}}},
            TwinUpdate({"red": Twin(actual="", type="")}),
            id="the empty string is let through",
        ),
    ],
)
def test_update_is_decoded(document, expected):
    assert mqtt_twin.decode_update(orjson.dumps(document)) == expected


def test_what_is_encoded_is_decoded_again():
    update = TwinUpdate(
        {"on": Twin(actual="true", expected="false", type="boolean"), "gone": None}, "e1"
    )
    assert mqtt_twin.decode_update(mqtt_twin.encode_update(update, timestamp_ms=1)) == update


@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        ("21.5", ""),
        ("-3", "int"),
        ("9223372036854775807", "integer"),
        ("1e-6", "float"),
        ("true", "boolean"),
        ("2025-07-23T08:00:00Z", "string"),
        ("x" * 512, "string"),
    ],
)
def test_value_that_the_edge_takes(value, type_name):
    mqtt_twin.check_value("p", value, type_name)


@pytest.mark.parametrize(
    ("value", "type_name", "message"),
    [
        pytest.param("a b", "", "has other characters", id="a space"),
        pytest.param('{"a":1}', "", "has other characters", id="JSON"),
        pytest.param("1e+06", "float", "has other characters", id="a plus in an exponent"),
        pytest.param("50%", "", "has other characters", id="a percent sign"),
        pytest.param("é", "", "has other characters", id="not ASCII"),
        pytest.param("ok\n", "", "has other characters", id="a line end"),
        pytest.param("x" * 513, "", "longer than 512", id="513 characters"),
        pytest.param("1.5", "int", "not of the type int", id="a fraction as int"),
        pytest.param("9223372036854775808", "int", "not of the type int", id="65 bits"),
        pytest.param("9" * 512, "int", "not of the type int", id="512 digits"),
        pytest.param("True", "boolean", "not of the type boolean", id="a capital True"),
        pytest.param("", "float", "not of the type float", id="nothing as a number"),
        pytest.param("1", "double", "double, is not allowed", id="a type edges do not know"),
    ],
)
def test_value_that_the_edge_rejects(value, type_name, message):
    with pytest.raises(TwinMessageInvalid, match=message):
        mqtt_twin.check_value("p", value, type_name)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"on", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"twin": []}', id="a list of twins"),
        pytest.param(b'{"twin": {"p": 1}}', id="a bare value"),
        pytest.param(b'{"twin": {"p": {"actual": {"value": 1}}}}', id="a number as value"),
        pytest.param(b'{"twin": {"p": {"actual": "1"}}}', id="no object around the value"),
        pytest.param(b'{"twin": {"a b": {"actual": {"value": "1"}}}}', id="a space in a name"),
        pytest.param(b'{"twin": {"p": {"metadata": {"type": 1}}}}', id="a number as type"),
        pytest.param(b'{"twin": {"p": ' + b"[" * 5000 + b"]" * 5000 + b"}}", id="deep nesting"),
        pytest.param(b" " * (mqtt_twin.MAX_PAYLOAD_BYTES + 1), id="more than a megabyte"),
        pytest.param(
            b'{"twin": {"good": {"actual": {"value": "1"}}, "bad": {"actual": {"value": "a b"}}}}',
            id="one bad value among good ones",
        ),
        pytest.param(
            b'{"twin": {"p": {"expected": {"value": "a b"}, "actual": {"value": "1"}}}}',
            id="a bad desired value echoed beside a good report",
        ),
    ],
)
def test_message_is_rejected_whole(payload):
    with pytest.raises(TwinMessageInvalid):
        mqtt_twin.decode_update(payload)


def test_cloud_stores_receipt_time_as_string_and_type_string():
    update = TwinUpdate({"on": Twin(actual="true", expected="false", type="boolean"), "gone": None})
    metadata = {"timestamp": "1753257600123", "type": "string"}
    assert mqtt_twin.reported_twins(update, timestamp_ms=1753257600123) == {
        "on": {
            "reported": {"value": "true", "metadata": metadata},
            "observedDesired": {"value": "false", "metadata": metadata},
        }
    }


def test_rejection_carries_code_and_reason():
    error = TwinMessageInvalid("no such device", code=404)
    assert orjson.loads(mqtt_twin.encode_rejection(error, timestamp_ms=5)) == {
        "event_id": "",
        "timestamp": 5,
        "code": 404,
        "reason": "no such device",
    }


def test_delta_names_what_differs_and_carries_all_that_is_wanted():
    twins = {
        "fan": Twin(expected="on", actual="off"),
        "lamp": Twin(expected="on", actual="on"),
        "temperature": Twin(actual="21"),
        "door": Twin(expected="shut"),
    }
    document = orjson.loads(mqtt_twin.encode_delta(twins, timestamp_ms=5) or b"")
    assert document["delta"] == {"fan": "on", "door": "shut"}
    assert document["twin"] == {
        "fan": {
            "expected": {"value": "on", "metadata": {"timestamp": 5}},
            "actual": {"value": "off", "metadata": {"timestamp": 5}},
            "metadata": {"type": "string"},
        },
        "lamp": {
            "expected": {"value": "on", "metadata": {"timestamp": 5}},
            "actual": {"value": "on", "metadata": {"timestamp": 5}},
            "metadata": {"type": "string"},
        },
        "door": {
            "expected": {"value": "shut", "metadata": {"timestamp": 5}},
            "metadata": {"type": "string"},
        },
    }


def test_there_is_no_delta_of_a_device_that_is_as_it_is_wanted():
    assert (
        mqtt_twin.encode_delta({"lamp": Twin(expected="on", actual="on")}, timestamp_ms=5) is None
    )


@pytest.mark.parametrize("state", ["online", "offline", "ok", "unhealthy", "unknown"])
def test_state_is_one_that_an_edge_takes(state):
    payload = orjson.dumps({"event_id": "7", "timestamp": 5, "state": state})
    assert mqtt_twin.decode_state(payload) == (state, "7")


@pytest.mark.parametrize("state", ["", "Online", "on fire", None, 7, ["online"]])
def test_other_states_are_refused(state):
    with pytest.raises(TwinMessageInvalid):
        mqtt_twin.decode_state(orjson.dumps({"state": state}))


def test_the_event_id_of_a_get_is_told_back_up_to_a_length():
    assert mqtt_twin.decode_get(b'{"event_id":"7","timestamp":5}') == "7"
    assert len(mqtt_twin.decode_get(orjson.dumps({"event_id": "x" * 9_999}))) == 256
