"""Which changes are worth a run: bounds, hysteresis, deadband, `for`, debounce, throttle."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.api.script import ScriptSpec
from reconciler.core import gating
from reconciler.core.gating import Condition, Gate, Look, State
from reconciler.core.ledger import WhyNot
from tests.controllers.runpath import spec

FILTERED, PENDING = WhyNot.FILTERED, WhyNot.PENDING


def hot(**parts: Any) -> Gate:
    policy = {name: parts.pop(name) for name in ("debounce", "throttle") if name in parts}
    return Gate((Condition(device="d", property="t", **parts),), **policy)


class Player:
    """Reports values and looks when it is told to look, as the controller does."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.state = gating.begin(gate)
        self.now = 1000.0
        self.again_at = inf
        self.runs: list[float] = []
        self.whys: list[WhyNot | None] = []

    def report(self, value: object, *, stamp: float | None = None, device: str = "d") -> None:
        values = {"t": (str(value), stamp)}
        self.state, why = gating.changed(self.gate, self.state, device, values, self.now)
        self.whys.append(why)
        self.look()

    def look(self) -> Look:
        look = gating.look(self.gate, self.state, self.now)
        # What is kept is what goes on: nothing is lost on the way through JSON.
        kept = json.loads(json.dumps(gating.to_json(self.gate, look.state)))
        again = gating.from_json(self.gate, kept)
        assert again == look.state
        self.state, self.again_at = look.state, look.again_at
        if look.devices is not None:
            self.runs.append(self.now)
        return look

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.again_at <= end:
            self.now = self.again_at
            self.look()
        self.now = end


def runs_of(gate: Gate, values: Iterable[object]) -> list[object]:
    """Which of `values`, reported one after the other, lead to a run at once."""
    player = Player(gate)
    found = []
    for value in values:
        before = len(player.runs)
        player.report(value)
        found += [value] * (len(player.runs) - before)
        player.now += 1
    return found


@pytest.mark.parametrize(
    ("gate", "values", "expected"),
    [
        pytest.param(hot(), ["a", "b"], ["a", "b"], id="one property and no bound: every value"),
        pytest.param(hot(above=30), [29, 30, 30.5, 31, 12], [30.5, 31], id="above"),
        pytest.param(hot(below=5), [5, 4, 6, "x"], [4], id="below, and what is no number"),
        pytest.param(hot(above=0, below=9), [-1, 0, 5, 9], [5], id="between"),
        pytest.param(hot(equals="open"), ["shut", "open", "ajar"], ["open"], id="equals"),
        pytest.param(
            hot(above=30, hysteresis=2),
            [29, 31, 29, 28.5, 28, 29, 31],
            [31, 29, 28.5, 31],
            id="a bound with hysteresis holds until it is left behind",
        ),
        pytest.param(
            hot(change=0.5), [20, 20.2, 20.4, 20.5, 20.1, 19.9], [20, 20.5, 19.9], id="deadband"
        ),
        pytest.param(hot(above=30), ["nan", "inf", "-inf"], [], id="no number that can be judged"),
    ],
)
def test_values_that_lead_to_a_run(gate: Gate, values: list[object], expected: list[object]):
    assert runs_of(gate, values) == expected


def test_another_property_and_another_device_are_filtered():
    player = Player(hot())
    player.report("1", device="other")
    player.state, why = gating.changed(player.gate, player.state, "d", {"u": ("1", None)}, 1.0)
    assert (player.runs, player.whys, why) == ([], [FILTERED], FILTERED)


def test_a_condition_that_lasts_asks_once_and_again_after_a_break():
    player = Player(hot(above=30, lasts=60))
    player.report(31)
    player.wait(30)
    player.report(32)
    player.wait(29)
    assert (player.runs, player.whys) == ([], [PENDING, PENDING])
    player.wait(100)
    assert player.runs == [1060.0]
    player.report(33)
    assert player.whys[-1] is FILTERED
    player.report(20)
    player.report(31)
    player.wait(60)
    assert len(player.runs) == 2


def test_a_break_begins_it_anew():
    player = Player(hot(above=30, lasts=60))
    player.report(31)
    player.wait(59)
    player.report(30)
    player.report(31)
    player.wait(59)
    assert player.runs == []
    player.wait(1)
    assert player.runs == [1119.0]


