"""Push webhooks: who sent one, whether it is genuine, and which branches it speaks of."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import parse_qs

import orjson

from reconciler.api.scriptrepository import Provider
from reconciler.core import webhooksignature
from reconciler.core.objects import JsonObject, mapping, sequence, text

# Pushes of more refs are found by polling; forges leave out branches of large pushes, too.
MOST_CHANGES = 100
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HEADS: Final = "refs/heads/"
_TAGS: Final = "refs/tags/"
# Every one of these that is present says who sends; Gitea sends GitHub's, too, so it comes first.
_TOLD_BY: Final = (
    ("x-forgejo-event", Provider.GITEA),
    ("x-gitea-event", Provider.GITEA),
    ("x-gitlab-event", Provider.GITLAB),
    ("x-github-event", Provider.GITHUB),
    ("x-event-key", Provider.BITBUCKET),
)
_PINGS: Final = frozenset({"ping", "diagnostics:ping"})


class NotGenuine(ValueError):
    """Nothing proves that the sender knows the secret."""


class Malformed(ValueError):
    """Genuine, but not what such a sender sends."""


class Change(NamedTuple):
    """A ref that moved. Commits are empty where there is none, or none was told."""

    ref: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A genuine webhook. `id` is empty where the sender gives none; `changes` is None where it is
    about something else than a push.
    """

    provider: Provider
    id: str
    changes: tuple[Change, ...] | None
    is_ping: bool = False


def receive(
    headers: Mapping[str, str],
    body: bytes,
    *,
    tokens: Collection[str],
    provider: Provider | None,
    now: float,
) -> Delivery:
    """What was delivered. `headers` have lower-case names, `provider` is the one that is heard.

    Nothing of the body is read before its signature holds. Raises `NotGenuine`, `Malformed`.
    """
    sender = provider or next(
        (sender for header, sender in _TOLD_BY if header in headers), Provider.GENERIC
    )
    keys = [token.encode() for token in tokens]
    _PROOFS[sender](headers, body, keys, now)
    event = next((headers[name] for name in _EVENTS[sender] if name in headers), "")
    identity = next((headers[name] for name in _IDENTITIES[sender] if name in headers), "")
    if event in _PINGS:
        return Delivery(sender, identity, None, is_ping=True)
    payload = _payload(headers, body, may_be_empty=sender is Provider.GENERIC)
    return Delivery(sender, identity, _READERS[sender](event, payload))


def branch_of(ref: str) -> str:
    """The branch that a full ref names; empty for tags and the like."""
    return ref.removeprefix(_HEADS) if ref.startswith(_HEADS) else ""


def is_tag(ref: str) -> bool:
    return ref.startswith(_TAGS)


# Proofs.


def _same(given: str, keys: Sequence[bytes], expected: Callable[[bytes], bytes]) -> bool:
    """Whether `given` fits one of `keys`; the time taken tells neither which nor how long it is."""
    digest = hashlib.sha256(given.encode("latin-1", "replace")).digest()
    found = [hmac.compare_digest(digest, hashlib.sha256(expected(key)).digest()) for key in keys]
    return any(found)


def _require_hmac(given: str, body: bytes, keys: Sequence[bytes], header: str) -> None:
    name, _, digest = given.rpartition("=")
    algorithm = {"": hashlib.sha256, "sha256": hashlib.sha256, "sha512": hashlib.sha512}.get(name)
    if not given:
        raise NotGenuine(f"there is no {header}; give the sender the secret")
    if algorithm is None:
        raise NotGenuine(f"{header} is not by SHA-256")
    if not _same(
        digest.lower(), keys, lambda key: hmac.new(key, body, algorithm).hexdigest().encode()
    ):
        raise NotGenuine(f"{header} does not fit the secret")


def _github(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], _now: float) -> None:
    name = "x-hub-signature-256"
    _require_hmac(headers.get(name, ""), body, keys, name)


def _gitea(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], _now: float) -> None:
    given = headers.get("x-forgejo-signature") or headers.get("x-gitea-signature", "")
    _require_hmac(given, body, keys, "x-gitea-signature")


def _bitbucket(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], _now: float) -> None:
    name = "x-hub-signature"
    _require_hmac(headers.get(name, ""), body, keys, name)


def _gitlab(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], now: float) -> None:
    if webhooksignature.HEADER in headers:
        _standard(headers, body, keys, now)
    elif not _same(headers.get("x-gitlab-token", ""), keys, lambda key: key):
        raise NotGenuine("x-gitlab-token is not the secret")


def _standard(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], now: float) -> None:
    problem = webhooksignature.problem(headers, body, keys=keys, now=now)
    if problem:
        raise NotGenuine(problem)


