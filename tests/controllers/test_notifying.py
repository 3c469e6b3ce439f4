"""CloudEvents: what receivers are told, read by the specification's own library."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any, Self

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from prometheus_client import CollectorRegistry
from standardwebhooks.webhooks import Webhook

from reconciler.api.meta import Condition
from reconciler.controllers.events import Events
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.notifying import MOST_WAITING, TRIES, Notifications
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.secrets import Secrets
from reconciler.core.objects import SCRIPT_REPOSITORIES, SECRETS
from reconciler.core.outgoing import Reply, Request
from reconciler.errors import ReceiverUnavailable
from tests.controllers.syncpath import RULES, TEAM, Desk
from tests.fakes.outbound import FakeOutbound
from tests.support.rulebook import HOUSE

URL = "https://receiver.example/events"
WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NOTIFY = [{"url": URL, "secretRef": {"name": "receiver"}}]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


class Told:
    """A desk, its repository's transitions, and the receiver of them."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.outbound = FakeOutbound()
        self.metrics = Metrics(CollectorRegistry())
        numbers: Iterator[int] = count(1)
        clock, cluster = self.desk.clock, self.desk.cluster
        self.notifications = Notifications(
            self.desk.world,
            self.outbound,
            Secrets(cluster, clock=clock),
            Events(cluster, Precedence(), clock=clock, metrics=self.metrics),
            clock=clock,
            metrics=self.metrics,
            cluster_name="here",
            identity=lambda: f"event-{next(numbers)}",
        )

    async def __aenter__(self) -> Self:
        metadata = {"name": "receiver", "namespace": TEAM}
        data = {"token": base64.b64encode(WHSEC.encode()).decode()}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
        await self.desk.cluster.real.apply(SECRETS, secret, field_manager="operator")
        self.desk.remote.commit(HOUSE)
        self._open = self.desk.open(notify=NOTIFY)
        await self._open.__aenter__()
        await self.desk.see()
        self._loop = asyncio.ensure_future(self.notifications.loop.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        await self._open.__aexit__(None, None, None)

    async def tell(self, reason: str = "Applied", status: Any = "True") -> None:
        condition = Condition(type="Ready", status=status, reason=reason, message=f"it is {reason}")
        record = self.desk.world.repositories.get(RULES)
        assert record is not None
        self.notifications.transition(SCRIPT_REPOSITORIES, RULES, record.uid, condition)
        await self.desk.clock.settle()

    def reasons(self) -> list[str]:
        return [json.loads(it.body)["data"]["condition"]["reason"] for it in self.outbound.sent]

    def count(self, result: str) -> float:
        return self.metrics.notifications_total.labels(result)._value.get()


def test_a_transition_is_a_cloud_event_signed_as_the_standard_has_it() -> None:
    async def test() -> None:
        async with Told() as told:
            await told.tell()
            (sent,) = told.outbound.sent
            event = from_http_event(HTTPMessage(headers=dict(sent.headers), body=sent.body))
            record = told.desk.world.repositories.get(RULES)
            assert record is not None
            assert (event.get_id(), event.get_source(), event.get_type(), event.get_subject()) == (
                "event-1",
                "/scriptops/here/team/rules",
                "cn.edu.hit.scriptops.scriptrepository.ready",
                "ScriptRepository/team/rules",
            )
            assert event.get_specversion() == "1.0"
            assert event.get_time() == datetime.fromtimestamp(int(told.desk.clock.now()), UTC)
            assert event.get_data() == {
                "apiVersion": "hit.edu.cn/v1alpha1",
                "kind": "ScriptRepository",
                "namespace": "team",
                "name": "rules",
                "uid": record.uid,
                "revision": record.status.revision,
                "condition": {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Applied",
                    "message": "it is Applied",
                    "observedGeneration": 0,
                },
            }
            moment = datetime.fromtimestamp(int(sent.headers["webhook-timestamp"]), UTC)
            expected = Webhook(WHSEC).sign("event-1", moment, sent.body.decode())
            assert sent.headers["webhook-signature"] == expected
            assert WHSEC not in repr(sent)

    run(test())


def test_a_receiver_that_is_away_or_wants_a_pause_gets_all_in_order_afterwards() -> None:
    async def test() -> None:
        async with Told() as told:
            answers = [Reply(503, {}, ""), Reply(429, {"retry-after": "30"}, "")]

            def answer(_: Request) -> Reply:
                if len(answers) == 0:
                    return Reply(204, {}, "")
                return answers.pop(0)

            told.outbound.answer = answer
            for reason in ("One", "Two", "Three"):
                await told.tell(reason)
            await told.desk.clock.advance(29)
            assert set(told.reasons()) == {"One"}
            await told.desk.clock.advance(3)
            assert told.reasons()[-3:] == ["One", "Two", "Three"]
            assert told.count("sent") == 3

    run(test())


def test_an_event_that_is_refused_is_dropped_and_the_next_is_sent() -> None:
    async def test() -> None:
        async with Told() as told:
            told.outbound.answer = lambda it: Reply(400 if b'"One"' in it.body else 200, {}, "")
            await told.tell("One")
            await told.tell("Two")
            await told.desk.clock.advance(1)
            assert told.reasons() == ["One", "Two"]
            assert (told.count("sent"), told.count("dropped")) == (1, 1)

    run(test())


def test_a_receiver_that_stays_away_costs_bounded_tries_and_room() -> None:
    async def test() -> None:
        async with Told() as told:

            def away(_: Request) -> Reply:
                raise ReceiverUnavailable("nobody there")

            told.outbound.answer = away
            await told.tell("One")
            await told.desk.clock.advance(600)
            assert len(told.outbound.sent) == TRIES
            for _ in range(MOST_WAITING + 5):
                record = told.desk.world.repositories.get(RULES)
                assert record is not None
                condition = Condition(type="Ready", status="True", reason="Many")
                told.notifications.transition(SCRIPT_REPOSITORIES, RULES, record.uid, condition)
            assert told.count("dropped") == 1 + 5

    run(test())


def test_a_repository_that_names_nobody_tells_nobody() -> None:
    async def test() -> None:
        async with Told() as told:
            await told._open.__aexit__(None, None, None)
            told._open = told.desk.open(notify=[])
            await told._open.__aenter__()
            await told.tell()
            assert told.outbound.sent == []

    run(test())
