"""Ciphertext of manifests, decrypted with keys that never leave the controller."""

from __future__ import annotations

from typing import Protocol


class Ciphers(Protocol):
    async def decrypt(self, ciphertext: str, identities: str | None) -> str:
        """The text in an armored age file.

        `identities` are lines with private keys, as `age-keygen` or `ssh-keygen` wrote them; None
        stands for those that the controller was started with. Raises `Stalled` with reason
        IdentityMissing, IdentityInvalid or DecryptionFailed; no message holds a key or any of the
        text.
        """
        ...
