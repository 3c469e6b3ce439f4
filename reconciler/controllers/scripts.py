"""What a Script needs to run, and what its status says: artifact, load, subscription, results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import timedelta

from reconciler.api.meta import LOOPING, duration
from reconciler.api.script import Loop, ScriptSpec, ScriptStatus
from reconciler.controllers.artifacts import Artifacts, Found
from reconciler.controllers.dependencies import Dependencies
from reconciler.controllers.dispatching import Dispatcher
from reconciler.controllers.environments import Environments
from reconciler.controllers.events import Events
from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.memory import Memory
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.rollouts import Deployment, Rollouts
from reconciler.controllers.runnables import script_ref
from reconciler.controllers.statuses import ScriptStatuses
from reconciler.controllers.triggering import Triggering
from reconciler.controllers.world import World
from reconciler.core import conditions, cron, gating
from reconciler.core.conditions import Verdict
from reconciler.core.grants import NO_GRANTS, Granting
from reconciler.core.objects import SCRIPTS, ObjectKey
from reconciler.core.runs import Outcome, RunResult
from reconciler.core.scripts import (
    LastRun,
    RunFacts,
    ScriptRecord,
    is_told_to_loop,
    is_transition,
    loaded_digests,
    ready_digest,
    status_of,
)
from reconciler.core.store import Delta
from reconciler.core.triggers import Subscription
from reconciler.errors import Stalled, Transient, Waiting
from reconciler.ports.clock import Clock
from reconciler.ports.registry import ArtifactRef

log = logging.getLogger(__name__)

# A load takes milliseconds; only one that takes longer is worth a status of its own.
LOAD_PATIENCE = 0.5
# Runs that end as the one before them are counted at once and told together: to reconcile a Script
# takes as long as to run it, and its status is written every few seconds at most.
COUNT_SECONDS = 1.0
# Of those that are busy at the same time so many: each may take as long as a run.
COUNTED_A_SECOND = 100
# How soon an artifact is asked for again that could not be fetched.
ARTIFACT_RETRY = timedelta(seconds=5)
# How soon a register elsewhere is asked again for what a person has to mend: it tells nobody when
# somebody pushes or signs what it lacked. Ten thousand Scripts are 33 requests a second.
REGISTER_RETRY = timedelta(minutes=5)


class _Loading(Waiting):
    """Too soon to say anything."""


class Scripts:
    """Reconciles one Script at a time: `Ready` is True exactly while its runs can be started.

    Ready means valid, artifact here with its digest, loaded by an executor, subscribed to its
    triggers. A Script that was Ready with this very spec and digest before a restart is not loaded
    again to find out.
    """

    def __init__(
        self,
        world: World,
        artifacts: Artifacts,
        triggering: Triggering,
        dispatcher: Dispatcher,
        statuses: ScriptStatuses,
        events: Events,
        memory: Memory,
        environments: Environments,
        precedence: Precedence,
        *,
        clock: Clock,
        metrics: Metrics,
        leadership: Leadership = ALONE,
        grants: Granting = NO_GRANTS,
    ) -> None:
        self._world = world
        self._grants = grants
        self._precedence = precedence
        self._artifacts = artifacts
        self._triggering = triggering
        self._dispatcher = dispatcher
        self._statuses = statuses
        self._events = events
        self._memory = memory
        self._environments = environments
        self._clock = clock
        self._leadership = leadership
        self._dependencies = Dependencies(world)
        self._facts: dict[str, RunFacts] = {}
        # By UID: how it was found to be part of a circle, until its status says so.
        self._looping: dict[str, str] = {}
        # By UID: those of which the last run could not write all that it wanted to.
        self._outranked: set[str] = set()
        # Whose newest runs are in no status yet.
        self._untold: set[ObjectKey] = set()
        # By (namespace, digest): None while good, else why it cannot be loaded.
        self._loaded: dict[tuple[str, str], str | None] = {}
        self._waiting_for: dict[tuple[str, str], set[ObjectKey]] = {}
        self._asked_at: dict[tuple[str, str], float] = {}
        self.loop: KeyLoop[ObjectKey] = KeyLoop(
            "Script", self._reconcile_in_turn, clock=clock, metrics=metrics
        )
        self.rollouts = Rollouts(
            statuses,
            events,
            clock=clock,
            metrics=metrics,
            running=dispatcher.running,
            put=dispatcher.put,
            wake=self.loop.add,
        )
        # Set by `main`: told of every status that is wanted, with whether it is a transition.
        self.on_status: Callable[[ScriptRecord, ScriptStatus, bool], None]
        self.on_gone: Callable[[ScriptRecord], None]
        # Told of each status in which conditions, revision, digest or good and bad have changed.
        self.listeners: list[Callable[[ObjectKey, ScriptStatus], None]] = []

    # Wake-ups.

    def changed(self, delta: Delta[ScriptRecord]) -> None:
        for key in self._dependencies.changed(delta):
            self.loop.add(key)
        if delta.new is not None:
            self._statuses.seen(delta.new)
        if delta.new is None and delta.old is not None:
            self._gone(delta.old)
        elif delta.old is None or delta.new is None or _concerns_us(delta.old, delta.new):
            self.loop.add(delta.key)
        if delta.new is not None and not self._leadership.leads(delta.key.namespace):
            self._told_elsewhere(delta.old, delta.new)

    def _told_elsewhere(self, old: ScriptRecord | None, new: ScriptRecord) -> None:
        """Its leader has written a status; who leads its repository carries that on."""
        before = old.status if old is not None else ScriptStatus()
        if new.status != before:
            transition = is_transition(before, new.status)
            self.on_status(new, new.status, transition)
            for listener in self.listeners if transition else ():
                listener(new.key, new.status)

    def gained(self, record: ScriptRecord) -> None:
        """It is ours to run from now on."""
        self.loop.add(record.key)

    def lost(self, record: ScriptRecord) -> None:
        """Another replica runs it, and has what is to be known of it from the cluster."""
        self._triggering.let_go(record.key, record.uid)
        self._dispatcher.let_go(record.key)
        self._environments.forget(record.uid)
        self._statuses.forget(record.key)
        self._facts.pop(record.uid, None)
        self._untold.discard(record.key)
        self.rollouts.let_go(record.uid)

    def loaded(self, namespace: str, digest: str, result: RunResult) -> None:
        good = result.outcome is Outcome.SUCCEEDED
        self._loaded[namespace, digest] = None if good else result.message
        self._asked_at.pop((namespace, digest), None)
        for key in self._waiting_for.pop((namespace, digest), ()):
            self.loop.add(key)

    def published(self, refs: Collection[ArtifactRef]) -> None:
        """Artifacts have new bytes."""
        for ref in refs:
            for key in self._artifacts.users(ref):
                self.loop.add(key)

    def repository_synced(self, repository: ObjectKey) -> None:
        """Its artifacts are all here now: those which waited for it can be judged.

        What was said of them may not have reached git before a restart, so it is said again.
        """
        for record in self._world.scripts:
            owner = self._world.applied_by(record)
            if owner is not None and owner.key == repository:
                self.loop.add(record.key)
                status = self._statuses.latest(record.key, record.uid, record.status)
                if status.conditions:
                    self.on_status(record, status, True)

    def executors_changed(self) -> None:
        for keys in self._waiting_for.values():
            for key in keys:
                self.loop.add(key)

    def is_present(self, key: ObjectKey, uid: str) -> bool:
        """Whether this very Script still exists."""
        record = self._world.scripts.get(key)
        return record is not None and record.uid == uid

    def looped(self, key: ObjectKey, uid: str, message: str) -> None:
        """A chain of runs was broken at it; told once, however often it happens."""
        record = self._world.scripts.get(key)
        if record is None or record.uid != uid or uid in self._looping:
            return
        told = self._statuses.latest(key, uid, record.status).conditions
        if not any(is_told_to_loop(it, record.generation) for it in told):
            self._looping[uid] = message
            self.loop.add(key)

    def run_finished(self, key: ObjectKey, uid: str, last: LastRun, *, outranked: str = "") -> None:
        """Take the result of a run into the status; those of an earlier object are dropped.

        `outranked` says what it could not write because another Script holds it: an event, when
        that was not so of the run before.
        """
        record = self._world.scripts.get(key)
        if record is None or record.uid != uid:
            return
        if outranked and uid not in self._outranked:
            self._events.warning(SCRIPTS, key, uid, "Outranked", outranked)
            self._outranked.add(uid)
        elif not outranked:
            self._outranked.discard(uid)
        facts = self._facts_of(record)
        self._facts[uid] = RunFacts(
            last=last,
            runs=facts.runs + 1,
            failures=facts.failures + (last.outcome is not Outcome.SUCCEEDED),
        )
        before = facts.last.outcome if facts.last is not None else None
        self._untold.add(key)
        pause = max(COUNT_SECONDS, len(self._untold) / COUNTED_A_SECOND)
        self.loop.add_after(key, pause if last.outcome is before else 0)

    # The reconcile.

    async def settle(self) -> None:
        """Once the loop has ended: wish for the status of all whose runs are not told yet."""
        for key in tuple(self._untold):
            await self._reconcile(key)

    async def _reconcile_in_turn(self, key: ObjectKey) -> Result:
        await self._precedence.applied()
        return await self._reconcile(key)

    async def _reconcile(self, key: ObjectKey) -> Result:
        self._untold.discard(key)
        record = self._world.scripts.get(key)
        if record is None or not self._leadership.leads(key.namespace):
            return Result()
        if record.deleting:
            # Finalizers of others may keep it for long; its runs end now.
            self._stop(record)
            return Result()
        digest = ""
        requeue: timedelta | None = None
        try:
            spec, found = await self._prepare(record)
            if not self._is_current(record):
                return Result()
            verdict, digest = self._subscribe(record, spec, found)
            requeue = self.rollouts.due(record.uid)
        except _Loading:
            self._resume(record)
            return Result(timedelta(seconds=LOAD_PATIENCE))
        except Waiting as error:
            self._resume(record)
            verdict = conditions.reconciling(error.reason, str(error))
            requeue = error.requeue_after
        except Stalled as error:
            if not self._keep_running(record):
                self._stop(record)
            verdict = conditions.stalled(error.reason, str(error))
            if record.spec is not None and record.spec.manifest.register_url is not None:
                requeue = REGISTER_RETRY
        except Transient as error:
            self._resume(record)
            verdict = conditions.reconciling(error.reason, str(error))
            requeue = ARTIFACT_RETRY
        if self._is_current(record):
            self._report(record, verdict, digest)
        return Result(requeue)

    def _is_current(self, record: ScriptRecord) -> bool:
        """Whether this is still the Script it was before we waited; else its key was added."""
        live = self._world.scripts.get(record.key)
        is_same = live is not None and (live.uid, live.generation) == (
            record.uid,
            record.generation,
        )
        return is_same and self._leadership.leads(record.key.namespace)

    async def _prepare(self, record: ScriptRecord) -> tuple[ScriptSpec, Found]:
        """The spec and an artifact that is here and loads."""
        if record.spec is None:
            raise Stalled(record.problem, reason="InvalidSpec")
        self._require_topics(record.key.namespace, record.spec)
        found = await self._artifacts.find(record, record.spec)
        self._require_loaded(record, record.spec, found)
        await self._environments.require(record, record.spec)
        self._dependencies.require(record)
        return record.spec, found

    def _require_topics(self, namespace: str, spec: ScriptSpec) -> None:
        trigger = spec.execute_policy.mqtt
        for topics in trigger.topics if trigger is not None else ():
            if not self._grants.may_subscribe(namespace, topics):
                raise Stalled(
                    f"namespace {namespace} is not granted the MQTT topics {topics}; an operator "
                    "can, in the file of --grants",
                    reason="TopicNotGranted",
                )

    def _require_loaded(self, record: ScriptRecord, spec: ScriptSpec, found: Found) -> None:
        digest = found.digest
        place = (record.key.namespace, digest)
        if place not in self._loaded and digest in loaded_digests(record):
            self._loaded[place] = None
        if place in self._loaded:
            problem = self._loaded[place]
            if problem is not None:
                self.rollouts.broke(record, spec, found, reason="LoadFailed", message=problem)
                raise Stalled(problem, reason="LoadFailed")
            return
        self._waiting_for.setdefault(place, set()).add(record.key)
        script_type = spec.manifest.script_type.value
        self._dispatcher.load(script_ref(record.key, spec, digest=digest, ext=found.ext))
        if not self._dispatcher.can_run(script_type):
            raise Waiting(
                f"no executor for {script_type} is connected",
                reason="ExecutorAbsent",
                requeue_after=timedelta(minutes=1),
            )
        now = self._clock.monotonic()
        if now < self._asked_at.setdefault(place, now) + LOAD_PATIENCE:
            raise _Loading("an executor has just been asked to load the artifact")
        raise Waiting(
            "an executor is loading the artifact",
            reason="Progressing",
            requeue_after=timedelta(minutes=1),
        )

    def _subscribe(
        self, record: ScriptRecord, spec: ScriptSpec, found: Found
    ) -> tuple[Verdict, str]:
        """What there is to say, and the digest of what runs."""
        deployment = self.rollouts.deploy(record, spec, found)
        digest = deployment.runnable.ref.digest
        if spec.suspend:
            self._stop(record)
            return conditions.ready("Suspended", "deployed; runs are suspended"), digest
        self._run(record, deployment)
        return deployment.verdict, digest

    def _resume(self, record: ScriptRecord) -> None:
        """What runs goes on meanwhile; after a restart that is the stable version."""
        running = self._dispatcher.running(record.key)
        if running is None or running.uid != record.uid:
            self._keep_running(record)

    def _keep_running(self, record: ScriptRecord) -> bool:
        """Whether a version goes on though what the spec asks for cannot run, or not yet."""
        deployment = self.rollouts.kept(record)
        if deployment is None or (record.spec is not None and record.spec.suspend):
            return False
        self._run(record, deployment)
        return True

    def _run(self, record: ScriptRecord, deployment: Deployment) -> None:
        runnable = deployment.runnable
        spec, digest = runnable.spec, runnable.ref.digest
        self._dispatcher.put(record.key, runnable)
        self._triggering.subscribe(
            Subscription(
                key=record.key,
                uid=record.uid,
                generation=runnable.generation,
                digest=digest,
                reads=frozenset(spec.read_selector.match_names.values()),
                read_change=spec.execute_policy.read_change,
                run_on_deploy=spec.execute_policy.run_on_deploy,
                canaries=runnable.canaries,
                gate=gating.gate_of(spec),
                qos=spec.execute_policy.qos,
                may_loop=spec.execute_policy.loop is Loop.ALLOW,
                schedule=cron.schedule(
                    spec.execute_policy.cron,
                    key=record.uid,
                    starting_deadline=_seconds(spec.execute_policy.starting_deadline),
                    jitter=_seconds(spec.execute_policy.jitter),
                ),
            ),
            adopt=deployment.is_known or ready_digest(record) == digest,
        )

    def _stop(self, record: ScriptRecord) -> None:
        self._triggering.unsubscribe(record.key)
        self._dispatcher.remove(record.key)

    def _gone(self, record: ScriptRecord) -> None:
        self._triggering.forget(record.key, record.uid)
        self._dispatcher.remove(record.key)
        self._memory.forget(record.uid)
        self._environments.forget(record.uid)
        self._artifacts.release(record.key)
        self._statuses.forget(record.key)
        self._facts.pop(record.uid, None)
        self._looping.pop(record.uid, None)
        self._outranked.discard(record.uid)
        self.rollouts.forget(record)
        self.on_gone(record)

    def _report(self, record: ScriptRecord, verdict: Verdict, digest: str) -> None:
        before = self._statuses.latest(record.key, record.uid, record.status)
        status = status_of(
            record,
            verdict,
            digest or before.digest,
            self._facts_of(record),
            live=before,
            now=self._clock.now(),
            rollout=self.rollouts.status(record.uid),
            progressing=self.rollouts.condition(record.uid),
            looping=self._looping.pop(record.uid, ""),
        )
        if status == before:
            return
        transition = is_transition(before, status)
        self._tell_of_loop(record, before, status)
        self._statuses.want(
            record.key, record.uid, status, live=record.status, transition=transition
        )
        if transition:
            self._events.transition(
                SCRIPTS, record.key, record.uid, before.conditions, status.conditions
            )
            for listener in self.listeners:
                listener(record.key, status)
        self.on_status(record, status, transition)

    def _tell_of_loop(
        self, record: ScriptRecord, before: ScriptStatus, status: ScriptStatus
    ) -> None:
        if not any(it.type == LOOPING for it in before.conditions):
            for it in status.conditions:
                if it.type == LOOPING:
                    self._events.warning(SCRIPTS, record.key, record.uid, it.reason, it.message)

    def _facts_of(self, record: ScriptRecord) -> RunFacts:
        """What the cluster remembers, where this process has not seen a run yet."""
        return self._facts.get(
            record.uid, RunFacts(runs=record.status.runs, failures=record.status.failures)
        )


def _seconds(text: str | None) -> float:
    return duration(text).total_seconds() if text else 0.0


def _concerns_us(old: ScriptRecord, new: ScriptRecord) -> bool:
    """Whether more changed than the status that we wrote ourselves."""
    return (
        old.generation,
        old.repository_uid,
        old.revision,
        old.deleting,
        old.rollout_request,
    ) != (new.generation, new.repository_uid, new.revision, new.deleting, new.rollout_request)
