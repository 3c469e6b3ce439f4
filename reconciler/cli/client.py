"""A controller's HTTP API, as `get` and `trigger` need it."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Final

import orjson

from reconciler.core import addresses
from reconciler.core.objects import Json, JsonObject, ObjectKey, mapping, sequence, text
from reconciler.errors import (
    ClusterUnavailable,
    ObjectNotFound,
    ScriptOpsError,
    SourceInvalid,
    Stalled,
)

_TIMEOUT_SECONDS: Final = 10.0
# 10,000 scripts with their statuses are about 20 MB; more than this is not a controller speaking.
_MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
API: Final = "/api/v1alpha1"


class Client:
    """Speaks to one controller. Blocking; every call ends within seconds.

    Raises `ClusterUnavailable` when nothing that speaks its API answers, `Stalled` and
    `ObjectNotFound` with the controller's own words.
    """

    def __init__(self, controller: str, *, token: str = "") -> None:
        parts = urllib.parse.urlsplit(controller)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SourceInvalid(
                f"{controller!r} is not the address of a controller; write it as "
                "http://127.0.0.1:8000"
            )
        is_here = parts.hostname == "localhost" or addresses.is_loopback(parts.hostname)
        if token and parts.scheme != "https" and not is_here:
            raise SourceInvalid(
                f"a token would be sent to {parts.hostname} for everybody to read; write https://"
            )
        self._token = token
        self._base = controller.rstrip("/")
        # A proxy of the environment is for the world outside, not for a controller on loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def items(
        self, kind: str, *, namespace: str | None, query: Mapping[str, str] | None = None
    ) -> tuple[JsonObject, ...]:
        """The objects of `kind`, in all namespaces where `namespace` is None."""
        selected = {**(query or {}), **({} if namespace is None else {"namespace": namespace})}
        answer = self._call("GET", f"/{kind}", query=selected)
        return tuple(map(mapping, sequence(answer.get("items"))))

    def find(self, kind: str, key: ObjectKey) -> JsonObject:
        """One object. Raises `ObjectNotFound`."""
        for item in self.items(kind, namespace=key.namespace):
            if mapping(item.get("metadata")).get("name") == key.name:
                return item
        raise ObjectNotFound(f"there is nothing named {key} among the {kind}")

    def run(self, run_id: str) -> JsonObject | None:
        """A finished run; None while it is not finished."""
        try:
            return self._call("GET", f"/runs/{urllib.parse.quote(run_id, safe='')}")
        except ObjectNotFound:
            return None

    def recording(self, run_id: str) -> JsonObject:
        """A run with its inputs. Raises `ObjectNotFound` for one that is not recorded."""
        return self._call("GET", f"/runs/{urllib.parse.quote(run_id, safe='')}/recording")

    def recorded_artifact(self, run_id: str) -> bytes:
        """The bytes that a recorded run ran. Raises `ObjectNotFound`."""
        return self._content("GET", f"/runs/{urllib.parse.quote(run_id, safe='')}/artifact")

    def trigger(self, script: ObjectKey, event: bytes) -> str:
        """Queue a run; its id."""
        path = "/".join(urllib.parse.quote(part, safe="") for part in script)
        return text(self._call("POST", f"/scripts/{path}/trigger", body=event).get("runId"))

    def explain(self, script: ObjectKey) -> JsonObject:
        """Why it did or did not run. Raises `ObjectNotFound`."""
        path = "/".join(urllib.parse.quote(part, safe="") for part in script)
        return self._call("GET", f"/scripts/{path}/explain")

    def roll_out(self, script: ObjectKey, action: str, revision: int | None = None) -> None:
        """Ask for something of a rollout. Raises `Stalled` with why it cannot be had."""
        path = "/".join(urllib.parse.quote(part, safe="") for part in script)
        wish = {"action": action} if revision is None else {"action": action, "revision": revision}
        self._call("POST", f"/scripts/{path}/rollout", body=orjson.dumps(wish))

    def command(
        self, kind: str, key: ObjectKey, verb: str, body: JsonObject | None = None
    ) -> JsonObject:
        """One POST for an object of `kind`; what the controller says of it."""
        path = "/".join(urllib.parse.quote(part, safe="") for part in key)
        content = orjson.dumps(body) if body is not None else b""
        return self._call("POST", f"/{kind}/{path}/{verb}", body=content)

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> JsonObject:
        return mapping(_json(self._content(method, path, query=query, body=body), self._base))

    def _content(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        url = f"{self._base}{API}{path}"
        if query:
            url = f"{url}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(  # noqa: S310 - the scheme was judged above
            url, data=body, method=method, headers={"Accept": "application/json"}
        )
        if body is not None:
            request.add_header("Content-Type", "application/json")
        if self._token:
            # Not handed on to wherever an answer may lead.
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
                return bytes(response.read(_MAX_ANSWER_BYTES + 1))
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, error.read(_MAX_ANSWER_BYTES), url) from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise ClusterUnavailable(
                f"no controller answers at {self._base} ({why}); start one with scriptops demo, "
                "up or controller, or name another with --controller"
            ) from None


def _refusal(status: int, content: bytes, url: str) -> ScriptOpsError:
    try:
        problem = mapping(orjson.loads(content))
    except orjson.JSONDecodeError:
        problem = {}
    message = text(problem.get("message"))
    if not message:
        return ClusterUnavailable(
            f"{url} answered {status} and is no controller of this version; check --controller"
        )
    if status == 404:
        return ObjectNotFound(message)
    reason = text(problem.get("reason")) or "Refused"
    if reason == "TokenMissing":
        message = "the controller asks who you are; give --token, or set $SCRIPTOPS_TOKEN"
    return Stalled(message, reason=reason)


def _json(content: bytes, base: str) -> Json:
    try:
        document: Json = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ClusterUnavailable(
            f"{base} did not answer with JSON and is no controller; check --controller"
        ) from None
    return document
