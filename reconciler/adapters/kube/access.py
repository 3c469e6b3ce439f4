"""The `Access` port over a Kubernetes API server: TokenReview and SubjectAccessReview."""

from __future__ import annotations

import asyncio
import logging

from reconciler.adapters.kube.transport import Transport
from reconciler.core.access import Caller, Right
from reconciler.core.objects import Json, JsonObject, mapping, sequence, text
from reconciler.errors import ScriptOpsError, Transient

log = logging.getLogger(__name__)

# A person waits for it, and before a person a sensor.
SECONDS = 5.0
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class KubeAccess:
    """Takes tokens that the API server says are meant for `audience`, and for nothing else.

    A token for the API server itself is refused: whoever is shown one could act with it there.
    """

    def __init__(self, transport: Transport, *, audience: str, seconds: float = SECONDS) -> None:
        self._transport = transport
        self._audience = audience
        self._seconds = seconds

    async def identify(self, token: str) -> Caller | None:
        if not token:
            return None  # which the server calls no question
        asked: JsonObject = {"token": token, "audiences": [self._audience]}
        status = await self._review(TOKEN_REVIEWS, "TokenReview", "authentication", asked)
        # A server that knows nothing of audiences leaves them out, and says yes all the same.
        is_for_us = self._audience in sequence(status.get("audiences"))
        if status.get("authenticated") is not True or not is_for_us:
            return None
        user = mapping(status.get("user"))
        name = text(user.get("username"))
        if not name:
            return None
        return Caller(
            name,
            uid=text(user.get("uid")),
            groups=_texts(user.get("groups")),
            extra=tuple(sorted((k, _texts(v)) for k, v in mapping(user.get("extra")).items())),
        )

    async def allows(self, caller: Caller, right: Right) -> bool:
        asked: JsonObject = {
            "user": caller.name,
            "uid": caller.uid,
            "groups": list(caller.groups),
            "extra": {name: list(values) for name, values in caller.extra},
            **_attributes(right),
        }
        status = await self._review(ACCESS_REVIEWS, "SubjectAccessReview", "authorization", asked)
        return status.get("allowed") is True and status.get("denied") is not True

    async def _review(self, path: str, kind: str, group: str, spec: JsonObject) -> JsonObject:
        document: JsonObject = {
            "apiVersion": f"{group}.k8s.io/v1",
            "kind": kind,
            "spec": spec,
        }
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._transport.call("POST", path, body=document)
        except TimeoutError:
            raise _unknown(kind, f"no answer within {self._seconds:g} s") from None
        except ScriptOpsError as error:
            # Also what is forbidden to us: it says nothing about who asks.
            raise _unknown(kind, str(error)) from error
        return mapping(answer.get("status"))


def _attributes(right: Right) -> JsonObject:
    what = right.act.what
    attributes: dict[str, Json] = {
        "verb": what.verb,
        "group": what.group,
        "resource": what.resource,
        "subresource": what.subresource,
        "namespace": right.namespace,
        "name": right.name,
    }
    return {"resourceAttributes": attributes}


def _texts(value: Json | object) -> tuple[str, ...]:
    return tuple(map(text, sequence(value)))


def _unknown(kind: str, why: str) -> Transient:
    """Whoever asks is not told the inside."""
    log.warning("no answer about access", extra={"kind": kind, "error": why})
    return Transient(
        "the cluster does not say who may do what; the controller's log has more",
        reason="AccessUnavailable",
    )
