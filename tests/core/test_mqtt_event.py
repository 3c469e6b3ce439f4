"""What a Script is handed for a message."""

from __future__ import annotations

import json

import pytest

from reconciler.core.mqtt_event import LARGEST_PAYLOAD, event


def test_text_is_text() -> None:
    assert json.loads(event("a/b", "zwölf".encode(), qos=1, retain=False)) == {
        "topic": "a/b",
        "payload": "zwölf",
        "base64": False,
        "qos": 1,
        "retain": False,
    }


def test_bytes_that_are_no_text_are_base64() -> None:
    told = json.loads(event("a/b", b"\xff\x00", qos=0, retain=True))
    assert (told["payload"], told["base64"], told["retain"]) == ("/wA=", True, True)


def test_what_is_too_large_is_refused() -> None:
    assert event("a", b"x" * LARGEST_PAYLOAD, qos=0, retain=False)
    with pytest.raises(ValueError, match="65536"):
        event("a", b"x" * (LARGEST_PAYLOAD + 1), qos=0, retain=False)
