"""Secrets that a repository names, read one by one and remembered for a moment."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.core.objects import SECRETS, JsonObject, ObjectKey, mapping
from reconciler.errors import ObjectNotFound, Stalled
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster

# How long a Secret is believed to be as it was: a burst of webhooks is one read of the cluster.
BELIEVED_SECONDS = 30.0
# Whoever doubts what is remembered has it read again, at most this often: wrong signatures must not
# become requests to the cluster.
DOUBTED_SECONDS = 1.0


async def read(cluster: Cluster, key: ObjectKey, *, field: str) -> Mapping[str, str]:
    """The data of a Secret that `field` of a ScriptRepository names.

    Raises `Stalled` with reason CredentialsNotFound or CredentialsInvalid, and what the cluster
    raises.
    """
    try:
        secret = await cluster.get(SECRETS, key)
    except ObjectNotFound as error:
        raise Stalled(
            f"there is no Secret {key}; create it, or correct {field}",
            reason="CredentialsNotFound",
        ) from error
    try:
        return {
            name: base64.b64decode(str(value), validate=True).decode()
            for name, value in mapping(secret.get("data")).items()
        }
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Stalled(
            f"Secret {key} holds a value that is not text", reason="CredentialsInvalid"
        ) from error


async def read_labelled(cluster: Cluster, key: ObjectKey) -> Secret:
    """Raises `ObjectNotFound`, and what the cluster raises."""
    secret = await cluster.get(SECRETS, key)
    metadata = mapping(secret.get("metadata"))
    return Secret(mapping(secret.get("data")), mapping(metadata.get("labels")))


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret as the cluster has it: its values are in Base64."""

    data: JsonObject = field(repr=False)
    labels: JsonObject

    def text(self, name: str) -> str | None:
        """None where there is no such key. Raises `Stalled` with reason SecretInvalid."""
        if name not in self.data:
            return None
        try:
            return base64.b64decode(str(self.data[name]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Stalled(
                f"its key {name} holds a value that is not text", reason="SecretInvalid"
            ) from None


@dataclass(frozen=True, slots=True)
class _Read:
    data: Mapping[str, str] = field(repr=False)
    at: float


class Secrets:
    """Remembers what it read for a while; several who ask at once are one request."""

    def __init__(self, cluster: Cluster, *, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._read: dict[ObjectKey, _Read] = {}
        self._locks: dict[ObjectKey, asyncio.Lock] = {}

    async def get(self, key: ObjectKey, *, field: str, doubted: bool = False) -> Mapping[str, str]:
        """As `read`. With `doubted` it is hardly older than a second."""
        longest = DOUBTED_SECONDS if doubted else BELIEVED_SECONDS
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._read.get(key)
            now = self._clock.monotonic()
            if known is None or now - known.at > longest:
                self._read.pop(key, None)
                known = _Read(await read(self._cluster, key, field=field), now)
                self._read[key] = known
            return known.data

    async def tokens(self, key: ObjectKey, *, field: str, doubted: bool = False) -> tuple[str, ...]:
        """Every value whose key begins with `token`, without the line end that editors add.

        Raises `Stalled` where there is none.
        """
        data = await self.get(key, field=field, doubted=doubted)
        found = tuple(
            value.rstrip("\r\n") for name, value in sorted(data.items()) if name.startswith("token")
        )
        if not any(found):
            raise Stalled(
                f"Secret {key} has no key `token`; put the secret there, or correct {field}",
                reason="CredentialsInvalid",
            )
        return tuple(value for value in found if value)
