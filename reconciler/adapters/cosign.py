"""Signatures as `cosign sign --key` makes them, checked with public keys and nothing else.

No transparency log and no certificate is asked for: what a key signed holds until the key is taken
away.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from reconciler.errors import Stalled

PublicKey: TypeAlias = ec.EllipticCurvePublicKey


def load(path: Path) -> PublicKey:
    """A `cosign.pub`. Raises `Stalled` for anything but a public key on P-256."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise Stalled(f"the key {path} cannot be read ({error.strerror})") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _no_key(path)
    return key


def is_signed(content: bytes, signature: str, keys: Sequence[PublicKey]) -> bool:
    """Whether one of `keys` made `signature`, in base64, of `content`."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return any(_fits(key, raw, content) for key in keys)


def _fits(key: PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _no_key(path: Path) -> Stalled:
    return Stalled(
        f"{path} is no public key on P-256 in PEM; give the cosign.pub of cosign generate-key-pair",
        reason="KeysInvalid",
    )
