"""Commit statuses as requests: where they go, what they say, and what answers mean."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from reconciler.api.scriptrepository import Forge, ForgeProvider
from reconciler.core import forges
from reconciler.core.forges import CommitStatus, Place, State
from reconciler.core.outgoing import Reply
from reconciler.errors import Forbidden, ReceiverUnavailable, SourceInvalid, Throttled
from tests.fakes.forge import BASES, FakeForge

COMMIT = "1f" * 20
NOW = 1_700_000_000.0


def forge(provider: str, **more: Any) -> Forge:
    return Forge.model_validate({"provider": provider, "secretRef": {"name": "forge"}, **more})


@pytest.mark.parametrize(
    ("spec", "url", "place"),
    [
        pytest.param(
            forge("GitHub"),
            "https://github.com/team/rules.git",
            Place(ForgeProvider.GITHUB, "https://api.github.com", "team/rules", "scriptops/here"),
            id="GitHub",
        ),
        pytest.param(
            forge("GitHub", context="house"),
            "git@github.example.com:team/rules.git",
            Place(ForgeProvider.GITHUB, "https://github.example.com/api/v3", "team/rules", "house"),
            id="a GitHub of one's own, over ssh",
        ),
        pytest.param(
            forge("GitLab"),
            "https://gitlab.com/group/sub/rules",
            Place(
                ForgeProvider.GITLAB,
                "https://gitlab.com/api/v4",
                "group/sub/rules",
                "scriptops/here",
            ),
            id="a GitLab project in a subgroup",
        ),
        pytest.param(
            forge("Gitea"),
            "http://127.0.0.1:3000/team/rules.git/",
            Place(
                ForgeProvider.GITEA, "http://127.0.0.1:3000/api/v1", "team/rules", "scriptops/here"
            ),
            id="Gitea on this machine",
        ),
        pytest.param(
            forge("Gitea"),
            "ssh://git@git.example.com:2222/team/rules.git",
            Place(
                ForgeProvider.GITEA,
                "https://git.example.com/api/v1",
                "team/rules",
                "scriptops/here",
            ),
            id="the port of ssh is not that of the API",
        ),
        pytest.param(
            forge("Gitea", url="https://forge.example.com/api/v1/", repository="a/b"),
            "/srv/git/rules.git",
            Place(ForgeProvider.GITEA, "https://forge.example.com/api/v1", "a/b", "scriptops/here"),
            id="said in so many words",
        ),
    ],
)
def test_the_place_of_statuses_follows_from_the_repository(
    spec: Forge, url: str, place: Place
) -> None:
    assert forges.place_of(spec, url, cluster="here") == place


@pytest.mark.parametrize(
    ("spec", "url"),
    [
        pytest.param(forge("Gitea"), "/srv/git/rules.git", id="no host"),
        pytest.param(forge("Gitea"), "https://git.example.com/rules.git", id="no owner"),
    ],
)
def test_a_place_that_cannot_be_told_says_what_to_set(spec: Forge, url: str) -> None:
    with pytest.raises(SourceInvalid, match=r"set spec\.forge"):
        forges.place_of(spec, url, cluster="here")


@pytest.mark.parametrize("provider", ["GitHub", "GitLab", "Gitea"])
def test_every_state_keeps_the_contract_of_the_forge(provider: str) -> None:
    fake = FakeForge(provider, "t0ken")
    base = f"https://forge.example{BASES[provider]}"
    place = forges.place_of(
        forge(provider, url=base), "https://forge.example/team/süd rules.git", cluster="here"
    )
    for state in State:
        sent = forges.post(place, CommitStatus(COMMIT, state, "x" * 500), token="t0ken")
        headers = {name.lower(): value for name, value in sent.headers.items()}
        code, _, _ = fake.take(sent.url.removeprefix("https://forge.example"), headers, sent.body)
        assert (code, fake.broken) == (201, [])
        assert "t0ken" not in repr(sent)
    failed = "failed" if provider == "GitLab" else "failure"
    assert [told.state for told in fake.told] == ["pending", "success", failed]
    assert {(t.repository, t.commit, t.context) for t in fake.told} == {
        ("team/süd rules", COMMIT, "scriptops/here")
    }


def answer(code: int, body: object = None, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(code, named, json.dumps(body))


PLACE = Place(ForgeProvider.GITHUB, "https://api.github.com", "team/rules", "scriptops/here")
LAB = Place(ForgeProvider.GITLAB, "https://gitlab.com/api/v4", "team/rules", "scriptops/here")


@pytest.mark.parametrize(
    ("reply", "pause"),
    [
        pytest.param(answer(429, retry_after="7"), 7, id="Retry-After"),
        pytest.param(answer(403, retry_after="30"), 30, id="GitHub's secondary limit"),
        pytest.param(
            answer(403, x_ratelimit_remaining="0", x_ratelimit_reset=str(int(NOW) + 90)),
            90,
            id="GitHub's hourly limit",
        ),
        pytest.param(
            answer(429, ratelimit_remaining="0", ratelimit_reset=str(int(NOW) + 12)),
            12,
            id="GitLab's limit",
        ),
        pytest.param(answer(429), 60, id="no word of how long"),
        pytest.param(answer(429, retry_after="Wed, 21 Oct"), 60, id="a date"),
        pytest.param(answer(503, retry_after="999999"), 3600, id="longer than an hour"),
    ],
)
def test_a_forge_that_wants_a_pause_gets_it(reply: Reply, pause: int) -> None:
    with pytest.raises(Throttled) as asked:
        forges.judge(PLACE, reply, now=NOW)
    assert asked.value.retry_after == timedelta(seconds=pause)


@pytest.mark.parametrize(
    ("reply", "reaction"),
    [
        pytest.param(answer(401, {"message": "Bad credentials"}), Forbidden, id="a wrong token"),
        pytest.param(answer(404, {"message": "Not Found"}), Forbidden, id="no such repository"),
        pytest.param(answer(422, {"message": "reached the maximum"}), Forbidden, id="used up"),
        pytest.param(answer(301), Forbidden, id="moved; nothing is followed"),
        pytest.param(answer(500), ReceiverUnavailable, id="a fault of the forge"),
        pytest.param(answer(503), ReceiverUnavailable, id="away without a word"),
    ],
)
def test_what_a_refusal_means(reply: Reply, reaction: type[Exception]) -> None:
    with pytest.raises(reaction):
        forges.judge(PLACE, reply, now=NOW)


def test_gitlab_has_that_state_already() -> None:
    message = "Cannot transition status via :enqueue from :pending"
    forges.judge(LAB, answer(400, {"message": message}), now=NOW)
    with pytest.raises(Forbidden):
        forges.judge(LAB, answer(400, {"message": "state does not have a valid value"}), now=NOW)
