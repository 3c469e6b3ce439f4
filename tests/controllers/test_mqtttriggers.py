"""Subscriptions that Scripts ask for, and runs for what comes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from prometheus_client import CollectorRegistry

from reconciler.api.grants import TopicRule
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.mqtttriggers import HELD_SECONDS, MqttTriggers
from reconciler.core.grants import NO_GRANTS, Granting, Grants
from reconciler.core.mqtt_event import LARGEST_PAYLOAD
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import RunId
from reconciler.core.scripts import ScriptRecord, decode_script
from reconciler.core.store import Delta
from reconciler.errors import Transient, Waiting
from tests.fakes.broker import FakeBroker
from tests.fakes.clock import FakeClock
from tests.support.rulebook import script

DOOR, LAMP = (ObjectKey("team", name) for name in ("door", "lamp"))


def record(key: ObjectKey, trigger: Any, **spec: Any) -> ScriptRecord:
    policy = {} if trigger is None else {"mqtt": trigger}
    document = script(key.name, policy=policy, **spec)
    document["metadata"] |= {"namespace": key.namespace, "uid": key.name, "generation": 1}
    decoded = decode_script(document)
    assert decoded.problem == ""
    return decoded


class HeldGrants:
    """Those of now."""

    def __init__(self, now: Grants) -> None:
        self.now = now

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)


class Desk:
    """Triggers on a fake broker; what was run, by Script."""

    def __init__(self, grants: Granting = NO_GRANTS) -> None:
        self.broker = FakeBroker()
        self.clock = FakeClock()
        self.ready = {DOOR, LAMP}
        self.is_full = False
        self.broken = 0
        self.runs: list[tuple[str, Any]] = []
        self.known: dict[ObjectKey, ScriptRecord] = {}
        self.metrics = Metrics(CollectorRegistry())
        self.triggers = MqttTriggers(
            self.broker,
            is_ready=self.ready.__contains__,
            clock=self.clock,
            metrics=self.metrics,
            trigger=self._trigger,
            grants=grants,
        )

    async def _trigger(self, key: ObjectKey, event: bytes) -> RunId:
        if self.broken:
            self.broken -= 1
            raise Transient("the disk is full", reason="NotKept")
        if self.is_full:
            raise Waiting("too many wait", reason="QueueFull")
        self.runs.append((key.name, json.loads(event)["payload"]))
        return RunId("run")

    def put(self, key: ObjectKey, trigger: Any, **spec: Any) -> None:
        new = record(key, trigger, **spec)
        self.triggers.changed(Delta(key, self.known.get(key), new))
        self.known[key] = new

    def remove(self, key: ObjectKey) -> None:
        self.triggers.changed(Delta(key, self.known.pop(key), None))


def granted(*topics: str) -> Grants:
    return Grants(topics=(TopicRule(namespaces=["team"], topics=list(topics)),))


def test_topics_that_are_not_granted_are_not_subscribed_to() -> None:
    held = HeldGrants(granted("a/#"))
    desk = Desk(held)
    desk.put(DOOR, {"topics": ["a/+", "b"]})
    desk.put(LAMP, {"topics": ["#"]})
    assert desk.broker.asked == {"a/+": 0}
    held.now = granted("b")
    desk.triggers.grants_changed(desk.known.values())
    assert desk.broker.asked == {"b": 0}


def test_subscriptions_are_those_of_the_scripts_there_are() -> None:
    desk = Desk()
    desk.put(DOOR, {"topics": ["a/+", "b"]})
    desk.put(LAMP, {"topics": ["b"], "qos": 1})
    assert desk.broker.asked == {"a/+": 0, "b": 1}
    desk.put(DOOR, {"topics": ["c"], "group": "g"})
    assert desk.broker.asked == {"$share/g/c": 0, "b": 1}
    desk.put(LAMP, {"topics": ["b"]})
    assert desk.broker.asked == {"$share/g/c": 0, "b": 0}
    desk.put(LAMP, None)
    desk.remove(DOOR)
    assert desk.broker.asked == {}


def test_a_message_is_a_run_of_each_script_that_subscribed() -> None:
    async def check() -> None:
        desk = Desk()
        desk.put(DOOR, {"topics": ["a/+"]})
        desk.put(LAMP, {"topics": ["a/+", "b"]})
        await desk.broker.deliver("a/+", "a/1", b"x")
        await desk.broker.deliver("b", "b", b"y")
        assert desk.runs == [("door", "x"), ("lamp", "x"), ("lamp", "y")]

    asyncio.run(check())


def test_a_full_queue_raises_nothing_and_the_message_is_done_with() -> None:
    async def check() -> None:
        desk = Desk()
        desk.put(DOOR, {"topics": ["a"], "qos": 1})
        desk.is_full = True
        await desk.broker.deliver("a", "a", b"x", qos=1)
        assert desk.runs == []

    asyncio.run(check())


def test_a_message_is_not_acknowledged_before_its_script_can_run() -> None:
    async def check() -> None:
        desk = Desk()
        desk.ready.clear()
        desk.put(DOOR, {"topics": ["a"], "qos": 1})
        held = asyncio.ensure_future(desk.broker.deliver("a", "a", b"x", qos=1))
        await desk.clock.advance(HELD_SECONDS / 2)
        assert (held.done(), desk.runs) == (False, [])
        desk.ready.add(DOOR)
        await desk.clock.advance(1)
        assert (held.done(), desk.runs) == (True, [("door", "x")])

    asyncio.run(check())


def test_it_is_not_held_for_ever_nor_for_a_suspended_script() -> None:
    async def check() -> None:
        desk = Desk()
        desk.ready.clear()
        desk.put(DOOR, {"topics": ["a"], "qos": 1})
        held = asyncio.ensure_future(desk.broker.deliver("a", "a", b"x", qos=1))
        await desk.clock.advance(HELD_SECONDS + 1)
        assert held.done()
        desk.put(DOOR, {"topics": ["a"], "qos": 1}, suspend=True)
        await desk.broker.deliver("a", "a", b"x", qos=1)

    asyncio.run(check())


def test_a_script_that_is_never_ready_keeps_no_messages_from_others() -> None:
    """They share one connection, and the broker sends some hundreds ahead of acknowledgements."""

    async def check() -> None:
        desk = Desk()
        desk.ready.discard(LAMP)
        desk.put(DOOR, {"topics": ["a"], "qos": 1})
        desk.put(LAMP, {"topics": ["a"], "qos": 1})

        first = asyncio.ensure_future(desk.broker.deliver("a", "a", b"1", qos=1))
        await desk.clock.advance(1)
        assert (first.done(), desk.runs) == (False, [("door", "1")])
        await desk.clock.advance(HELD_SECONDS)
        assert first.done()
        desk.runs.clear()

        # Not waited for again, until it has been ready.
        await asyncio.wait_for(desk.broker.deliver("a", "a", b"2", qos=1), 1)
        assert desk.runs[0] == ("door", "2")
        desk.ready.add(LAMP)
        await asyncio.wait_for(desk.broker.deliver("a", "a", b"3", qos=1), 1)
        desk.ready.discard(LAMP)
        held = asyncio.ensure_future(desk.broker.deliver("a", "a", b"4", qos=1))
        await desk.clock.advance(1)
        assert not held.done()
        held.cancel()

    asyncio.run(check())


def test_what_cannot_be_kept_is_tried_again_before_it_is_acknowledged() -> None:
    async def check() -> None:
        desk = Desk()
        desk.put(DOOR, {"topics": ["a"], "qos": 1})
        desk.broken = 3
        held = asyncio.ensure_future(desk.broker.deliver("a", "a", b"x", qos=1))
        await desk.clock.advance(2.5)
        assert not held.done()
        await desk.clock.advance(1)
        assert (held.done(), desk.runs) == (True, [("door", "x")])
        desk.broken = 1
        await desk.broker.deliver("a", "a", b"y", qos=0)
        assert desk.runs == [("door", "x")]

    asyncio.run(check())


def test_what_is_too_large_is_counted_and_runs_nothing() -> None:
    async def check() -> None:
        desk = Desk()
        desk.put(DOOR, {"topics": ["a"]})
        await desk.broker.deliver("a", "a", b"x" * (LARGEST_PAYLOAD + 1))
        counted = desk.metrics.mqtt_messages_total.labels("refused")._value.get()
        assert (desk.runs, counted) == ([], 1)

    asyncio.run(check())
