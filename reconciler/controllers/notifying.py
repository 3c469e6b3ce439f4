"""Transitions told as CloudEvents to whoever a repository names."""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from reconciler.api.meta import Condition
from reconciler.api.scriptrepository import Notify
from reconciler.controllers.events import Events
from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result
from reconciler.controllers.secrets import Secrets
from reconciler.controllers.world import World
from reconciler.core import cloudevents, forges, webhooksignature
from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey, Resource
from reconciler.core.outgoing import Request
from reconciler.core.repositories import RepositoryRecord
from reconciler.errors import (
    Forbidden,
    ReceiverUnavailable,
    ScriptOpsError,
    Stalled,
    Throttled,
)
from reconciler.ports.clock import Clock
from reconciler.ports.outbound import Outbound

log = logging.getLogger(__name__)

# For one receiver, about 1 KiB each; the oldest make place, for the newest say how things are.
MOST_WAITING = 1000
# One event holds up those after it for about four minutes at most, or as long as it is asked to.
TRIES = 10
FIRST_PAUSE = 0.5
LAST_PAUSE = 60.0
WORKERS = 4
_FIELD = "spec.notify.secretRef.name"


class Receiver(NamedTuple):
    repository: ObjectKey
    url: str


@dataclass(slots=True)
class _Event:
    identity: str
    body: bytes
    tries: int = 0


class Notifications:
    """In order for each receiver, at least once, while the process lives and there is room.

    Not promised: that events outlast a restart or a receiver that stays away; what is told is in
    the statuses, too.
    """

    def __init__(
        self,
        world: World,
        outbound: Outbound,
        secrets: Secrets,
        events: Events,
        *,
        clock: Clock,
        metrics: Metrics,
        cluster_name: str,
        identity: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._world = world
        self._outbound = outbound
        self._secrets = secrets
        self._events = events
        self._clock = clock
        self._metrics = metrics
        self._cluster_name = cluster_name
        self._identity = identity
        self._queues: dict[Receiver, deque[_Event]] = {}
        self._paused: dict[Receiver, float] = {}
        self.loop: KeyLoop[Receiver] = KeyLoop(
            "Notification", self._reconcile, clock=clock, metrics=metrics, workers=WORKERS
        )

    def transition(
        self, resource: Resource, key: ObjectKey, uid: str, condition: Condition
    ) -> None:
        """A condition of a ScriptRepository, or of a Script out of one, has changed."""
        found = self._repository(resource, key)
        if found is None:
            return
        repository, revision = found
        for notify in repository.spec.notify if repository.spec is not None else ():
            identity = self._identity()
            body = cloudevents.of_transition(
                resource,
                key,
                uid,
                condition,
                repository=repository.key,
                revision=revision,
                cluster=self._cluster_name,
                identity=identity,
                now=self._clock.now(),
            )
            self._put(Receiver(repository.key, notify.url), _Event(identity, body))

    def _repository(
        self, resource: Resource, key: ObjectKey
    ) -> tuple[RepositoryRecord, str] | None:
        if resource == SCRIPTS:
            script = self._world.scripts.get(key)
            owner = self._world.applied_by(script) if script else None
            return None if script is None or owner is None else (owner, script.revision)
        if resource == SCRIPT_REPOSITORIES:
            repository = self._world.repositories.get(key)
            return None if repository is None else (repository, repository.status.revision)
        return None

    def _put(self, receiver: Receiver, event: _Event) -> None:
        waiting = self._queues.setdefault(receiver, deque())
        if len(waiting) >= MOST_WAITING:
            waiting.popleft()
            self._metrics.notifications_total.labels("dropped").inc()
        waiting.append(event)
        self.loop.add(receiver)

    async def _reconcile(self, receiver: Receiver) -> Result:
        # News must not shorten the pause that a receiver asked for.
        left = self._paused.get(receiver, 0.0) - self._clock.monotonic()
        if left > 0:
            return Result(timedelta(seconds=left))
        self._paused.pop(receiver, None)
        queue = self._queues.get(receiver)
        while queue:
            notify = self._notify(receiver)
            if notify is None:
                break
            event = queue[0]
            try:
                await self._send(receiver, notify, event)
            except ScriptOpsError as error:
                return Result(self._failed(receiver, queue, event, error))
            self._metrics.notifications_total.labels("sent").inc()
            if queue and queue[0] is event:
                queue.popleft()
        self._queues.pop(receiver, None)
        return Result()

    def _notify(self, receiver: Receiver) -> Notify | None:
        record = self._world.repositories.get(receiver.repository)
        spec = record.spec if record is not None else None
        return next((it for it in spec.notify if it.url == receiver.url), None) if spec else None

    async def _send(self, receiver: Receiver, notify: Notify, event: _Event) -> None:
        headers = {"Content-Type": cloudevents.CONTENT_TYPE}
        authority = ""
        now = self._clock.now()
        if notify.secret_ref is not None:
            secret = ObjectKey(receiver.repository.namespace, notify.secret_ref.name)
            data = await self._secrets.get(secret, field=_FIELD)
            authority = data.get("ca.crt", "")
            token = data.get("token", "").strip()
            if token:
                headers |= webhooksignature.signed(
                    event.body, key=token.encode(), identity=event.identity, now=now
                )
        reply = await self._outbound.post(Request(notify.url, headers, event.body, authority))
        pause = forges.pause_of(reply, now=now)
        if pause is not None:
            raise Throttled("the receiver asks for a pause", retry_after=pause)
        if reply.status >= 500 or reply.status in {408, 425}:
            raise ReceiverUnavailable(f"the receiver answered with {reply.status}")
        if reply.status >= 300:
            raise Forbidden(
                f"the receiver of spec.notify refuses events ({reply.status})",
                reason="NotificationRefused",
            )

    def _failed(
        self, receiver: Receiver, queue: deque[_Event], event: _Event, error: ScriptOpsError
    ) -> timedelta:
        """Keep the event for later or drop it; after how long to go on."""
        log.info(
            "event not sent",
            extra={"key": str(receiver.repository), "reason": error.reason, "error": str(error)},
        )
        event.tries += 1
        if not isinstance(error, Stalled) and event.tries < TRIES:
            pause = timedelta(seconds=min(FIRST_PAUSE * 2**event.tries, LAST_PAUSE))
            if isinstance(error, Throttled) and error.retry_after is not None:
                pause = error.retry_after
            self._paused[receiver] = self._clock.monotonic() + pause.total_seconds()
            return pause
        self._metrics.notifications_total.labels("dropped").inc()
        if queue and queue[0] is event:
            queue.popleft()
        record = self._world.repositories.get(receiver.repository)
        if record is not None:
            self._events.warning(
                SCRIPT_REPOSITORIES, record.key, record.uid, error.reason, f"event lost: {error}"
            )
        return timedelta(0)
