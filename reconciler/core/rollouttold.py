"""What is said of a rollout: its part of the status, its condition, and what `Ready` comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.api.meta import ConditionStatus
from reconciler.api.rollout import RolloutStatus, RunDifference
from reconciler.core import conditions, rollouts, versions
from reconciler.core.conditions import Verdict
from reconciler.core.rollouts import Phase, Policy, State
from reconciler.core.versions import Version


@dataclass(frozen=True, slots=True)
class Told:
    """A rollout with the versions that its hashes stand for, as far as they are known."""

    state: State
    policy: Policy
    versions: tuple[Version, ...]

    def find(self, version: str) -> Version | None:
        return next((it for it in self.versions if it.version == version), None)

    def name(self, version: str) -> str:
        found = self.find(version)
        if found is None:
            return "a version that is not kept"
        return f"{found.spec.manifest.name} {found.spec.manifest.version} ({version})"


def status(
    it: Told, *, kept: Iterable[Version], handled: str, differences: Iterable[RunDifference]
) -> RolloutStatus:
    state, policy = it.state, it.policy
    stable, candidate = it.find(state.stable), it.find(state.candidate)
    return RolloutStatus(
        phase=rollouts.phase(state, policy).value,
        message=conditions.shortened(state.message if state.halted else sentence(it)),
        stable=state.stable,
        stable_digest=stable.digest if stable else "",
        candidate=state.candidate,
        candidate_digest=candidate.digest if candidate else "",
        wanted=state.wanted,
        halted=state.halted,
        reason=state.reason,
        current_step=state.step,
        steps=len(policy.steps),
        percent=rollouts.percent(state, policy),
        held=state.held,
        started_at=versions.timestamp(state.began),
        step_started_at=versions.timestamp(state.since) if state.candidate else "",
        runs=state.runs,
        failed=state.failed,
        crashed=state.crashed,
        differing=state.differing,
        step_runs=state.step_runs,
        last_handled_request=handled,
        differences=list(differences),
        versions=[versions.kept(version) for version in kept],
    )


def progressing(it: Told, *, now: float) -> tuple[ConditionStatus, str, str]:
    """The condition `Progressing`, as a Deployment has it."""
    match rollouts.phase(it.state, it.policy):
        case Phase.HEALTHY:
            return "True", "NewVersionAvailable", sentence(it)
        case Phase.PAUSED:
            return "Unknown", "RolloutPaused", sentence(it)
        case Phase.DEGRADED:
            return "False", it.state.reason, sentence(it)
        case Phase.PROGRESSING:
            if rollouts.is_late(it.state, it.policy, now=now):
                return "False", "ProgressDeadlineExceeded", sentence(it)
            return "True", "RolloutProgressing", sentence(it)


def verdict(it: Told, *, now: float) -> Verdict:
    """Ready is True when what is wanted has all runs: who waits for that waits for the end."""
    is_true, reason, message = progressing(it, now=now)
    stable = it.find(it.state.stable)
    if reason == "NewVersionAvailable" and stable is not None:
        return deployed(stable)
    if is_true == "False":
        return conditions.stalled(reason, message)
    return conditions.reconciling(reason, message)


def deployed(version: Version) -> Verdict:
    manifest = version.spec.manifest
    return conditions.ready("Deployed", f"runs {manifest.name} {manifest.version}")


def sentence(it: Told) -> str:
    """Where it is, without counts: a message is no reason to write a status."""
    state, policy = it.state, it.policy
    stable = it.name(state.stable)
    if state.candidate:
        candidate = it.name(state.candidate)
        until = ", until it is promoted" if rollouts.waits_for_person(state, policy) else ""
        until = ", held" if policy.paused else until
        if policy.is_shadow:
            return f"{candidate} runs as a shadow of {stable}{until}"
        whose = "devices" if policy.by_devices else "runs"
        return (
            f"step {state.step + 1} of {len(policy.steps)}: {candidate} has "
            f"{rollouts.percent(state, policy)} % of the {whose}, {stable} the others{until}"
        )
    if state.halted:
        return f"{it.name(state.halted)} was given up: {state.message}; {stable} runs"
    if state.wanted != state.stable:
        return f"{it.name(state.wanted)} waits while paused; {stable} runs"
    return f"{stable} has all runs"
