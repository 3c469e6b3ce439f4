"""`ports.ciphers.Ciphers` with age, and what encrypts for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import pyrage

from reconciler.errors import Stalled

Identity: TypeAlias = "pyrage.x25519.Identity | pyrage.ssh.Identity"
Recipient: TypeAlias = "pyrage.x25519.Recipient | pyrage.ssh.Recipient"

_NATIVE = "AGE-SECRET-KEY-1"
_PEM = "-----BEGIN"


class Age:
    """Decrypts with the identities it is given, or with those of `file`, read anew each time."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file

    async def decrypt(self, ciphertext: str, identities: str | None) -> str:
        return await asyncio.to_thread(self._decrypt, ciphertext, identities)

    def _decrypt(self, ciphertext: str, identities: str | None) -> str:
        found = _identities(self._own() if identities is None else identities)
        try:
            content: bytes = pyrage.decrypt(ciphertext.encode(), found)
            return content.decode()
        except pyrage.DecryptError as error:
            # Of fixed words, none of them from the text.
            raise Stalled(
                f"the ciphertext cannot be decrypted with the identity that the controller has "
                f"({error})",
                reason="DecryptionFailed",
            ) from None
        except UnicodeDecodeError:
            raise Stalled(
                "what was encrypted is not text; encrypt it in Base64", reason="DecryptionFailed"
            ) from None

    def _own(self) -> str:
        if self._file is None:
            raise Stalled(
                "there is no identity to decrypt with; set spec.decryption of the "
                "ScriptRepository, or start the controller with --age-identity",
                reason="IdentityMissing",
            )
        try:
            return self._file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise Stalled(
                f"the age identity {self._file} cannot be read ({why})", reason="IdentityMissing"
            ) from None


def encrypt(text: str, recipients: Iterable[str]) -> str:
    """`text`, armored, for all who have the private key of one of `recipients`.

    These are `age1...` or public keys of OpenSSH. Raises `Stalled` with reason RecipientInvalid.
    """
    found = [_recipient(it) for it in recipients]
    ciphertext: bytes = pyrage.encrypt(text.encode(), found, armored=True)
    return ciphertext.decode()


def _recipient(text: str) -> Recipient:
    try:
        if text.startswith("ssh-"):
            return pyrage.ssh.Recipient.from_str(text)
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise Stalled(
            f"{text[:16]!r} is no recipient ({error}); write age1..., or a public key of "
            "ssh-ed25519 or ssh-rsa",
            reason="RecipientInvalid",
        ) from None


def _identities(text: str) -> Sequence[Identity]:
    """No plugins: their identities name programs to be run."""
    found: list[Identity] = []
    try:
        if _PEM in text:
            return [pyrage.ssh.Identity.from_buffer(text.encode())]
        found.extend(
            pyrage.x25519.Identity.from_str(line)
            for line in map(str.strip, text.splitlines())
            if line.startswith(_NATIVE)
        )
    except pyrage.IdentityError:
        found = []
    if not found:
        raise Stalled(
            f"there is no age identity in what was given as one: a line {_NATIVE}..., or a private "
            "key of OpenSSH without a passphrase",
            reason="IdentityInvalid",
        )
    return found
