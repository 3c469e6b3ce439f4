"""KubeEdge's device twin messages: topics and payloads to values and back.

What is accepted here is what an edge node accepts, with its rules: a message in which one value
breaks them is rejected whole. Timestamps and versions of incoming messages are not read, as the
edge does not read them either: it stamps what it receives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from reconciler.core.objects import JsonObject, ObjectKey

TWIN_UPDATE: Final = "twin/update"
TWIN_UPDATE_RESULT: Final = "twin/update/result"
TWIN_DELTA: Final = "twin/update/delta"
TWIN_GET: Final = "twin/get"
TWIN_GET_RESULT: Final = "twin/get/result"
STATE_UPDATE: Final = "state/update"
STATE_UPDATE_RESULT: Final = "state/update/result"

# What mappers publish, in the form with a namespace and in the older one without.
FILTERS: Final = tuple(
    f"$hw/events/device/{device}/{suffix}"
    for device in ("+/+", "+")
    for suffix in (TWIN_UPDATE, TWIN_GET, STATE_UPDATE)
)
# An edge node drops every other state without a word.
STATES: Final = frozenset({"online", "offline", "ok", "unhealthy", "unknown"})

# A device has some dozens of properties of at most 512 characters; a megabyte is none of ours, and
# it bounds what one message can make us hold.
MAX_PAYLOAD_BYTES: Final = 1_048_576
# It is told back in the answer; mappers use a UUID or nothing.
_LONGEST_EVENT_ID = 256

# The suffixes are a closed set, so that a device called `twin` is told from the suffix.
_TOPIC = re.compile(
    r"\$hw/events/device/(?:([^/+#]+)/)?([^/+#]+)/"
    r"(twin/update(?:/result|/delta)?|twin/get(?:/result)?|state/update(?:/result)?)"
)
_NAME = re.compile(r"[a-zA-Z0-9_.,:/@#-]{1,128}")
_VALUE = re.compile(r"[a-zA-Z0-9_.,:/@#-]{1,512}")
_INTEGER = re.compile(r"-?[0-9]+")
_FLOAT = re.compile(r"-?(([0-9]+\.?[0-9]*|\.[0-9]+)(e-?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE)
_STRING_TYPES = frozenset({"", "string", "deleted"})
_INT64 = 2**63


class TwinMessageInvalid(ValueError):
    """The edge would reject this message. `code` is the one of its answer."""

    def __init__(self, message: str, *, code: int = 400) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """One property: `expected` is what the cloud wants, `actual` what the device has."""

    expected: str | None = None
    actual: str | None = None
    type: str = "string"


@dataclass(frozen=True, slots=True)
class TwinUpdate:
    """Properties by name; None takes an optional property away."""

    twins: Mapping[str, Twin | None]
    event_id: str = ""


Message: TypeAlias = tuple[str, bytes]


class DeviceTopic(NamedTuple):
    """A topic of a device. `is_short`: as before KubeEdge 1.16.2, without the namespace."""

    device: ObjectKey
    suffix: str
    is_short: bool = False


def topic(device: ObjectKey, suffix: str, *, is_short: bool = False) -> str:
    """The topic of a device, as edge nodes from KubeEdge 1.16.2 on name it, or as older ones."""
    name = device.name if is_short else f"{device.namespace}/{device.name}"
    return f"$hw/events/device/{name}/{suffix}"


def parse_topic(text: str, namespace: str = "default") -> DeviceTopic | None:
    """What a device topic says; None for every other one.

    `namespace` is that of devices that are named without one.
    """
    match = _TOPIC.fullmatch(text)
    if match is None:
        return None
    return DeviceTopic(ObjectKey(match[1] or namespace, match[2]), match[3], match[1] is None)


def encode_update(update: TwinUpdate, *, timestamp_ms: int) -> bytes:
    """The payload of `twin/update` as mappers send it. Nothing is checked: that is the edge's."""
    return orjson.dumps(
        {
            "event_id": update.event_id,
            "timestamp": timestamp_ms,
            "twin": {
                name: None if twin is None else _encode_twin(twin, timestamp_ms)
                for name, twin in update.twins.items()
            },
        }
    )


def _encode_twin(twin: Twin, timestamp_ms: int) -> JsonObject:
    document: dict[str, JsonObject] = {}
    for field, value in (("expected", twin.expected), ("actual", twin.actual)):
        if value is not None:
            document[field] = {"value": value, "metadata": {"timestamp": timestamp_ms}}
    document["metadata"] = {"type": twin.type}
    return document


def decode_update(payload: bytes) -> TwinUpdate:
    """Read and check a `twin/update` payload. Raises `TwinMessageInvalid`."""
    document = _decode(payload)
    if not isinstance(document.get("twin"), dict):
        raise TwinMessageInvalid("the message has no twin")
    twins = {name: _decode_twin(name, twin) for name, twin in document["twin"].items()}
    return TwinUpdate(twins, _event_id(document))


def decode_get(payload: bytes) -> str:
    """The event id of a `twin/get`. Raises `TwinMessageInvalid`."""
    return _event_id(_decode(payload))


