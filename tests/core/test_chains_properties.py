"""What follows from what, over any course of things: against somebody who saw all of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.core import chains, origins
from reconciler.core.chains import SOON, Chains, Limits
from reconciler.core.origins import Origin
from reconciler.core.runs import RunId
from reconciler.core.twins import DeviceRecord, Twin
from tests.core.test_chains import lamp

VALUES = st.sampled_from(["on", "off", "dim"])
SCRIPTS = ("a", "b")
STEPS = st.one_of(
    st.tuples(st.just("writes"), st.sampled_from(SCRIPTS), VALUES),
    st.tuples(st.just("person desires"), VALUES),
    st.tuples(st.just("reports"), VALUES),
    st.tuples(st.just("time passes")),
    st.tuples(st.just("restarts")),
)


@dataclass
class Reader:
    """One Script, as the controller keeps it, beside what an onlooker knows."""

    name: str
    seen: dict[str, str] = field(default_factory=dict)
    arrived: chains.Arrived = field(default_factory=dict)
    # The run whose value has been there since it was desired.
    was_there: str = ""

    def hears(self, device: DeviceRecord, now: float) -> chains.Change:
        change = chains.change(device, self.seen, self.arrived, script=self.name, now=now)
        self.arrived = change.arrived or self.arrived
        self.seen = {it.name: it.reported for it in device.twins if it.reported is not None}
        return change


@given(st.lists(STEPS, max_size=30))
def test_only_the_first_arrival_of_its_own_value_is_an_echo_and_nothing_else_is_lost(steps):
    device, now, runs = lamp("off", None), 1_000.0, 0
    last: tuple[str, Origin] | None = None
    readers = [Reader(name) for name in SCRIPTS]
    for reader in readers:
        reader.hears(device, now)
    for step in steps:
        [twin] = device.twins
        match step:
            case ("writes", script, value):
                runs += 1
                marks = {"power": origins.mark(value)}
                run = Origin(run_id=RunId(f"r{runs}"), script=script, at=now, marks=marks)
                kept, last = origins.written(device.origins, run), (value, run)
                device = replace(device, origins=kept, twins=(desiring(twin, value),))
            case ("person desires", value):
                device = replace(device, twins=(desiring(twin, value),))
            case ("reports", value):
                device = replace(device, twins=(reporting(twin, value),))
            case ("time passes",):
                now += SOON
            case ("restarts",):
                for reader in readers:
                    reader.arrived = chains.arrived(device, reader.seen)
                    if device.twins[0].reported != device.twins[0].desired:
                        reader.was_there = ""
        [twin] = device.twins
        # A person who desires what a run has set before is taken for that run.
        newest = last[1] if last is not None and last[0] == twin.desired else None
        for reader in readers:
            is_change = reader.seen.get("power") != twin.reported
            change = reader.hears(device, now)
            assert bool(change.links) == is_change
            is_there = newest is not None and twin.reported == twin.desired
            is_first = is_there and newest is not None and reader.was_there != newest.run_id
            if is_change:
                link = change.links["power"]
                is_echo = is_first and newest is not None and newest.script == reader.name
                assert (link is None) == is_echo
                if link is not None:
                    is_soon = newest is not None and now - newest.at < SOON
                    assert link.depth == (1 if is_first or is_soon else 0)
            if is_there and newest is not None:
                reader.was_there = newest.run_id


def desiring(twin: Twin, value: str) -> Twin:
    return replace(twin, desired=value)


def reporting(twin: Twin, value: str) -> Twin:
    return replace(twin, reported=value)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.floats(0, 40)), max_size=60),
    st.integers(1, 4),
)
def test_no_chain_has_more_runs_in_any_minute_that_begins_with_one_than_are_allowed(wishes, most):
    all_ = Chains(Limits(depth=3, runs=most))
    now, ran = 0.0, []
    for chain, depth, pause in wishes:
        now += pause
        link = chains.Link(depth, RunId(f"c{chain}") if depth else RunId(""))
        if all_.verdict((link,), now).link is not None:
            assert depth <= 3
            all_.count(link.chain, now)
            ran.append((link.chain, now))
    for name in {chain for chain, _ in ran if chain}:
        times = [at for chain, at in ran if chain == name]
        while times:
            window = [at for at in times if at - times[0] < chains.WINDOW]
            assert len(window) <= most
            times = times[len(window) :]
