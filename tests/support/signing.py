"""Signatures of webhooks by the openssl command, which shares no code with what checks them."""

from __future__ import annotations

import subprocess


def digest(body: bytes, key: bytes, *, algorithm: str = "sha256") -> bytes:
    """The raw HMAC of `body`."""
    command = ["openssl", "dgst", f"-{algorithm}", "-mac", "HMAC"]
    done = subprocess.run(
        [*command, "-macopt", f"hexkey:{key.hex()}", "-binary"],
        input=body,
        capture_output=True,
        check=True,
    )
    return done.stdout


def hexadecimal(body: bytes, key: bytes, *, algorithm: str = "sha256") -> str:
    return digest(body, key, algorithm=algorithm).hex()
