"""Commit statuses at the forge: told when they change, and never before they are true."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta

from reconciler.api.meta import READY
from reconciler.api.script import ScriptStatus
from reconciler.api.scriptrepository import Forge
from reconciler.controllers.events import Events
from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result
from reconciler.controllers.progress import Progress
from reconciler.controllers.secrets import Secrets
from reconciler.controllers.world import World
from reconciler.core import forges, publishing
from reconciler.core.deployment import Deployment, Standing
from reconciler.core.objects import (
    ANNOTATION_DIGEST,
    SCRIPT_REPOSITORIES,
    ObjectKey,
    mapping,
)
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.scripts import ScriptRecord
from reconciler.core.store import Delta
from reconciler.errors import ScriptOpsError, Stalled, Throttled, Waiting
from reconciler.ports.clock import Clock
from reconciler.ports.outbound import Outbound

log = logging.getLogger(__name__)

# A commit that is deployed within this is told once, not twice; and a thousand Scripts that become
# ready one after the other are looked at a few times only.
SETTLE = 0.2
WORKERS = 4

Latest = Callable[[ScriptRecord], ScriptStatus]
Passed = Callable[[ObjectKey], tuple[str, ...]]


class CommitStatuses:
    """pending, then success once all is applied, verified and loaded by executors, else failure.

    One context for each cluster. Of a burst of commits those that were passed over get the verdict
    of the one that was deployed. Not promised: that a status is told once only; a restart tells the
    newest again.
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
        latest: Latest,
        passed: Passed,
    ) -> None:
        self._world = world
        self._outbound = outbound
        self._secrets = secrets
        self._events = events
        self._clock = clock
        self._metrics = metrics
        self._cluster_name = cluster_name
        self._latest = latest
        self._passed = passed
        self._deployments: dict[str, Deployment] = {}
        # For which a repository deployed when its Scripts were counted.
        self._namespaces: dict[str, frozenset[str]] = {}
        self._paused: dict[str, float] = {}
        self.loop: KeyLoop[ObjectKey] = KeyLoop(
            "CommitStatus", self._reconcile, clock=clock, metrics=metrics, workers=WORKERS
        )

    # What is heard.

    def progressed(self, progress: Progress) -> None:
        record = progress.record
        if record.spec is None or record.spec.forge is None:
            self._forget(record.uid)
            return
        deployment = self._deployments.get(record.uid)
        namespaces = publishing.served(record)
        is_first = deployment is None or namespaces != self._namespaces.get(record.uid)
        if deployment is None or is_first:
            self._namespaces[record.uid] = namespaces
            deployment = self._deployments[record.uid] = self._survey(record.uid)
        deployment.begin(
            progress.commit, was_ready=is_first and _was_ready(record, progress.commit)
        )
        deployment.owe(self._passed(record.key))
        if progress.verdict is not None:
            deployment.conclude(progress.verdict, progress.written, is_change=progress.is_change)
            for key in progress.written:
                self._look(deployment, self._world.scripts.get(key))
        self.loop.add_after(record.key, SETTLE if progress.verdict is None else 0)

    def let_go(self, record: RepositoryRecord) -> None:
        """Another replica tells the forge."""
        self._forget(record.uid)

    def script_changed(self, delta: Delta[ScriptRecord]) -> None:
        """Scripts that came, went, or have another spec."""
        old, new = delta.old, delta.new
        before, after = self._applied_by(old), self._applied_by(new)
        for uid, record in {before: old, after: new}.items():
            deployment = self._deployments.get(uid)
            if record is None or deployment is None:
                continue
            if uid != after:
                deployment.scripts -= 1
                deployment.stands(record.key, None)
                deployment.written.pop(record.key, None)
            else:
                deployment.scripts += uid != before
                self._look(deployment, new)
            self._wake(uid)

    def _applied_by(self, record: ScriptRecord | None) -> str:
        """The UID of the repository whose deployment it is of, as that was surveyed, or nothing."""
        if record is None or not record.is_applied:
            return ""
        is_ours = record.key.namespace in self._namespaces.get(record.repository_uid, ())
        return record.repository_uid if is_ours else ""

    def script_status(self, key: ObjectKey, _status: ScriptStatus) -> None:
        """A Script became ready, or is no longer."""
        record = self._world.scripts.get(key)
        deployment = self._deployments.get(self._applied_by(record))
        if record is not None and deployment is not None:
            self._look(deployment, record)
            self._wake(record.repository_uid)

    def _wake(self, uid: str) -> None:
        owner = self._world.repository(uid)
        if owner is not None:
            self.loop.add_after(owner.key, SETTLE)

    def _survey(self, uid: str) -> Deployment:
        """All Scripts of a repository as they are now; from here on, changes are heard of."""
        deployment = Deployment()
        for record in self._world.scripts:
            if self._applied_by(record) == uid:
                deployment.scripts += 1
                deployment.stands(record.key, self._standing(record))
        return deployment

    def _look(self, deployment: Deployment, record: ScriptRecord | None) -> None:
        if record is None:
            return
        annotations = mapping(mapping(record.document.get("metadata")).get("annotations"))
        digest = deployment.written.get(record.key)
        if digest is not None and annotations.get(ANNOTATION_DIGEST) == digest:
            # What was written has come back with the watch.
            del deployment.written[record.key]
        deployment.stands(record.key, self._standing(record))

    def _standing(self, record: ScriptRecord) -> Standing:
        status = self._latest(record)
        ready = next((c for c in status.conditions if c.type == READY), None)
        if ready is None or status.observed_generation != record.generation:
            return Standing(is_ready=False)
        return Standing(
            is_ready=ready.status == "True",
            problem=ready.message if ready.status == "False" else "",
        )

    # What is told.

    async def _reconcile(self, key: ObjectKey) -> Result:
        record = self._world.repositories.get(key)
        spec = record.spec if record is not None else None
        if record is None or spec is None or spec.forge is None or spec.suspend:
            if record is None:
                self._forget_others()
            return Result()
        # News must not shorten the pause that a forge asked for.
        left = self._paused.get(record.uid, 0.0) - self._clock.monotonic()
        if left > 0:
            return Result(timedelta(seconds=left))
        self._paused.pop(record.uid, None)
        deployment = self._deployments.get(record.uid)
        while deployment is not None and (news := deployment.news()):
            try:
                await self._tell(record, spec.forge, spec.url, news[0])
            except Throttled as error:
                self._metrics.commit_statuses_total.labels("throttled").inc()
                pause = error.retry_after or forges.DEFAULT_PAUSE
                self._paused[record.uid] = self._clock.monotonic() + pause.total_seconds()
                raise Waiting(str(error), reason=error.reason, requeue_after=pause) from error
            except ScriptOpsError as error:
                self._metrics.commit_statuses_total.labels("error").inc()
                if isinstance(error, Stalled):
                    self._events.warning(
                        SCRIPT_REPOSITORIES, key, record.uid, error.reason, str(error)
                    )
                raise
            deployment.told(news[0])
        return Result()

    async def _tell(
        self, record: RepositoryRecord, forge: Forge, url: str, status: forges.CommitStatus
    ) -> None:
        place = forges.place_of(forge, url, cluster=self._cluster_name)
        secret = ObjectKey(record.key.namespace, forge.secret_ref.name)
        token, authority = await self._credentials(secret)
        request = forges.post(place, status, token=token, authority=authority)
        reply = await self._outbound.post(request)
        forges.judge(place, reply, now=self._clock.now())
        self._metrics.commit_statuses_total.labels(status.state.value).inc()
        log.info(
            "commit status told",
            extra={
                "key": str(record.key),
                "commit": status.commit,
                "state": status.state.value,
                "context": place.context,
            },
        )

    async def _credentials(self, secret: ObjectKey) -> tuple[str, str]:
        field = "spec.forge.secretRef.name"
        data: Mapping[str, str] = await self._secrets.get(secret, field=field)
        token = data.get("token", "").strip()
        if not token:
            raise Stalled(
                f"Secret {secret} has no key `token`; put the token of the forge there",
                reason="CredentialsInvalid",
            )
        return token, data.get("ca.crt", "")

    def _forget_others(self) -> None:
        present = {record.uid for record in self._world.repositories}
        for uid in self._deployments.keys() - present:
            self._forget(uid)

    def _forget(self, uid: str) -> None:
        self._deployments.pop(uid, None)
        self._namespaces.pop(uid, None)


def _was_ready(record: RepositoryRecord, commit: str) -> bool:
    """Whether an earlier process had deployed this commit already."""
    status = record.status
    return status.revision.endswith(f"@sha1:{commit}") and any(
        c.type == READY and c.status == "True" for c in status.conditions
    )
