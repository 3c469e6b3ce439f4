"""Signatures as Standard Webhooks has them: over an id, a time and the body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

HEADER: Final = "webhook-signature"
# A message older or newer than this is taken for a replay; the standard's libraries take the same.
TOLERANCE_SECONDS = 300
_VERSION: Final = "v1,"
_PREFIX: Final = b"whsec_"


def signed(body: bytes, *, key: bytes, identity: str, now: float) -> Mapping[str, str]:
    """The headers for `body`."""
    moment = str(int(now))
    return {
        "webhook-id": identity,
        "webhook-timestamp": moment,
        HEADER: _VERSION + _digest(key, identity, moment, body),
    }


def problem(headers: Mapping[str, str], body: bytes, *, keys: Sequence[bytes], now: float) -> str:
    """Why the signature does not hold for any of `keys`; empty where it holds."""
    identity, moment = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    given = [
        signature.removeprefix(_VERSION).encode()
        for signature in headers.get(HEADER, "").split()
        if signature.startswith(_VERSION)
    ]
    if not identity or not moment.isascii() or not moment.isdecimal():
        return "there is no webhook-id or no webhook-timestamp"
    pairs = [(_digest(key, identity, moment, body).encode(), one) for key in keys for one in given]
    # All of them, always: the time taken tells nothing.
    found = [hmac.compare_digest(*pair) for pair in pairs]
    if not any(found):
        return f"{HEADER} does not fit the secret"
    if abs(now - int(moment)) > TOLERANCE_SECONDS:
        return f"webhook-timestamp is more than {TOLERANCE_SECONDS} s away"
    return ""


def _digest(key: bytes, identity: str, moment: str, body: bytes) -> str:
    message = f"{identity}.{moment}.".encode() + body
    return base64.b64encode(hmac.new(_raw(key), message, hashlib.sha256).digest()).decode()


def _raw(key: bytes) -> bytes:
    """A key that is written as `whsec_<base64>` is what that says, any other is itself."""
    if not key.startswith(_PREFIX):
        return key
    try:
        return base64.b64decode(key.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        return key
