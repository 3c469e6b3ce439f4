"""Ciphertext that everybody can read who has any key: age's armor around plain text."""

from __future__ import annotations

import base64
import textwrap

from reconciler.api import armor
from reconciler.errors import Stalled


def encrypted(text: str) -> str:
    """What `FakeCiphers` decrypts to `text`, and what passes for ciphertext in a manifest."""
    header = b"age-encryption.org/v1\n-> X25519 fake\nfake\n--- mac\n"
    body = base64.b64encode(header + bytes(32) + text.encode()).decode()
    return "\n".join([armor.BEGIN, *textwrap.wrap(body, 64), armor.END, ""])


class FakeCiphers:
    """`keys` are the identities that were used; the controller's own is called "own"."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.has_own = True

    async def decrypt(self, ciphertext: str, identities: str | None) -> str:
        if identities is None and not self.has_own:
            raise Stalled("there is no identity to decrypt with", reason="IdentityMissing")
        self.keys.append(identities or "own")
        content = base64.b64decode("".join(ciphertext.strip().splitlines()[1:-1]))
        return content.partition(b"--- mac\n")[2][32:].decode()
