"""Commit statuses as forges take them: requests as values, and what their answers mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import orjson

from reconciler.api.scriptrepository import Forge, ForgeProvider
from reconciler.core.objects import mapping, text
from reconciler.core.outgoing import Reply, Request
from reconciler.errors import Forbidden, ReceiverUnavailable, SourceInvalid, Throttled

# GitHub's limit, the narrowest.
LONGEST_DESCRIPTION = 140
# Where a forge says for how long, but not a number.
DEFAULT_PAUSE = timedelta(seconds=60)
LONGEST_PAUSE = timedelta(hours=1)
_SCP_LIKE = re.compile(r"(?:[^@/:]+@)?([^@/:]+):([^:].*)")
_API_PATHS: Final = {
    ForgeProvider.GITHUB: "/api/v3",
    ForgeProvider.GITLAB: "/api/v4",
    ForgeProvider.GITEA: "/api/v1",
}


class State(StrEnum):
    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class CommitStatus:
    commit: str
    state: State
    description: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a forge keeps the statuses of a repository, and under which name they go."""

    provider: ForgeProvider
    api: str
    repository: str
    context: str


def place_of(forge: Forge, repository_url: str, *, cluster: str) -> Place:
    """Raises `SourceInvalid` where the repository's URL does not tell."""
    host, path = _host_and_path(repository_url)
    api = (forge.url or "").rstrip("/")
    if not api and not host:
        raise SourceInvalid("the repository's URL does not tell the forge; set spec.forge.url")
    if not api and forge.provider is ForgeProvider.GITHUB and host == "https://github.com":
        api = "https://api.github.com"
    repository = (forge.repository or path).strip("/").removesuffix(".git")
    if "/" not in repository:
        raise SourceInvalid("the repository's URL has no owner and name; set spec.forge.repository")
    return Place(
        provider=forge.provider,
        api=api or host + _API_PATHS[forge.provider],
        repository=repository,
        context=forge.context or f"scriptops/{cluster}",
    )


def _host_and_path(url: str) -> tuple[str, str]:
    """Scheme and host of its pages, and the path; both empty for a repository on this machine."""
    if "://" not in url:
        match = _SCP_LIKE.fullmatch(url)
        return (f"https://{match[1].lower()}", match[2]) if match else ("", "")
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    match parts.scheme.lower():
        case "https" | "http" as scheme:
            port = f":{parts.port}" if parts.port else ""
            return f"{scheme}://{host}{port}", unquote(parts.path)
        case "ssh" | "git":
            return f"https://{host}", unquote(parts.path)
        case _:
            return "", ""


def post(place: Place, status: CommitStatus, *, token: str, authority: str = "") -> Request:
    """What to send."""
    description = _shortened(status.description)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    body = {
        "state": str(status.state),
        "description": description,
        "context": place.context,
    }
    match place.provider:
        case ForgeProvider.GITHUB:
            headers["Authorization"] = f"Bearer {token}"
            headers["Accept"] = "application/vnd.github+json"
            headers["X-GitHub-Api-Version"] = "2022-11-28"
        case ForgeProvider.GITEA:
            headers["Authorization"] = f"token {token}"
        case ForgeProvider.GITLAB:
            headers["PRIVATE-TOKEN"] = token
            state = "failed" if status.state is State.FAILURE else str(status.state)
            body = {"state": state, "description": description, "name": place.context}
            url = f"{place.api}/projects/{quote(place.repository, safe='')}"
            return Request(
                f"{url}/statuses/{status.commit}", headers, orjson.dumps(body), authority
            )
    url = f"{place.api}/repos/{quote(place.repository)}/statuses/{status.commit}"
    return Request(url, headers, orjson.dumps(body), authority)


def judge(place: Place, reply: Reply, *, now: float) -> None:
    """What an answer means. Raises `Throttled`, `ReceiverUnavailable` or `Forbidden`."""
    code = reply.status
    if 200 <= code < 300:
        return
    pause = pause_of(reply, now=now)
    where = f"{place.provider} at {place.api}"
    if pause is not None:
        raise Throttled(f"{where} asks for a pause", retry_after=pause)
    said = _message(reply.body)
    if place.provider is ForgeProvider.GITLAB and code == 400 and "Cannot transition" in said:
        # It has that state already.
        return
    if code >= 500 or code in {408, 425}:
        raise ReceiverUnavailable(f"{where} answered with {code}")
    raise Forbidden(
        f"{where} refuses the status of {place.repository} ({code}{': ' if said else ''}{said}); "
        "see to the token of spec.forge.secretRef and its permission to set statuses",
        reason="ForgeRefused",
    )


def pause_of(reply: Reply, *, now: float) -> timedelta | None:
    """How long the other side asks to be left alone, None where it does not.

    GitHub says so with 403 as well, and then either in `Retry-After` or by when its count starts
    again.
    """
    code, headers = reply.status, reply.headers
    after = headers.get("retry-after", "")
    spent = "0" in {headers.get("x-ratelimit-remaining"), headers.get("ratelimit-remaining")}
    if code != 429 and not (code == 403 and (after or spent)) and not (code == 503 and after):
        return None
    reset = headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset", "")
    if after.isascii() and after.isdecimal():
        seconds = float(after)
    elif spent and reset.isascii() and reset.isdecimal():
        seconds = float(reset) - now
    else:
        return DEFAULT_PAUSE
    return min(max(timedelta(seconds=seconds), timedelta(seconds=1)), LONGEST_PAUSE)


def _message(body: str) -> str:
    """The sentence in an answer, without what could be anything."""
    try:
        document = mapping(orjson.loads(body))
    except orjson.JSONDecodeError:
        return ""
    said = text(document.get("message")) or text(document.get("error"))
    return " ".join(said.split())[:200]


def _shortened(description: str) -> str:
    line = " ".join(description.split())
    return line if len(line) <= LONGEST_DESCRIPTION else line[: LONGEST_DESCRIPTION - 1] + "…"
