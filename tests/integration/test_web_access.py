"""Who is let in over HTTP: by token, by cookie, by where they are, and who is not."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from http.cookies import SimpleCookie
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.access import Act, Right
from reconciler.core.objects import ObjectKey
from reconciler.ports.registry import ArtifactRef
from reconciler.web import guard
from reconciler.web.problems import Refusal
from tests.fakes.operations import FakeOperations
from tests.integration.test_web_limits import needs_neighbour, neighbour
from tests.integration.web_server import Answer, Door, listening

API = "/api/v1alpha1"
LAMP = ObjectKey("default", "lamp")
TRIGGER = Right(Act.TRIGGER, *LAMP)
COMMAND = Right(Act.COMMAND_SCRIPT, *LAMP)
RULES = Right(Act.COMMAND_REPOSITORY, "default", "rules")
RUN = {"id": "r1", "script": {"namespace": "default", "name": "lamp"}}

# Each request with the right that it takes.
ASKED = [
    pytest.param("GET", f"{API}/scripts?namespace=a", Right(Act.LIST_SCRIPTS, "a"), id="scripts"),
    pytest.param("GET", f"{API}/scripts", Right(Act.LIST_SCRIPTS), id="scripts everywhere"),
    pytest.param(
        "GET", f"{API}/repositories?namespace=a", Right(Act.LIST_REPOSITORIES, "a"), id="sources"
    ),
    pytest.param("GET", f"{API}/devices?namespace=a", Right(Act.LIST_DEVICES, "a"), id="devices"),
    pytest.param("GET", f"{API}/runs?namespace=a", Right(Act.LIST_RUNS, "a"), id="runs"),
    pytest.param("GET", f"{API}/runs/r1", Right(Act.GET_RUN, *LAMP), id="a run"),
    pytest.param(
        "GET", f"{API}/scripts/default/lamp/explain", Right(Act.EXPLAIN, *LAMP), id="an explanation"
    ),
    pytest.param("GET", f"{API}/executors", Right(Act.LIST_EXECUTORS), id="executors"),
    pytest.param(
        "GET", f"{API}/recordings?namespace=a", Right(Act.LIST_RECORDINGS, "a"), id="recordings"
    ),
    pytest.param(
        "GET", f"{API}/runs/r1/recording", Right(Act.GET_RECORDING, *LAMP), id="a recording"
    ),
    pytest.param("GET", f"{API}/runs/r1/artifact", Right(Act.GET_RECORDING, *LAMP), id="its bytes"),
    pytest.param("GET", f"{API}/debug", Right(Act.DEBUG), id="debug"),
    pytest.param(
        "GET", "/registry/default/rules", Right(Act.GET_ARTIFACTS, "default", "rules"), id="listing"
    ),
    pytest.param(
        *("GET", "/registry/default/rules/lamp/1.js"),
        Right(Act.GET_ARTIFACTS, "default", "rules"),
        id="artifact",
    ),
    pytest.param("GET", f"{API}/webhook?name=lamp", TRIGGER, id="a webhook that is got"),
    pytest.param("POST", f"{API}/webhook?name=lamp", TRIGGER, id="a webhook that is posted"),
    pytest.param("POST", "/api/v1alpha/webhook?name=lamp", TRIGGER, id="the older webhook"),
    pytest.param("POST", f"{API}/scripts/default/lamp/trigger", TRIGGER, id="trigger"),
    pytest.param("POST", f"{API}/scripts/default/lamp/rollout", COMMAND, id="rollout"),
    pytest.param("POST", f"{API}/scripts/default/lamp/suspend", COMMAND, id="suspend"),
    pytest.param("POST", f"{API}/scripts/default/lamp/resume", COMMAND, id="resume"),
    *(
        pytest.param("POST", f"{API}/repositories/default/rules/{verb}", RULES, id=f"{verb} it")
        for verb in ("reconcile", "suspend", "resume", "approve", "rollback", "unroll")
    ),
]
OPEN = ["/healthz", "/readyz", "/metrics", f"{API}/version", "/signin"]


def operations() -> FakeOperations:
    return FakeOperations(
        script_documents=[
            {"metadata": {"namespace": "default", "name": "lamp"}},
            {"metadata": {"namespace": "other", "name": "door"}},
        ],
        run_documents=[RUN],
        recording_documents=[{**RUN, "digest": "d"}],
        artifacts={"d": b"bytes"},
    )


@pytest.fixture
def door() -> Iterator[Door]:
    """One that asks everybody for a token."""
    with listening(operations(), local_users=False) as it:
        it.registry.publish(ArtifactRef("default", "rules", "lamp", "1", "js"), b"script")
        yield it


def ask(door: Door, method: str, path: str, token: str = "", **headers: str) -> Answer:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        given["Authorization"] = f"Bearer {token}"
    body = json.dumps({"action": "abort", "plan": "p"}).encode() if method == "POST" else None
    content = {"Content-Type": "application/json"} if body else {}
    return door.ask(path, method=method, body=body, headers={**content, **given})


@pytest.mark.parametrize(("method", "path", "right"), ASKED)
def test_each_request_takes_its_right_and_no_other(
    door: Door, method: str, path: str, right: Right
) -> None:
    door.access.know("able", right)
    door.access.know("other", *(Right(act, "x", "x") for act in Act))

    assert ask(door, method, path, "able").status in {200, 202}
    refused = ask(door, method, path, "other")
    assert refused.refusal == (403, "Forbidden")
    assert refused.json["message"] == f"owner of other may not {right}"
    assert refused.headers["www-authenticate"] == (
        'Bearer realm="scriptops", error="insufficient_scope"'
    )


@pytest.mark.parametrize(("method", "path", "right"), ASKED)
def test_without_a_token_or_with_a_bad_one_nothing_is_shown_or_done(
    door: Door, method: str, path: str, right: Right
) -> None:
    missing, bad = ask(door, method, path), ask(door, method, path, "bad")

    assert (missing.refusal, missing.headers["www-authenticate"]) == (
        (401, "TokenMissing"),
        'Bearer realm="scriptops"',
    )
    assert (bad.refusal, bad.headers["www-authenticate"]) == (
        (401, "TokenRefused"),
        'Bearer realm="scriptops", error="invalid_token"',
    )
    assert door.access.asked == ["bad"]
    assert (door.operations.triggered, door.operations.rolled_out) == ([], [])
    assert door.commands.given == []
    del right


@pytest.mark.parametrize(("method", "path", "right"), ASKED)
def test_when_nobody_can_say_the_answer_is_no_for_now(
    door: Door, method: str, path: str, right: Right
) -> None:
    door.access.know("able", right)
    door.access.is_gone = True
    answer = ask(door, method, path, "able")

    assert (answer.refusal, answer.headers["retry-after"]) == ((503, "AccessUnavailable"), "1")
    assert (door.operations.triggered, door.operations.rolled_out) == ([], [])
    assert door.commands.given == []


@pytest.mark.parametrize(("method", "path", "right"), ASKED)
def test_pages_of_other_sites_get_nothing(door: Door, method: str, path: str, right: Right) -> None:
    door.access.know("able", right)
    cookie = {"Cookie": "scriptops-token=able", "Sec_Fetch_Site": "same-site"}
    assert ask(door, method, path, "able", **cookie).refusal == (403, "CrossSite")
    assert (door.access.asked, door.operations.triggered) == ([], [])


@pytest.mark.parametrize(
    "path",
    ["/?namespace={}", f"{API}/scripts?namespace={{}}", f"{API}/scripts/a/{{}}/explain"],
)
def test_what_is_too_long_to_be_a_name_is_not_asked_about(door: Door, path: str) -> None:
    """Answers are kept, and wishes are written down: kilobytes of each would fill memory and log."""
    door.access.know("weak")
    assert ask(door, "GET", path.format("x" * 254), "weak").refusal == (400, "NameInvalid")
    assert not any(isinstance(it, Right) for it in door.access.asked)
    assert ask(door, "GET", path.format("x" * 253), "weak").status == 403


@pytest.mark.parametrize("path", OPEN)
def test_what_probes_and_scrapers_read_is_open(door: Door, path: str) -> None:
    assert ask(door, "GET", path).status == 200


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param("Basic YTpi", id="a password"),
        pytest.param("Bearer", id="no token"),
        pytest.param("able", id="no scheme"),
        pytest.param("Bearer t\xe4", id="no ASCII"),
    ],
)
def test_credentials_of_another_kind_are_refused(door: Door, credentials: str) -> None:
    answer = door.ask(f"{API}/scripts", headers={"Authorization": credentials})
    assert answer.refusal == (401, "TokenMissing")


def test_who_is_no_stranger_is_still_told_what_is_not_there(door: Door) -> None:
    door.access.know("able", Right(Act.TRIGGER, "default", "none"))
    path = f"{API}/scripts/default/none/trigger"
    assert ask(door, "POST", path, "able").refusal == (404, "NotFound")
    assert ask(door, "GET", f"{API}/runs/r9", "able").refusal == (404, "NotFound")
    assert ask(door, "GET", f"{API}/runs/r9").refusal == (401, "TokenMissing")


def test_users_of_a_machine_that_nobody_else_reaches_need_no_token() -> None:
    with listening(operations()) as door:
        assert ask(door, "GET", f"{API}/debug").status == 200
        assert ask(door, "POST", f"{API}/scripts/default/lamp/suspend").status == 202
        assert door.access.asked == []


@pytest.mark.parametrize(("method", "path", "right"), ASKED)
def test_a_token_that_is_sent_counts_on_such_a_machine_too(
    method: str, path: str, right: Right
) -> None:
    with listening(operations()) as door:
        door.access.know("other")
        assert ask(door, method, path, "bad").refusal == (401, "TokenRefused")
        assert ask(door, method, path, "other").refusal == (403, "Forbidden")
    del right


@needs_neighbour
def test_who_only_says_so_is_no_local_user() -> None:
    with listening(operations(), host="0.0.0.0", ask_at=neighbour()) as door:
        assert ask(door, "GET", f"{API}/scripts", Host="localhost").status == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", f"{API}/scripts", 200, id="reads"),
        pytest.param("GET", f"{API}/debug", 200, id="looks inside"),
        pytest.param("POST", f"{API}/scripts/default/lamp/trigger", 202, id="triggers"),
        pytest.param("POST", f"{API}/scripts/default/lamp/suspend", 403, id="suspends nothing"),
        pytest.param("POST", f"{API}/scripts/default/lamp/rollout", 403, id="rolls out nothing"),
    ],
)
def test_what_anybody_may_where_the_operator_says_so(method: str, path: str, status: int) -> None:
    with listening(operations(), local_users=False, insecure=True) as door:
        assert ask(door, method, path).status == status


def test_a_register_for_others_is_open_where_the_operator_says_so() -> None:
    with listening(operations(), local_users=False, public_registry=True) as door:
        door.registry.publish(ArtifactRef("default", "rules", "lamp", "1", "js"), b"script")
        assert ask(door, "GET", "/registry/default/rules/lamp/1.js").body == b"script"
        assert ask(door, "GET", "/registry/default/rules").status == 200
        assert ask(door, "GET", f"{API}/scripts").status == 401


def test_the_cookie_of_another_controller_keeps_no_user_of_the_machine_out() -> None:
    with listening(operations()) as door:
        cookie = {"Cookie": "scriptops-token=of-another"}
        assert ask(door, "GET", "/", **cookie).status == 200
        assert ask(door, "GET", f"{API}/scripts", **cookie).status == 200


# The page.


def sign_in(door: Door, token: str, host: str = "localhost") -> Answer:
    headers = {"Host": host, "Content-Type": "application/x-www-form-urlencoded"}
    return door.ask("/signin", method="POST", body=f"token={token}".encode(), headers=headers)


def test_a_person_signs_in_with_a_token_and_sees_what_they_may(door: Door) -> None:
    door.access.know("able", Right(Act.LIST_SCRIPTS))
    asked = ask(door, "GET", "/")
    assert (asked.status, b"<form method=post action=/signin>" in asked.body) == (401, True)
    assert b"kubectl create token NAME --audience scriptops" in asked.body
    assert b"form-action 'self'" in asked.headers["content-security-policy"].encode()

    answer = sign_in(door, "able")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    [cookie] = SimpleCookie(answer.headers["set-cookie"]).values()
    assert (cookie.key, cookie.value) == ("scriptops-token", "able")
    assert {
        name: cookie[name] for name in ("httponly", "samesite", "secure", "path", "max-age")
    } == {
        "httponly": True,
        "samesite": "Strict",
        "secure": "",
        "path": "/",
        "max-age": "43200",
    }

    page = ask(door, "GET", "/", Cookie="scriptops-token=able")
    assert page.status == 200
    assert b"default/lamp" in page.body
    assert b"Devices" not in page.body
    assert b"action=/signout" in page.body
    assert ask(door, "GET", f"{API}/scripts", Cookie="scriptops-token=able").status == 200


def test_a_page_of_one_namespace_needs_the_rights_for_that_one_only(door: Door) -> None:
    door.access.know("able", Right(Act.LIST_SCRIPTS, "other"))
    cookie = {"Cookie": "scriptops-token=able"}
    assert ask(door, "GET", "/", **cookie).status == 403
    page = ask(door, "GET", "/?namespace=other", **cookie)
    assert (page.status, b"other/door" in page.body, b"lamp" in page.body) == (200, True, False)
    assert b'href="/api/v1alpha1/scripts?namespace=other"' in page.body
    hostile = ask(door, "GET", "/?namespace=%22%3E%3Cscript%3E", **cookie)
    assert (hostile.status, b"<script>" in hostile.body) == (403, False)


def test_the_cookie_goes_over_tls_only_except_on_this_machine(door: Door) -> None:
    door.access.know("able")
    here = sign_in(door, "able", "127.0.0.1:8000").headers["set-cookie"]
    elsewhere = sign_in(door, "able", "rules.example.com").headers["set-cookie"]
    assert ("Secure" in here, "Secure" in elsewhere) == (False, True)


@pytest.mark.parametrize("token", ["bad", ""])
def test_a_bad_token_signs_nobody_in(door: Door, token: str) -> None:
    answer = sign_in(door, token)
    assert (answer.status, answer.headers.get("set-cookie")) == (401, None)
    assert b"<form" in answer.body


def test_another_site_signs_nobody_in_or_out(door: Door) -> None:
    door.access.know("able")
    for path in ("/signin", "/signout"):
        headers = {"Sec-Fetch-Site": "cross-site"}
        answer = door.ask(path, method="POST", body=b"token=able", headers=headers)
        assert answer.refusal == (403, "CrossSite")


def test_a_token_that_only_triggers_sees_how_a_run_ended_and_not_what_it_printed(
    door: Door,
) -> None:
    told = {"outcome": "Failed", "message": "Error: no", "durationMicroseconds": 7}
    seen = {"logs": [{"level": "log", "text": "12.5"}], "changed": ["lamp/power=true"]}
    reader = Right(Act.GET_RUN, "default", "lamp")
    for number, rights in enumerate(((TRIGGER,), (TRIGGER, reader)), start=1):
        door.access.know(f"able-{number}", *rights)
        door.operations.run_documents.append({"id": f"run-{number}", **told, **seen})
        path = f"{API}/webhook?name=lamp&wait=5"
        answer = ask(door, "POST", path, Authorization=f"Bearer able-{number}")
        hidden = {"logs": [], "changed": []} if rights == (TRIGGER,) else seen
        assert json.loads(answer.body) == {"id": f"run-{number}", **told, **hidden}


def test_a_cookie_triggers_and_changes_nothing(door: Door) -> None:
    door.access.know("able", TRIGGER, COMMAND)
    cookie = {"Cookie": "scriptops-token=able"}
    for method, path in (
        ("GET", f"{API}/webhook?name=lamp"),
        ("POST", f"{API}/scripts/default/lamp/trigger"),
        ("POST", f"{API}/scripts/default/lamp/suspend"),
    ):
        assert ask(door, method, path, **cookie).refusal == (401, "TokenMissing")
    assert (door.operations.triggered, door.commands.given) == ([], [])


def test_signing_out_takes_the_cookie_away(door: Door) -> None:
    answer = door.ask("/signout", method="POST")
    [cookie] = SimpleCookie(answer.headers["set-cookie"]).values()
    assert (answer.status, cookie.value, cookie["path"]) == (303, "", "/")


@settings(max_examples=300, deadline=None)
@given(value=st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0")))
def test_no_header_makes_us_stumble(value: str) -> None:
    """Whatever stands there is a token, or none; in the words of the server beneath."""
    given = value.encode("latin-1")
    assert isinstance(
        guard.cookie_of(SimpleNamespace(scope={"headers": [(b"cookie", given)]})), str
    )
    with contextlib.suppress(Refusal):
        bearer = guard.bearer_of(SimpleNamespace(scope={"headers": [(b"authorization", given)]}))
        assert bearer.isascii()


# What is written down.


def audited(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    fields = ("who", "what", "object", "status", "run", "action")
    return [
        {name: getattr(record, name) for name in fields if hasattr(record, name)}
        for record in caplog.records
        if record.name == "scriptops.audit"
    ]


def test_who_wished_what_is_written_down_with_what_came_of_it(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    door.access.know("able", TRIGGER, COMMAND, RULES, Right(Act.LIST_SCRIPTS))
    ask(door, "POST", f"{API}/scripts/default/lamp/trigger", "able")
    ask(door, "POST", f"{API}/scripts/default/lamp/rollout", "able")
    ask(door, "POST", f"{API}/repositories/default/rules/reconcile", "able")
    ask(door, "POST", f"{API}/scripts/default/door/suspend", "able")
    ask(door, "GET", f"{API}/debug")
    ask(door, "GET", f"{API}/scripts", "able")

    who, lamp = "owner of able", "default/lamp"
    assert audited(caplog) == [
        {
            "who": who,
            "what": f"create scripts/trigger {lamp}",
            "object": lamp,
            "status": 202,
            "run": "run-1",
        },
        {
            "who": who,
            "what": f"patch scripts {lamp}",
            "object": lamp,
            "status": 202,
            "action": "abort",
        },
        {
            "who": who,
            "what": "patch scriptrepositories default/rules",
            "object": "default/rules",
            "status": 202,
        },
        {
            "who": who,
            "what": "patch scripts default/door",
            "object": "default/door",
            "status": 403,
        },
        {"who": "", "what": "get debug in all namespaces", "object": "/", "status": 401},
    ]
    assert "able" not in {
        value for it in caplog.records for value in vars(it).values() if isinstance(value, str)
    }
