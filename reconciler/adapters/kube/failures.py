"""What a Kubernetes API server answers when it says no, in our words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from reconciler.core.objects import JsonObject, mapping, sequence, text
from reconciler.errors import (
    ClusterUnavailable,
    Conflict,
    Expired,
    Forbidden,
    ObjectExists,
    ObjectInvalid,
    ObjectNotFound,
    ScriptOpsError,
    Throttled,
)

# Messages of admission webhooks and of CRDs with many faults run to kilobytes.
MESSAGE_CHARACTERS = 1000
# What may be done where rules are deployed, as RBAC words its refusals.
_DEPLOYING = re.compile(
    r"cannot (create|patch|delete) resource "
    r'"(scripts|devices|devicemodels)" in API group "[a-z.]+" in the namespace'
)


class Cause(NamedTuple):
    reason: str
    field: str
    message: str


class FieldsInvalid(ObjectInvalid):
    """The object was understood and its content refused; `causes` name the fields."""

    def __init__(self, message: str, causes: Sequence[Cause]) -> None:
        super().__init__(message)
        self.causes = tuple(causes)


class PatchRefused(ObjectInvalid):
    """The patch could not be carried out on the live object, and the server keeps to itself why."""


def translate(
    code: int, status: JsonObject, *, doing: str, headers: Mapping[str, str] | None = None
) -> ScriptOpsError:
    """The error for an answer with HTTP `code` and a `Status` document (empty when there is none).

    The reaction follows the reason where the code alone is ambiguous.
    """
    reason = text(status.get("reason"))
    message = f"{doing}: {text(status.get('message')) or f'HTTP {code}'}"[:MESSAGE_CHARACTERS]
    details = mapping(status.get("details"))
    causes = [
        Cause(text(c.get("reason")), text(c.get("field")), text(c.get("message")))
        for c in map(mapping, sequence(details.get("causes")))
    ]
    match code:
        case 404:
            return ObjectNotFound(message)
        case 409 if reason == "AlreadyExists":
            return ObjectExists(message)
        case 409:
            return Conflict(message)
        case 410:
            return Expired(message)
        case 422 if causes and all(cause.field == "metadata.uid" for cause in causes):
            # A UID in a patch is a precondition; here it is answered as a forbidden change of it.
            return Conflict(message)
        case 422 if causes or details.get("name"):
            return FieldsInvalid(message, causes)
        case 422:
            return PatchRefused(message)
        case 429:
            return Throttled(message, retry_after=_retry_after(headers or {}, details))
        case 403 if any(cause.reason == "NamespaceTerminating" for cause in causes):
            return ObjectNotFound(message)
        case 401 | 403:
            return Forbidden(f"{message}{_remedy(message)}")
        case 504 if any(cause.reason == "ResourceVersionTooLarge" for cause in causes):
            # Not reached yet by this server, or gone with a restored backup: list again.
            return Expired(message)
        case 408:
            return ClusterUnavailable(message)
        case _ if 400 <= code < 500:
            return ObjectInvalid(message)
        case _:
            return ClusterUnavailable(message)


def _remedy(refusal: str) -> str:
    """Which of our roles gives a right that RBAC says is missing; "" where none of them does."""
    if "cannot impersonate resource" in refusal:
        role = "scriptops-impersonator"
    elif _DEPLOYING.search(refusal):
        role = "scriptops-deployer"
    else:
        return ""
    return f"; a RoleBinding to the ClusterRole {role} in that namespace grants it"


def _retry_after(headers: Mapping[str, str], details: JsonObject) -> timedelta | None:
    told = headers.get("Retry-After", "")
    if told.isdigit():
        return timedelta(seconds=int(told))
    seconds = details.get("retryAfterSeconds")
    return timedelta(seconds=seconds) if isinstance(seconds, int) else None
