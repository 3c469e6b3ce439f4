"""Tokens of a controller without Kubernetes: a file in its data folder, which holds hashes only.

The command line writes it and a running controller reads it; so it is replaced as a whole, and
what stands in it now is what counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from reconciler.core.access import Caller, Right, Scope
from reconciler.errors import Stalled, Transient
from reconciler.ports.clock import Clock

# Told apart from every other kind of secret by those who look for lost ones.
PREFIX: Final = "scriptops_"
# 256 bits: nobody guesses one, so a plain hash of it gives nothing away either.
TOKEN_BYTES: Final = 32
FILE: Final = "tokens.json"
# Far more than people and programs that come to one machine.
MOST_TOKENS: Final = 1000
MOST_BYTES: Final = 4 * 1024 * 1024


class Token(BaseModel):
    """What is known of a token; `namespaces` are those it is for, none means all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.@]{0,61}[A-Za-z0-9])?$")]
    hash: str
    scopes: frozenset[Scope]
    namespaces: frozenset[str] = frozenset()
    created_at: float
    expires_at: float | None = None

    def allows(self, right: Right) -> bool:
        """One that is for some namespaces sees nothing that is of none."""
        return right.act.scope in self.scopes and (
            not self.namespaces or right.namespace in self.namespaces
        )


_TOKENS: Final = TypeAdapter(list[Token])


class TokenFile:
    """Keeps the promises of `Access` for the tokens of one data folder, and makes them.

    Raises `Transient` with reason `AccessUnavailable` when the file cannot be read: then nobody is
    let in.
    """

    def __init__(self, data: Path, *, clock: Clock) -> None:
        self._path = data / FILE
        self._clock = clock
        # What stood there when it was read last, for as long as it is the same file.
        self._read: tuple[tuple[int, int, int], Sequence[Token]] | None = None

    async def identify(self, token: str) -> Caller | None:
        hashed = _hashed(token)
        found = next((it for it in self.tokens() if it.hash == hashed), None)
        if found is None or self._is_over(found):
            return None
        return Caller(f"token:{found.name}", uid=found.id)

    async def allows(self, caller: Caller, right: Right) -> bool:
        found = next((it for it in self.tokens() if it.id == caller.uid), None)
        return found is not None and not self._is_over(found) and found.allows(right)

    def create(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        namespaces: Sequence[str] = (),
        lifetime: timedelta | None = None,
    ) -> tuple[Token, str]:
        """A new token: what is known of it, and the token itself, which is kept nowhere.

        Raises `Stalled` for a name that is taken or cannot be one, and without room.
        """
        secret = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        now = self._clock.now()
        try:
            token = Token(
                id=secrets.token_hex(4),
                name=name,
                hash=_hashed(secret),
                scopes=frozenset(scopes),
                namespaces=frozenset(namespaces),
                created_at=now,
                expires_at=None if lifetime is None else now + lifetime.total_seconds(),
            )
        except ValidationError as error:
            raise Stalled(
                f"{name!r} cannot be the name of a token; use letters, digits and -_.@, at most 63",
                reason="NameInvalid",
            ) from error
        with self._changing() as tokens:
            if any(it.name == name for it in tokens):
                raise Stalled(
                    f"there is a token {name} already; revoke it, or choose another name",
                    reason="NameTaken",
                )
            if len(tokens) >= MOST_TOKENS:
                raise Stalled(f"there are {MOST_TOKENS} tokens already", reason="TooManyTokens")
            tokens.append(token)
        return token, secret

    def revoke(self, which: str) -> Token:
        """Remove the token of this name or id. Raises `Stalled` when there is none."""
        with self._changing() as tokens:
            found = next((it for it in tokens if which in {it.name, it.id}), None)
            if found is None:
                raise Stalled(f"there is no token {which} in {self._path}", reason="NoSuchToken")
            tokens.remove(found)
        return found

    def tokens(self) -> Sequence[Token]:
        """All there are, those that are over too, in the order in which they were made."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                state = (found.st_ino, found.st_mtime_ns, found.st_size)
                if self._read is None or self._read[0] != state:
                    self._read = state, tuple(_TOKENS.validate_json(file.read(MOST_BYTES)))
                return self._read[1]
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no list of tokens"
            raise Transient(
                f"{self._path} cannot be read ({why})", reason="AccessUnavailable"
            ) from None

    def _is_over(self, token: Token) -> bool:
        return token.expires_at is not None and token.expires_at <= self._clock.now()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """The tokens, written back whole when the block ends well; one writer at a time."""
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (folder / f"{FILE}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                tokens = list(self.tokens())
                yield tokens
                self._replace(_TOKENS.dump_json(tokens, indent=1))
        except OSError as error:
            raise Stalled(
                f"{self._path} cannot be written ({error.strerror or error})",
                reason="StateUnavailable",
            ) from error

    def _replace(self, content: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{FILE}.")
        try:
            with os.fdopen(descriptor, "wb") as file:  # made for nobody but us
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
