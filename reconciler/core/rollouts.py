"""A rollout: which version of a Script runs, which one is tried, and what follows from its runs.

All that changes a rollout is in `step`; an event that does not concern it changes nothing.

    event         settled          under way                     given up
    Wanted new    under way        under way, from the start     under way
    Wanted same   settled          under way                     given up
    Wanted old    settled          settled                       settled
    Ran, Broke    settled          under way, or given up        given up
    Passed        settled          next step, at last settled    given up
    Asked         `promote` and `abort` of what is under way, `promote` of what was given up,
                  `undo` at any time

Settled is a rollout whose candidate is its stable version; given up one that runs the stable
version though another is wanted. While it is paused none begins and none goes on by itself; one
that does harm is given up all the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Final, TypeAlias, assert_never

from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Outcome, Run

# The platform's failures, which say nothing of a version.
NEUTRAL: Final = frozenset({Outcome.UNAVAILABLE, Outcome.LOST, Outcome.UNKNOWN})
# What a version should never do, however seldom.
CRASHES: Final = frozenset(
    {
        Outcome.CRASHED,
        Outcome.TIMED_OUT,
        Outcome.OUT_OF_MEMORY,
        Outcome.LOAD_FAILED,
        Outcome.CRASH_LOOP,
    }
)
# That of a Deployment.
DEADLINE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Step:
    """`pause` in seconds. Without `pause` and `runs` it waits for a person."""

    percent: int
    pause: float | None = None
    runs: int | None = None

    @property
    def waits_for_person(self) -> bool:
        return self.pause is None and self.runs is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a new version comes: at once where there are no steps."""

    steps: tuple[Step, ...] = ()
    is_shadow: bool = False
    by_devices: bool = False
    failed_percent: int = 10
    min_runs: int = 10
    crashes: int = 0
    differences: int | None = None
    deadline: float = DEADLINE
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Versions are hashes, "" for none. Counts are of the candidate's runs."""

    stable: str = ""
    candidate: str = ""
    wanted: str = ""
    halted: str = ""
    # Why it was given up: one word, and a sentence.
    reason: str = ""
    message: str = ""
    step: int = 0
    began: float = 0.0
    since: float = 0.0
    held: bool = False
    runs: int = 0
    failed: int = 0
    crashed: int = 0
    differing: int = 0
    step_runs: int = 0


class Phase(StrEnum):
    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    DEGRADED = "Degraded"


class Action(StrEnum):
    PROMOTE = "promote"
    PROMOTE_FULL = "promote-full"
    ABORT = "abort"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The spec asks for this version, and it can run."""

    version: str


@dataclass(frozen=True, slots=True)
class Ran:
    """A run of this version ended; `differs` is said of a shadow's."""

    version: str
    outcome: Outcome
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Broke:
    """This version cannot run at all."""

    version: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A person wants it; `version` is what to return to with `undo`."""

    action: Action
    version: str = ""


@dataclass(frozen=True, slots=True)
class Passed:
    """Time has."""


Event: TypeAlias = Wanted | Ran | Broke | Asked | Passed


def step(state: State, event: Event, policy: Policy, *, now: float) -> State:
    """The rollout after `event`; the very same state when it changes nothing."""
    state = _held(state, policy, now)
    match event:
        case Wanted(version):
            return _wanted(state, version, policy, now)
        case Ran():
            return _ran(state, event, policy)
        case Broke(version, reason, message):
            is_it = version and version == state.candidate
            return _given_up(state, reason, message) if is_it else state
        case Asked(action, version):
            return _asked(state, action, version, policy, now)
        case Passed():
            return _passed(state, policy, now)
        case _:
            assert_never(event)


def phase(state: State, policy: Policy) -> Phase:
    if state.candidate:
        waits = policy.paused or waits_for_person(state, policy)
        return Phase.PAUSED if waits else Phase.PROGRESSING
    if state.halted:
        return Phase.DEGRADED
    return Phase.HEALTHY if state.wanted == state.stable else Phase.PAUSED


def waits_for_person(state: State, policy: Policy) -> bool:
    """Whether time and runs do not end the step."""
    return state.step < len(policy.steps) and policy.steps[state.step].waits_for_person


def percent(state: State, policy: Policy) -> int:
    """The candidate's share of the runs that count; none for a shadow."""
    if not state.candidate or policy.is_shadow or state.step >= len(policy.steps):
        return 0
    return policy.steps[state.step].percent


def due(state: State, policy: Policy, *, now: float) -> float | None:
    """Seconds until time alone changes what is so or what is said; None when it does not."""
    if not state.candidate or policy.paused or waits_for_person(state, policy):
        return None
    ends = state.since + _pause(state, policy)
    later = [at - now for at in (ends, ends + policy.deadline) if at > now]
    return min(later, default=None)


def is_late(state: State, policy: Policy, *, now: float) -> bool:
    """Whether a step has taken longer than its pause and the deadline."""
    return (
        phase(state, policy) is Phase.PROGRESSING
        and now >= state.since + _pause(state, policy) + policy.deadline
    )


@dataclass(frozen=True, slots=True)
class Share:
    """Which runs are the candidate's: a function of what they are for, so that it stays.

    A device or run that has the candidate at some percent has it at every higher one.
    """

    script: ObjectKey
    percent: int
    # With `by: Devices`, those whose runs are the candidate's.
    devices: frozenset[str] | None = None

    def takes(self, run: Run) -> bool:
        """A run that no device caused is shared out by itself."""
        if self.devices is not None and run.devices:
            return run.devices <= self.devices
        return _place(self.script, run.key.run_id) % 100 < self.percent


