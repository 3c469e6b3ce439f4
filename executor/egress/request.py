"""What a script asked to be fetched, read with distrust."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from yarl import URL

from executor.egress.places import DEFAULT_PORTS

if TYPE_CHECKING:
    from collections.abc import Mapping

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

REDIRECTS: Final = frozenset({"follow", "error", "manual"})

URL_CHARACTERS: Final = 8_192
"""What common servers take as the first line of a request."""

HEADERS: Final = 64
HEADER_BYTES: Final = 16_384
"""Names and values together, as common servers take them."""

BODY_BYTES: Final = 65_536
"""A body of a request; what rules send is a reading or an event."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
# Horizontal tab and what Latin-1 can print: no line can be ended, and nothing is encoded twice.
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What belongs to the connection, or says who asks. Ours, or nobody's.
_OURS: Final = frozenset(
    {
        "accept-encoding", "connection", "content-length", "cookie", "cookie2", "expect",
        "forwarded", "host", "http2-settings", "keep-alive", "te", "trailer", "transfer-encoding",
        "true-client-ip", "upgrade", "user-agent", "via", "x-real-ip",
    }
)  # fmt: skip
# The last ones are taken by some servers for another path than the one that was judged.
_OURS_BEGIN: Final = (
    *("proxy-", "sec-", "scriptops-", "x-forwarded-", "x-http-method", "x-method-"),
    *("x-original-", "x-rewrite-"),
)


class RequestRefused(ValueError):
    """The request is not one that is sent; the message is for the script's author."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it may be sent, if its place is allowed."""

    method: str
    url: URL
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    redirect: str

    @classmethod
    def read(cls, op: Mapping[str, object]) -> Request:
        """A request out of a `fetch` op.

        Raises:
            RequestRefused: it asks for what is not sent.
        """
        if op.get("op") != "fetch":
            raise RequestRefused("there is no such op")
        method = op.get("method", "GET")
        if not isinstance(method, str) or method not in METHODS:
            raise RequestRefused(f"the method must be one of {', '.join(sorted(METHODS))}")
        redirect = op.get("redirect", "follow")
        if redirect not in REDIRECTS or not isinstance(redirect, str):
            raise RequestRefused("redirect must be follow, error or manual")
        body = _body(op.get("body"))
        if body is not None and method in {"GET", "HEAD"}:
            raise RequestRefused(f"a {method} request has no body")
        return cls(
            method=method,
            url=url_of(op.get("url")),
            headers=_headers(op.get("headers", [])),
            body=body,
            redirect=redirect,
        )


def url_of(text: object) -> URL:
    """An http or https URL without credentials and without a fragment.

    Raises:
        RequestRefused: it is none.
    """
    if not isinstance(text, str) or len(text) > URL_CHARACTERS:
        raise RequestRefused(f"a URL is a string of at most {URL_CHARACTERS} characters")
    try:
        # yarl drops line ends and tabs, as browsers do; here nobody writes them by accident.
        url = URL(text if text.isprintable() else "http://[").with_fragment(None)
    except ValueError as error:
        raise RequestRefused("the URL cannot be read") from error
    if url.scheme not in DEFAULT_PORTS or not url.raw_host or not url.port:
        raise RequestRefused("the URL must be http:// or https:// with a host")
    if url.user is not None or url.password is not None:
        raise RequestRefused("the URL holds credentials; send them in a header")
    return url


def _body(encoded: object) -> bytes | None:
    if encoded is None:
        return None
    try:
        body = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else None
    except (binascii.Error, ValueError):
        body = None
    if body is None:
        raise RequestRefused("the body is not base64")
    if len(body) > BODY_BYTES:
        raise RequestRefused(f"the body has {len(body)} bytes; at most {BODY_BYTES} are sent")
    return body


def _headers(pairs: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(pairs, list) or len(pairs) > HEADERS:
        raise RequestRefused(f"headers are a list of at most {HEADERS} pairs")
    headers = tuple(_header(pair) for pair in pairs)
    if sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        raise RequestRefused(f"headers have at most {HEADER_BYTES} bytes in all")
    return headers


def _header(pair: object) -> tuple[str, str]:
    match pair:
        case [str(name), str(value)] if _TOKEN.fullmatch(name):
            pass
        case _:
            raise RequestRefused("a header is a name of letters, digits and - with a string value")
    if not _VALUE.fullmatch(value):
        raise RequestRefused(f"header {name} has a line end or another character that is not sent")
    # CGI and its heirs read an underscore and a hyphen alike.
    plain = name.lower().replace("_", "-")
    if plain in _OURS or plain.startswith(_OURS_BEGIN):
        raise RequestRefused(f"header {name} is not a script's to set")
    return name, value