def test_it_lasts_from_when_the_device_reported_it_and_never_from_the_future():
    player = Player(hot(above=30, lasts=60))
    player.report(31, stamp=950.0)
    player.wait(10)
    assert player.runs == [1010.0]
    ahead = Player(hot(above=30, lasts=60))
    ahead.report(31, stamp=9999.0)
    ahead.wait(60)
    assert ahead.runs == [1060.0]


def test_debounce_waits_for_quiet():
    player = Player(Gate(debounce=5))
    for value in range(4):
        player.report(value)
        player.wait(3)
    assert player.whys == [None, *[WhyNot.DEBOUNCED] * 3]
    player.wait(10)
    assert player.runs == [1014.0]


def test_throttle_runs_at_once_and_at_the_end_of_the_while():
    player = Player(Gate(throttle=10))
    for value in range(5):
        player.report(value)
        player.wait(1)
    assert player.whys == [None, None, *[WhyNot.THROTTLED] * 3]
    player.wait(30)
    assert player.runs == [1000.0, 1010.0]
    player.report("late")
    assert player.runs[-1] == player.now


def test_a_clock_that_is_put_back_holds_nothing_up():
    player = Player(Gate(throttle=10))
    player.report(1)
    player.now -= 3600
    player.report(2)
    assert len(player.runs) == 2


def test_what_a_deployment_has_seen_is_not_asked_for_again():
    gate = hot(above=30, lasts=60)
    state, _ = gating.changed(gate, gating.begin(gate), "d", {"t": ("31", 10.0)}, 1000.0)
    state = gating.primed(gating.look(gate, state, 1000.0).state)
    assert gating.look(gate, state, 5000.0) == Look(state, None, inf)


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="a list"),
        pytest.param({"of": "x", "held": []}, id="of another gate"),
        pytest.param({"held": [[1, 2]]}, id="torn"),
    ],
)
def test_what_is_no_state_of_this_gate_is_none(kept: Any):
    gate = hot(above=30)
    if isinstance(kept, dict) and "of" not in kept:
        kept["of"] = gate.fingerprint
    assert gating.from_json(gate, kept) is None


def test_a_policy_without_any_of_it_has_no_gate():
    def gate(**policy: object) -> Gate | None:
        parts = {"executePolicy": {"readChange": True, **policy}}
        return gating.gate_of(ScriptSpec.model_validate(spec(**parts)))

    assert gate() is None
    assert gate(debounce="2s") == Gate(debounce=2.0)
    when = [{"read": "sensor", "property": "temperature", "above": 30, "for": "5m"}]
    assert gate(when=when, throttle="1m") == Gate(
        (Condition(device="dht11", property="temperature", above=30, lasts=300.0),), 0.0, 60.0
    )


STEPS = st.lists(st.tuples(st.integers(0, 40), st.floats(0, 20)), max_size=30)


@given(steps=STEPS, debounce=st.floats(0, 15), throttle=st.floats(0, 15))
def test_runs_keep_their_distance_and_the_last_change_is_always_run_for(
    steps: list[tuple[int, float]], debounce: float, throttle: float
):
    player = Player(Gate(debounce=debounce, throttle=throttle))
    last = None
    for value, pause in steps:
        last = player.now
        player.report(value)
        player.wait(pause)
    player.wait(100)
    gaps = [b - a for a, b in zip(player.runs, player.runs[1:], strict=False)]
    assert all(gap >= throttle - 1e-6 for gap in gaps)
    if last is not None:
        assert last + debounce - 1e-6 <= player.runs[-1] <= last + debounce + throttle + 1e-6


@given(steps=STEPS, lasts=st.floats(1, 30))
def test_a_lasting_condition_runs_exactly_once_for_each_stretch_that_is_long_enough(
    steps: list[tuple[int, float]], lasts: float
):
    player = Player(hot(above=20, lasts=lasts))
    stretches: list[float] = []
    since: float | None = None
    for value, pause in steps:
        if value > 20 and since is None:
            since = player.now
        elif value <= 20 and since is not None:
            stretches.append(player.now - since)
            since = None
        player.report(value)
        player.wait(pause)
    if since is not None:
        stretches.append(player.now - since)
    sure = sum(stretch > lasts + 1e-6 for stretch in stretches)
    perhaps = sum(stretch >= lasts - 1e-6 for stretch in stretches)
    assert sure <= len(player.runs) <= perhaps


def test_states_are_small():
    gate = Gate(tuple(hot(above=n).conditions[0] for n in range(32)))
    assert len(json.dumps(gating.to_json(gate, gating.begin(gate)))) < 2000
    assert State((), frozenset()) == gating.begin(Gate())