def _generic(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], now: float) -> None:
    if webhooksignature.HEADER in headers:
        _standard(headers, body, keys, now)
    else:
        name = "x-signature"
        _require_hmac(headers.get(name, ""), body, keys, name)


# Payloads.


def _payload(headers: Mapping[str, str], body: bytes, *, may_be_empty: bool) -> JsonObject:
    if not body and may_be_empty:
        return {}
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media == "application/x-www-form-urlencoded":
            # The other choice that GitHub and Gitea offer; the signature is of the form.
            body = parse_qs(body.decode(), max_num_fields=10)["payload"][0].encode()
        payload = orjson.loads(body)
    except (KeyError, ValueError) as error:
        raise Malformed(f"the body is no JSON: {type(error).__name__}") from error
    if not isinstance(payload, dict):
        raise Malformed("the body is no JSON object")
    return payload


def _commit(value: object) -> str:
    name = text(value).lower()
    return name if _COMMIT.fullmatch(name) and name.strip("0") else ""


def _read_ref(event: str, payload: JsonObject) -> tuple[Change, ...] | None:
    if event != "push":
        return None
    return (_change(payload),)


def _change(payload: JsonObject) -> Change:
    ref = text(payload.get("ref"))
    if not ref.startswith("refs/"):
        raise Malformed("a push without a ref")
    return Change(ref, _commit(payload.get("before")), _commit(payload.get("after")))


def _read_gitlab(_event: str, payload: JsonObject) -> tuple[Change, ...] | None:
    # A system hook says in `event_name` what a project's hook says in `object_kind`.
    kind = text(payload.get("object_kind")) or text(payload.get("event_name"))
    return (_change(payload),) if kind == "push" else None


def _read_bitbucket(event: str, payload: JsonObject) -> tuple[Change, ...] | None:
    match event:
        case "repo:push":
            changes = sequence(mapping(payload.get("push")).get("changes"))
            return tuple(_of_cloud(mapping(change)) for change in changes[:MOST_CHANGES])
        case "repo:refs_changed":
            changes = sequence(payload.get("changes"))
            return tuple(_of_data_center(mapping(change)) for change in changes[:MOST_CHANGES])
        case _:
            return None


def _of_cloud(change: JsonObject) -> Change:
    """`old` is null for a new branch, `new` for one that was deleted."""
    old, new = mapping(change.get("old")), mapping(change.get("new"))
    named = new or old
    folder = _HEADS if text(named.get("type")) in {"branch", "named_branch"} else _TAGS
    return Change(
        folder + text(named.get("name")),
        _commit(mapping(old.get("target")).get("hash")),
        _commit(mapping(new.get("target")).get("hash")),
    )


def _of_data_center(change: JsonObject) -> Change:
    return Change(
        text(mapping(change.get("ref")).get("id")),
        _commit(change.get("fromHash")),
        _commit(change.get("toHash")),
    )


def _read_generic(_event: str, payload: JsonObject) -> tuple[Change, ...] | None:
    ref = text(payload.get("ref"))
    before, after = _commit(payload.get("before")), _commit(payload.get("after"))
    return (Change(ref if not ref or "/" in ref else _HEADS + ref, before, after),)


_PROOFS: Final[
    Mapping[Provider, Callable[[Mapping[str, str], bytes, Sequence[bytes], float], None]]
] = {
    Provider.GITHUB: _github,
    Provider.GITLAB: _gitlab,
    Provider.GITEA: _gitea,
    Provider.BITBUCKET: _bitbucket,
    Provider.GENERIC: _generic,
}
_READERS: Final[Mapping[Provider, Callable[[str, JsonObject], tuple[Change, ...] | None]]] = {
    Provider.GITHUB: _read_ref,
    Provider.GITLAB: _read_gitlab,
    Provider.GITEA: _read_ref,
    Provider.BITBUCKET: _read_bitbucket,
    Provider.GENERIC: _read_generic,
}
_EVENTS: Final[Mapping[Provider, Sequence[str]]] = {
    Provider.GITHUB: ("x-github-event",),
    Provider.GITLAB: ("x-gitlab-event",),
    Provider.GITEA: ("x-forgejo-event", "x-gitea-event"),
    Provider.BITBUCKET: ("x-event-key",),
    Provider.GENERIC: (),
}
# Those that stay the same when a delivery is repeated.
_IDENTITIES: Final[Mapping[Provider, Sequence[str]]] = {
    Provider.GITHUB: ("x-github-delivery",),
    Provider.GITLAB: ("webhook-id", "idempotency-key", "x-gitlab-event-uuid"),
    Provider.GITEA: ("x-forgejo-delivery", "x-gitea-delivery"),
    Provider.BITBUCKET: ("x-request-uuid", "x-request-id"),
    Provider.GENERIC: ("webhook-id", "x-delivery"),
}
