"""Rollouts: which versions of a Script run now, and what is told of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from reconciler.api.meta import ConditionStatus
from reconciler.api.rollout import RolloutStatus, RunDifference
from reconciler.api.script import ScriptSpec
from reconciler.controllers.artifacts import Found
from reconciler.controllers.events import Events
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.runnables import Candidate, Runnable, script_ref
from reconciler.controllers.shadowing import Compared
from reconciler.controllers.statuses import ScriptStatuses
from reconciler.core import rollouts, rollouttold, versions
from reconciler.core.conditions import Verdict
from reconciler.core.objects import SCRIPTS, ObjectKey
from reconciler.core.rollouts import Action, Asked, Broke, Event, Passed, Policy, Ran, State
from reconciler.core.rollouttold import Told
from reconciler.core.runs import RunRecord
from reconciler.core.scripts import ScriptRecord
from reconciler.core.versions import Version
from reconciler.ports.clock import Clock

# Enough to see how a shadow differs; each is a few hundred bytes of every status write.
DIFFERENCES = 5


@dataclass(slots=True)
class _Rollout:
    state: State
    policy: Policy
    # Those that were deployed, newest first; and the one that the spec asks for.
    kept: tuple[Version, ...]
    wanted: Version | None = None
    handled: str = ""
    differences: deque[RunDifference] = field(default_factory=lambda: deque(maxlen=DIFFERENCES))

    @property
    def told(self) -> Told:
        wanted = (self.wanted,) if self.wanted else ()
        return Told(self.state, self.policy, (*self.kept, *wanted))


@dataclass(frozen=True, slots=True)
class Deployment:
    """What runs now, whether it was running before this process began, and what that makes of
    `Ready`.
    """

    runnable: Runnable
    verdict: Verdict
    is_known: bool = False


class Rollouts:
    """One rollout per Script that asks for one; the others have their newest version at once.

    A rollout lives in the status of its Script and goes on from there after a restart; what a
    status did not carry yet is at most some runs that were not counted.
    """

    def __init__(
        self,
        statuses: ScriptStatuses,
        events: Events,
        *,
        clock: Clock,
        metrics: Metrics,
        running: Callable[[ObjectKey], Runnable | None],
        put: Callable[[ObjectKey, Runnable], None],
        wake: Callable[[ObjectKey], None],
    ) -> None:
        self._statuses = statuses
        self._events = events
        self._clock = clock
        self._metrics = metrics
        self._running = running
        self._put = put
        self._wake = wake
        self._rollouts: dict[str, _Rollout] = {}
        # Set by `main`: keeps the bytes of a digest, whatever becomes of the file they came from,
        # until this Script does not need them any more.
        self.keep: Callable[[str], None] = _keep_nothing
        self.release: Callable[[ObjectKey, str], None] = _release_nothing

    # What runs.

    def deploy(self, record: ScriptRecord, spec: ScriptSpec, found: Found) -> Deployment:
        """What runs, now that the spec asks for this and it can run."""
        version = self._version(record, spec, found)
        if not versions.is_managed(spec):
            self.forget(record)
            return Deployment(_runnable(record, version), rollouttold.deployed(version))
        it = self._known(record, spec)
        it.policy = versions.policy_of(spec)
        it.wanted = version
        self._step(record, it, rollouts.Wanted(version.version))
        self._ask(record, it)
        self._step(record, it, Passed())
        return self._deployment(record, it)

    def kept(self, record: ScriptRecord) -> Deployment | None:
        """What goes on running though what the spec asks for cannot; None where nothing does."""
        spec = record.spec
        if spec is not None and not _has_steps(spec):
            return None
        if spec is None and record.uid not in self._rollouts and self._told_of(record) is None:
            return None
        it = self._known(record, spec)
        stable = it.told.find(it.state.stable)
        if stable is None:
            return None
        return Deployment(_runnable(record, stable), rollouttold.deployed(stable), is_known=True)

    def broke(
        self, record: ScriptRecord, spec: ScriptSpec, found: Found, *, reason: str, message: str
    ) -> None:
        """What the spec asks for cannot be loaded."""
        if not _has_steps(spec):
            return
        version = self._version(record, spec, found)
        it = self._known(record, spec)
        if not it.state.stable or it.state.halted == version.version:
            return
        it.policy = versions.policy_of(spec)
        it.wanted = version
        self._step(record, it, rollouts.Wanted(version.version))
        self._step(record, it, Broke(version.version, reason, message))

    def due(self, uid: str) -> timedelta | None:
        """When to look again, because time alone changes something."""
        it = self._rollouts.get(uid)
        seconds = rollouts.due(it.state, it.policy, now=self._clock.now()) if it else None
        return None if seconds is None else timedelta(seconds=seconds)

    def forget(self, record: ScriptRecord) -> None:
        """It has no rollout any more."""
        it = self._rollouts.pop(record.uid, None)
        for digest in {version.digest for version in it.kept} if it else ():
            self.release(record.key, digest)

    def let_go(self, uid: str) -> None:
        """Another replica leads it, with what the status says of it."""
        self._rollouts.pop(uid, None)

    # What runs tell.

    def ran(self, run: RunRecord) -> None:
        """A run ended that was no shadow."""
        it = self._rollouts.get(run.uid)
        if it is not None and run.version and run.version == it.state.candidate:
            self._count(run.script, it, Ran(run.version, run.outcome))

    def compared(self, compared: Compared) -> None:
        """A shadow ended."""
        it = self._rollouts.get(compared.uid)
        if it is None or compared.version != it.state.candidate:
            return
        result = "differs" if compared.differs else "same"
        self._metrics.shadow_runs_total.labels(result).inc()
        if compared.differs:
            difference = RunDifference(
                run=compared.run_id, stable=list(compared.stable), shadow=list(compared.shadow)
            )
            it.differences.appendleft(difference)
            if not it.state.differing:
                self._events.warning(
                    SCRIPTS, compared.script, compared.uid, "ShadowDiffers", _told(difference)
                )
        ran = Ran(compared.version, compared.outcome, differs=compared.differs)
        self._count(compared.script, it, ran)

    def _count(self, script: ObjectKey, it: _Rollout, ran: Ran) -> None:
        self._move(it, ran)
        running = self._running(script)
        if running is not None and not it.state.candidate:
            # Now, not with the next reconcile: runs that wait are dispatched before that.
            self._put(script, replace(running, candidate=None))
        self._wake(script)

    # What is told of it.

    def status(self, uid: str) -> RolloutStatus | None:
        it = self._rollouts.get(uid)
        if it is None:
            return None
        return rollouttold.status(
            it.told, kept=it.kept, handled=it.handled, differences=it.differences
        )

    def condition(self, uid: str) -> tuple[ConditionStatus, str, str] | None:
        """`Progressing`, as a Deployment has it; None where there is no rollout."""
        it = self._rollouts.get(uid)
        return None if it is None else rollouttold.progressing(it.told, now=self._clock.now())

    # Inside.

    def _known(self, record: ScriptRecord, spec: ScriptSpec | None) -> _Rollout:
        it = self._rollouts.get(record.uid)
        if it is None:
            status = self._told_of(record)
            it = self._rollouts[record.uid] = _begun(status)
            it.policy = versions.policy_of(spec) if spec is not None else Policy()
            if status is None:
                # Asked for before there was a rollout, so not of this one.
                it.handled = record.rollout_request
        running = self._running(record.key)
        if not it.state.stable and running is not None and running.uid == record.uid:
            self._adopt(record, it, running)
        return it

    def _told_of(self, record: ScriptRecord) -> RolloutStatus | None:
        return self._statuses.latest(record.key, record.uid, record.status).rollout

    def _adopt(self, record: ScriptRecord, it: _Rollout, running: Runnable) -> None:
        """Rollouts are new to a Script that runs: what it runs is what there is to return to."""
        it.wanted = Version(
            version=versions.hash_of(running.spec, running.ref.digest),
            digest=running.ref.digest,
            ext=running.ref.file.rpartition(".")[2],
            spec=running.spec,
            generation=running.generation,
            source=running.revision,
        )
        self._step(record, it, rollouts.Wanted(it.wanted.version))

    def _version(self, record: ScriptRecord, spec: ScriptSpec, found: Found) -> Version:
        return Version(
            version=versions.hash_of(spec, found.digest) if versions.is_managed(spec) else "",
            digest=found.digest,
            ext=found.ext,
            spec=spec,
            generation=record.generation,
            source=record.revision,
        )

    def _ask(self, record: ScriptRecord, it: _Rollout) -> None:
        """Do what a person asked for with the annotation, once."""
        if record.rollout_request == it.handled:
            return
        it.handled = record.rollout_request
        word, _, revision = it.handled.partition(" ")[0].partition(":")
        if word not in set(Action):
            return
        action = Action(word)
        target = _target(it, revision) if action is Action.UNDO else ""
        self._step(record, it, Asked(action, target))

    def _step(self, record: ScriptRecord, it: _Rollout, event: Event) -> None:
        before = it.state
        self._move(it, event)
        if it.state.stable != before.stable:
            version = it.told.find(it.state.stable)
            if version is not None:
                spec = record.spec
                limit = spec.revision_history_limit if spec is not None else None
                before_it = it.kept
                it.kept = versions.deployed(before_it, version, limit=limit, now=self._clock.now())
                self.keep(version.digest)
                for digest in {v.digest for v in before_it} - {v.digest for v in it.kept}:
                    self.release(record.key, digest)
        if it.state.candidate and it.state.candidate != before.candidate:
            it.differences.clear()

    def _move(self, it: _Rollout, event: Event) -> None:
        before = it.state
        it.state = after = rollouts.step(before, event, it.policy, now=self._clock.now())
        if not before.candidate or after.candidate == before.candidate:
            return
        result = "promoted" if after.stable == before.candidate else "replaced"
        if after.halted == before.candidate:
            result = "halted"
        self._metrics.rollouts_total.labels(result).inc()

    def _deployment(self, record: ScriptRecord, it: _Rollout) -> Deployment:
        stable, candidate = it.told.find(it.state.stable), it.told.find(it.state.candidate)
        if stable is None:
            # A status that nobody here wrote: what is wanted is all there is.
            assert it.wanted is not None  # noqa: S101 - `deploy` has just set it
            it.state = State(stable=it.wanted.version, wanted=it.wanted.version)
            stable, candidate = it.wanted, None
            it.kept = versions.deployed((), stable, limit=0, now=self._clock.now())
        runnable = _runnable(record, stable)
        if candidate is not None:
            share = None
            if not it.policy.is_shadow:
                devices = stable.spec.read_selector.match_names.values()
                share = rollouts.share(
                    record.key,
                    rollouts.percent(it.state, it.policy),
                    devices=set(devices) if it.policy.by_devices else None,
                )
            tried = Candidate(_runnable(record, candidate), share)
            runnable = replace(runnable, candidate=tried)
        is_known = record.status.rollout is not None and (
            record.status.rollout.stable == stable.version
        )
        return Deployment(runnable, rollouttold.verdict(it.told, now=self._clock.now()), is_known)


def _begun(status: RolloutStatus | None) -> _Rollout:
    """Where it was, as far as the status of the Script knows."""
    if status is None:
        return _Rollout(State(), Policy(), ())
    return _Rollout(
        versions.state_of(status),
        Policy(),
        versions.versions_of(status),
        handled=status.last_handled_request,
        differences=deque(status.differences, maxlen=DIFFERENCES),
    )


def _has_steps(spec: ScriptSpec) -> bool:
    """Whether a new version waits for anything beside being able to run."""
    return bool(versions.policy_of(spec).steps) or spec.paused


def _runnable(record: ScriptRecord, version: Version) -> Runnable:
    return Runnable(
        ref=script_ref(record.key, version.spec, digest=version.digest, ext=version.ext),
        uid=record.uid,
        spec=version.spec,
        revision=version.source,
        version=version.version,
        generation=version.generation,
    )


def _target(it: _Rollout, revision: str) -> str:
    """What to return to: a kept revision, else the one before; from a rollout the stable one."""
    if revision:
        return next((v.version for v in it.kept if str(v.revision) == revision), "")
    if it.state.candidate:
        return it.state.stable
    return it.kept[1].version if len(it.kept) > 1 else ""


def _told(difference: RunDifference) -> str:
    stable = ", ".join(difference.stable) or "nothing more"
    shadow = ", ".join(difference.shadow) or "nothing more"
    return f"in run {difference.run} the stable version wants {stable}; the shadow {shadow}"


def _keep_nothing(_digest: str) -> None:
    """Set before anything runs."""


def _release_nothing(_script: ObjectKey, _digest: str) -> None:
    """Set before anything runs."""
