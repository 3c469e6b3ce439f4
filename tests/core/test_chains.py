"""What a change of a device follows from, and which runs are one too many."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import chains, origins
from reconciler.core.chains import BEGINS, MOST_CHAINS, SOON, WINDOW, Chains, Limits, Link, Verdict
from reconciler.core.objects import ObjectKey
from reconciler.core.origins import Origin
from reconciler.core.runs import RunId
from reconciler.core.twins import DeviceRecord, Layout, Twin

LATER = 100.0


def lamp(
    reported: str | None, desired: str | None, *, by: str = "", **parts: object
) -> DeviceRecord:
    """A lamp whose desired power is from a run of `by` at 0.0."""
    kept = ""
    if by:
        marks = {"power": origins.mark(str(parts.pop("wrote", desired)))}
        run = {"run_id": RunId("r1"), "script": by, "at": 0.0, "marks": marks, **parts}
        kept = origins.written("", Origin(**run))
    return DeviceRecord(
        key=ObjectKey("default", "lamp"),
        uid="u",
        resource_version="1",
        generation=1,
        model="m",
        layout=Layout.V1BETA1,
        twins=(Twin("power", reported, None, desired, None, 0),),
        repository_uid="",
        digest="",
        has_annotations=True,
        has_list=True,
        has_parent=True,
        origins=kept,
    )


def sensor(reported: dict[str, str | None], *, version: str = "1") -> DeviceRecord:
    twins = tuple(
        Twin(name, value, int(version), None, None, 0) for name, value in reported.items()
    )
    return msgspec.structs.replace(lamp(None, None), resource_version=version, twins=twins)


@pytest.mark.parametrize(
    ("reported", "evaluated", "is_change"),
    [
        pytest.param({"t": "21"}, {"t": "20"}, True, id="another value"),
        pytest.param({"t": "21"}, {"t": "21"}, False, id="the same value"),
        pytest.param({"t": "21"}, {}, True, id="first known value"),
        pytest.param({"t": None}, {}, False, id="unknown and never known"),
        pytest.param({"t": None}, {"t": "20"}, False, id="unknown after known"),
        pytest.param({}, {"t": "20"}, False, id="property gone"),
        pytest.param({"t": ""}, {"t": "20"}, True, id="empty but known"),
        pytest.param({"t": "21", "h": "5"}, {"t": "21", "h": "4"}, True, id="one of two"),
        pytest.param({"t": "21.0"}, {"t": "21"}, True, id="text differs"),
    ],
)
def test_only_a_known_value_that_differs_is_a_change(reported, evaluated, is_change):
    device = sensor(reported)
    assert bool(chains.change(device, evaluated, {}, script="rule", now=LATER).links) is is_change


def test_time_and_version_alone_are_no_change():
    later = sensor({"t": "21"}, version="99")
    assert chains.change(later, {"t": "21"}, {}, script="rule", now=LATER).links == {}


@pytest.mark.parametrize(
    ("device", "arrived", "now", "links"),
    [
        pytest.param(lamp("off", None, by="rule"), {}, LATER, {}, id="no other value"),
        pytest.param(lamp("on", "on"), {}, LATER, {"power": BEGINS}, id="written by nobody"),
        pytest.param(lamp("on", "on", by="rule"), {}, LATER, {"power": None}, id="its own"),
        pytest.param(lamp("5.0", "5", by="rule"), {}, LATER, {"power": None}, id="its own number"),
        pytest.param(
            lamp("on", "on", by="other"),
            {},
            LATER,
            {"power": Link(1, RunId("r1"), "lamp", "other")},
            id="another Script's",
        ),
        pytest.param(
            lamp("on", "on", by="other", depth=3, chain=RunId("r0")),
            {},
            LATER,
            {"power": Link(4, RunId("r0"), "lamp", "other")},
            id="further down a chain",
        ),
        pytest.param(
            lamp("on", "on", by="rule"),
            {"power": RunId("r1")},
            LATER,
            {"power": BEGINS},
            id="its own value again, much later, set by a person at the lamp",
        ),
        pytest.param(
            lamp("dim", "on", by="rule"), {}, LATER, {"power": BEGINS}, id="another value, later"
        ),
        pytest.param(
            lamp("dim", "on", by="rule"),
            {},
            SOON / 2,
            {"power": Link(1, RunId("r1"), "lamp", "rule")},
            id="another value at once, as a device does that rounds",
        ),
        pytest.param(
            lamp("dim", "dim", by="rule", wrote="on"),
            {},
            SOON / 2,
            {"power": BEGINS},
            id="what a person desires since then",
        ),
    ],
)
def test_a_change_follows_from_the_run_that_set_it(device, arrived, now, links):
    found = chains.change(device, {"power": "off"}, arrived, script="rule", now=now)
    assert found.links == links


def test_to_one_that_may_loop_nothing_is_an_echo_and_no_run_before_it_counts():
    device = lamp("on", "on", by="rule", depth=3, chain=RunId("r0"))
    found = chains.change(device, {}, {}, script="rule", now=LATER, may_loop=True)
    assert found.links == {"power": Link(0, RunId("r0"), "lamp", "rule")}


def test_what_had_arrived_before_is_known_after_a_restart():
    device = lamp("on", "on", by="rule")
    assert chains.arrived(device, {"power": "on"}) == {"power": "r1"}
    assert chains.arrived(device, {"power": "off"}) == {}


@given(st.integers(1, 20), st.integers(2, 40))
def test_a_chain_of_scripts_that_set_each_other_off_has_as_many_runs_as_it_may_follow(most, names):
    """Each Script of a circle writes another value; somebody begins it."""
    all_ = Chains(Limits(depth=most, runs=1_000))
    run, ran = Origin(run_id=RunId("r0"), script="s0", at=0.0), 0
    while ran < 100:
        device = lamp(str(ran), str(ran), by=run.script, depth=run.depth, chain=run.chain)
        script = f"s{(ran + 1) % names}"
        change = chains.change(device, {}, {}, script=script, now=LATER)
        link = all_.verdict(change.links.values(), LATER).link
        if link is None:
            break
        ran += 1
        run = Origin(
            run_id=RunId(f"r{ran}"), script=script, at=0.0, depth=link.depth, chain=link.chain
        )
    assert ran == most


def test_what_is_one_too_many_hides_no_other_change():
    all_ = Chains(Limits(depth=1, runs=10))
    deep = Link(2, RunId("r0"), "lamp", "rule")
    why = "it would follow 2 runs that set each other off, and may follow 1"
    assert all_.verdict((None, deep), LATER) == Verdict(None, deep, why)
    assert all_.verdict((None, deep, BEGINS), LATER) == Verdict(BEGINS)
    assert all_.verdict((BEGINS, Link(1, RunId("r0"))), LATER) == Verdict(Link(1, RunId("r0")))
    assert all_.verdict((None,), LATER) == Verdict()


def test_a_chain_has_so_many_runs_in_a_minute_and_others_are_not_held_up_by_it():
    all_ = Chains(Limits(depth=8, runs=3))
    a, b = Link(1, RunId("a")), Link(1, RunId("b"))
    for _ in range(3):
        assert all_.hindrance(a, 0.0) == ""
        all_.count(RunId("a"), 0.0)
    assert all_.hindrance(a, WINDOW - 1) == (
        "a chain of runs that set each other off had 3 within 60s, and may not have more"
    )
    assert (all_.hindrance(b, 0.0), all_.hindrance(BEGINS, 0.0)) == ("", "")
    assert all_.hindrance(a, WINDOW) == ""
    all_.count(RunId("a"), WINDOW)
    assert all_.hindrance(a, WINDOW) == ""


def test_of_very_many_chains_the_oldest_are_counted_anew():
    all_ = Chains(Limits(depth=8, runs=1))
    for number in range(MOST_CHAINS + 1):
        all_.count(RunId(str(number)), 0.0)
    assert all_.hindrance(Link(1, RunId("0")), 0.0) == ""
    assert all_.hindrance(Link(1, RunId("1")), 0.0) != ""
