"""Push webhooks: proven, read, and made into a look at the branch that an operator has bound."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping

from reconciler.api.scriptrepository import PushWebhook, ScriptRepositorySpec
from reconciler.api.verification import VerificationMode
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.secrets import Secrets
from reconciler.controllers.world import World
from reconciler.core import pushes
from reconciler.core.objects import ObjectKey
from reconciler.core.pushes import Change, Delivery
from reconciler.errors import Forbidden, ObjectNotFound
from reconciler.ports.clock import Clock
from reconciler.ports.hooks import Heard

log = logging.getLogger(__name__)

# Deliveries that are remembered, of all repositories together; about 100 bytes each.
REMEMBERED = 10_000
_FIELD = "spec.webhook.secretRef.name"

Pushed = Callable[[ObjectKey, Change], bool]


class PushHooks:
    """`reconciler.ports.hooks.Hooks` for the ScriptRepositories of a cluster.

    `pushed` is told of each push to the branch of a repository, and says whether the branch will
    be looked at because of it.
    """

    def __init__(
        self,
        world: World,
        secrets: Secrets,
        pushed: Pushed,
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._world = world
        self._secrets = secrets
        self._pushed = pushed
        self._clock = clock
        self._metrics = metrics
        self._deliveries: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def push(self, repository: ObjectKey, headers: Mapping[str, str], body: bytes) -> Heard:
        try:
            heard = await self._push(repository, headers, body)
        except (Forbidden, pushes.Malformed) as error:
            self._metrics.push_webhooks_total.labels("refused").inc()
            log.info("webhook refused", extra={"key": str(repository), "error": str(error)})
            raise
        self._metrics.push_webhooks_total.labels(heard.value).inc()
        log.debug("webhook", extra={"key": str(repository), "heard": heard.value})
        return heard

    async def _push(self, repository: ObjectKey, headers: Mapping[str, str], body: bytes) -> Heard:
        record = self._world.repositories.get(repository)
        if record is None or record.spec is None or record.spec.webhook is None:
            raise ObjectNotFound(f"ScriptRepository {repository} takes no webhooks")
        delivery = await self._receive(repository, record.spec.webhook, headers, body)
        if delivery.is_ping:
            return Heard.PING
        if self._is_known(record.uid, delivery):
            return Heard.DUPLICATE
        return self._take(repository, record.spec, delivery)

    async def _receive(
        self,
        repository: ObjectKey,
        webhook: PushWebhook,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Delivery:
        key = ObjectKey(repository.namespace, webhook.secret_ref.name)
        tokens = await self._secrets.tokens(key, field=_FIELD)
        try:
            return self._delivery(webhook, headers, body, tokens)
        except pushes.NotGenuine as error:
            # It may have been signed by a token that is there since a moment.
            newer = await self._secrets.tokens(key, field=_FIELD, doubted=True)
            if newer == tokens:
                raise Forbidden(str(error), reason="SignatureInvalid") from error
        try:
            return self._delivery(webhook, headers, body, newer)
        except pushes.NotGenuine as error:
            raise Forbidden(str(error), reason="SignatureInvalid") from error

    def _delivery(
        self,
        webhook: PushWebhook,
        headers: Mapping[str, str],
        body: bytes,
        tokens: tuple[str, ...],
    ) -> Delivery:
        return pushes.receive(
            headers, body, tokens=tokens, provider=webhook.provider, now=self._clock.now()
        )

    def _is_known(self, uid: str, delivery: Delivery) -> bool:
        """Whether this delivery was taken before; from now on it was."""
        if not delivery.id:
            return False
        mark = (uid, delivery.id[:200])
        if mark in self._deliveries:
            return True
        self._deliveries[mark] = None
        if len(self._deliveries) > REMEMBERED:
            self._deliveries.popitem(last=False)
        return False

    def _take(self, repository: ObjectKey, spec: ScriptRepositorySpec, delivery: Delivery) -> Heard:
        # Our own pushes of statuses come here too, and end here: they are to another branch.
        ours = [
            change
            for change in delivery.changes or ()
            if not change.ref or pushes.branch_of(change.ref) == spec.ref
        ]
        if not ours and _waits_for_tags(spec):
            # Whichever it is: a tag may be what the branch's commit has waited for.
            tags = [change for change in delivery.changes or () if pushes.is_tag(change.ref)]
            ours = [Change("", "", "") for _ in tags[:1]]
        if not ours or spec.suspend:
            return Heard.IGNORED
        looked_at = [self._pushed(repository, change) for change in ours]
        return Heard.QUEUED if any(looked_at) else Heard.CURRENT


def _waits_for_tags(spec: ScriptRepositorySpec) -> bool:
    return spec.verify is not None and spec.verify.mode is not VerificationMode.HEAD
