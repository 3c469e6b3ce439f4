"""Push webhooks: the one door that is open to strangers who know a secret."""

from __future__ import annotations

from falcon.asgi import Request, Response

from reconciler.core.objects import ObjectKey
from reconciler.core.pushes import Malformed
from reconciler.ports.hooks import Heard, Hooks
from reconciler.web.api import send
from reconciler.web.problems import Refusal


class PushWebhook:
    """Answers before anything is fetched: 202 where a look at the branch was queued, 200 where
    there is nothing to do.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    async def on_post(self, req: Request, resp: Response, namespace: str, name: str) -> None:
        body = await req.stream.read()
        headers = {
            key.decode("latin-1"): value.decode("latin-1").strip()
            for key, value in req.scope["headers"]
        }
        try:
            heard = await self._hooks.push(ObjectKey(namespace, name), headers, body)
        except Malformed as error:
            raise Refusal(400, "NotAPush", str(error)) from error
        send(resp, {"result": heard.value}, 202 if heard is Heard.QUEUED else 200)
