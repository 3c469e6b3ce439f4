"""What a person may ask for, as POST requests."""

from __future__ import annotations

import orjson
from falcon.asgi import Request, Response

from reconciler.core.access import Act
from reconciler.core.objects import JsonObject, ObjectKey, Reference, mapping, text
from reconciler.ports.commands import Commands
from reconciler.web.api import send
from reconciler.web.guard import Guard
from reconciler.web.problems import Refusal


class Command:
    """`/reconcile`, `/suspend`, `/resume`, `/approve`, `/rollback` and `/unroll` of one object."""

    def __init__(self, commands: Commands, guard: Guard, kind: str, act: Act) -> None:
        self._commands = commands
        self._guard = guard
        self._kind = kind
        self._act = act

    async def on_post_reconcile(
        self, req: Request, resp: Response, namespace: str, name: str
    ) -> None:
        await self._guard.admit(req, self._act, namespace, name)
        at = await self._commands.reconcile(ObjectKey(namespace, name))
        send(resp, {"requestedAt": at}, 202)

    async def on_post_suspend(
        self, req: Request, resp: Response, namespace: str, name: str
    ) -> None:
        await self._suspend(req, resp, Reference(self._kind, namespace, name), suspend=True)

    async def on_post_resume(self, req: Request, resp: Response, namespace: str, name: str) -> None:
        await self._suspend(req, resp, Reference(self._kind, namespace, name), suspend=False)

    async def on_post_approve(
        self, req: Request, resp: Response, namespace: str, name: str
    ) -> None:
        await self._guard.admit(req, self._act, namespace, name)
        plan = text((await _json(req)).get("plan"))
        if not plan:
            raise Refusal(400, "PlanMissing", 'say which plan: {"plan": "<hash>"}')
        await self._commands.approve(ObjectKey(namespace, name), plan)
        send(resp, {"plan": plan}, 202)

    async def on_post_rollback(
        self, req: Request, resp: Response, namespace: str, name: str
    ) -> None:
        """To the commit that the body names, `{"revision": "..."}`; with `{}` to the one before."""
        await self._guard.admit(req, self._act, namespace, name)
        wish = text((await _json(req)).get("revision"))
        wanted = await self._commands.rollback(ObjectKey(namespace, name), wish)
        send(resp, wanted.model_dump(mode="json"), 202)

    async def on_post_unroll(self, req: Request, resp: Response, namespace: str, name: str) -> None:
        await self._guard.admit(req, self._act, namespace, name)
        changed = await self._commands.unroll(ObjectKey(namespace, name))
        send(resp, {"changed": changed}, 202)

    async def _suspend(
        self, req: Request, resp: Response, reference: Reference, *, suspend: bool
    ) -> None:
        await self._guard.admit(req, self._act, *reference.key)
        changed = await self._commands.suspend(reference, suspend=suspend)
        send(resp, {"suspend": suspend, "changed": changed}, 202)


async def _json(req: Request) -> JsonObject:
    try:
        return mapping(orjson.loads(await req.stream.read() or b"{}"))
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "NotJson", f"the body is not JSON: {error}") from error
