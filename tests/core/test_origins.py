"""Who set what is desired, as it is kept beside it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.core import origins
from reconciler.core.origins import MOST_KEPT, Origin
from reconciler.core.runs import RunId

NAMES = st.sampled_from(["power", "a/b~c", "türe", ""])
VALUES = st.text(max_size=3)


def run(number: int, **values: str) -> Origin:
    marks = {name: origins.mark(value) for name, value in values.items()}
    return Origin(run_id=RunId(f"r{number}"), script="rule", at=float(number), marks=marks)


def test_it_is_one_small_json_value_without_what_is_not_said():
    made = replace(run(1, power="on"), depth=2, chain=RunId("r0"), priority=5, until=9.0)
    assert orjson.loads(origins.written("", run(1, power="on"))) == [
        {"run": "r1", "script": "rule", "at": 1.0, "set": {"power": origins.mark("on")}}
    ]
    assert orjson.loads(origins.written("", made)) == [
        {
            "run": "r1",
            "script": "rule",
            "at": 1.0,
            "set": {"power": origins.mark("on")},
            "depth": 2,
            "chain": "r0",
            "priority": 5,
            "until": 9.0,
        }
    ]


@given(st.lists(st.dictionaries(NAMES, VALUES, min_size=1), max_size=6))
def test_each_property_has_the_newest_run_that_set_it_and_nobody_where_a_person_did(writes):
    kept, newest = "", {}
    for number, values in enumerate(writes):
        kept = origins.written(kept, run(number, **values))
        newest |= {name: (number, value) for name, value in values.items()}
    for name, (number, value) in newest.items():
        found = origins.of(kept, name, value)
        assert found is not None
        assert found.run_id == f"r{number}"
        assert origins.of(kept, name, f"{value}, by hand") is None
        assert origins.of(kept, name, None) is None
    assert origins.of(kept, "another", "on") is None


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param("", id="nothing"),
        pytest.param("6f0c2d", id="the bare run id of earlier versions"),
        pytest.param("[", id="no JSON"),
        pytest.param("[1]", id="no objects"),
        pytest.param('[{"run": "r"}]', id="fields that are missing"),
        pytest.param('[{"run": "r", "script": "s", "at": 1, "depth": -1}]', id="a depth below 0"),
        pytest.param('[{"run": "r", "script": "s", "at": 1, "set": {"a": 1}}]', id="no marks"),
        pytest.param('[{"run": "r", "script": "s", "at": 1e300}]', id="a time that never comes"),
        pytest.param('[{"run": "r", "script": "s", "at": 1e999}]', id="no number"),
        pytest.param('[{"run": "r", "script": "' + "s" * 300 + '", "at": 1}]', id="no name"),
        pytest.param("[" * 100_000, id="nested deeply"),
        pytest.param("[" + " " * 300_000 + "]", id="far too long"),
    ],
)
def test_rubbish_says_nothing_and_is_replaced(kept):
    assert origins.read(kept) == ()
    assert origins.read(origins.written(kept, run(1, power="on"))) == (run(1, power="on"),)


@given(st.text())
def test_any_text_is_read_as_something(kept):
    assert all(isinstance(it, Origin) for it in origins.read(kept))


PRIORITIES = st.integers(0, 2)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["a", "b", "c"]),
            PRIORITIES,
            st.sampled_from(["on", "off"]),
        )
    )
)
def test_a_property_has_the_highest_priority_that_still_holds_it_then_the_newest(writes):
    """Against a model that has the whole history: who set what when, with a lease of 3."""
    kept, value, now = "", None, 0.0
    holds: tuple[str, int, float] = ("", 0, 0.0)
    for number, (pause, script, priority, wanted) in enumerate(writes):
        now += pause
        until = now + 3.0 if priority else 0.0
        by = Origin(
            run_id=RunId(f"r{number}"), script=script, at=now, priority=priority, until=until
        )
        who, theirs, held_until = holds
        may = who == script or theirs <= priority or now >= held_until
        assert (origins.holder(kept, "p", value, by) is None) == may
        if not may:
            continue
        if value != wanted or origins.is_to_hold(kept, "p", value, by):
            kept = origins.written(kept, replace(by, marks={"p": origins.mark(wanted)}))
            value, holds = wanted, (script, priority, until)
        found = origins.of(kept, "p", value)
        if found is not None and priority:
            # Whoever has just set it, or found it set, is held up for by at least half a lease.
            assert (found.priority >= priority, found.until - now > 1.5) == (True, True)


def test_a_person_ends_what_a_script_holds():
    high = replace(run(1, p="on"), priority=5, until=100.0)
    low = Origin(run_id=RunId("r2"), script="other", at=2.0)
    kept = origins.written("", high)
    assert origins.holder(kept, "p", "on", low) == high
    assert origins.holder(kept, "p", "off", low) is None


def test_one_without_priority_holds_nothing_and_writes_nothing_to_say_so():
    kept = origins.written("", run(1, p="on"))
    again = Origin(run_id=RunId("r2"), script="other", at=2.0)
    assert origins.holder(kept, "p", "on", again) is None
    assert not origins.is_to_hold(kept, "p", "on", again)


def test_the_newest_is_kept_whole_and_of_the_others_as_many_as_there_is_room_for():
    kept = ""
    for number in range(1_000):
        kept = origins.written(kept, run(number, **{f"p{number}": "on"}))
    assert len(kept) < MOST_KEPT + 200
    found = [it.run_id for it in origins.read(kept)]
    assert found == [f"r{number}" for number in range(999, 999 - len(found), -1)]
    large = run(1_000, **{f"q{number}": "on" for number in range(1_000)})
    assert origins.read(origins.written(kept, large))[0] == large
