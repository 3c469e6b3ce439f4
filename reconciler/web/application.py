"""Which path leads to what."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TypeAlias

import falcon
import falcon.asgi
from falcon.asgi import Request, Response
from prometheus_client import CollectorRegistry

from reconciler.errors import ScriptOpsError
from reconciler.ports.commands import Commands
from reconciler.ports.hooks import Hooks
from reconciler.ports.operations import Operations
from reconciler.ports.registry import Registry
from reconciler.web import api, artifacts, hooks, page, rollouts
from reconciler.web import commands as person
from reconciler.web.gate import BODY_BYTES, BODY_SECONDS, Asgi, Gate
from reconciler.web.problems import CONTENT_TYPE, Refusal, reason_of, refusal_of

log = logging.getLogger(__name__)

Params: TypeAlias = dict[str, object]

API = "/api/v1alpha1"
# The path of the first design; only the webhook ever stood there.
OLD_WEBHOOK = "/api/v1alpha/webhook"


def app(
    operations: Operations,
    registry: Registry,
    *,
    push_hooks: Hooks,
    commands: Commands,
    metrics: CollectorRegistry,
    insecure: bool = False,
    dev: bool = False,
    hosts: Collection[str] = (),
    body_bytes: int = BODY_BYTES,
    body_seconds: float = BODY_SECONDS,
) -> Asgi:
    """The ASGI application.

    Every error is answered as a problem, and none says what went wrong inside. `insecure` opens
    the webhook and debug to every peer. `hosts` are more names by which peers on this machine may
    call it. `dev` lets artifacts change behind their name, so that caches must ask again.
    """
    inner = falcon.asgi.App()
    inner.req_options.strip_url_path_trailing_slash = True
    inner.add_error_handler(Exception, _on_bug)
    inner.add_error_handler(falcon.HTTPError, _on_http_error)
    inner.add_error_handler(ScriptOpsError, _on_error)
    inner.add_error_handler(Refusal, _on_refusal)

    webhook = api.Webhook(operations, insecure=insecure)
    recording = api.Recording(operations, insecure=insecure)
    for path, resource in {
        "/": page.Page(operations),
        "/healthz": api.Health(),
        "/readyz": api.Readiness(operations),
        "/metrics": api.MetricsResource(metrics),
        "/registry/{namespace}/{repository}": artifacts.ListingResource(registry),
        "/registry/{namespace}/{repository}/{name}/{file}": artifacts.ArtifactResource(
            registry, dev=dev
        ),
        f"{API}/webhook": webhook,
        OLD_WEBHOOK: webhook,
        f"{API}/version": api.Version(),
        f"{API}/scripts": api.Listing(operations.scripts),
        f"{API}/scripts/{{namespace}}/{{name}}/trigger": api.Trigger(operations, insecure=insecure),
        f"{API}/scripts/{{namespace}}/{{name}}/rollout": rollouts.RolloutRequest(
            operations, insecure=insecure
        ),
        f"{API}/repositories": api.Listing(operations.repositories),
        f"{API}/repositories/{{namespace}}/{{name}}/push": hooks.PushWebhook(push_hooks),
        f"{API}/devices": api.Listing(operations.devices),
        f"{API}/runs": api.Runs(operations),
        f"{API}/runs/{{run_id}}": api.Run(operations),
        f"{API}/runs/{{run_id}}/recording": recording,
        f"{API}/recordings": api.Recordings(operations, insecure=insecure),
        f"{API}/debug": api.Debug(operations, insecure=insecure),
    }.items():
        inner.add_route(path, resource)
    inner.add_route(f"{API}/runs/{{run_id}}/artifact", recording, suffix="artifact")
    for kind, plural, verbs in (
        (
            *("ScriptRepository", "repositories"),
            ("reconcile", "suspend", "resume", "approve", "rollback", "unroll"),
        ),
        ("Script", "scripts", ("suspend", "resume")),
    ):
        command = person.Command(commands, kind)
        for verb in verbs:
            inner.add_route(f"{API}/{plural}/{{namespace}}/{{name}}/{verb}", command, suffix=verb)
    return Gate(
        inner, insecure=insecure, hosts=hosts, body_bytes=body_bytes, body_seconds=body_seconds
    )


def _refuse(resp: Response, refusal: Refusal) -> None:
    resp.status = refusal.status
    resp.content_type = CONTENT_TYPE
    resp.set_headers(refusal.headers)
    resp.data = refusal.body()


async def _on_refusal(_req: Request, resp: Response, refusal: Refusal, _params: Params) -> None:
    _refuse(resp, refusal)


async def _on_error(_req: Request, resp: Response, error: ScriptOpsError, _params: Params) -> None:
    _refuse(resp, refusal_of(error))


async def _on_http_error(
    req: Request, resp: Response, error: falcon.HTTPError, _params: Params
) -> None:
    message = error.description or f"{req.method} {req.path} is answered with {error.status}"
    refusal = Refusal(
        error.status_code, reason_of(error.status_code), message, dict(error.headers or {})
    )
    _refuse(resp, refusal)


async def _on_bug(req: Request, resp: Response, error: Exception, _params: Params) -> None:
    log.error("request failed", exc_info=error, extra={"method": req.method, "path": req.path})
    _refuse(resp, Refusal(500, "InternalError", "this is a bug in scriptops; its log says more"))