def share(script: ObjectKey, percent: int, *, devices: Collection[str] | None) -> Share:
    """Of devices as many as the percentage says, rounded up: one at least, also of few."""
    if devices is None:
        return Share(script, percent)
    ordered = sorted(devices, key=lambda name: (_place(script, name), name))
    count = math.ceil(len(ordered) * percent / 100)
    return Share(script, percent, frozenset(ordered[:count]))


def _place(script: ObjectKey, name: str) -> int:
    return int.from_bytes(blake2b(f"{script}/{name}".encode(), digest_size=8).digest())


def _held(state: State, policy: Policy, now: float) -> State:
    """A pause ends with the step's wait begun anew: nothing was learned meanwhile."""
    if state.held == policy.paused:
        return state
    return replace(state, held=policy.paused, since=state.since if policy.paused else now)


def _wanted(state: State, version: str, policy: Policy, now: float) -> State:
    if version == state.stable:
        if state.wanted == version and not state.candidate and not state.halted:
            return state
        return _settled(state, version)
    if version in {state.candidate, state.halted}:
        return state if state.wanted == version else replace(state, wanted=version)
    if not state.stable:
        return _settled(state, version)
    if policy.paused:
        if state.wanted == version and not state.candidate:
            return state
        return replace(_settled(state, state.stable), wanted=version)
    if not policy.steps:
        return _settled(state, version)
    return _begun(state, version, now)


def _ran(state: State, ran: Ran, policy: Policy) -> State:
    if not state.candidate or ran.version != state.candidate or ran.outcome in NEUTRAL:
        return state
    state = replace(
        state,
        runs=state.runs + 1,
        step_runs=state.step_runs + 1,
        failed=state.failed + (ran.outcome is not Outcome.SUCCEEDED),
        crashed=state.crashed + (ran.outcome in CRASHES),
        differing=state.differing + ran.differs,
    )
    over = _over(state, policy, after=policy.min_runs)
    return _given_up(state, *over) if over else state


def _over(state: State, policy: Policy, *, after: int) -> tuple[str, str] | None:
    """Which budget is spent, as reason and sentence."""
    if state.crashed > policy.crashes:
        return (
            "CrashBudgetExceeded",
            f"{state.crashed} of {state.runs} runs were ended, {policy.crashes} may",
        )
    if policy.differences is not None and state.differing > policy.differences:
        return (
            "DifferenceBudgetExceeded",
            f"{state.differing} of {state.runs} runs differed, {policy.differences} may",
        )
    if state.runs >= after and state.failed * 100 > policy.failed_percent * state.runs:
        return (
            "ErrorBudgetExceeded",
            f"{state.failed} of {state.runs} runs failed, {policy.failed_percent} % may",
        )
    return None


def _passed(state: State, policy: Policy, now: float) -> State:
    if not state.candidate or policy.paused:
        return state
    if state.step >= len(policy.steps):
        return _settled(state, state.candidate)
    at = policy.steps[state.step]
    if (
        at.waits_for_person
        or (at.pause is not None and now < state.since + at.pause)
        or (at.runs is not None and state.step_runs < at.runs)
        # Too few to give it up for, and no reason to go on with.
        or _over(state, policy, after=1) is not None
    ):
        return state
    return _promoted(state, policy, now)


def _asked(state: State, action: Action, version: str, policy: Policy, now: float) -> State:
    match action:
        case Action.PROMOTE:
            if state.candidate:
                return _promoted(state, policy, now)
            if not state.halted:
                return state
            if policy.steps:
                return _begun(state, state.halted, now)
            return _settled(state, state.halted)
        case Action.PROMOTE_FULL:
            chosen = state.candidate or state.halted
            return _settled(state, chosen) if chosen else state
        case Action.ABORT:
            is_under_way = bool(state.candidate)
            return _given_up(state, "Aborted", "it was aborted by hand") if is_under_way else state
        case Action.UNDO:
            if not version or (version == state.stable and not state.candidate):
                return state
            return _undone(state, version)
        case _:
            assert_never(action)


def _undone(state: State, version: str) -> State:
    returned = _settled(state, version)
    if version == state.wanted:
        return returned
    return replace(
        returned,
        wanted=state.wanted,
        halted=state.wanted,
        reason="Undone",
        message="it was undone by hand",
    )


def _promoted(state: State, policy: Policy, now: float) -> State:
    if state.step + 1 >= len(policy.steps):
        return _settled(state, state.candidate)
    return replace(state, step=state.step + 1, since=now, step_runs=0)


def _begun(state: State, version: str, now: float) -> State:
    return State(
        stable=state.stable,
        candidate=version,
        wanted=version,
        began=now,
        since=now,
        held=state.held,
    )


def _settled(state: State, version: str) -> State:
    return State(stable=version, wanted=version, held=state.held)


def _given_up(state: State, reason: str, message: str) -> State:
    """The counts stay, to be looked at."""
    return replace(state, candidate="", halted=state.candidate, reason=reason, message=message)


def _pause(state: State, policy: Policy) -> float:
    at = policy.steps[state.step] if state.step < len(policy.steps) else None
    return (at.pause or 0.0) if at is not None else 0.0
