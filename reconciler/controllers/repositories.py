"""ScriptRepositories: fetched, read, planned, applied, pruned, and told how that went."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

from reconciler.api.clusters import ClusterStatus
from reconciler.api.meta import duration
from reconciler.api.script import ScriptStatus
from reconciler.api.scriptrepository import (
    ApplyPolicy,
    Counts,
    ScriptRepositorySpec,
)
from reconciler.controllers import prunes, repositorystatus
from reconciler.controllers.applying import Applied, Applier
from reconciler.controllers.branches import Branches
from reconciler.controllers.claims import Claim
from reconciler.controllers.drift import Drift
from reconciler.controllers.events import Events
from reconciler.controllers.fleet import Fleet
from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.openings import Opened, Openings
from reconciler.controllers.outcome import Result
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.progress import Listener, Progress, Synced, of_commit
from reconciler.controllers.prunes import Prunes
from reconciler.controllers.repositorystatus import SUSPENDED, RepositoryStatuses
from reconciler.controllers.revisions import Reading, Revisions
from reconciler.controllers.statuscommits import StatusCommits, StatusTarget
from reconciler.controllers.world import World
from reconciler.core import conditions, history, ownership, plan, repositories
from reconciler.core.admission import Scope
from reconciler.core.changeset import ChangeSet
from reconciler.core.conditions import Verdict
from reconciler.core.grants import NO_GRANTS, Granting
from reconciler.core.objects import (
    SCRIPT_REPOSITORIES,
    ObjectKey,
    Reference,
    Resource,
)
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.scripts import ScriptRecord
from reconciler.core.store import Delta
from reconciler.errors import (
    NotLeading,
    ScriptOpsError,
    SourceInvalid,
    SourceUnverified,
    Stalled,
    Transient,
)
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.ports.clusters import Clusters
from reconciler.ports.git import Git
from reconciler.ports.registry import ArtifactRef, Registry

log = logging.getLogger(__name__)

# Repositories worked on at once: a slow server holds up at most its own.
WORKERS = 8
# A remote that does not answer is asked again after this, and then ever more rarely.
WATCH_RETRY = 5.0


class _Unfinished(Transient):
    """Some writes failed, and the status says so."""


class Repositories:
    """Reconciles ScriptRepositories, each alone.

    A commit that changes nothing of the repository's own folder costs one status PATCH and no other
    write. A revision is applied as far as it can be: what is invalid in it is reported and keeps
    what is live, what is valid goes out. Objects that somebody else deletes or changes are put
    back.
    """

    def __init__(
        self,
        world: World,
        cluster: Cluster,
        git: Git,
        registry: Registry,
        commits: StatusCommits,
        events: Events,
        precedence: Precedence,
        *,
        clock: Clock,
        metrics: Metrics,
        cluster_name: str,
        replace_versions: bool,
        allow_repositories: bool = False,
        grants: Granting = NO_GRANTS,
        leadership: Leadership = ALONE,
        owning: bool = True,
        clusters: Clusters,
        served: Callable[[], frozenset[Resource]],
        in_use: Callable[[ArtifactRef], bool],
        published: Callable[[Collection[ArtifactRef]], None],
        synced: Callable[[ObjectKey], None],
    ) -> None:
        self._world = world
        self._commits = commits
        self._events = events
        self._clock = clock
        self._metrics = metrics
        self._grants = grants
        # Whether the cluster collects what has no owner any more.
        self._owning = owning
        self._served = served
        self._published = published
        self._synced = synced
        self._leadership = leadership
        self._applier = Applier(world, cluster, precedence, leadership)
        self._statuses = RepositoryStatuses(
            cluster, events, clock=clock, metrics=metrics, leadership=leadership
        )
        self._fleet = Fleet(cluster, clusters, self._statuses, name=cluster_name)
        self._prunes = Prunes(events)
        self.drift = Drift(
            world,
            cluster,
            self._applier,
            events,
            self._statuses,
            self.claim,
            clock=clock,
            metrics=metrics,
        )
        self.loop: KeyLoop[ObjectKey] = KeyLoop(
            "ScriptRepository", self._reconcile, clock=clock, metrics=metrics, workers=WORKERS
        )
        # By UID: clusters that have what is not handed out to them any more.
        self._left: dict[str, Sequence[ClusterStatus]] = {}
        self.branches = Branches(self.loop, clock=clock)
        self._openings = Openings(
            cluster,
            git,
            registry,
            grants,
            clock=clock,
            cluster_name=cluster_name,
            replace_versions=replace_versions,
            allow_repositories=allow_repositories,
            in_use=in_use,
            wake=self.loop.add,
        )
        # Told of each commit when it has been read, and again when that led to a verdict.
        self.progress: list[Listener] = []
        commits.is_live = lambda key: key in world.scripts
        # Told of each revision that led to anything.
        self.listeners: list[Callable[[Synced], None]] = []

    async def stop(self) -> None:
        await self._openings.stop()

    # Wake-ups.

    def changed(self, delta: Delta[RepositoryRecord]) -> None:
        old, new = delta.old, delta.new
        if old is None or new is None or _asks(old) != _asks(new):
            self.loop.add(delta.key)
        pause = self._statuses.pause(new) if new is not None else None
        if pause is not None:
            self.drift.statuses_loop.add_after(delta.key, pause)

    def grants_changed(self) -> None:
        """Somebody may write more now, or less."""
        for record in self._world.repositories:
            self.loop.add(record.key)

    def gained(self, key: ObjectKey) -> None:
        """It is ours to apply from now on, which begins as after a start."""
        self._openings.doubt(key)
        self.loop.add(key)

    def lost(self, key: ObjectKey) -> None:
        """Another replica applies it; here it is only published."""
        state = self._openings.get(key)
        if state is not None:
            self._statuses.forget(state.uid)
            if state.target is not None:
                self._commits.let_go(state.target, self._is_told_by_us)
        self.loop.add(key)

    def _is_told_by_us(self, script: ObjectKey) -> bool:
        record = self._world.scripts.get(script)
        owner = self._world.owner_of(record) if record is not None else None
        return owner is not None and self._leadership.leads(owner.key.namespace)

    def claim(self, ref: Reference) -> Claim | None:
        """What the revision read last says of an object; None where it says nothing to go by."""
        live = self._world.of(ref)
        # Of two that want it the one whose it is.
        found = [(k, s) for k, s in self._openings.items() if ref in s.revisions.desired]
        found.sort(key=lambda pair: live is None or pair[1].uid != live.repository_uid)
        for key, state in found[:1]:
            record = self._world.repositories.get(key)
            if record is None or record.spec is None or record.uid != state.uid:
                return None
            if not self._leadership.leads(key.namespace):
                return None
            if record.spec.apply is ApplyPolicy.NONE or ref in state.revisions.held:
                return None
            return Claim(
                record=record,
                repository=self._plan_repository(record, record.spec, state.revisions),
                desired=state.revisions.desired,
                is_suspended=record.spec.suspend,
                is_being_applied=ref in state.applying,
                is_pending=ref in state.wanted,
                later=partial(state.wanted.add, ref),
                wake=partial(self.loop.add, key),
            )
        return None

    def is_synced(self, key: ObjectKey) -> bool:
        """Whether the repository has been read since this process started."""
        state = self._openings.get(key)
        return state is not None and state.synced

    def notes(self, key: ObjectKey) -> StatusTarget | None:
        """Where commits of a repository are noted."""
        state = self._openings.get(key)
        return state.notes if state is not None else None

    def status_changed(self, record: ScriptRecord, status: ScriptStatus, transition: bool) -> None:  # noqa: FBT001 - a listener's signature
        """Commit a Script's status to its repository's status ref."""
        self._commit_status(record, status, transition=transition)

    def script_gone(self, record: ScriptRecord) -> None:
        self._commit_status(record, None, transition=True)

    def status_not_pushed(self, target: StatusTarget, error: Exception) -> None:
        """Tell whoever looks at a repository that its results stay here for now."""
        for key, state in self._openings.items():
            if state.target == target:
                reason = getattr(error, "reason", "InternalError")
                message = f"results are kept and pushed later: {error}"
                self._events.warning(SCRIPT_REPOSITORIES, key, state.uid, reason, message)

    def _commit_status(
        self, record: ScriptRecord, status: ScriptStatus | None, *, transition: bool
    ) -> None:
        owner = self._world.owner_of(record)
        state = self._openings.get(owner.key) if owner else None
        if owner is None or state is None or state.target is None:
            return
        if not self._leadership.leads(owner.key.namespace):
            return
        try:
            self._commits.put(
                state.target,
                record.key,
                status,
                transition=transition,
                notify=self._statuses.committed(owner.uid),
            )
        except SourceInvalid as error:
            log.warning("status ref unusable", extra={"key": str(owner.key), "error": str(error)})

    # The reconcile.

    async def _reconcile(self, key: ObjectKey) -> Result:
        record = self._world.repositories.get(key)
        if record is None:
            self._openings.close(key)
            self.drift.repository_gone(key)
            self.branches.forget(key)
            return Result()
        if not self._leadership.leads(key.namespace):
            return await self._follow(record)
        try:
            if record.spec is None:
                raise Stalled(record.problem, reason="InvalidSpec")
            if record.spec.clusters:
                self._openings.close(key)
                return await self._fleet.reconcile(record, record.spec)
            self._left[record.uid] = await self._fleet.take_away(record, record.spec)
            if record.spec.suspend:
                await self._statuses.report(
                    record, conditions.ready(SUSPENDED, "what runs goes on running"), None
                )
                return Result()
            return await self._sync(record, record.spec)
        except (_Unfinished, NotLeading):
            raise
        except ScriptOpsError as error:
            verdict = repositorystatus.verdict_of(error)
            if isinstance(error, SourceUnverified):
                self._statuses.verified(record, ("False", error.reason, str(error)))
            await self._statuses.report(record, verdict, None)
            self._tell_failed(record, verdict, of_read=isinstance(error, SourceUnverified))
            if isinstance(error, Stalled) and record.spec is not None:
                # A person must act, and that may be in git: look again as often as ever.
                log.warning(
                    "repository stalled",
                    extra={"key": str(key), "reason": error.reason, "error": str(error)},
                )
                return Result(duration(record.spec.interval))
            raise

    async def _follow(self, record: RepositoryRecord) -> Result:
        """Another replica applies it: what it publishes is here all the same."""
        spec = record.spec
        if spec is None or spec.clusters:
            return Result()
        if spec.suspend and self.is_synced(record.key):
            # What runs goes on running, and is here.
            return Result()
        try:
            state, _, again = await self._read(record, spec)
        except Stalled as error:
            log.info("repository not read", extra={"key": str(record.key), "error": str(error)})
            return Result(duration(spec.interval))
        if not state.synced:
            state.synced = True
            self._synced(record.key)
        state.revisions.collect()
        return Result(again)

    async def _read(
        self, record: RepositoryRecord, spec: ScriptRepositorySpec
    ) -> tuple[Opened, Reading, timedelta]:
        """The newest revision, published, and when to look again."""
        state = await self._openings.open(record, spec)
        # What others apply is the branch, whatever is to be rolled back here.
        rollback = spec.rollback if spec.apply is ApplyPolicy.ALL else None
        started = self._clock.monotonic()
        reading = await state.revisions.read(timeout=duration(spec.timeout), rollback=rollback)
        self._metrics.git_fetch_seconds.observe(self._clock.monotonic() - started)
        self._published(reading.published)
        return state, reading, self.branches.seen(record.key, reading.commit.id, spec)

    async def _sync(self, record: RepositoryRecord, spec: ScriptRepositorySpec) -> Result:
        started = self._clock.monotonic()
        state, reading, again = await self._read(record, spec)
        if reading.verified:
            self._statuses.verified(record, ("True", "Succeeded", reading.verified))
        self._tell(Progress(record=record, commit=reading.commit.id))
        if reading.is_first:
            revisions = state.revisions
            self.drift.read_first(record, reading.commit.tree, revisions.desired, revisions.held)
        # Kept until it has been planned for: the cluster may not answer this time.
        state.wanted |= reading.changed
        state.is_whole |= reading.is_first
        policies = (spec.drift, self._owns(spec))
        if state.policies != policies:
            # What was left as it is may have to be put back now, or change owners.
            state.wanted |= state.revisions.desired.keys()
            state.policies = policies
        applied: Applied | None = None
        if spec.apply is ApplyPolicy.NONE:
            state.wanted, state.is_whole, state.is_left = set(), False, True
        elif state.is_left:
            state.wanted |= state.revisions.desired.keys()
            state.is_whole, state.is_left = True, False
        if state.wanted or state.is_whole:
            applied = await self._apply(record, spec, state)
        if not state.synced:
            state.synced = True
            self._synced(record.key)
        state.revisions.collect()
        await self._conclude(record, spec, state, reading, applied, started)
        failed = _to_be_tried_again(applied)
        if failed:
            raise _Unfinished(str(failed[0]), reason=failed[0].reason)
        if applied is not None and applied.due is not None:
            again = min(again, timedelta(seconds=max(applied.due - self._clock.now(), 0)))
        return Result(again)

    async def _apply(
        self,
        record: RepositoryRecord,
        spec: ScriptRepositorySpec,
        state: Opened,
    ) -> Applied:
        revisions = state.revisions
        held, scope = revisions.held, revisions.scope
        wanted, is_whole = state.wanted, state.is_whole
        # What somebody changes meanwhile is for the next time.
        state.wanted, state.is_whole = set(), False
        state.applying = frozenset(wanted)
        try:
            applied = await self._applier.apply(
                # What it may not write any more it may not delete either.
                [ref for ref in wanted if ref not in held and scope.covers(ref)],
                repository=self._plan_repository(record, spec, revisions),
                desired=revisions.desired,
                inventory=self._inventory(record.uid, scope) if is_whole else (),
                held=held,
                prune_safe=revisions.prune_safe,
                owned=lambda kind: sum(
                    ref.kind == kind for ref in self._inventory(record.uid, scope)
                ),
            )
        except BaseException:
            state.wanted |= wanted
            state.is_whole = is_whole
            raise
        finally:
            state.applying = frozenset()
        self.drift.planned(record, wanted, applied.skips)
        self._prunes.tell(record, applied)
        state.wanted |= applied.failures.keys()
        state.wanted |= {skip.reference for skip in applied.skips if skip.may_pass}
        state.wanted |= {step.reference for step in applied.quarantined}
        return applied

    async def _conclude(
        self,
        record: RepositoryRecord,
        spec: ScriptRepositorySpec,
        state: Opened,
        reading: Reading,
        applied: Applied | None,
        started: float,
    ) -> None:
        """Report, and tell whoever listens."""
        revision = _revision(spec, reading.commit.id)
        problems = [
            *state.revisions.errors,
            *repositorystatus.problems_of(applied, state.revisions.desired),
        ]
        changes = applied.changes if applied is not None else ChangeSet()
        before = self._statuses.latest(record)
        is_known = changes.is_empty and before.revision == revision
        status = repositories.Applied(
            revision=revision,
            digest=f"sha1:{reading.commit.tree}",
            counts=_counts(state, changes, before.counts if is_known else None),
            problems=[repositorystatus.reported(problem, spec.path) for problem in problems],
            pending_prune=prunes.pending_prune(applied),
            history=before.history,
            rollback=repositorystatus.rollback(spec.rollback, state.revisions.reverted),
            clusters=self._left.get(record.uid, ()),
        )
        is_news = not changes.is_empty or (bool(reading.changed) and not reading.is_first)
        if is_news or not before.history:
            milliseconds = round((self._clock.monotonic() - started) * 1_000)
            entry = repositorystatus.entry(
                status, applied, now=self._clock.now(), milliseconds=milliseconds
            )
            shown = history.recorded(before.history, entry, limit=spec.history_limit)
            status = replace(status, history=shown)
        kept = history.kept(status.history, spec.rollback)
        if kept != state.kept:
            await state.revisions.keep(kept, owner=record.uid)
            state.kept = kept
        verdict = repositorystatus.verdict(
            revision,
            problems,
            _to_be_tried_again(applied),
            status.rollback,
            is_left=state.is_left,
        )
        verdict = prunes.judged(verdict, record, applied)
        await self._statuses.report(record, verdict, status)
        written = [ref for ref in (*changes.created, *changes.configured) if ref.kind == "Script"]
        desired = state.revisions.desired
        self._tell(
            Progress(
                record=record,
                commit=reading.commit.id,
                verdict=of_commit(verdict, state.revisions.reverted, spec.rollback),
                written={ref.key: desired[ref].digest for ref in written if ref in desired},
                is_change=not changes.is_empty,
                counts=status.counts,
                problems=len(problems),
            )
        )
        if changes.is_empty and not (reading.is_first or reading.changed or reading.published):
            return
        synced = Synced(
            key=record.key,
            revision=revision,
            changes=changes,
            published=len(reading.published),
            problems=tuple(problems),
            seconds=self._clock.monotonic() - started,
        )
        log.info(
            "revision applied",
            extra={"key": str(record.key), "revision": revision, "did": str(synced)},
        )
        for listener in self.listeners:
            listener(synced)

    def _tell(self, progress: Progress) -> None:
        for listener in self.progress:
            listener(progress)

    def _tell_failed(self, record: RepositoryRecord, verdict: Verdict, *, of_read: bool) -> None:
        """Of a commit that could not be read; of one that was, no failure of git says anything,
        but `of_read` that its key counts no more does.
        """
        state = self._openings.get(record.key)
        tip = state.revisions.tip if state is not None else None
        read = state.revisions.commit if state is not None else None
        if tip is not None and (of_read or read is None or read.id != tip.id):
            self._tell(Progress(record=record, commit=tip.id, verdict=verdict, problems=1))

    def _plan_repository(
        self, record: RepositoryRecord, spec: ScriptRepositorySpec, revisions: Revisions
    ) -> plan.Repository:
        commit = revisions.commit
        return plan.Repository(
            key=record.key,
            uid=record.uid,
            revision=_revision(spec, commit.id) if commit else "",
            served=plan.writable(self._served()),
            prune=spec.prune,
            drift=spec.drift,
            deleted=self.drift.deleted,
            now=self._clock.now(),
            account=self._grants.account(record.key, spec),
            owns=self._owns(spec),
            alive=self._world.repository_uids,
        )

    def _owns(self, spec: ScriptRepositorySpec) -> frozenset[str]:
        return ownership.kinds(spec.prune, spec.deletion_policy) if self._owning else frozenset()

    def _inventory(self, uid: str, scope: Scope) -> list[Reference]:
        """Every live object that carries our label, and that it may delete."""
        world = self._world
        labelled = (
            *(
                Reference("Script", *r.key)
                for r in world.scripts
                if r.is_applied and r.repository_uid == uid
            ),
            *(Reference("Device", *r.key) for r in world.devices if r.repository_uid == uid),
            *(Reference("DeviceModel", *r.key) for r in world.models if r.repository_uid == uid),
        )
        return [ref for ref in labelled if scope.covers(ref)]


def _asks(record: RepositoryRecord) -> tuple[object, ...]:
    """What asks for a reconcile when it changes."""
    return (record.uid, record.generation, record.requested_at)


def _revision(spec: ScriptRepositorySpec, commit: str) -> str:
    return f"{spec.ref}@sha1:{commit}"


def _to_be_tried_again(applied: Applied | None) -> Sequence[ScriptOpsError]:
    """What failed and may succeed soon; what a person must mend is looked at every interval."""
    failures = applied.failures.values() if applied is not None else ()
    return [error for error in failures if not isinstance(error, Stalled)]


def _counts(state: Opened, changes: ChangeSet, known: Counts | None) -> Counts | None:
    """What this revision did not touch is unchanged in it, too. None where others apply it."""
    if state.is_left or known is not None:
        return None if state.is_left else known
    revisions = state.revisions
    done = {*changes.created, *changes.configured, *changes.skipped, *revisions.held}
    desired = revisions.desired
    unchanged = len(desired) - sum(ref in desired for ref in done)
    return changes.counts().model_copy(update={"unchanged": unchanged})
