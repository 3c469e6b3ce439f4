"""The one shape of every answer that is not what was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import orjson

from reconciler import errors

CONTENT_TYPE: Final = "application/problem+json"


class Refusal(Exception):  # an answer, not a fault
    """An HTTP answer of 400 or more. `message` is shown to whoever asked."""

    def __init__(
        self, status: int, reason: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """An RFC 9457 problem, with our two words `reason` and `message`."""
        return orjson.dumps(
            {
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.message,
                "reason": self.reason,
                "message": self.message,
            }
        )


def refusal_of(error: errors.ScriptOpsError) -> Refusal:
    """How an error of ours reads over HTTP."""
    message = str(error)
    match error:
        case errors.ObjectNotFound() | errors.ArtifactNotFound():
            return Refusal(404, error.reason, message)
        case errors.Forbidden():
            return Refusal(403, error.reason, message)
        case errors.Waiting():
            status = 429 if error.reason == "QueueFull" else 503
            return Refusal(status, error.reason, message, _retry_after(error.requeue_after))
        case errors.Throttled():
            pause = error.retry_after or timedelta(seconds=1)
            return Refusal(429, error.reason, message, _retry_after(pause))
        case errors.Transient():
            return Refusal(503, error.reason, message, _retry_after(timedelta(seconds=1)))
        case errors.Stalled():
            return Refusal(409, error.reason, message)
        case _:
            return Refusal(500, error.reason, message)


def reason_of(status: int) -> str:
    """A reason where nobody gave one: "404 Not Found" is `NotFound`."""
    return "".join(word.capitalize() for word in HTTPStatus(status).phrase.split())


def _retry_after(pause: timedelta) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(pause.total_seconds())))}
