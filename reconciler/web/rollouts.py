"""Rollouts over HTTP: `{"action": "promote" | "promote-full" | "abort" | "undo", "revision"?}`."""

from __future__ import annotations

import orjson
from falcon.asgi import Request, Response

from reconciler.core.access import Act
from reconciler.core.objects import ObjectKey, mapping, text
from reconciler.core.rollouts import Action
from reconciler.ports.operations import Operations
from reconciler.web.api import require_json, send
from reconciler.web.gate import header
from reconciler.web.guard import Guard
from reconciler.web.problems import Refusal


class RolloutRequest:
    """Writes down what is asked; the Script's status says what came of it."""

    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_post(self, req: Request, resp: Response, namespace: str, name: str) -> None:
        await self._guard.admit(req, Act.COMMAND_SCRIPT, namespace, name)
        body = await req.stream.read()
        require_json(header(req.scope, b"content-type"), body)
        action, revision = _asked(body)
        await self._operations.roll_out(ObjectKey(namespace, name), action, revision=revision)
        req.context.told = {"action": action.value}
        send(resp, {"action": action.value}, 202)


def _asked(body: bytes) -> tuple[Action, int | None]:
    wish = mapping(orjson.loads(body))
    word, revision = text(wish.get("action")), wish.get("revision")
    if word not in set(Action):
        raise Refusal(400, "UnknownAction", f"action is one of {', '.join(Action)}")
    action = Action(word)
    is_number = isinstance(revision, int) and not isinstance(revision, bool)
    if revision is not None and not (is_number and action is Action.UNDO):
        raise Refusal(400, "RevisionInvalid", "revision is a number, and only for undo")
    return action, revision if isinstance(revision, int) else None
