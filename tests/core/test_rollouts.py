"""Rollouts as a state machine: what it comes to for chosen stories, and what holds for all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.objects import ObjectKey
from reconciler.core.rollouts import (
    NEUTRAL,
    Action,
    Asked,
    Broke,
    Event,
    Passed,
    Phase,
    Policy,
    Ran,
    State,
    Step,
    Wanted,
    due,
    is_late,
    percent,
    phase,
    share,
    step,
)
from reconciler.core.runs import Cause, Outcome, Run, RunId, RunKey

SCRIPT = ObjectKey("default", "thermostat")
OLD, NEW, NEWER = "old", "new", "newer"
GOOD, BAD, CRASH = Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CRASHED
STEPS = (Step(20, pause=60.0), Step(50, pause=60.0, runs=5), Step(100))
POLICY = Policy(steps=STEPS, min_runs=4, failed_percent=25)
SETTLED = State(stable=OLD, wanted=OLD)
BEGUN = State(stable=OLD, candidate=NEW, wanted=NEW, began=1000.0, since=1000.0)

Story = list[tuple[float, Event]]


def told(story: Story, *, policy: Policy = POLICY, state: State = SETTLED) -> State:
    for now, event in story:
        state = step(state, event, policy, now=now)
    return state


def ran(outcome: Outcome, times: int = 1, *, at: float = 1001.0, version: str = NEW) -> Story:
    return [(at, Ran(version, outcome)) for _ in range(times)]


BEGIN: Story = [(1000.0, Wanted(NEW))]


@pytest.mark.parametrize(
    ("story", "policy", "expected"),
    [
        pytest.param(BEGIN, POLICY, BEGUN, id="a new version begins at the first step"),
        pytest.param(
            BEGIN, Policy(), State(stable=NEW, wanted=NEW), id="without steps it runs at once"
        ),
        pytest.param(
            [*BEGIN, (1059.0, Passed())], POLICY, BEGUN, id="a step lasts until its pause is over"
        ),
        pytest.param(
            [*BEGIN, (1060.0, Passed())],
            POLICY,
            replace(BEGUN, step=1, since=1060.0),
            id="a step whose pause is over gives way to the next",
        ),
        pytest.param(
            [*BEGIN, (1060.0, Passed()), *ran(GOOD, 4), (9999.0, Passed())],
            POLICY,
            replace(BEGUN, step=1, since=1060.0, runs=4, step_runs=4),
            id="a step that asks for runs waits for them too",
        ),
        pytest.param(
            [*BEGIN, (1060.0, Passed()), *ran(GOOD, 5), (1120.0, Passed()), (99999.0, Passed())],
            POLICY,
            replace(BEGUN, step=2, since=1120.0, runs=5),
            id="a step without pause and runs waits for a person",
        ),
        pytest.param(
            [
                *BEGIN,
                (1060.0, Passed()),
                *ran(GOOD, 5),
                (1120.0, Passed()),
                (1121.0, Asked(Action.PROMOTE)),
            ],
            POLICY,
            State(stable=NEW, wanted=NEW),
            id="after the last step it runs for all",
        ),
        pytest.param(
            [*BEGIN, *ran(CRASH)],
            POLICY,
            replace(
                BEGUN,
                candidate="",
                halted=NEW,
                reason="CrashBudgetExceeded",
                message="1 of 1 runs were ended, 0 may",
                runs=1,
                failed=1,
                crashed=1,
                step_runs=1,
            ),
            id="one crash is one too many where none may",
        ),
        pytest.param(
            [*BEGIN, *ran(BAD, 3)],
            POLICY,
            replace(BEGUN, runs=3, failed=3, step_runs=3),
            id="too few runs give no version up",
        ),
        pytest.param(
            [*BEGIN, *ran(BAD, 3), (1060.0, Passed())],
            POLICY,
            replace(BEGUN, runs=3, failed=3, step_runs=3),
            id="too few runs that failed let no version go on either",
        ),
        pytest.param(
            [*BEGIN, *ran(BAD, 4)],
            POLICY,
            replace(
                BEGUN,
                candidate="",
                halted=NEW,
                reason="ErrorBudgetExceeded",
                message="4 of 4 runs failed, 25 % may",
                runs=4,
                failed=4,
                step_runs=4,
            ),
            id="enough runs that failed give it up",
        ),
        pytest.param(
            [*BEGIN, *ran(Outcome.LOST, 9), *ran(Outcome.UNAVAILABLE, 9)],
            POLICY,
            BEGUN,
            id="what the platform fails at says nothing of a version",
        ),
        pytest.param(
            [*BEGIN, *ran(CRASH, 9, version=OLD)],
            POLICY,
            BEGUN,
            id="runs of the stable version do not count",
        ),
        pytest.param(
            [*BEGIN, (1001.0, Broke(NEW, "LoadFailed", "no main"))],
            POLICY,
            replace(BEGUN, candidate="", halted=NEW, reason="LoadFailed", message="no main"),
            id="a version that does not load is given up",
        ),
        pytest.param(
            [*BEGIN, (1001.0, Asked(Action.ABORT)), (1002.0, Wanted(NEW))],
            POLICY,
            replace(
                BEGUN, candidate="", halted=NEW, reason="Aborted", message="it was aborted by hand"
            ),
            id="a version that was given up is not tried again by itself",
        ),
        pytest.param(
            [*BEGIN, (1001.0, Asked(Action.ABORT)), (1002.0, Wanted(NEWER))],
            POLICY,
            replace(BEGUN, candidate=NEWER, wanted=NEWER, began=1002.0, since=1002.0),
            id="another version is tried after one that was given up",
        ),
        pytest.param(
            [*BEGIN, (1001.0, Asked(Action.ABORT)), (1002.0, Asked(Action.PROMOTE))],
            POLICY,
            replace(BEGUN, began=1002.0, since=1002.0),
            id="a person may have it tried again",
        ),
        pytest.param(
            [*BEGIN, (1001.0, Wanted(OLD))],
            POLICY,
            SETTLED,
            id="a manifest that goes back ends the rollout",
        ),
        pytest.param(
            [*BEGIN, *ran(GOOD), (1001.0, Wanted(NEWER))],
            POLICY,
            replace(BEGUN, candidate=NEWER, wanted=NEWER, began=1001.0, since=1001.0),
            id="a newer version takes the place of the one that is tried",
        ),
        pytest.param(
            [(1000.0, Asked(Action.UNDO, "ancient")), (1001.0, Wanted(OLD))],
            POLICY,
            State(
                stable="ancient",
                wanted=OLD,
                halted=OLD,
                reason="Undone",
                message="it was undone by hand",
            ),
            id="what was undone does not come back by itself",
        ),
        pytest.param(
            BEGIN,
            replace(POLICY, paused=True),
            State(stable=OLD, wanted=NEW, held=True),
            id="while paused none begins",
        ),
    ],
)
def test_rollout(story: Story, policy: Policy, expected: State) -> None:
    assert told(story, policy=policy) == expected


def test_first_version_runs_at_once() -> None:
    assert told(BEGIN, state=State()) == State(stable=NEW, wanted=NEW)


def test_a_pause_holds_the_step_and_its_time_begins_anew() -> None:
    paused = replace(POLICY, paused=True)
    held = told([(1050.0, Passed()), (2000.0, Passed())], policy=paused, state=BEGUN)
    assert held == replace(BEGUN, held=True)
    resumed = step(held, Passed(), POLICY, now=3000.0)
    assert resumed == replace(BEGUN, since=3000.0)
    assert step(resumed, Passed(), POLICY, now=3059.0) == resumed


def test_a_paused_rollout_is_given_up_all_the_same() -> None:
    assert told(ran(CRASH), policy=replace(POLICY, paused=True), state=BEGUN).halted == NEW


def test_differences_of_a_shadow_have_a_budget_of_their_own() -> None:
    policy = Policy(steps=(Step(0),), is_shadow=True, differences=1)
    one = step(BEGUN, Ran(NEW, GOOD, differs=True), policy, now=1001.0)
    assert (one.candidate, one.differing, percent(one, policy)) == (NEW, 1, 0)
    two = step(one, Ran(NEW, GOOD, differs=True), policy, now=1002.0)
    assert (two.halted, two.reason) == (NEW, "DifferenceBudgetExceeded")


def test_phases() -> None:
    assert [
        phase(SETTLED, POLICY),
        phase(BEGUN, POLICY),
        phase(BEGUN, replace(POLICY, paused=True)),
        phase(replace(BEGUN, step=2), POLICY),
        phase(replace(BEGUN, candidate="", halted=NEW), POLICY),
        phase(State(stable=OLD, wanted=NEW), POLICY),
    ] == [
        Phase.HEALTHY,
        Phase.PROGRESSING,
        Phase.PAUSED,
        Phase.PAUSED,
        Phase.DEGRADED,
        Phase.PAUSED,
    ]


def test_time_is_looked_at_when_a_pause_and_when_a_deadline_is_over() -> None:
    at_second = replace(BEGUN, step=1)
    assert due(at_second, POLICY, now=1000.0) == 60.0
    assert due(at_second, POLICY, now=1060.0) == POLICY.deadline
    assert not is_late(at_second, POLICY, now=1659.0)
    assert is_late(at_second, POLICY, now=1660.0)
    assert due(at_second, POLICY, now=1660.0) is None
    assert due(replace(BEGUN, step=2), POLICY, now=1000.0) is None
    assert not is_late(replace(BEGUN, step=2), POLICY, now=1e9)


# What holds whatever happens.

VERSIONS = st.sampled_from(["a", "b", "c"])
EVENTS = st.one_of(
    st.builds(Wanted, VERSIONS),
    st.builds(Ran, VERSIONS, st.sampled_from(Outcome), st.booleans()),
    st.builds(Broke, VERSIONS, st.just("LoadFailed"), st.just("why")),
    st.builds(Asked, st.sampled_from(Action), st.sampled_from(["", "a", "b", "c"])),
    st.just(Passed()),
)
POLICIES = st.builds(
    Policy,
    steps=st.lists(
        st.builds(
            Step,
            st.integers(1, 100),
            st.none() | st.floats(0.1, 100.0),
            st.none() | st.integers(1, 5),
        ),
        max_size=4,
    ).map(lambda steps: tuple(sorted(steps, key=lambda it: it.percent))),
    is_shadow=st.booleans(),
    failed_percent=st.integers(0, 100),
    min_runs=st.integers(1, 5),
    crashes=st.integers(0, 2),
    differences=st.none() | st.integers(0, 2),
    paused=st.booleans(),
)
COURSES = st.lists(st.tuples(st.floats(0.0, 200.0), EVENTS, POLICIES), max_size=40)


def course(
    moves: list[tuple[float, Event, Policy]],
) -> list[tuple[State, Event, Policy, float, State]]:
    state, now, seen = State(), 0.0, []
    for passed, event, policy in moves:
        now += passed
        after = step(state, event, policy, now=now)
        seen.append((state, event, policy, now, after))
        state = after
    return seen


@given(COURSES)
def test_something_runs_from_the_first_version_on(
    moves: list[tuple[float, Event, Policy]],
) -> None:
    had = False
    for _, event, _, _, after in course(moves):
        had = had or isinstance(event, Wanted) or bool(after.stable)
        assert bool(after.stable) == had
        assert after.candidate != after.stable or not after.stable
        assert after.halted != after.stable or not after.stable
        assert not (after.candidate and after.halted)


@given(COURSES)
def test_only_a_wanted_or_asked_for_version_ever_becomes_stable(
    moves: list[tuple[float, Event, Policy]],
) -> None:
    for before, event, _, _, after in course(moves):
        if after.stable == before.stable:
            continue
        named = {before.candidate, before.halted}
        if isinstance(event, Wanted | Asked):
            named.add(event.version)
        assert after.stable in named


@given(COURSES)
def test_runs_alone_never_promote_and_a_version_given_up_needs_a_person_or_another_manifest(
    moves: list[tuple[float, Event, Policy]],
) -> None:
    for before, event, _, _, after in course(moves):
        if isinstance(event, Ran | Broke):
            assert after.stable == before.stable
            assert after.step == before.step
        if before.halted and after.candidate == before.halted:
            assert isinstance(event, Asked)


@given(COURSES)
def test_no_step_is_left_by_itself_before_its_time_its_runs_or_over_its_budget(
    moves: list[tuple[float, Event, Policy]],
) -> None:
    for before, event, policy, now, after in course(moves):
        if not (isinstance(event, Passed) and before.candidate and after != before):
            continue
        if after.step == before.step and after.candidate == before.candidate:
            continue
        assert not policy.paused
        if before.step < len(policy.steps):
            left = policy.steps[before.step]
            held = before.held
            assert left.pause is None or now >= (now if held else before.since) + left.pause
            assert left.runs is None or before.step_runs >= left.runs
            assert left.pause is not None or left.runs is not None
            assert before.crashed <= policy.crashes
            assert before.failed * 100 <= policy.failed_percent * before.runs


@given(COURSES)
def test_counts_are_of_the_candidate_and_never_of_the_platform(
    moves: list[tuple[float, Event, Policy]],
) -> None:
    for before, event, _, _, after in course(moves):
        assert after.failed <= after.runs
        assert after.crashed <= after.failed
        if isinstance(event, Ran) and event.outcome in NEUTRAL:
            assert after.runs == before.runs


@given(COURSES)
def test_the_same_event_at_the_same_moment_twice_is_told_once_unless_it_counts(
    moves: list[tuple[float, Event, Policy]],
) -> None:
    for _, event, policy, now, after in course(moves):
        if isinstance(event, Wanted | Broke):
            assert step(after, event, policy, now=now) == after


def run(run_id: str, *devices: str) -> Run:
    return Run(
        key=RunKey(RunId(run_id), 1, 1),
        script=SCRIPT,
        uid="u1",
        cause=Cause.READ_CHANGE,
        created_at=0.0,
        devices=frozenset(devices),
    )


NAMES = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=30)


@given(NAMES, st.integers(1, 100), st.integers(1, 100))
def test_a_device_that_has_the_new_version_keeps_it_as_the_share_grows(
    names: set[str], one: int, other: int
) -> None:
    less, more = sorted((one, other))
    before = share(SCRIPT, less, devices=names)
    after = share(SCRIPT, more, devices=sorted(names))
    assert before.devices is not None
    assert after.devices is not None
    assert before.devices <= after.devices
    for name in names:
        assert before.takes(run("r1", name)) == before.takes(run("r2", name))
    assert len(before.devices) == -(-len(names) * less // 100)


@given(st.text(), st.integers(0, 100), st.integers(0, 100))
def test_a_run_that_has_the_new_version_would_have_it_at_a_larger_share(
    run_id: str, one: int, other: int
) -> None:
    less, more = sorted((one, other))
    smaller, larger = (share(SCRIPT, it, devices=None) for it in (less, more))
    assert larger.takes(run(run_id)) or not smaller.takes(run(run_id))
    assert share(SCRIPT, 100, devices=None).takes(run(run_id))
    assert not share(SCRIPT, 0, devices=None).takes(run(run_id))


def test_shares_of_runs_are_about_what_they_say() -> None:
    fifth = share(SCRIPT, 20, devices=None)
    assert 1_800 < sum(fifth.takes(run(f"run-{n}")) for n in range(10_000)) < 2_200


def test_a_run_for_devices_of_both_versions_is_the_stable_one_s() -> None:
    half = share(SCRIPT, 50, devices={"a", "b"})
    assert half.devices is not None
    [new] = half.devices
    assert half.takes(run("r", new))
    assert not half.takes(run("r", "a", "b"))
