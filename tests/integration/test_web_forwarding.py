"""Two HTTP doors of controllers that share the work: asked at either, the one that leads answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.adapters.certificates import Authority
from reconciler.adapters.peers import HttpPeers
from reconciler.core.access import Act, Right
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause
from reconciler.errors import Transient
from reconciler.ports.peers import PeerAnswer
from reconciler.web import Tls
from tests.fakes.operations import FakeOperations
from tests.integration.web_server import Door, listening

HOOK = "/api/v1alpha1/webhook?namespace=team&name=lamp"
LAMP = ObjectKey("team", "lamp")


def known() -> FakeOperations:
    """A controller that has a Script `lamp` in some namespaces."""
    places = ("team", "mine", "default")
    return FakeOperations([{"metadata": {"namespace": it, "name": "lamp"}} for it in places])


@contextmanager
def beside(leader: Callable[[str], str | None], *, local_users: bool = True) -> Iterator[Door]:
    """A door that hands on what `leader` says is led elsewhere."""
    with listening(known(), peers=HttpPeers(), elsewhere=leader, local_users=local_users) as door:
        yield door


def only_team(address: str) -> Callable[[str], str | None]:
    return lambda namespace: address if namespace == "team" else None


def at(door: Door) -> str:
    return f"http://127.0.0.1:{door.port}"


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        (HOOK, Cause.WEBHOOK),
        (HOOK.replace("v1alpha1", "v1alpha"), Cause.WEBHOOK),
        ("/api/v1alpha1/scripts/team/lamp/trigger", Cause.MANUAL),
    ],
)
def test_a_wish_for_a_run_goes_to_who_leads_its_namespace(path: str, cause: Cause) -> None:
    with listening(known()) as leading, beside(only_team(at(leading))) as door:
        answer = door.post(path, b'{"a": 1}')
        assert (answer.status, answer.json) == (202, {"runId": "run-1"})
        assert answer.headers["content-type"] == "application/json"
        assert leading.operations.triggered == [(LAMP, cause, b'{"a": 1}')]
        assert door.operations.triggered == []


def test_a_get_goes_with_its_query_as_it_was_written() -> None:
    with listening(known()) as leading, beside(only_team(at(leading))) as door:
        assert door.ask(f"{HOOK}&level=%7Ehigh%20&level=2").status == 202
        [(_, _, event)] = leading.operations.triggered
        assert event == b'{"query":{"level":["~high ","2"]}}'


def test_runs_are_known_to_who_leads() -> None:
    run = {"id": "run-9", "script": {"namespace": "team", "name": "lamp"}}
    with listening(known()) as leading, beside(only_team(at(leading))) as door:
        leading.operations.run_documents.append(run)
        assert door.ask("/api/v1alpha1/runs?namespace=team").json == {"items": [run]}
        assert door.ask("/api/v1alpha1/runs?namespace=other").json == {"items": []}
        assert door.ask("/api/v1alpha1/runs").json == {"items": []}


def test_what_is_led_here_is_answered_here() -> None:
    with listening(known()) as leading, beside(only_team(at(leading))) as door:
        answer = door.post("/api/v1alpha1/webhook?namespace=mine&name=lamp", b"1")
        assert answer.status == 202
        assert door.post("/api/v1alpha1/webhook?name=lamp", b"1").status == 202
        mine, default = ObjectKey("mine", "lamp"), ObjectKey("default", "lamp")
        assert [it[0] for it in door.operations.triggered] == [mine, default]
        assert door.ask("/readyz").json == {"ready": True, "reasons": []}
        assert leading.operations.triggered == []


def test_a_refusal_of_who_leads_is_the_answer() -> None:
    with listening(known()) as leading, beside(only_team(at(leading))) as door:
        leading.operations.refusals[LAMP] = Transient("it cannot be kept", reason="Full")
        assert door.post(HOOK, b"1").refusal == (503, "Full")
        assert door.post(HOOK, b"no json").refusal == (400, "NotJson")


def test_the_token_is_judged_where_it_leads_to() -> None:
    with (
        listening(known(), local_users=False) as leading,
        beside(only_team(at(leading)), local_users=False) as door,
    ):
        assert door.post(HOOK, b"1").refusal == (401, "TokenMissing")
        leading.access.know("secret", Right(Act.TRIGGER, *LAMP))
        answer = door.post(HOOK, b"1", Authorization="Bearer secret")
        assert answer.status == 202


def test_who_is_a_stranger_to_one_is_no_user_of_this_machine_to_the_other() -> None:
    """The one that is asked is reached by others; the one that leads trusts its own machine."""
    with listening(known()) as leading, beside(only_team(at(leading)), local_users=False) as door:
        assert door.post(HOOK, b"1").refusal == (401, "TokenMissing")
        forged = door.post(HOOK, b"1", Scriptops_Forwarded="local")
        assert forged.refusal == (503, "NoLeader")
        assert leading.operations.triggered == []


def test_while_nobody_leads_it_is_told_to_come_again() -> None:
    with beside(only_team("")) as door:
        answer = door.post(HOOK, b"1")
        assert answer.refusal == (503, "NoLeader")
        assert answer.headers["retry-after"] == "1"


def test_a_request_is_handed_on_once() -> None:
    """Two that each take the other for the leader do not play ball with it."""
    addresses: dict[str, str] = {}
    with (
        beside(lambda _: addresses["second"]) as first,
        beside(lambda _: addresses["first"]) as second,
    ):
        addresses.update(first=at(first), second=at(second))
        assert first.post(HOOK, b"1").refusal == (503, "NoLeader")


def test_a_leader_that_is_gone_is_said_to_be() -> None:
    with listening() as gone:
        address = at(gone)
    with beside(only_team(address)) as door:
        assert door.post(HOOK, b"1").refusal == (503, "LeaderAway")


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    authority = Authority(tmp_path)
    authority.init("test", now=datetime.now(UTC))
    authority.controller(["controller"], now=datetime.now(UTC), lifetime=timedelta(days=1))
    return tmp_path


def answer_of(peers: HttpPeers, door: Door) -> PeerAnswer:
    async def ask() -> PeerAnswer:
        try:
            return await peers.ask(
                f"https://127.0.0.1:{door.port}",
                method="GET",
                target="/healthz",
                headers=(),
                body=b"",
            )
        finally:
            await peers.close()

    return asyncio.run(ask())


def test_a_peer_is_known_by_showing_the_same_certificate(certs: Path) -> None:
    tls = Tls(certs / "controller.crt", certs / "controller.key")
    with listening(tls=tls) as door:
        assert answer_of(HttpPeers(certs / "controller.crt"), door).status == 200
        other = Authority(certs)
        other.controller(["controller"], now=datetime.now(UTC), lifetime=timedelta(days=1))
        for stranger in (HttpPeers(), HttpPeers(certs / "controller.crt")):
            with pytest.raises(Transient, match="who leads does not answer"):
                answer_of(stranger, door)
