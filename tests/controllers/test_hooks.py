"""Push webhooks heard: what is fetched because of them, how often, and what never is."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Coroutine
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from reconciler.controllers.hooks import PushHooks
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.secrets import Secrets
from reconciler.core.objects import SECRETS, ObjectKey
from reconciler.core.pushes import Change
from reconciler.errors import Forbidden, ObjectNotFound, SourceUnavailable, Stalled
from reconciler.ports.hooks import Heard
from tests.controllers.syncpath import RULES, TEAM, Desk
from tests.support import signing
from tests.support.rulebook import HOUSE, documents, script

NEVER = "f" * 40
ONE = "one"
WEBHOOK = {"secretRef": {"name": "push"}}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


class Forge:
    """A forge that tells a desk's controller of pushes."""

    def __init__(self, desk: Desk, token: str = ONE) -> None:
        self.desk = desk
        self.token = token
        self.hooks = PushHooks(
            desk.world,
            Secrets(desk.cluster, clock=desk.clock),
            desk.repositories.branches.pushed,
            clock=desk.clock,
            metrics=Metrics(CollectorRegistry()),
        )
        self.sent = 0

    async def keep(self, **tokens: str) -> None:
        data = {name: base64.b64encode(value.encode()).decode() for name, value in tokens.items()}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": TEAM, "name": "push"},
        }
        await self.desk.cluster.real.apply(
            SECRETS, {**secret, "data": data}, field_manager="operator", force=True
        )

    async def tell(
        self,
        after: str,
        *,
        before: str = "0" * 40,
        ref: str = "refs/heads/main",
        delivery: str | None = None,
        key: ObjectKey = RULES,
    ) -> Heard:
        self.sent += 1
        body = json.dumps({"ref": ref, "before": before, "after": after}).encode()
        signature = signing.hexadecimal(body, self.token.encode())
        headers = {
            "content-type": "application/json",
            "x-github-event": "push",
            "x-github-delivery": delivery or f"delivery-{self.sent}",
            "x-hub-signature-256": f"sha256={signature}",
        }
        heard = await self.hooks.push(key, headers, body)
        await self.desk.clock.settle()
        return heard


def test_a_push_is_fetched_at_once_and_what_it_changed_is_live() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        before = desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK):
            after = desk.remote.commit({"manifests/more.yaml": documents(script("more"))})
            assert await forge.tell(after, before=before) is Heard.QUEUED
            assert "more" in await desk.live()
            assert (await desk.status())["revision"] == f"main@sha1:{after}"
            assert desk.remote.fetches == 2

    run(test())


def test_a_commit_that_is_not_on_the_branch_is_looked_for_but_never_deployed() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        known = desk.remote.commit(HOUSE)
        elsewhere = desk.remote.commit({"manifests/bad.yaml": documents(script("bad"))}, "feature")
        async with desk.open(webhook=WEBHOOK):
            assert await forge.tell(elsewhere, before=known) is Heard.QUEUED
            await desk.clock.advance(39.0)
            assert desk.remote.fetches == 10
            assert (await desk.status())["revision"] == f"main@sha1:{known}"
            assert set(await desk.live()) == {"relay"}

    run(test())


def test_a_branch_that_is_behind_its_webhook_is_looked_at_until_it_has_caught_up() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        known = desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK):
            await forge.tell(NEVER, before=known)
            await desk.clock.advance(0.5)
            assert desk.remote.fetches == 4
            after = desk.remote.commit({"README.md": b"x"})
            await desk.clock.advance(0.5)
            assert (await desk.status())["revision"] == f"main@sha1:{after}"
            fetches = desk.remote.fetches
            await desk.clock.advance(20)
            assert desk.remote.fetches == fetches

    run(test())


@pytest.mark.parametrize(
    "ref",
    [
        pytest.param("refs/heads/scriptops-status/here", id="our own status ref"),
        pytest.param("refs/heads/feature", id="another branch"),
        pytest.param("refs/tags/main", id="a tag of the branch's name"),
        pytest.param("refs/heads/main/deeper", id="a branch below it"),
        pytest.param("refs/notes/commits", id="notes"),
    ],
)
def test_pushes_to_other_refs_are_answered_and_lead_to_nothing(ref: str) -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK):
            assert await forge.tell(NEVER, ref=ref) is Heard.IGNORED
            assert desk.remote.fetches == 1

    run(test())


def test_a_delivery_counts_once_and_a_push_that_is_live_not_at_all() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        known = desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK):
            assert await forge.tell(known, delivery="a") is Heard.CURRENT
            assert await forge.tell(known, delivery="a") is Heard.DUPLICATE
            assert desk.remote.fetches == 1

    run(test())


