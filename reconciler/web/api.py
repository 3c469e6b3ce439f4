"""What `Operations` knows and does, as JSON."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Final, TypeAlias

import orjson
from falcon.asgi import Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from reconciler.core.access import Act, Right
from reconciler.core.objects import JsonObject, ObjectKey, mapping, text
from reconciler.core.runs import Cause, RunId
from reconciler.ports.operations import Operations
from reconciler.web.gate import header
from reconciler.web.guard import Guard
from reconciler.web.problems import Refusal

List: TypeAlias = Callable[[str | None], Sequence[JsonObject]]

MOST_RUNS = 1000
# Proxies give up on an answer after a minute.
LONGEST_WAIT = 55.0
# As Stripe has it, whose clients most others copy.
LONGEST_KEY = 255


def send(resp: Response, document: JsonObject, status: int = 200) -> None:
    resp.status = status
    resp.content_type = "application/json"
    resp.data = orjson.dumps(document, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


class Health:
    """Alive: the event loop turns."""

    async def on_get(self, _req: Request, resp: Response) -> None:
        send(resp, {"alive": True})

    on_head = on_get


class Readiness:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def on_get(self, _req: Request, resp: Response) -> None:
        reasons = tuple(self._operations.not_ready())
        send(resp, {"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    on_head = on_get


class MetricsResource:
    def __init__(self, metrics: CollectorRegistry) -> None:
        self._metrics = metrics

    async def on_get(self, req: Request, resp: Response) -> None:
        encode, resp.content_type = choose_encoder(req.get_header("Accept") or "")
        resp.data = encode(self._metrics)


class Version:
    """What answers, with the libraries in it that meet what comes from elsewhere."""

    def __init__(self, libraries: Mapping[str, str] | None) -> None:
        self._answer: JsonObject = {
            "version": version("scriptops"),
            "python": platform.python_version(),
            "libraries": dict(libraries or {}),
        }

    async def on_get(self, _req: Request, resp: Response) -> None:
        send(resp, self._answer)


class Listing:
    """Objects of one kind, all or those of `?namespace=`."""

    def __init__(self, items: List, guard: Guard, act: Act) -> None:
        self._items = items
        self._guard = guard
        self._act = act

    async def on_get(self, req: Request, resp: Response) -> None:
        namespace = req.get_param("namespace")
        await self._guard.admit(req, self._act, namespace or "")
        send(resp, {"items": tuple(self._items(namespace))})


class Executors:
    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._guard.admit(req, Act.LIST_EXECUTORS)
        send(resp, {"items": tuple(self._operations.executors())})


class Runs:
    """`?namespace=`, `?script=`, `?limit=`; newest first."""

    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._guard.admit(req, Act.LIST_RUNS, req.get_param("namespace") or "")
        limit = req.get_param_as_int("limit", min_value=1, max_value=MOST_RUNS, default=100)
        found = self._operations.runs(
            namespace=req.get_param("namespace"), script=req.get_param("script"), limit=limit
        )
        send(resp, {"items": tuple(found)})


class Run:
    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_get(self, req: Request, resp: Response, run_id: str) -> None:
        await self._guard.identify(req)
        run = self._operations.run(RunId(run_id))
        if run is None:
            raise Refusal(
                404, "NotFound", f"run {run_id} is not known, not finished, or no longer kept"
            )
        await self._guard.admit(req, Act.GET_RUN, *script_of(run))
        send(resp, run)


class Recordings:
    """`?namespace=`, `?script=`, `?limit=`; newest first. They hold events and environments."""

    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._guard.admit(req, Act.LIST_RECORDINGS, req.get_param("namespace") or "")
        limit = req.get_param_as_int("limit", min_value=1, max_value=MOST_RUNS, default=100)
        found = await self._operations.recordings(
            namespace=req.get_param("namespace"), script=req.get_param("script"), limit=limit
        )
        send(resp, {"items": tuple(found)})


class Recording:
    """All that a replay of one run needs; its script at `/artifact`."""

    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_get(self, req: Request, resp: Response, run_id: str) -> None:
        send(resp, await self._found(req, run_id))

    async def on_get_artifact(self, req: Request, resp: Response, run_id: str) -> None:
        digest = str((await self._found(req, run_id)).get("digest"))
        content = await self._operations.recorded_artifact(digest)
        if content is None:
            raise Refusal(404, "ArtifactNotFound", f"the bytes of {digest} are not kept any more")
        resp.content_type = "application/octet-stream"
        resp.etag = digest
        resp.data = content

    async def _found(self, req: Request, run_id: str) -> JsonObject:
        await self._guard.identify(req)
        recording = await self._operations.recording(RunId(run_id))
        if recording is None:
            raise Refusal(404, "NotFound", f"run {run_id} is not recorded, or no longer kept")
        await self._guard.admit(req, Act.GET_RECORDING, *script_of(recording))
        return recording


class Explain:
    """Why the Script in the path did or did not run."""

    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_get(self, req: Request, resp: Response, namespace: str, name: str) -> None:
        await self._guard.admit(req, Act.EXPLAIN, namespace, name)
        send(resp, self._operations.explain(ObjectKey(namespace, name)))


class Debug:
    """The inside."""

    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._guard.admit(req, Act.DEBUG)
        send(resp, self._operations.debug())


# Of a run: a token that may only trigger it tells how it ended, and not what it saw and did.
SHOWN_TO_READERS: Final = ("logs", "changed", "unchanged", "refused", "outranked")


class Webhook:
    """Queues one run of `?namespace=&name=`.

    A POST's JSON becomes the event as it stands; with `?wait=<seconds>` the run is answered once it
    has finished (200, whatever its outcome), without what it printed and wrote for who may not see
    runs; or its id when it has not in so long, or too many wait (202). A GET's
    other parameters become `{"query": {...}}`, a repeated one as a list.
    """

    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_get(self, req: Request, resp: Response) -> None:
        query = {k: v for k, v in req.params.items() if k not in {"namespace", "name"}}
        await self._trigger(req, resp, orjson.dumps({"query": query}))

    async def on_post(self, req: Request, resp: Response) -> None:
        body = await req.stream.read()
        if body:
            require_json(header(req.scope, b"content-type"), body)
        await self._trigger(req, resp, body, wait=_patience(req))

    async def _trigger(
        self, req: Request, resp: Response, event: bytes, *, wait: float = 0.0
    ) -> None:
        script = ObjectKey(req.get_param("namespace") or "default", req.get_param("name") or "")
        caller = await self._guard.admit(req, Act.TRIGGER, *script)
        if not script.name:
            raise Refusal(
                400, "NameMissing", "say which Script: ?namespace=<namespace>&name=<name>"
            )
        key = _key(req)
        run_id = await self._operations.trigger(script, cause=Cause.WEBHOOK, event=event, key=key)
        req.context.told = {"run": run_id}
        ended = await self._operations.outcome(run_id, seconds=wait) if wait else None
        if ended is None:
            send(resp, {"runId": run_id}, 202)
        elif await self._guard.allows(caller, Right(Act.GET_RUN, *script)):
            send(resp, ended)
        else:
            send(resp, {**ended, **{name: [] for name in SHOWN_TO_READERS if name in ended}})


class Trigger:
    """Queues one run of the Script in the path, whatever its policy; a POST's JSON is the event."""

    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_post(self, req: Request, resp: Response, namespace: str, name: str) -> None:
        await self._guard.admit(req, Act.TRIGGER, namespace, name)
        body = await req.stream.read()
        if body:
            require_json(header(req.scope, b"content-type"), body)
        run_id = await self._operations.trigger(
            ObjectKey(namespace, name), cause=Cause.MANUAL, event=body, key=_key(req)
        )
        req.context.told = {"run": run_id}
        send(resp, {"runId": run_id}, 202)


def script_of(run: JsonObject) -> ObjectKey:
    script = mapping(run.get("script"))
    return ObjectKey(text(script.get("namespace")), text(script.get("name")))


def _key(req: Request) -> str:
    """What names the request for whoever sends it again: the same key means the same run."""
    key = header(req.scope, b"idempotency-key")
    if len(key) > LONGEST_KEY:
        raise Refusal(400, "KeyTooLong", f"an Idempotency-Key has at most {LONGEST_KEY} characters")
    return key


def _patience(req: Request) -> float:
    given = req.get_param("wait")
    try:
        seconds = 0.0 if given is None else float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise Refusal(400, "WaitInvalid", f"wait is a number of seconds, at most {LONGEST_WAIT:g}")
    return seconds


def require_json(content_type: str, body: bytes) -> None:
    media = content_type.partition(";")[0].strip().lower()
    # A form is what pages of other sites can send without asking; JSON is not.
    if media != "application/json" and not media.endswith("+json"):
        raise Refusal(
            415,
            "NotJson",
            "the body must be JSON; send it with the header Content-Type: application/json",
        )
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "NotJson", f"the body is not JSON: {error}") from error
