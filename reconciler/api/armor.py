"""What age makes of a secret, as text: recognised and checked, never decrypted."""

from __future__ import annotations

import base64
import binascii
from typing import Final

BEGIN: Final = "-----BEGIN AGE ENCRYPTED FILE-----"
END: Final = "-----END AGE ENCRYPTED FILE-----"
_MAGIC: Final = b"age-encryption.org/v1\n"
# How many characters a line has, but for the last: age itself takes no others.
_LINE: Final = 64


def is_armored(text: str) -> bool:
    """Whether `text` is meant to be ciphertext."""
    return text.lstrip().startswith("-----BEGIN AGE")


def problem(text: str) -> str:
    """Why `text` cannot be decrypted by anybody, in words that hold nothing of it; "" if it may."""
    lines = text.strip().splitlines()
    if not is_armored(text):
        return "this is not encrypted, so treat it as known to all who read the repository"
    if not lines or lines[0] != BEGIN:
        return f"the first line of the ciphertext is not {BEGIN}"
    if lines[-1] != END:
        return f"the ciphertext is cut off: its last line is not {END}"
    body = lines[1:-1]
    if any(len(line) != _LINE for line in body[:-1]) or not body or len(body[-1]) > _LINE:
        return f"a line of the ciphertext does not have {_LINE} characters"
    try:
        content = base64.b64decode("".join(body), validate=True)
    except binascii.Error:
        return "the ciphertext is not Base64"
    if not content.startswith(_MAGIC):
        return "this is ciphertext of something else than age 1"
    # A file key for somebody, its authentication, a nonce and the tag of what is encrypted.
    header, mark, rest = content.partition(b"\n--- ")
    if not mark or b"\n-> " not in header or len(rest.partition(b"\n")[2]) < 32:
        return "the ciphertext is cut off"
    return ""
