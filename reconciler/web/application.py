"""Which path leads to what."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import falcon
import falcon.asgi
from falcon.asgi import Request, Response
from prometheus_client import CollectorRegistry

from reconciler.core.access import Act
from reconciler.errors import ScriptOpsError
from reconciler.ports.commands import Commands
from reconciler.ports.hooks import Hooks
from reconciler.ports.operations import Operations
from reconciler.ports.peers import Peers
from reconciler.ports.registry import Registry
from reconciler.web import api, artifacts, hooks, openapi, page, rollouts, signin
from reconciler.web import commands as person
from reconciler.web.forwarding import Forwarding
from reconciler.web.gate import BODY_BYTES, BODY_SECONDS, Asgi, Gate
from reconciler.web.guard import Audit, FrontDesk, Guard
from reconciler.web.openapi import API, OLD_WEBHOOK
from reconciler.web.problems import CONTENT_TYPE, Refusal, reason_of, refusal_of

log = logging.getLogger(__name__)

Params: TypeAlias = dict[str, object]


def app(
    operations: Operations,
    registry: Registry,
    *,
    push_hooks: Hooks,
    commands: Commands,
    metrics: CollectorRegistry,
    access: FrontDesk,
    libraries: Mapping[str, str] | None = None,
    local_users: bool = False,
    insecure: bool = False,
    public_registry: bool = False,
    dev: bool = False,
    peers: Peers | None = None,
    elsewhere: Callable[[str], str | None] = lambda _: None,
    hosts: Collection[str] = (),
    body_bytes: int = BODY_BYTES,
    body_seconds: float = BODY_SECONDS,
) -> Asgi:
    """The ASGI application.

    Every error is answered as a problem, and none says what went wrong inside. Who may ask what
    `access` says; `local_users` and `insecure` are explained at `Guard`. `public_registry` serves
    artifacts to everybody. `libraries` are named with the version. `hosts` are more names by which
    peers on this machine may call it. `dev` lets artifacts change behind their name, so that caches
    must ask again. With `peers`, requests for namespaces that are led `elsewhere` are handed on.
    """
    inner = falcon.asgi.App(middleware=[Audit()])
    inner.req_options.strip_url_path_trailing_slash = True
    inner.add_error_handler(Exception, _on_bug)
    inner.add_error_handler(falcon.HTTPError, _on_http_error)
    inner.add_error_handler(ScriptOpsError, _on_error)
    inner.add_error_handler(Refusal, _on_refusal)

    guard = Guard(access, local_users=local_users, insecure=insecure)
    webhook = api.Webhook(operations, guard)
    recording = api.Recording(operations, guard)
    registry_guard = None if public_registry else guard
    for path, resource in {
        "/": page.Page(operations, guard),
        "/signin": signin.SignIn(guard),
        "/signout": signin.SignOut(),
        "/healthz": api.Health(),
        "/readyz": api.Readiness(operations),
        "/metrics": api.MetricsResource(metrics),
        "/registry/{namespace}/{repository}": artifacts.ListingResource(registry, registry_guard),
        "/registry/{namespace}/{repository}/{name}/{file}": artifacts.ArtifactResource(
            registry, registry_guard, dev=dev
        ),
        f"{API}/webhook": webhook,
        OLD_WEBHOOK: webhook,
        f"{API}/openapi.json": openapi.OpenApi(),
        f"{API}/version": api.Version(libraries),
        f"{API}/scripts": api.Listing(operations.scripts, guard, Act.LIST_SCRIPTS),
        f"{API}/scripts/{{namespace}}/{{name}}/trigger": api.Trigger(operations, guard),
        f"{API}/scripts/{{namespace}}/{{name}}/explain": api.Explain(operations, guard),
        f"{API}/scripts/{{namespace}}/{{name}}/rollout": rollouts.RolloutRequest(operations, guard),
        f"{API}/repositories": api.Listing(operations.repositories, guard, Act.LIST_REPOSITORIES),
        f"{API}/repositories/{{namespace}}/{{name}}/push": hooks.PushWebhook(push_hooks),
        f"{API}/devices": api.Listing(operations.devices, guard, Act.LIST_DEVICES),
        f"{API}/executors": api.Executors(operations, guard),
        f"{API}/runs": api.Runs(operations, guard),
        f"{API}/runs/{{run_id}}": api.Run(operations, guard),
        f"{API}/runs/{{run_id}}/recording": recording,
        f"{API}/recordings": api.Recordings(operations, guard),
        f"{API}/debug": api.Debug(operations, guard),
    }.items():
        inner.add_route(path, resource)
    inner.add_route(f"{API}/runs/{{run_id}}/artifact", recording, suffix="artifact")
    for kind, plural, act, verbs in (
        (
            *("ScriptRepository", "repositories", Act.COMMAND_REPOSITORY),
            ("reconcile", "suspend", "resume", "approve", "rollback", "unroll"),
        ),
        ("Script", "scripts", Act.COMMAND_SCRIPT, ("suspend", "resume")),
    ):
        command = person.Command(commands, guard, kind, act)
        for verb in verbs:
            inner.add_route(f"{API}/{plural}/{{namespace}}/{{name}}/{verb}", command, suffix=verb)
    behind: Asgi = inner
    if peers is not None:
        behind = Forwarding(inner, peers, elsewhere=elsewhere, local_users=local_users)
    # Where tokens are asked for, a name that was made to lead here leads a stranger's page nowhere.
    return Gate(
        behind,
        insecure=insecure or not local_users,
        hosts=hosts,
        body_bytes=body_bytes,
        body_seconds=body_seconds,
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
