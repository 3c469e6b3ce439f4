"""Live objects kept as git has them: changes by others seen by watch, and put back or told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import PurePosixPath

from reconciler.api.scriptrepository import DriftMode
from reconciler.controllers.applying import Applier
from reconciler.controllers.claims import Claim
from reconciler.controllers.events import Events
from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result
from reconciler.controllers.repositorystatus import RepositoryStatuses
from reconciler.controllers.world import World
from reconciler.core import conditions, drift, plan
from reconciler.core.drift import Drifted, Fight
from reconciler.core.models import ModelRecord
from reconciler.core.objects import (
    ANNOTATION_DIGEST,
    SCRIPT_REPOSITORIES,
    JsonObject,
    ObjectKey,
    Reference,
    mapping,
    text,
)
from reconciler.core.plan import SkipReason
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.scripts import ScriptRecord
from reconciler.core.store import Delta
from reconciler.core.twins import DeviceRecord
from reconciler.errors import ObjectNotFound
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster

log = logging.getLogger(__name__)

# Objects put back at once: a fraction of the requests that the adapter allows all of us.
WORKERS = 8
# How soon an object is looked at again that a revision is just being applied to.
BUSY_SECONDS = 0.2
# Many objects that drift together are one status.
STATUS_SECONDS = 0.1


class Drift:
    """Reconciles one object at a time, and asks neither git nor the network for it.

    An object that is not as git says, though its manifest has been applied, is put back as soon as
    the watch tells of it. An object that somebody goes on changing is put back ever more rarely,
    and its repository says who that is. With the policy Detect it is only told.
    """

    def __init__(
        self,
        world: World,
        cluster: Cluster,
        applier: Applier,
        events: Events,
        statuses: RepositoryStatuses,
        claim: Callable[[Reference], Claim | None],
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._world = world
        self._cluster = cluster
        self._applier = applier
        self._events = events
        self._statuses = statuses
        self._claim = claim
        self._clock = clock
        self._metrics = metrics
        self._seen: dict[Reference, float] = {}
        self._fights: dict[Reference, Fight] = {}
        # What was deleted by others and may stay away, with the digest of its manifest.
        self.deleted: dict[Reference, str] = {}
        # By repository: what is not as git says, and is left so for now.
        self._drifted: dict[ObjectKey, dict[Reference, Drifted]] = {}
        self.loop: KeyLoop[Reference] = KeyLoop(
            "Drift", self._reconcile, clock=clock, metrics=metrics, workers=WORKERS
        )
        self.statuses_loop: KeyLoop[ObjectKey] = KeyLoop(
            "DriftStatus", self._restate, clock=clock, metrics=metrics
        )

    # Wake-ups.

    def script_changed(self, delta: Delta[ScriptRecord]) -> None:
        old, new = delta.old, delta.new
        if old is None or not (old.repository_uid or (new and new.repository_uid)):
            return
        if new is not None and (old.generation, _tags(old)) == (new.generation, _tags(new)):
            return
        ref = Reference("Script", *delta.key)
        claim = self._claim(ref)
        if claim is None:
            return
        if new is not None and not self._plan(ref, claim, new.document).steps:
            # As git says: we wrote it ourselves.
            return
        self._add(ref)

    def device_changed(self, delta: Delta[DeviceRecord]) -> None:
        old, new = delta.old, delta.new
        if old is None or not old.repository_uid:
            return
        if new is None or old.settings != new.settings:
            self._add_unless_ours(Reference("Device", *delta.key), old, new)

    def model_changed(self, delta: Delta[ModelRecord]) -> None:
        if delta.old is not None and delta.old.repository_uid:
            self._add_unless_ours(Reference("DeviceModel", *delta.key), delta.old, delta.new)

    def _add_unless_ours(
        self,
        ref: Reference,
        old: DeviceRecord | ModelRecord,
        new: DeviceRecord | ModelRecord | None,
    ) -> None:
        claim = self._claim(ref)
        if claim is None:
            return
        digest = claim.desired[ref].digest
        if new is None or new.digest != digest or old.digest == digest:
            self._add(ref)

    def _add(self, ref: Reference) -> None:
        self._seen.setdefault(ref, self._clock.monotonic())
        self.loop.add(ref)

    def planned(
        self, record: RepositoryRecord, refs: Collection[Reference], skips: Sequence[plan.Skip]
    ) -> None:
        """A reconcile of the repository has looked at `refs`."""
        left = {skip.reference: skip for skip in skips if skip.reason is SkipReason.DRIFTED}
        for ref, skip in left.items():
            self._add(ref)
            log.debug("drift", extra={"key": str(ref), "fields": skip.drifted})
        for ref in refs:
            if ref not in left and not self._fight(ref).contended:
                self._settled(record.key, ref)

    def read_first(
        self,
        record: RepositoryRecord,
        tree: str,
        desired: Mapping[Reference, plan.Desired],
        held: Collection[Reference],
    ) -> None:
        """A repository has been read for the first time by this process.

        What is not there though this very tree had been applied was deleted while nobody looked.
        Where the branch has changed meanwhile that cannot be told from what is new.
        """
        status, spec = record.status, record.spec
        verdict = conditions.verdict_of(status.conditions)
        if verdict is None or spec is None or status.digest != f"sha1:{tree}":
            return
        if verdict.status == "Unknown" or status.problem_count > len(status.problems):
            return
        failed = {problem.path for problem in status.problems}
        for ref, wanted in desired.items():
            path = PurePosixPath(spec.path, getattr(wanted, "path", ""))
            if self._world.of(ref) is None and ref not in held and str(path) not in failed:
                self.deleted[ref] = wanted.digest

    def repository_gone(self, key: ObjectKey) -> None:
        for ref in self._drifted.pop(key, ()):
            self._fights.pop(ref, None)
            self.deleted.pop(ref, None)

    # The reconcile.

    async def _reconcile(self, ref: Reference) -> Result:
        claim = self._claim(ref)
        if claim is None:
            self._seen.pop(ref, None)
            self._fights.pop(ref, None)
            self.deleted.pop(ref, None)
            for key in tuple(self._drifted):
                self._settled(key, ref)
            return Result()
        if claim.is_suspended:
            self._seen.pop(ref, None)
            claim.later()
            return Result()
        if claim.is_being_applied:
            return Result(timedelta(seconds=BUSY_SECONDS))
        wait = self._fight(ref).wait(self._clock.monotonic())
        known = self._drifted.get(claim.record.key, {}).get(ref)
        if wait > 0 and known is not None and known.contended:
            # Each write of the other would cost us a read.
            return Result(timedelta(seconds=wait))
        resource = plan.resource_of(claim.desired[ref])
        try:
            live, owners = await self._cluster.get_owned(resource, ref.key)
        except ObjectNotFound:
            live, owners = None, ()
        # While that was read another revision may have been.
        claim = self._claim(ref)
        if claim is None or claim.is_being_applied:
            return Result(timedelta(seconds=BUSY_SECONDS))
        if claim.is_pending:
            # Not drift: what git says of it has not gone out yet, and may have to wait.
            self._seen.pop(ref, None)
            if live is None:
                claim.wake()
            return Result()
        [step] = self._plan(ref, claim, live).steps or [None]
        match step:
            case None:
                return self._as_git_says(ref, claim)
            case plan.Skip(reason=SkipReason.DRIFTED):
                self._tell(_found(ref, step.drifted, owners), claim)
            case plan.Apply() | plan.Patch() | plan.Create():
                if live is None and claim.repository.drift.mode is DriftMode.DETECT:
                    self._tell(_found(ref, ("",), owners), claim)
                else:
                    found = _found(ref, _pointers(step, live), owners)
                    return await self._correct(found, claim, _exactly(step, live))
            case plan.Skip(reason=SkipReason.TERMINATING):
                # It is heard of when it is gone.
                pass
            case _:
                # Something else is the matter; the repository's status will say what.
                claim.later()
        self._seen.pop(ref, None)
        return Result()

    def _plan(self, ref: Reference, claim: Claim, live: JsonObject | None) -> plan.Plan:
        return plan.make(
            (ref,), repository=claim.repository, desired=claim.desired, live={ref: live}
        )

    def _as_git_says(self, ref: Reference, claim: Claim) -> Result:
        self._seen.pop(ref, None)
        fight = self._fight(ref)
        left = fight.quiet - self._clock.monotonic()
        if fight.corrections and left > 0:
            return Result(timedelta(seconds=left))
        self._fights.pop(ref, None)
        self._settled(claim.record.key, ref)
        return Result()

    def _tell(self, found: Drifted, claim: Claim) -> None:
        if not any(found.pointers):
            self.deleted[found.reference] = claim.desired[found.reference].digest
        known = self._drifted.get(claim.record.key, {}).get(found.reference)
        if found == known:
            return
        self._metrics.drift_total.labels(found.reference.kind, "detected").inc()
        self._event(found, claim, "DriftDetected", f"{found.what}; left so, as drift.mode says")
        self._put(claim.record.key, found)

    async def _correct(
        self, found: Drifted, claim: Claim, step: plan.Apply | plan.Patch | plan.Create
    ) -> Result:
        ref = found.reference
        wait = self._fight(ref).wait(self._clock.monotonic())
        if wait > 0:
            self._metrics.drift_total.labels(ref.kind, "held").inc()
            self._contended(found, claim)
            return Result(timedelta(seconds=wait))
        await self._applier.put_back(step, claim.repository, claim.desired)
        now = self._clock.monotonic()
        fight = self._fights[ref] = self._fight(ref).corrected(now)
        self._metrics.drift_total.labels(ref.kind, "corrected").inc()
        self._metrics.drift_seconds.observe(now - self._seen.pop(ref, now))
        log.info("drift corrected", extra={"key": str(ref), "fields": found.pointers})
        if fight.contended:
            self._contended(found, claim)
        else:
            self._event(found, claim, "DriftCorrected", f"{found.what}; put back as git has it")
        # To forget it when it is over.
        return Result(timedelta(seconds=fight.quiet - now))

    def _contended(self, found: Drifted, claim: Claim) -> None:
        """The other writer does not give up."""
        known = self._drifted.get(claim.record.key, {}).get(found.reference)
        if known is None or not known.contended:
            times = self._fight(found.reference).corrections
            message = (
                f"{found.what} again and again; put back {times} times, and from now "
                f"on ever more rarely: stop the other writer, or take the field out of git or into "
                f"spec.drift.ignore"
            )
            self._event(found, claim, "DriftContended", message)
        self._put(claim.record.key, replace(found, contended=True))

    # What is said of it.

    def _event(self, found: Drifted, claim: Claim, reason: str, message: str) -> None:
        ref = found.reference
        live = self._world.of(ref)
        if live is not None:
            resource = plan.resource_of(claim.desired[ref])
            self._events.warning(resource, ref.key, live.uid, reason, message)
        else:
            owner = claim.record
            message = f"{ref}: {message}"
            self._events.warning(SCRIPT_REPOSITORIES, owner.key, owner.uid, reason, message)

    def _fight(self, ref: Reference) -> Fight:
        return self._fights.get(ref, Fight())

    def _put(self, key: ObjectKey, found: Drifted) -> None:
        of_repository = self._drifted.setdefault(key, {})
        if of_repository.get(found.reference) != found:
            of_repository[found.reference] = found
            self.statuses_loop.add_after(key, STATUS_SECONDS)

    def _settled(self, key: ObjectKey, ref: Reference) -> None:
        self.deleted.pop(ref, None)
        of_repository = self._drifted.get(key, {})
        if of_repository.pop(ref, None) is not None:
            self.statuses_loop.add_after(key, STATUS_SECONDS)
            if not of_repository:
                del self._drifted[key]

    async def _restate(self, key: ObjectKey) -> Result:
        record = self._world.repositories.get(key)
        if record is not None:
            found = sorted(self._drifted.get(key, {}).values(), key=lambda it: it.reference)
            await self._statuses.drifted(record, found)
            pause = await self._statuses.restore(record)
            return Result(timedelta(seconds=pause) if pause else None)
        return Result()


def _found(
    ref: Reference, pointers: tuple[str, ...], owners: Sequence[drift.FieldOwner]
) -> Drifted:
    manager = drift.manager_of(owners, pointers) if any(pointers) else ""
    return Drifted(reference=ref, pointers=pointers, manager=manager)


def _tags(record: ScriptRecord) -> tuple[JsonObject, JsonObject]:
    metadata = mapping(record.document.get("metadata"))
    return mapping(metadata.get("labels")), mapping(metadata.get("annotations"))


def _pointers(
    step: plan.Apply | plan.Patch | plan.Create, live: JsonObject | None
) -> tuple[str, ...]:
    """The fields that are put back; of an object that is gone the whole."""
    if live is None or isinstance(step, plan.Create):
        return ("",)
    # Without our mark of what was applied the manifest is applied anew.
    return step.drifted or (drift.pointer(("metadata", "annotations", ANNOTATION_DIGEST)),)


def _exactly(
    step: plan.Apply | plan.Patch | plan.Create, live: JsonObject | None
) -> plan.Apply | plan.Patch | plan.Create:
    """The step, for the state that was read and no other: a newer revision may be going out."""
    if live is None or not isinstance(step, plan.Apply):
        return step
    now = mapping(live.get("metadata"))
    metadata = {
        **mapping(step.document.get("metadata")),
        "uid": text(now.get("uid")),
        "resourceVersion": text(now.get("resourceVersion")),
    }
    return replace(step, document={**step.document, "metadata": metadata})
