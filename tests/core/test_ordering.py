"""Waves and dependencies: what goes first, and who has to wait for what could not be deployed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import ordering
from reconciler.core.objects import ObjectKey
from reconciler.core.ordering import Hindrance, Missing, Rank


def key(name: str) -> ObjectKey:
    return ObjectKey("team", name)


def document(wave: int = 0, *waits_for: str) -> dict[str, object]:
    return {"spec": {"wave": wave, "dependsOn": [{"name": name} for name in waits_for]}}


def ranked(**documents: dict[str, object]) -> dict[str, Rank]:
    found = ordering.ranks({key(name): it for name, it in documents.items()})
    return {it.name: rank for it, rank in found.items()}


@pytest.mark.parametrize(
    ("documents", "found"),
    [
        pytest.param({"a": {}}, {"a": Rank(0, 0)}, id="nothing is said"),
        pytest.param(
            {"a": document(1), "b": document(-1), "c": document()},
            {"a": Rank(1, 0), "b": Rank(-1, 0), "c": Rank(0, 0)},
            id="waves, before 0 too",
        ),
        pytest.param(
            {"a": document(0, "b"), "b": document(0, "c"), "c": document()},
            {"a": Rank(0, 2), "b": Rank(0, 1), "c": Rank(0, 0)},
            id="a chain",
        ),
        pytest.param(
            {"a": document(0, "b", "d"), "b": document(0, "c"), "c": document(), "d": document()},
            {"a": Rank(0, 2), "b": Rank(0, 1), "c": Rank(0, 0), "d": Rank(0, 0)},
            id="after the last of those it depends on",
        ),
        pytest.param(
            {"a": document(1, "b"), "b": document(0)},
            {"a": Rank(1, 0), "b": Rank(0, 0)},
            id="the wave says it already",
        ),
        pytest.param(
            {"a": document(0, "elsewhere")}, {"a": Rank(0, 0)}, id="what is not written now"
        ),
        pytest.param(
            {"a": document(0, "b"), "b": document(0, "a"), "c": document(0, "d"), "d": {}},
            {"a": Rank(0, 3), "b": Rank(0, 3), "c": Rank(0, 1), "d": Rank(0, 0)},
            id="a circle goes last",
        ),
    ],
)
def test_what_others_wait_for_goes_first(documents, found):
    assert ranked(**documents) == found


@given(
    st.dictionaries(
        st.integers(0, 6), st.tuples(st.integers(-2, 2), st.lists(st.integers(0, 6), max_size=3))
    )
)
def test_where_there_are_no_circles_nothing_goes_before_what_it_waits_for(scripts):
    # One that only names smaller numbers is in no circle.
    waits = {n: (wave, [o for o in others if o < n]) for n, (wave, others) in scripts.items()}
    found = ranked(**{str(n): document(wave, *map(str, of)) for n, (wave, of) in waits.items()})
    for number, (wave, others) in waits.items():
        assert found[str(number)].wave == wave
        for other in others:
            if other in waits and waits[other][0] <= wave:
                assert found[str(other)] < found[str(number)]


def test_what_could_not_be_deployed_keeps_back_later_waves_and_its_dependents_alone():
    missing = Missing()
    missing.add(key("x"), 1)
    found = {
        name: missing.hindrance(key(name), it)
        for name, it in {
            "earlier": document(0),
            "beside": document(1),
            "later": document(2),
            "dependent": document(0, "y", "x"),
            "x": document(1, "x"),
        }.items()
    }
    assert found == {
        "earlier": None,
        "beside": None,
        "later": Hindrance(
            "WaveNotReady",
            "Script team/later is of wave 2 and stays as it is: Script team/x of wave 1 could not "
            "be deployed",
        ),
        "dependent": Hindrance(
            "DependencyNotReady",
            "Script team/dependent stays as it is: Script team/x, which it depends on, could not "
            "be deployed",
        ),
        "x": None,
    }
