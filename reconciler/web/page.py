"""One page that shows what is deployed, what devices report, and what ran."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from html import escape
from http import HTTPStatus
from itertools import islice
from typing import TypeAlias
from urllib.parse import urlencode

from falcon.asgi import Request, Response

from reconciler.core.access import Act, Right
from reconciler.core.conditions import rfc3339
from reconciler.core.objects import Json, JsonObject, mapping, sequence, text
from reconciler.ports.operations import Operations
from reconciler.web import signin
from reconciler.web.guard import Guard, cookie_of, require_names
from reconciler.web.problems import Refusal

# Rows of a table; more than that is a question for the API.
MOST_ROWS = 200
RUNS_SHOWN = 50
# What a device says of its time may be anything; from here on no calendar has it.
YEAR_10000_MS = 253_402_300_800_000
# Long enough to read a line, short enough to see a rule work.
REFRESH_SECONDS = 5
STYLE = (
    "body{font:14px/1.4 system-ui,sans-serif;margin:2rem;max-width:80rem}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.2rem .6rem;border-bottom:1px solid #ccc;"
    "vertical-align:top;overflow-wrap:anywhere}th{overflow-wrap:normal}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8cf}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
POLICY_SIGNED_IN = POLICY.replace("form-action 'none'", "form-action 'self'")
SIGN_OUT = "<form method=post action=/signout><button>Sign out</button></form>"
# What stands on the page, in the order of its tables.
SECTIONS = (Act.LIST_REPOSITORIES, Act.LIST_SCRIPTS, Act.LIST_DEVICES, Act.LIST_RUNS)

LISTS = ("scripts", "repositories", "devices", "runs")

Row: TypeAlias = Sequence[str]


class Page:
    """Plain HTML: no script, nothing fetched from elsewhere, every text escaped.

    Of all namespaces, or of `?namespace=`; only the tables that whoever asks may list. Who is not
    known yet is asked for a token.
    """

    def __init__(self, operations: Operations, guard: Guard) -> None:
        self._operations = operations
        self._guard = guard

    async def on_get(self, req: Request, resp: Response) -> None:
        namespace = req.get_param("namespace") or ""
        require_names(namespace)
        try:
            caller = await self._guard.identify(req, linked=True)
        except Refusal as refusal:
            message = signin.WELCOME if refusal.reason == "TokenMissing" else refusal.message
            signin.show(resp, HTTPStatus(refusal.status), message)
            resp.set_headers(refusal.headers)
            return
        shown = {act for act in SECTIONS if await self._guard.allows(caller, Right(act, namespace))}
        if not shown:
            right = Right(Act.LIST_SCRIPTS, namespace)
            hint = "" if namespace else "; name one: /?namespace=<namespace>"
            signin.show(resp, HTTPStatus.FORBIDDEN, f"{caller.name} may not {right}{hint}")
            return
        is_signed_in = bool(cookie_of(req))
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Content-Security-Policy", POLICY_SIGNED_IN if is_signed_in else POLICY)
        resp.text = render(
            self._operations, shown, namespace or None, more=SIGN_OUT if is_signed_in else ""
        )


def render(
    operations: Operations, shown: Collection[Act], namespace: str | None, *, more: str = ""
) -> str:
    reasons = operations.not_ready()
    state = f"Not ready: {'; '.join(reasons)}" if reasons else "Ready"
    return "".join(
        (
            "<!doctype html><html lang=en><head><meta charset=utf-8>",
            f'<meta http-equiv=refresh content="{REFRESH_SECONDS}">',
            f"<title>scriptops</title><style>{STYLE}</style></head><body>",
            f"<h1>scriptops</h1><p>{escape(state)}</p>",
            *(_section(operations, act, namespace) for act in SECTIONS if act in shown),
            _links(namespace),
            more,
            "</body></html>",
        )
    )


def _links(namespace: str | None) -> str:
    query = "" if namespace is None else "?" + urlencode({"namespace": namespace})
    lists = (f'<a href="/api/v1alpha1/{it}{escape(query)}">{it}</a>' for it in LISTS)
    return f'<p>{", ".join(lists)}, <a href="/metrics">metrics</a></p>'


def _section(operations: Operations, act: Act, namespace: str | None) -> str:
    match act:
        case Act.LIST_REPOSITORIES:
            repositories = operations.repositories(namespace)
            return _table(
                f"Repositories ({len(repositories)})",
                ("Repository", "Ready", "Revision", "Problems", "Message"),
                map(_repository, repositories),
            )
        case Act.LIST_SCRIPTS:
            scripts = operations.scripts(namespace)
            return _table(
                f"Scripts ({len(scripts)})",
                ("Script", "Ready", "Artifact", "Last run", "Runs", "Failures", "Message"),
                map(_script, scripts),
            )
        case Act.LIST_DEVICES:
            devices = operations.devices(namespace)
            return _table(
                f"Devices ({len(devices)})",
                ("Device", "Property", "Reported", "Desired", "Since"),
                (row for device in devices for row in _device(device)),
            )
        case _:
            return _table(
                "Last runs",
                ("Finished", "Script", "Cause", "Outcome", "Changed", "Refused", "Message"),
                map(_run, operations.runs(namespace=namespace, limit=RUNS_SHOWN)),
            )


def _table(title: str, heads: Row, rows: Iterable[Row]) -> str:
    found = iter(rows)
    lines = "".join(_line("td", row) for row in islice(found, MOST_ROWS))
    more = "<p>and more: see the links below</p>" if next(found, None) is not None else ""
    if not lines:
        return f"<h2>{escape(title)}</h2><p>none</p>"
    return f"<h2>{escape(title)}</h2><table>{_line('th', heads)}{lines}</table>{more}"


def _line(cell: str, row: Row) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(it)}</{cell}>" for it in row) + "</tr>"


def _ready(status: JsonObject) -> JsonObject:
    found = map(mapping, sequence(status.get("conditions")))
    return next((condition for condition in found if condition.get("type") == "Ready"), {})


def _repository(repository: JsonObject) -> Row:
    status = mapping(repository.get("status"))
    ready = _ready(status)
    is_ready = ready.get("status") == "True"
    return (
        _name(repository.get("metadata")),
        "yes" if is_ready else text(ready.get("reason")) or "not yet",
        text(status.get("revision")),
        _shown(status.get("problemCount", 0)),
        "" if is_ready else text(ready.get("message")),
    )


def _script(script: JsonObject) -> Row:
    status = mapping(script.get("status"))
    last = mapping(status.get("lastRun"))
    ready = _ready(status)
    manifest = mapping(mapping(script.get("spec")).get("manifest"))
    is_ready = ready.get("status") == "True"
    return (
        _name(script.get("metadata")),
        "yes" if is_ready else text(ready.get("reason")) or "not yet",
        f"{_shown(manifest.get('name'))} {_shown(manifest.get('version'))}",
        f"{text(last.get('outcome'))} {text(last.get('finishedAt'))}".strip(),
        _shown(status.get("runs", 0)),
        _shown(status.get("failures", 0)),
        text(status.get("message")) or ("" if is_ready else text(ready.get("message"))),
    )


def _device(device: JsonObject) -> Iterator[Row]:
    for prop in map(mapping, sequence(device.get("properties"))):
        yield (
            _name(device.get("metadata")),
            _shown(prop.get("name")),
            _shown(prop.get("reported")),
            _shown(prop.get("desired")),
            _time(prop.get("timestamp")),
        )


def _run(run: JsonObject) -> Row:
    return (
        text(run.get("finishedAt")),
        _name(run.get("script")),
        text(run.get("cause")),
        text(run.get("outcome")),
        ", ".join(map(_shown, sequence(run.get("changed")))),
        ", ".join(map(_shown, sequence(run.get("refused")))),
        text(run.get("message")),
    )


def _name(value: Json | object) -> str:
    it = mapping(value)
    return f"{text(it.get('namespace'))}/{text(it.get('name'))}"


def _shown(value: Json | object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _time(value: Json | object) -> str:
    """Milliseconds, as twins carry them, for people; anything else as it is."""
    if isinstance(value, int) and 0 <= value < YEAR_10000_MS:
        return rfc3339(value / 1000)
    return _shown(value)