def test_a_burst_of_1500_pushes_is_a_few_fetches() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK):
            reads = desk.cluster.count("get")
            for number in range(1500):
                change = pushes_change(f"{number:040x}")
                desk.repositories.branches.pushed(RULES, change)
            after = desk.remote.commit({"README.md": b"the last"})
            assert await forge.tell(after) is Heard.QUEUED
            await desk.clock.advance(5)
            assert (await desk.status())["revision"] == f"main@sha1:{after}"
            assert desk.remote.fetches <= 4
            assert desk.cluster.count("get") - reads <= 4

    run(test())


def pushes_change(after: str) -> Change:
    return Change("refs/heads/main", "", after)


def test_pushes_without_end_are_fetched_at_a_bounded_rate() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK):
            for number in range(1, 301):
                commit = desk.remote.commit({"README.md": b"%d" % number})
                await forge.tell(commit)
                await desk.clock.advance(0.1)
            # 30 s of ten pushes a second: twenty at once, then one a second.
            assert desk.remote.fetches <= 1 + 20 + 30
            await desk.clock.advance(1.0)
            assert (await desk.status())["revision"] == f"main@sha1:{commit}"

    run(test())


def test_a_token_that_was_added_counts_at_once_and_the_older_one_still() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK):
            await forge.tell(NEVER)
            await desk.clock.advance(2.0)
            await forge.keep(token="two\n", token_old="one", other="three")
            for token, is_taken in (("two", True), ("one", True), ("three", False)):
                other = Forge(desk, token)
                other.hooks = forge.hooks
                if is_taken:
                    assert await other.tell(NEVER, delivery=token) is not Heard.DUPLICATE
                else:
                    with pytest.raises(Forbidden):
                        await other.tell(NEVER, delivery=token)

    run(test())


def test_wrong_signatures_are_no_load_on_the_cluster_and_no_secret_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk, "wrong-secret")
        await forge.keep(token="right-secret")
        desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK):
            reads = desk.cluster.count("get")
            for _ in range(50):
                with pytest.raises(Forbidden) as refused:
                    await forge.tell(NEVER)
                assert refused.value.reason == "SignatureInvalid"
            assert desk.cluster.count("get") - reads == 1
            assert desk.remote.fetches == 1

    with caplog.at_level(logging.DEBUG):
        run(test())
    said = "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "x-hub-signature-256 does not fit the secret" in said
    assert "right-secret" not in said
    assert "wrong-secret" not in said


def test_who_takes_no_webhooks_is_not_there() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        desk.remote.commit(HOUSE)
        async with desk.open():
            for key in (RULES, ObjectKey(TEAM, "others")):
                with pytest.raises(ObjectNotFound):
                    await forge.tell(NEVER, key=key)

    run(test())


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        pytest.param(None, "CredentialsNotFound", id="no Secret"),
        pytest.param({"password": "one"}, "CredentialsInvalid", id="no token in it"),
        pytest.param({"token": ""}, "CredentialsInvalid", id="an empty token"),
    ],
)
def test_without_a_secret_nothing_is_taken(tokens: dict[str, str] | None, reason: str) -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        if tokens is not None:
            await forge.keep(**tokens)
        desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK):
            with pytest.raises(Stalled) as error:
                await forge.tell(NEVER)
            assert error.value.reason == reason

    run(test())


def test_a_suspended_repository_hears_and_does_nothing() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK, suspend=True):
            assert await forge.tell(NEVER) is Heard.IGNORED
            assert desk.remote.fetches == 0

    run(test())


def test_a_forge_that_tells_and_then_fails_is_asked_again() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        known = desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK):
            after = desk.remote.commit({"README.md": b"x"})
            desk.remote.fault = SourceUnavailable("503")
            await forge.tell(after, before=known)
            desk.remote.fault = None
            await desk.clock.advance(1.0)
            assert (await desk.status())["revision"] == f"main@sha1:{after}"

    run(test())


def test_polling_finds_what_no_webhook_told_and_slows_down_only_while_they_do() -> None:
    async def test() -> None:
        desk = Desk()
        forge = Forge(desk)
        await forge.keep(token="one")
        desk.remote.commit(HOUSE)
        async with desk.open(webhook=WEBHOOK, interval="10s"):
            lost = desk.remote.commit({"README.md": b"lost"})
            await desk.clock.advance(10)
            assert (await desk.status())["revision"] == f"main@sha1:{lost}"
            await forge.tell(desk.remote.commit({"README.md": b"told"}))
            fetches = desk.remote.fetches
            await desk.clock.advance(300)
            # After 10, 20, 40, 80 and then every 100 s.
            assert desk.remote.fetches - fetches == 5
            lost = desk.remote.commit({"README.md": b"lost again"})
            await desk.clock.advance(100)
            assert (await desk.status())["revision"] == f"main@sha1:{lost}"
            fetches = desk.remote.fetches
            await desk.clock.advance(100)
            assert desk.remote.fetches - fetches == 10

    run(test())
