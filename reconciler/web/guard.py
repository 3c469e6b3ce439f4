"""Who asks, and whether they may: in front of everything that shows or changes something."""

from __future__ import annotations

import logging
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, Protocol

from falcon.asgi import Request, Response

from reconciler.core.access import Act, Caller, Right
from reconciler.core.objects import ObjectKey
from reconciler.ports.access import Access
from reconciler.web.gate import header, is_local, refuse_cross_site
from reconciler.web.problems import Refusal

# Read by those who keep it for good: one line for every wish, and for every one refused.
audit = logging.getLogger("scriptops.audit")

COOKIE: Final = "scriptops-token"
# Whoever asks without a token, and may.
LOCAL: Final = Caller("local")
ANYBODY: Final = Caller("anybody")
_CHALLENGE: Final = 'Bearer realm="scriptops"'
# Nothing in a cluster has a longer name. Answers about rights are kept, and each wish is written
# down: kilobytes of name, in thousands of requests, would fill memory and log.
LONGEST_NAME: Final = 253


class FrontDesk(Access, Protocol):
    """`Access` that shares itself out fairly between addresses."""

    async def identify(self, token: str, *, peer: str = "") -> Caller | None: ...


class Guard:
    """Judges by the token of a request; where it has none, by where it comes from.

    `local_users` says that peers on this machine may do everything without one, which is for doors
    that other machines do not reach. `insecure` lets anybody read, inspect and trigger.
    A token that is sent counts, and nothing else: a bad one is refused everywhere.
    """

    def __init__(self, access: FrontDesk, *, local_users: bool, insecure: bool) -> None:
        self._access = access
        self._local_users = local_users
        self._insecure = insecure

    async def admit(self, req: Request, act: Act, namespace: str = "", name: str = "") -> Caller:
        """Who asks. Raises `Refusal` 400, 401 or 403, and `Transient` when nobody can say."""
        require_names(namespace, name)
        right = Right(act, namespace, name)
        req.context.right = right
        caller = req.context.caller = await self.identify(req, reading=act.is_reading)
        if not await self.allows(caller, right):
            raise Refusal(
                403,
                "Forbidden",
                f"{caller.name} may not {right}",
                {"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope"'},
            )
        return caller

    async def identify(self, req: Request, *, reading: bool = True, linked: bool = False) -> Caller:
        """Who asks, whatever they may. A cookie counts for what is only read.

        `linked` is for what pages of other sites may link to.
        """
        if not linked:
            refuse_cross_site(req.scope)
        token = bearer_of(req)
        if not token and self._local_users and is_local(req.scope):
            # Whatever a cookie says: that of another controller on this machine comes here too.
            return LOCAL
        token = token or (cookie_of(req) if reading else "")
        if token:
            return await self.known(req, token)
        if self._insecure:
            return ANYBODY
        raise Refusal(
            401,
            "TokenMissing",
            "send a token: Authorization: Bearer <token>",
            {"WWW-Authenticate": _CHALLENGE},
        )

    async def known(self, req: Request, token: str) -> Caller:
        """Whose token it is. Raises `Refusal` 401, and `Transient` when nobody can say."""
        client = req.scope.get("client")
        caller = await self._access.identify(token, peer=client[0] if client else "")
        if caller is None:
            raise Refusal(
                401,
                "TokenRefused",
                "the token is not known, not for this controller, expired or revoked",
                {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
            )
        return caller

    async def allows(self, caller: Caller, right: Right) -> bool:
        if caller is LOCAL:
            return True
        if caller is ANYBODY:
            return right.act is Act.TRIGGER or right.act.is_reading
        return await self._access.allows(caller, right)


class Audit:
    """Writes down who asked for what, and what they were answered."""

    async def process_response(
        self,
        req: Request,
        resp: Response,
        _resource: object,
        _succeeded: bool,  # noqa: FBT001 - falcon's signature
    ) -> None:
        right: Right | None = getattr(req.context, "right", None)
        if right is None or (right.act.is_reading and resp.status_code < 400):
            return
        caller: Caller | None = getattr(req.context, "caller", None)
        client = req.scope.get("client")
        found: dict[str, Any] = {
            "who": caller.name if caller is not None else "",
            "uid": caller.uid if caller is not None else "",
            "what": str(right),
            "path": req.path,
            "object": str(ObjectKey(right.namespace, right.name)),
            "peer": client[0] if client else "",
            "status": resp.status_code,
            **getattr(req.context, "told", {}),
        }
        audit.info("asked", extra=found)


def require_names(*names: str) -> None:
    """Raises `Refusal` 400 for what is too long to be the name of anything."""
    if any(len(name) > LONGEST_NAME for name in names):
        raise Refusal(400, "NameInvalid", f"no name has more than {LONGEST_NAME} characters")


def bearer_of(req: Request) -> str:
    """The token of the request, or nothing. Raises `Refusal` for credentials of another kind."""
    given = header(req.scope, b"authorization")
    if not given:
        return ""
    scheme, _, token = given.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or not token.isascii():
        raise Refusal(
            401,
            "TokenMissing",
            "only this is understood: Authorization: Bearer <token>",
            {"WWW-Authenticate": _CHALLENGE},
        )
    return token


def cookie_of(req: Request) -> str:
    try:
        found = SimpleCookie(header(req.scope, b"cookie")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""
