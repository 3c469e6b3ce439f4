"""Packets of MQTT as bytes: where each ends, and the one that nearly all of them are.

paho takes a socket's packets apart byte by byte, and makes each into objects that nobody here
wants; a message of quality of service 0 is read and written here instead, at a tenth of the cost.
Everything else stays with paho.
"""

from __future__ import annotations

from typing import Final, NamedTuple

# The first byte of a message: this, and two flags, of which one is for higher qualities of service.
_PUBLISH: Final = 0x30
_RETAIN: Final = 0x01
_SUBSCRIPTION_IDENTIFIER: Final = 0x0B
_LONGEST_TEXT: Final = 65_535
# Digits of 128 that a length may have.
_DIGITS: Final = 4


class Message(NamedTuple):
    """What was published. `numbers` are those of the subscriptions that it came for, if told."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    numbers: tuple[int, ...]


class Extent(NamedTuple):
    """Where the body of a packet begins, and where it ends."""

    body: int
    end: int


def extent(data: bytes | bytearray, at: int) -> Extent | None:
    """Of the packet that begins at `at`; None while its length has not come.

    All that came belongs to one whose length is none: whoever reads it says what is wrong.
    """
    length = shift = 0
    for place in range(at + 1, min(at + 1 + _DIGITS, len(data))):
        digit = data[place]
        length |= (digit & 127) << shift
        if digit < 128:
            return Extent(place + 1, place + 1 + length)
        shift += 7
    return Extent(len(data), len(data)) if len(data) > at + _DIGITS else None


def is_plain(first: int) -> bool:
    """Whether a packet with this first byte is a message of quality of service 0."""
    return first & ~_RETAIN == _PUBLISH


def decode_plain(data: bytes | bytearray, at: int, body: Extent, *, is_v5: bool) -> Message | None:
    """A message of quality of service 0; None for one with more in it than is read here.

    Raises `UnicodeDecodeError` for a topic that is no text.
    """
    begin, end = body
    place = begin + 2 + int.from_bytes(data[begin : begin + 2])
    topic_end = place
    numbers: tuple[int, ...] = ()
    if topic_end > end:
        return None
    if is_v5:
        if place >= end:
            return None
        size = data[place]
        place += 1
        if size:
            found = _numbers(data, place, place + size) if size < 128 else None
            if found is None:
                return None
            numbers = found
            place += size
            if place > end:
                return None
    topic = str(data[begin + 2 : topic_end], "utf-8")
    return Message(topic, bytes(data[place:end]), 0, bool(data[at] & _RETAIN), numbers)


def _numbers(data: bytes | bytearray, at: int, end: int) -> tuple[int, ...] | None:
    """Subscription identifiers, where there is nothing else among the properties."""
    numbers: list[int] = []
    while at < end:
        if data[at] != _SUBSCRIPTION_IDENTIFIER:
            return None
        number = shift = 0
        while True:
            at += 1
            if at >= end:
                return None
            number |= (data[at] & 127) << shift
            shift += 7
            if data[at] < 128:
                break
        numbers.append(number)
        at += 1
    return tuple(numbers)


def encode_plain(topic: str, payload: bytes, *, is_v5: bool) -> bytes:
    """A message of quality of service 0. Raises `ValueError` for a topic that is none."""
    name = topic.encode()
    if not name or len(name) > _LONGEST_TEXT or "+" in topic or "#" in topic or "\0" in topic:
        raise ValueError("no topic to publish on")
    size = 2 + len(name) + len(payload) + is_v5
    head = bytearray((_PUBLISH,))
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    head += len(name).to_bytes(2)
    return b"".join((head, name, b"\0" if is_v5 else b"", payload))
