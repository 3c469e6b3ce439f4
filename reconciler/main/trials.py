"""Runs with given replies: what a script fetches is answered from a list, never sent."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import orjson

from reconciler.api.script import ScriptSpec
from reconciler.api.scripttest import CommitGiven, Fetch
from reconciler.controllers.runnables import limits_of
from reconciler.core import convergence
from reconciler.core.objects import Json, JsonObject, ObjectKey, mapping, sequence, text
from reconciler.core.recordings import Completion, completion_of
from reconciler.core.redacting import is_as_recorded
from reconciler.core.runs import DEFAULT_LIMITS, Commit, Isolation, RunResult, ScriptRef
from reconciler.main.laptop import Job, Laptop

# How an executor without any place to fetch from answers a request that the manifest allows.
OFFLINE: Final = "is not allowed by the operator of this executor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A run to try: its activation, and the answers to what it fetches.

    Each answer is a reply with its `request`, given once to the first op that asks for it. Replies
    in the activation itself are given by number, as the executor does.
    """

    ref: ScriptRef
    activation: JsonObject
    answers: tuple[JsonObject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """How it went. `requests` are `GET https://...`, `unanswered` those without an answer."""

    result: RunResult
    completion: Completion
    requests: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()


@dataclass(slots=True)
class _Course:
    """A trial between its rounds."""

    trial: Trial
    left: list[JsonObject]
    replies: list[JsonObject] = field(default_factory=list)
    result: RunResult | None = None

    def job(self) -> Job:
        activation = dict(self.trial.activation)
        if self.replies:
            activation["replies"] = self.replies
        return Job(self.trial.ref, orjson.dumps(activation), self._answer)

    def _answer(self, commit: Commit) -> JsonObject:
        """What a commit that the run waits for is told: the answer to it, or that all went well."""
        known = next((it for it in self.left if convergence.answers(it, commit)), None)
        if known is None:
            return convergence.assumed(commit)
        self.left.remove(known)
        return convergence.answered(known, commit)

    def take(self, result: RunResult) -> bool:
        """Whether it has to run again, with more answers than before."""
        self.result = result
        replies = list(map(mapping, sequence(orjson.loads(result.replies or b"[]"))))
        is_news = False
        for number, reply in enumerate(replies):
            if not _is_offline(reply):
                continue
            asked = text(reply.get("request"))
            known = next(
                (it for it in self.left if is_as_recorded(text(it.get("request")), asked)), None
            )
            if known is not None:
                self.left.remove(known)
                replies[number] = {**known, "n": reply.get("n")}
                is_news = True
        if is_news:
            # With other answers it may come to other commits; they are answered anew.
            self.replies = [reply for reply in replies if reply.get("op") != "commit"]
        return is_news

    def tried(self) -> Tried:
        assert self.result is not None  # noqa: S101 - every course has been run
        told = map(mapping, sequence(orjson.loads(self.result.replies or b"[]")))
        replies = sorted((it for it in told if it.get("op") != "commit"), key=_number)
        return Tried(
            result=self.result,
            completion=completion_of(self.result),
            requests=tuple(text(reply.get("request")) for reply in replies),
            unanswered=tuple(text(r.get("request")) for r in replies if _is_offline(r)),
        )


async def attempt(laptop: Laptop, trials: Sequence[Trial]) -> list[Tried]:
    """Run all of `trials`, as few times as their fetches ask for."""
    courses = [
        _Course(trial, list(trial.answers), list(map(mapping, _replies(trial.activation))))
        for trial in trials
    ]
    again = courses
    while again:
        results = await laptop.run([course.job() for course in again])
        again = [
            course for course, result in zip(again, results, strict=True) if course.take(result)
        ]
    return [course.tried() for course in courses]


def script_ref(
    key: ObjectKey,
    *,
    digest: str,
    script_type: str,
    file: str,
    spec: ScriptSpec | None,
    fetches: Sequence[Fetch] = (),
) -> ScriptRef:
    """A Script as an executor is told of it; without a manifest it has the default limits.

    Without a manifest it may also fetch what it has answers for.
    """
    places = {f"{u.scheme}://{u.netloc}" for f in fetches if (u := urlsplit(f.url)).netloc}
    return ScriptRef(
        key=key,
        digest=digest,
        script_type=script_type,
        file=file,
        limits=DEFAULT_LIMITS if spec is None else limits_of(spec),
        isolation=Isolation.SHARED if spec is None else Isolation(spec.isolation.value),
        network_allow=tuple(sorted(places) if spec is None else spec.network.allow),
    )


def with_output(ref: ScriptRef, *, digest: str, more: int) -> ScriptRef:
    """The same Script with another artifact and room for more output."""
    limits = ref.limits._replace(
        output_bytes=ref.limits.output_bytes + more, wall_time_ms=ref.limits.wall_time_ms * 10
    )
    return replace(ref, digest=digest, limits=limits)


def _replies(activation: JsonObject) -> Sequence[Json]:
    return sequence(activation.get("replies"))


def _number(reply: JsonObject) -> int:
    number = reply.get("n")
    return number if isinstance(number, int) else 0


def _is_offline(reply: JsonObject) -> bool:
    return reply.get("code") == "Denied" and text(reply.get("message")).endswith(OFFLINE)


def committed(said: CommitGiven) -> JsonObject:
    """A reply to a commit as a controller would have brought it."""
    reply: dict[str, Json] = {"op": "commit", "alias": said.device, "ms": said.ms}
    reply["message"] = "as its test says"
    if said.error is not None:
        return {**reply, "ok": False, "code": said.error}
    return {**reply, "ok": True, "reached": said.reached}


def answer(fetch: Fetch) -> JsonObject:
    """A reply as an executor would have brought it."""
    reply: dict[str, Json] = {"request": f"{fetch.method} {fetch.url}", "ms": 0}
    if fetch.error is not None:
        return {**reply, "ok": False, "code": fetch.error, "message": "as its test says"}
    headers = {name.lower(): value for name, value in fetch.headers.items()}
    body = (fetch.body or "").encode()
    if fetch.json_body is not None:
        body = orjson.dumps(fetch.json_body)
        headers.setdefault("content-type", "application/json")
    known = {status.value: status.phrase for status in HTTPStatus}
    return {
        **reply,
        "ok": True,
        "status": fetch.status,
        "statusText": known.get(fetch.status, ""),
        "url": fetch.url,
        "redirected": False,
        "headers": [[name, value] for name, value in headers.items()],
        "body": base64.b64encode(body).decode(),
    }
