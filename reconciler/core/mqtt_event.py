"""What a Script is handed for an MQTT message."""

from __future__ import annotations

import base64
from typing import Final

import orjson

# As large as the body of a call of a webhook.
LARGEST_PAYLOAD: Final = 65_536


def event(topic: str, payload: bytes, *, qos: int, retain: bool) -> bytes:
    """The JSON of it. Bytes that are no UTF-8 are base64, which `base64` tells.

    Raises ValueError for a message that is larger than `LARGEST_PAYLOAD`.
    """
    if len(payload) > LARGEST_PAYLOAD:
        raise ValueError(f"a message of more than {LARGEST_PAYLOAD} bytes runs nothing")
    try:
        text, is_base64 = payload.decode(), False
    except UnicodeDecodeError:
        text, is_base64 = base64.b64encode(payload).decode(), True
    return orjson.dumps(
        {"topic": topic, "payload": text, "base64": is_base64, "qos": qos, "retain": retain}
    )
