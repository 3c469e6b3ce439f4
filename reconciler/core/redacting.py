"""Secrets in recordings: found wherever a script or the world may have put them, and replaced.

What is known to be secret is looked for as it is and as it is carried: escaped, in a URL, in
Base64, in hexadecimal. What calls itself secret (a password in a URL, a cookie, a member
`access_token`) is treated like one. Not promised: what is derived from a secret otherwise, a part
of it, its length or its digest, cannot be found.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

import orjson

from reconciler.core.objects import Json, JsonObject, mapping, sequence, text

# Replacing shorter values wherever they stand would rewrite half of every log.
SHORTEST_SECRET: Final = 4
# What only calls itself secret may be a word of everyday, which would be rewritten too.
SHORTEST_FOUND: Final = 6
# A piece of Base64 that is shorter may stand for other bytes as well.
SHORTEST_PIECE: Final = 6
# Hexadecimal digits of a stand-in: enough that no two secrets of a fleet share one.
STAND_IN_DIGITS: Final = 32
STAND_IN: Final = "secret-hmac-sha256-"

_STAND_IN: Final = re.compile(f"{STAND_IN}[0-9a-f]{{{STAND_IN_DIGITS}}}")
_NAMES: Final = (
    "tokens?|secrets?|pass(?:word|wd|phrase)?|pwd|auth|authorization|cookies?|api[_-]?key|"
    "(?:access|private|secret|signing|shared|account)[_-]?key(?:[_-]?id)?|credentials?|signature|"
    "sig|session(?:[_-]?id)?|sid|jwt|bearer"
)
_NAME: Final = re.compile(rf"(?:.*[_.-])?(?:{_NAMES})", re.IGNORECASE)
_PARAMETER: Final = re.compile(rf"(?:.*[_.-])?(?:{_NAMES}|key)", re.IGNORECASE)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Anywhere in what is read from the world; without it there is nothing to be found.
SUSPECT: Final = re.compile(
    rb"token|secret|pass|pwd|auth|cookie|key|credential|sig|ses|sid|jwt|bear", re.IGNORECASE
)


def stand_in(secret: str, key: bytes) -> str:
    """Equal values have equal stand-ins under one key, so that comparing them goes on to work."""
    digest = hmac.new(key, secret.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    return STAND_IN + digest[:STAND_IN_DIGITS]


class Hiding:
    """Puts stand-ins in the place of secrets."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        found = {guise: secrets[it] for it in secrets for guise in _guises(it)}
        # The longest first: one secret may be part of another.
        self._guises = sorted(found.items(), key=lambda item: len(item[0]), reverse=True)
        self._in_base64 = {piece: secrets[it] for it in secrets for piece in _pieces(it)}

    def __call__(self, value: Json) -> Json:
        """`value` with stand-ins in it, in the names of members too."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {self.text(str(k)): self(v) for k, v in value.items()}
            case list() | tuple():
                return [self(item) for item in value]
            case _:
                return value

    def text(self, value: str) -> str:
        for guise, instead in self._guises:
            value = value.replace(guise, instead)
        for piece, instead in self._in_base64.items():
            if piece in value:
                # All of what holds it, as the rest is not to be told from the secret's last bits.
                value = re.sub(rf"[\w+/-]*{re.escape(piece)}[\w+/-]*=*", instead, value)
        return value

    def encoded_body(self, body: str) -> str:
        """A body in Base64, as replies carry it, whatever its bytes are."""
        content = base64.b64decode(body).decode("utf-8", "surrogateescape")
        return base64.b64encode(self.text(content).encode("utf-8", "surrogateescape")).decode()


def _guises(secret: str) -> Iterator[str]:
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    content = secret.encode("utf-8", "surrogatepass")
    yield quote(content, safe="")
    # As encodeURIComponent and URLSearchParams have it.
    yield quote(content, safe="!'()*")
    yield quote_plus(content, safe="*")
    yield content.hex()


def _pieces(secret: str) -> Iterator[str]:
    """The characters of Base64 that hold nothing but bits of it, wherever it begins."""
    content = secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        whole = base64.b64encode(bytes(before) + content).decode()
        piece = whole[(before * 8 + 5) // 6 : (before + len(content)) * 8 // 6]
        if len(piece) >= SHORTEST_PIECE:
            yield piece
            yield piece.translate({ord("+"): "-", ord("/"): "_"})


# What calls itself secret.


def named_secrets(activation: JsonObject, state: Json) -> set[str]:
    """Values in the event, the state and the replies of a run whose names say that they are."""
    found = {*_members(activation.get("event")), *_members(activation.get("state"))}
    found.update(_members(state))
    for reply in map(mapping, sequence(activation.get("replies"))):
        found.update(_of_url(text(reply.get("request")).partition(" ")[2]))
        found.update(_of_url(text(reply.get("url"))))
        for pair in map(sequence, sequence(reply.get("headers"))):
            if len(pair) == 2:
                found.update(_of_header(text(pair[0]), text(pair[1])))
        found.update(_of_body(base64.b64decode(text(reply.get("body")))))
    return {it for it in found if len(it) >= SHORTEST_FOUND and not _STAND_IN.fullmatch(it)}


def _is_secret(name: str) -> bool:
    return _NAME.fullmatch(_HUMP.sub("_", name)) is not None


def _members(value: Json) -> Iterator[str]:
    match value:
        case Mapping():
            for name, item in value.items():
                if isinstance(item, str) and _is_secret(name):
                    yield item.removeprefix("Bearer ").removeprefix("Basic ")
                else:
                    yield from _members(item)
        case list() | tuple():
            for item in value:
                yield from _members(item)
        case _:
            pass


def _of_url(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    if parts.password:
        yield unquote(parts.password)
    yield from _of_form(parts.query)


def _of_form(form: str) -> Iterator[str]:
    for name, value in parse_qsl(form):
        if _PARAMETER.fullmatch(_HUMP.sub("_", name)):
            yield value


def _of_header(name: str, value: str) -> Iterator[str]:
    if name.lower() == "set-cookie":
        yield value.partition(";")[0].partition("=")[2].strip()
    elif name.lower() == "location":
        yield from _of_url(value)
    elif _is_secret(name):
        yield value.removeprefix("Bearer ").removeprefix("Basic ")


def _of_body(body: bytes) -> Iterator[str]:
    if not SUSPECT.search(body):
        return
    try:
        yield from _members(orjson.loads(body))
    except orjson.JSONDecodeError:
        if re.fullmatch(rb"[\w.%+=&*~-]+", body):
            yield from _of_form(body.decode("ascii", "replace"))


# Comparing with what was recorded.


def is_as_recorded(recorded: str, came: str) -> bool:
    """Whether `came` is what stands in a recording, whatever a stand-in stands for there."""
    if recorded == came:
        return True
    parts = _STAND_IN.split(recorded)
    return (
        len(parts) > 1
        and re.fullmatch(".+?".join(map(re.escape, parts)), came, re.DOTALL) is not None
    )