def decode_state(payload: bytes) -> tuple[str, str]:
    """The state and the event id of a `state/update`. Raises `TwinMessageInvalid`."""
    document = _decode(payload)
    state = document.get("state")
    if not isinstance(state, str) or state not in STATES:
        raise TwinMessageInvalid("the state is none of " + ", ".join(sorted(STATES)))
    return state, _event_id(document)


def _decode(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise TwinMessageInvalid(f"the message is larger than {MAX_PAYLOAD_BYTES} bytes")
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise TwinMessageInvalid("the message is not JSON") from error
    if not isinstance(document, dict):
        raise TwinMessageInvalid("the message is not an object")
    return document


def _event_id(document: Mapping[str, object]) -> str:
    event_id = document.get("event_id", "")
    return event_id[:_LONGEST_EVENT_ID] if isinstance(event_id, str) else ""


def _decode_twin(name: str, document: object) -> Twin | None:
    if not _NAME.fullmatch(name):
        raise TwinMessageInvalid(f"the property name {name[:128]!r} is not allowed")
    if document is None:
        return None
    if not isinstance(document, dict):
        raise TwinMessageInvalid(f"the twin of {name} is not an object")
    metadata = document.get("metadata")
    type_name = metadata.get("type", "") if isinstance(metadata, dict) else ""
    if not isinstance(type_name, str):
        raise TwinMessageInvalid(f"the type of {name} is not a string")
    expected = _decode_value(name, document.get("expected"))
    actual = _decode_value(name, document.get("actual"))
    for value in (expected, actual):
        if value is not None:
            check_value(name, value, type_name)
    return Twin(expected=expected, actual=actual, type=type_name)


def _decode_value(name: str, document: object) -> str | None:
    if document is None:
        return None
    value = document.get("value") if isinstance(document, dict) else None
    if not isinstance(value, str):
        raise TwinMessageInvalid(f"the value of {name} is not a string")
    return value


def check_value(name: str, value: str, type_name: str = "") -> None:
    """Raise `TwinMessageInvalid` where the edge would: characters first, then the type.

    The empty string passes the characters, but is neither a number nor a boolean.
    """
    if value and not _VALUE.fullmatch(value):
        raise TwinMessageInvalid(
            f"the value of {name} has other characters than letters, digits and -_.,:/@# "
            "or is longer than 512"
        )
    match type_name:
        case "int" | "integer":
            # The length first: digits beyond 64 bits are refused before they cost anything.
            good = (
                len(value) <= 20
                and bool(_INTEGER.fullmatch(value))
                and -_INT64 <= int(value) < _INT64
            )
        case "float":
            good = bool(_FLOAT.fullmatch(value))
        case "boolean":
            good = value in {"true", "false"}
        case _:
            good = type_name in _STRING_TYPES
            if not good:
                raise TwinMessageInvalid(f"the value type of {name}, {type_name}, is not allowed")
    if not good:
        raise TwinMessageInvalid(f"the value of {name} is not of the type {type_name}")


def reported_twins(update: TwinUpdate, *, timestamp_ms: int) -> dict[str, JsonObject]:
    """What the cloud stores of an update, by property: `reported` and `observedDesired`.

    The timestamp is milliseconds as a string, of the receipt; the type is always `string`, because
    the way into the cloud drops it: types are the DeviceModel's to tell.
    """
    metadata = {"timestamp": str(timestamp_ms), "type": "string"}
    return {
        name: {
            field: {"value": value, "metadata": metadata}
            for field, value in (("reported", twin.actual), ("observedDesired", twin.expected))
            if value is not None
        }
        for name, twin in update.twins.items()
        if twin is not None
    }


def encode_result(update: TwinUpdate, *, timestamp_ms: int) -> bytes:
    """The edge's answer to an update it took."""
    return encode_update(update, timestamp_ms=timestamp_ms)


def encode_delta(twins: Mapping[str, Twin], *, timestamp_ms: int) -> bytes | None:
    """What an edge node sends while a device is not as it is wanted; None where it is.

    The values are compared as text, as the edge compares them.
    """
    wanted = {name: twin for name, twin in twins.items() if twin.expected is not None}
    delta = {n: twin.expected for n, twin in wanted.items() if twin.expected != twin.actual}
    if not delta:
        return None
    return orjson.dumps(
        {
            "event_id": "",
            "timestamp": timestamp_ms,
            "twin": {n: _encode_twin(twin, timestamp_ms) for n, twin in wanted.items()},
            "delta": delta,
        }
    )


def encode_state_result(
    device: ObjectKey, state: str, *, event_id: str, timestamp_ms: int, last_online: str
) -> bytes:
    """The edge's answer to a state it took."""
    return orjson.dumps(
        {
            "event_id": event_id,
            "timestamp": timestamp_ms,
            "device": {"name": device.name, "state": state, "lastOnlineTime": last_online},
        }
    )


def encode_rejection(error: TwinMessageInvalid, *, timestamp_ms: int) -> bytes:
    """The edge's answer to an update it did not take."""
    return orjson.dumps(
        {"event_id": "", "timestamp": timestamp_ms, "code": error.code, "reason": str(error)}
    )
