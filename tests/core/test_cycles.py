"""Circles among Scripts, found whatever the shape of what they wait for or set off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.api.script import ScriptSpec
from reconciler.core import cycles
from reconciler.core.admission import Desired
from reconciler.core.cycles import circles
from reconciler.core.objects import ObjectKey, Reference
from reconciler.core.places import Places
from reconciler.core.uses import Capability, Touch

PATH = PurePosixPath("manifests/rules.yaml")


@pytest.mark.parametrize(
    ("edges", "found"),
    [
        pytest.param({}, (), id="nothing"),
        pytest.param({1: [2], 2: [3]}, (), id="a line"),
        pytest.param({1: [2, 3], 2: [4], 3: [4]}, (), id="a diamond"),
        pytest.param({1: [1]}, ((1,),), id="one that leads to itself"),
        pytest.param({1: [2], 2: [1], 3: [1]}, ((1, 2),), id="two, and one that leads to them"),
        pytest.param({1: [2], 2: [3], 3: [1, 4], 4: [5], 5: [4]}, ((4, 5), (1, 2, 3)), id="two"),
    ],
)
def test_circles_are_the_groups_that_lead_to_each_other(edges, found):
    assert circles(edges) == found


def test_a_circle_of_a_hundred_thousand_is_found():
    size = 100_000
    (found,) = circles({number: [(number + 1) % size] for number in range(size)})
    assert len(found) == size


@given(st.dictionaries(st.integers(0, 6), st.lists(st.integers(0, 6))))
def test_a_node_is_in_a_circle_when_it_can_be_reached_from_itself(edges):
    def reached(start):
        seen, work = set(), list(edges.get(start, ()))
        while work:
            node = work.pop()
            if node not in seen:
                seen.add(node)
                work += edges.get(node, ())
        return seen

    assert {n for group in circles(edges) for n in group} == {n for n in edges if n in reached(n)}


def script(
    name: str,
    *waits_for: str,
    reads: tuple[str, ...] = (),
    policy: Mapping[str, object] = MappingProxyType({}),
    **parts: object,
) -> Desired:
    spec = {
        "manifest": {"scriptType": "Js", "name": name, "version": "1"},
        "readSelector": {"matchNames": {device: device for device in reads}},
        "executePolicy": {"readChange": True, **policy},
    }
    wanted = [{"name": other} for other in waits_for]
    return Desired(
        reference=Reference("Script", "default", name),
        document={"spec": {**spec, "dependsOn": wanted, **parts}},
        digest="",
        path=PATH,
        line=1,
        script=ScriptSpec.model_validate(spec),
    )


def keyed(*scripts: Desired) -> dict[ObjectKey, Desired]:
    return {it.reference.key: it for it in scripts}


def test_scripts_that_wait_for_each_other_are_errors_and_unknown_ones_notes():
    scripts = keyed(script("a", "b"), script("b", "a"), script("c", "a", "bb"))
    found = [
        (it.severity, it.reason, str(it.reference), it.pointer, it.message)
        for it in cycles.dependencies(scripts, Places({}))
    ]
    wait = "default/a, default/b wait for each other, so none is deployed; remove one dependsOn"
    assert found == [
        (
            "note",
            "ScriptNotInRepository",
            "Script default/c",
            "/spec/dependsOn/1/name",
            'Script default/bb is not in the repository; did you mean "b"?',
        ),
        ("error", "DependencyCycle", "Script default/a", "/spec/dependsOn", wait),
        ("error", "DependencyCycle", "Script default/b", "/spec/dependsOn", wait),
    ]


def test_one_that_depends_on_a_later_wave_waits_for_ever_and_is_an_error():
    scripts = keyed(
        script("a", "b", "c"), script("b", wave=1), script("c", "d", wave=-1), script("d", wave=-1)
    )
    found = [
        (it.severity, it.reason, str(it.reference), it.pointer, it.message)
        for it in cycles.dependencies(scripts, Places({}))
    ]
    why = (
        "Script default/b is of wave 1, which waits for wave 0 and so for Script default/a: "
        "none of the two is deployed; remove the dependsOn or change a wave"
    )
    assert found == [
        ("error", "DependencyOfLaterWave", "Script default/a", "/spec/dependsOn/0/name", why)
    ]


def capability(
    name: str,
    *writes: str,
    reads: tuple[str, ...] = (),
    sets: Mapping[str, str] = MappingProxyType({}),
    is_exact: bool = True,
) -> Capability:
    """Places as "x" for its power, "x/dim" for another property, "x/" for any."""

    def touches(places: Iterable[str]) -> tuple[Touch, ...]:
        parts = (f"{it}/power".split("/")[:2] for it in places)
        return tuple(Touch(device, property_, device) for device, property_ in parts)

    return Capability(
        script=ObjectKey("default", name),
        artifact=f"{name}/1",
        reads=touches(reads),
        writes=touches((*writes, *sets)),
        env=(),
        fetches=(),
        is_exact=is_exact,
        sets={(device, "power"): frozenset(text.split()) for device, text in sets.items()},
    )


A_TO_B = (
    script("a", reads=("x",)),
    script("b", reads=("y",)),
)


def found(scripts: Iterable[Desired], *capabilities: Capability) -> list[tuple[str, str, str]]:
    problems = cycles.triggers(keyed(*scripts), capabilities, Places({}))
    return [(it.severity, it.reason, str(it.reference)) for it in problems]


CIRCLE = [
    ("error", "TriggerCycle", "Script default/a"),
    ("error", "TriggerCycle", "Script default/b"),
]
PERHAPS = [("warning", reason, who) for _, reason, who in CIRCLE]


def test_scripts_that_set_each_other_off_are_errors_that_say_what_to_do():
    scripts = keyed(*A_TO_B, script("c", reads=("z",)))
    capabilities = [
        capability("a", "y", reads=("x",)),
        capability("b", "x", reads=("y",)),
        capability("c", "z", reads=("z",)),
    ]
    told = list(cycles.triggers(scripts, capabilities, Places({})))
    message = (
        "default/a, default/b set each other off by what they write, without end; have one of "
        "them wait (2s or more of debounce, throttle or for), or set executePolicy.loop to "
        "Allow where it is meant"
    )
    assert [(it.severity, it.reason, str(it.reference)) for it in told] == CIRCLE
    assert {(it.pointer, it.message) for it in told} == {
        ("/spec/executePolicy/readChange", message)
    }


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param(
            capability("a", "y", reads=("x",)), capability("b", "x", reads=("y",)), CIRCLE, id="both"
        ),
        pytest.param(
            capability("a", "x", reads=("x",)), capability("b", "x", reads=("y",)), [], id="no way back"
        ),
        pytest.param(
            capability("a", "y/dim", reads=("x",)), capability("b", "x", reads=("y",)), [],
            id="by way of another property",
        ),
        pytest.param(
            capability("a", "y", reads=()), capability("b", "x", reads=("y",)), [],
            id="one that does not look at what sets it off",
        ),
        pytest.param(
            capability("a", "y/", reads=("x/",), is_exact=False),
            capability("b", "x", reads=("y",)),
            PERHAPS,
            id="one whose source does not tell",
        ),
        pytest.param(
            capability("a", sets={"y": "on"}, reads=("x",)),
            capability("b", "x", reads=("y",)),
            [],
            id="by way of a property that is only ever turned on",
        ),
        pytest.param(
            capability("a", sets={"y": "on off"}, reads=("x",)),
            capability("b", "x", reads=("y",)),
            CIRCLE,
            id="by way of one that is turned on and off",
        ),
        pytest.param(
            capability("a", "y", sets={"x": "on"}, reads=("x",)),
            capability("b", sets={"x": "off"}, reads=("y",)),
            CIRCLE,
            id="by way of one that one turns on and the other off",
        ),
    ],
)  # fmt: skip
def test_a_circle_is_by_way_of_what_is_written_and_read(a, b, expected):
    assert found(A_TO_B, a, b) == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param({}, CIRCLE, id="nothing"),
        pytest.param({"loop": "Allow"}, [], id="it is meant"),
        pytest.param({"debounce": "2s"}, [], id="it waits"),
        pytest.param({"throttle": "1m"}, [], id="it runs rarely"),
        pytest.param({"throttle": "1s"}, CIRCLE, id="it runs nearly as often"),
        pytest.param({"readChange": False}, [], id="no change sets it off"),
        pytest.param(
            {"when": [{"read": "y", "property": "power", "for": "5m"}]}, [], id="it has to last"
        ),
        pytest.param(
            {"when": [{"read": "y", "property": "power", "equals": "on"}]}, CIRCLE, id="a value"
        ),
        pytest.param(
            {"when": [{"read": "y", "property": "dim", "above": 5}]}, [], id="another property"
        ),
    ],
)
def test_one_that_waits_or_may_loop_ends_a_circle(policy, expected):
    scripts = (A_TO_B[0], script("b", reads=("y",), policy=policy))
    a, b = capability("a", "y", reads=("x",)), capability("b", "x", reads=("y",))
    assert found(scripts, a, b) == expected


def test_a_crowd_around_one_device_costs_by_its_size_and_is_named_in_short():
    scripts = keyed(*(script(f"s{number}", reads=("x",)) for number in range(3000)))
    capabilities = [capability(key.name, "x", reads=("x",)) for key in scripts]
    told = list(cycles.triggers(scripts, capabilities, Places({})))
    assert len(told) == 3000
    assert told[0].message.startswith("default/s0, default/s1, ")
    assert "and 2995 more set each other off" in told[0].message
