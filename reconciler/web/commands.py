"""What a person may ask for, as POST requests from this machine."""

from __future__ import annotations

import orjson
from falcon.asgi import Request, Response

from reconciler.core.objects import JsonObject, ObjectKey, Reference, mapping, text
from reconciler.ports.commands import Commands
from reconciler.web.api import send
from reconciler.web.gate import is_local, refuse_cross_site
from reconciler.web.problems import Refusal


class Command:
    """`/reconcile`, `/suspend`, `/resume`, `/approve`, `/rollback` and `/unroll` of one object.

    Served to this machine only, whatever it was told of listening: who can reach a controller over
    the network could otherwise stop what it keeps going.
    """

    def __init__(self, commands: Commands, kind: str) -> None:
        self._commands = commands
        self._kind = kind

    async def on_post_reconcile(
        self, req: Request, resp: Response, namespace: str, name: str
    ) -> None:
        _require_person(req)
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
        _require_person(req)
        plan = text((await _json(req)).get("plan"))
        if not plan:
            raise Refusal(400, "PlanMissing", 'say which plan: {"plan": "<hash>"}')
        await self._commands.approve(ObjectKey(namespace, name), plan)
        send(resp, {"plan": plan}, 202)

    async def on_post_rollback(
        self, req: Request, resp: Response, namespace: str, name: str
    ) -> None:
        """To the commit that the body names, `{"revision": "..."}`; with `{}` to the one before."""
        _require_person(req)
        wish = text((await _json(req)).get("revision"))
        wanted = await self._commands.rollback(ObjectKey(namespace, name), wish)
        send(resp, wanted.model_dump(mode="json"), 202)

    async def on_post_unroll(self, req: Request, resp: Response, namespace: str, name: str) -> None:
        _require_person(req)
        changed = await self._commands.unroll(ObjectKey(namespace, name))
        send(resp, {"changed": changed}, 202)

    async def _suspend(
        self, req: Request, resp: Response, reference: Reference, *, suspend: bool
    ) -> None:
        _require_person(req)
        changed = await self._commands.suspend(reference, suspend=suspend)
        send(resp, {"suspend": suspend, "changed": changed}, 202)


async def _json(req: Request) -> JsonObject:
    try:
        return mapping(orjson.loads(await req.stream.read() or b"{}"))
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "NotJson", f"the body is not JSON: {error}") from error


def _require_person(req: Request) -> None:
    if not is_local(req.scope):
        raise Refusal(
            403, "LocalOnly", "this is for the controller's own machine; forward a port to it"
        )
    refuse_cross_site(req.scope)
