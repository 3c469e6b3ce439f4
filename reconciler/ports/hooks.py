"""Push webhooks, as the HTTP door hands them in."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from reconciler.core.objects import ObjectKey


class Heard(StrEnum):
    """What a genuine webhook led to."""

    QUEUED = "queued"
    # The branch is there already, as far as was seen.
    CURRENT = "current"
    DUPLICATE = "duplicate"
    # Of another ref, of another event, or for a repository that is suspended.
    IGNORED = "ignored"
    PING = "ping"


class Hooks(Protocol):
    async def push(self, repository: ObjectKey, headers: Mapping[str, str], body: bytes) -> Heard:
        """Take a webhook for a ScriptRepository. `headers` have lower-case names.

        Returns before anything is fetched. Nothing in it chooses what is fetched, from where, or
        with which credentials. Raises `ObjectNotFound` where no webhooks are taken, `Forbidden`
        for one that is not genuine, `core.pushes.Malformed`, and what reading the Secret raises.
        """
        ...
