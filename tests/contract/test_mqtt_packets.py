"""Messages as bytes: what paho makes of them is made of them here, and the other way round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt._packet import decode_publish
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from reconciler.adapters.mqtt import packets
from reconciler.adapters.mqtt.packets import Extent, Message

TOPICS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="+#\0"), min_size=1, max_size=300
)
VERSIONS = {True: MQTTProtocolVersion.MQTTv5, False: MQTTProtocolVersion.MQTTv311}


def packed(topic: str, payload: bytes, *, is_v5: bool, properties: Properties | None) -> bytes:
    """As a broker sends it."""
    name = topic.encode()
    body = len(name).to_bytes(2) + name
    if is_v5:
        body += properties.pack() if properties is not None else b"\0"
    body += payload
    length = b""
    size = len(body)
    while size > 127:
        length += bytes((size & 127 | 128,))
        size >>= 7
    return b"\x30" + length + bytes((size,)) + body


@given(TOPICS, st.binary(max_size=300), st.sampled_from([5, 4]))
def test_paho_reads_what_is_written_here(topic: str, payload: bytes, version: int) -> None:
    is_v5 = version == 5
    written = packets.encode_plain(topic, payload, is_v5=is_v5)
    assert written == packed(topic, payload, is_v5=is_v5, properties=None)
    found = packets.extent(written, 0)
    assert found is not None
    assert found.end == len(written)
    read = decode_publish(written[0], bytearray(written[found.body :]), VERSIONS[version == 5])
    assert (read.topic, bytes(read.payload)) == (topic.encode(), payload)
    assert (read.qos, read.retain, read.mid) == (0, False, 0)


@given(TOPICS, st.binary(max_size=300), st.sampled_from([5, 4]), st.integers(1, 268_435_455))
def test_messages_are_read_with_the_subscriptions_they_came_for(
    topic: str, payload: bytes, version: int, number: int
) -> None:
    is_v5 = version == 5
    properties = Properties(PacketTypes.PUBLISH)
    properties.SubscriptionIdentifier = number
    data = b"before" + packed(topic, payload, is_v5=is_v5, properties=properties) + b"after"
    found = packets.extent(data, 6)
    assert found is not None
    numbers = (number,) if is_v5 else ()
    assert found.end == len(data) - 5
    message = packets.decode_plain(data, 6, found, is_v5=is_v5)
    assert message == Message(topic, payload, 0, retain=False, numbers=numbers)


@given(st.binary(max_size=40), st.sampled_from([5, 4]))
def test_bytes_of_anybody_are_a_message_or_left_to_paho(body: bytes, version: int) -> None:
    data = b"\x31" + bytes((len(body),)) + body
    found = packets.extent(data, 0)
    assert found == Extent(2, len(data))
    try:
        message = packets.decode_plain(data, 0, found, is_v5=version == 5)
    except UnicodeDecodeError:
        return
    if message is None:
        return
    read = decode_publish(0x31, bytearray(body), VERSIONS[version == 5])
    assert (read.topic, bytes(read.payload)) == (message.topic.encode(), message.payload)
    assert message.retain


def test_what_has_more_properties_is_left_to_paho() -> None:
    properties = Properties(PacketTypes.PUBLISH)
    properties.MessageExpiryInterval = 5
    data = packed("a", b"b", is_v5=True, properties=properties)
    found = packets.extent(data, 0)
    assert found is not None
    assert packets.decode_plain(data, 0, found, is_v5=True) is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", None, id="nothing yet"),
        pytest.param(b"\x30", None, id="no length yet"),
        pytest.param(b"\x30\x80", None, id="half a length"),
        pytest.param(b"\xd0\x00", Extent(2, 2), id="nothing in it"),
        pytest.param(b"\x30\x80\x01", Extent(3, 131), id="two digits"),
        pytest.param(b"\x30\xff\xff\xff\xff\x01", Extent(6, 6), id="a length that is none"),
    ],
)
def test_where_a_packet_ends(data: bytes, expected: Extent | None) -> None:
    assert packets.extent(data, 0) == expected


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "x" * 65_536, "\ud800"])
def test_what_is_no_topic_is_refused(topic: str) -> None:
    with pytest.raises(ValueError, match=r"topic|surrogate"):
        packets.encode_plain(topic, b"", is_v5=True)
