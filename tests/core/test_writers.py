"""Scripts that write one property, where nothing says whose word counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core import writers
from reconciler.core.places import Places
from tests.core.test_cycles import capability, keyed, script

A = capability("a", "lamp")
B = capability("b", "lamp")


def found(scripts, *capabilities):
    problems = writers.problems(keyed(*scripts), capabilities, Places({}))
    return [(it.severity, it.reason, str(it.reference), it.pointer) for it in problems]


BOTH = [
    ("warning", "SeveralWriters", f"Script default/{name}", "/spec/writeSelector/matchNames/lamp")
    for name in "ab"
]


@pytest.mark.parametrize(
    ("policy", "capabilities", "expected"),
    [
        pytest.param({}, (A, B), BOTH, id="both"),
        pytest.param({"priority": 1}, (A, B), [], id="one has the higher priority"),
        pytest.param({}, (A, capability("b", "lamp/dim")), [], id="another property"),
        pytest.param({}, (A, capability("b", "lamp/", is_exact=False)), [], id="nobody can tell"),
        pytest.param(
            {},
            (capability("a", sets={"lamp": "on"}), capability("b", sets={"lamp": "on"})),
            [],
            id="one value",
        ),
        pytest.param(
            {},
            (capability("a", sets={"lamp": "on"}), capability("b", sets={"lamp": "off"})),
            BOTH,
            id="two values",
        ),
    ],
)
def test_writers_of_one_priority_are_told_of_each_other(policy, capabilities, expected):
    assert found((script("a", policy=policy), script("b")), *capabilities) == expected


def test_a_suspended_one_is_none():
    scripts = keyed(script("a"), script("b"))
    asleep = scripts[B.script].script.model_copy(update={"suspend": True})
    scripts[B.script] = replace(scripts[B.script], script=asleep)
    assert list(writers.problems(scripts, (A, B), Places({}))) == []


def test_the_warning_names_the_others_and_what_to_write():
    scripts = keyed(*(script(f"s{number}") for number in range(7)))
    told = list(
        writers.problems(scripts, [capability(k.name, "lamp") for k in scripts], Places({}))
    )
    assert told[0].message == (
        "default/s0 writes lamp/power, and so do default/s1, default/s2, default/s3, default/s4, "
        "default/s5 and 1 more: the newest counts; say whose word does with executePolicy.priority"
    )
