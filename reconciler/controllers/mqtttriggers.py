"""Runs for messages of an MQTT broker: `executePolicy.mqtt` of the Scripts there are."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from reconciler.api.script import MqttTrigger
from reconciler.controllers.metrics import Metrics
from reconciler.core import mqtt_event, mqtt_filters
from reconciler.core.grants import NO_GRANTS, Granting
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import RunId
from reconciler.core.scripts import ScriptRecord
from reconciler.core.store import Delta
from reconciler.errors import ScriptOpsError, Transient
from reconciler.ports.broker import Broker, Received
from reconciler.ports.clock import Clock

log = logging.getLogger(__name__)

# How long a message of quality of service 1 is held for a Script that is not ready: long enough
# for an executor to come back after a restart and load it. A broker sends some tens of messages
# ahead of their acknowledgement, so that nothing else comes at this quality meanwhile.
HELD_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.1
_AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Wanted:
    trigger: MqttTrigger
    suspended: bool

    @property
    def subscriptions(self) -> frozenset[str]:
        return frozenset(mqtt_filters.shared(self.trigger.group, it) for it in self.trigger.topics)


class MqttTriggers:
    """Subscribes for Scripts from when they are seen until they go, ready or not.

    Promised: each message that the broker sends for a subscription of a Script is a wish for a run
    of its own, or counted as what kept it from one; a message of quality of service 1 is
    acknowledged after that, and comes again where we went before. Not promised: that it comes once
    only, and that a wish outlives this process: whether it does is up to the Script's `qos`.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        is_ready: Callable[[ObjectKey], bool],
        clock: Clock,
        metrics: Metrics,
        trigger: Callable[[ObjectKey, bytes], Awaitable[RunId]],
        grants: Granting = NO_GRANTS,
    ) -> None:
        self._broker = broker
        self._is_ready = is_ready
        self._clock = clock
        self._metrics = metrics
        self._trigger = trigger
        self._grants = grants
        self._scripts: dict[ObjectKey, _Wanted] = {}
        self._listeners: dict[str, dict[ObjectKey, int]] = {}
        self._told: set[ObjectKey] = set()
        # Waited for in vain: messages are not held for them again until they have been ready, or
        # changed. What is never ready would have everybody's messages wait.
        self._given_up: set[ObjectKey] = set()

    def changed(self, delta: Delta[ScriptRecord]) -> None:
        """A Script is there as it is now, or gone."""
        before, now = self._scripts.get(delta.key), self._wanted(delta.new)
        if before == now:
            return
        self._given_up.discard(delta.key)
        if now is None:
            self._scripts.pop(delta.key, None)
            self._told.discard(delta.key)
        else:
            self._scripts[delta.key] = now
        old = before.subscriptions if before is not None else frozenset()
        new = now.subscriptions if now is not None else frozenset()
        for subscription in sorted(new):
            assert now is not None  # noqa: S101 - there are none of what is not
            listeners = self._listeners.setdefault(subscription, {})
            listeners[delta.key] = now.trigger.qos
            self._broker.subscribe(subscription, max(listeners.values()), self._receive)
        for subscription in sorted(old - new):
            self._leave(subscription, delta.key)

    def grants_changed(self, scripts: Iterable[ScriptRecord]) -> None:
        """An operator lets them subscribe to more, or less."""
        for record in scripts:
            self.changed(Delta(record.key, record, record))

    def _wanted(self, record: ScriptRecord | None) -> _Wanted | None:
        wanted = _wanted(record)
        if record is None or wanted is None:
            return None
        namespace, asked = record.key.namespace, wanted.trigger.topics
        topics = [it for it in asked if self._grants.may_subscribe(namespace, it)]
        trigger = wanted.trigger.model_copy(update={"topics": topics})
        return _Wanted(trigger, wanted.suspended) if topics else None

    def _leave(self, subscription: str, script: ObjectKey) -> None:
        listeners = self._listeners[subscription]
        del listeners[script]
        if listeners:
            self._broker.subscribe(subscription, max(listeners.values()), self._receive)
        else:
            del self._listeners[subscription]
            self._broker.unsubscribe(subscription, self._receive)

    async def _receive(self, message: Received) -> None:
        listeners = tuple(self._listeners.get(message.subscription, ()))
        if not listeners:
            return
        try:
            event = mqtt_event.event(
                message.topic, message.payload, qos=message.qos, retain=message.retain
            )
        except ValueError as error:
            self._metrics.mqtt_messages_total.labels("refused").inc()
            self._tell(listeners[0], str(error))
            return
        late = tuple(it for it in listeners if message.qos and self._is_late(it))
        is_kept = message.qos > 0
        await self._run((it for it in listeners if it not in late), event, is_kept=is_kept)
        if late:
            await self._ready(late)
            await self._run(late, event, is_kept=is_kept)

    async def _run(self, scripts: Iterable[ObjectKey], event: bytes, *, is_kept: bool) -> None:
        for script in scripts:
            await self._wish(script, event, is_kept=is_kept)

    async def _wish(self, script: ObjectKey, event: bytes, *, is_kept: bool) -> None:
        while True:
            try:
                await self._trigger(script, event)
            except Transient as error:
                # The disk, perhaps: what could not be written down is not acknowledged.
                if is_kept and script in self._scripts:
                    await self._clock.sleep(_AGAIN_SECONDS)
                    continue
                log.warning(
                    "MQTT message lost", extra={"script": str(script), "reason": error.reason}
                )
            except ScriptOpsError as error:
                # Counted where it was refused, and shown by `explain`.
                log.debug(
                    "no run for an MQTT message",
                    extra={"script": str(script), "reason": error.reason},
                )
            return

    async def _ready(self, scripts: tuple[ObjectKey, ...]) -> None:
        """When all of them can run, or never will, or it has been too long."""
        until = self._clock.monotonic() + HELD_SECONDS
        while any(map(self._is_late, scripts)):
            if self._clock.monotonic() >= until:
                self._given_up.update(filter(self._is_late, scripts))
                return
            await self._clock.sleep(_LOOK_SECONDS)

    def _is_late(self, script: ObjectKey) -> bool:
        """Whether it is worth while to wait for it."""
        wanted = self._scripts.get(script)
        if self._is_ready(script):
            self._given_up.discard(script)
            return False
        return wanted is not None and not wanted.suspended and script not in self._given_up

    def _tell(self, script: ObjectKey, why: str) -> None:
        if script not in self._told:
            self._told.add(script)
            log.warning("MQTT message not taken", extra={"script": str(script), "reason": why})


def _wanted(record: ScriptRecord | None) -> _Wanted | None:
    if record is None or record.deleting or record.spec is None:
        return None
    trigger = record.spec.execute_policy.mqtt
    return None if trigger is None else _Wanted(trigger, record.spec.suspend)
