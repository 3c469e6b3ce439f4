"""How a person's browser comes to send a token: pasted once, kept where no script can read it."""

from __future__ import annotations

from html import escape
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from falcon.asgi import Request, Response

from reconciler.core import addresses
from reconciler.web.gate import header, refuse_cross_site
from reconciler.web.guard import COOKIE, Guard
from reconciler.web.problems import Refusal

# A working day; the token itself may end sooner.
COOKIE_SECONDS = 12 * 3600
WELCOME = (
    "Sign in with a token, as kubectl create token NAME --audience scriptops or, without "
    "Kubernetes, scriptops tokens create NAME prints it."
)
POLICY = "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


class SignIn:
    """Takes a form with `token`, and answers with a cookie and the page.

    The cookie counts for what is only read. It goes over TLS only, except to this machine itself.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def on_get(self, _req: Request, resp: Response) -> None:
        show(resp, HTTPStatus.OK)

    async def on_post(self, req: Request, resp: Response) -> None:
        refuse_cross_site(req.scope)
        form = parse_qs((await req.stream.read()).decode(errors="replace"))
        token = form.get("token", [""])[0].strip()
        try:
            await self._guard.known(req, token)
        except Refusal as refusal:
            show(resp, HTTPStatus(refusal.status), refusal.message)
            return
        resp.set_cookie(
            COOKIE,
            token,
            max_age=COOKIE_SECONDS,
            path="/",
            secure=req.scope["scheme"] == "https" or not _is_this_machine(req),
            http_only=True,
            same_site="Strict",
        )
        _to_the_page(resp)


class SignOut:
    async def on_post(self, req: Request, resp: Response) -> None:
        refuse_cross_site(req.scope)
        resp.unset_cookie(COOKIE, path="/", same_site="Strict")
        _to_the_page(resp)


def show(resp: Response, status: HTTPStatus, message: str = WELCOME) -> None:
    resp.status = status
    resp.content_type = "text/html; charset=utf-8"
    resp.set_header("Content-Security-Policy", POLICY)
    resp.text = (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>scriptops</title></head>"
        f"<body><h1>scriptops</h1><p>{escape(message)}</p>"
        "<form method=post action=/signin><label>Token "
        "<input type=password name=token required autocomplete=off autofocus></label> "
        "<button>Sign in</button></form></body></html>"
    )


def _to_the_page(resp: Response) -> None:
    resp.status = HTTPStatus.SEE_OTHER
    resp.set_header("Location", "/")


def _is_this_machine(req: Request) -> bool:
    host = urlsplit(f"//{header(req.scope, b'host')}").hostname or ""
    return host == "localhost" or addresses.is_loopback(host)
