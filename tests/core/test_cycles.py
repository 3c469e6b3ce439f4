"""Circles among Scripts, found whatever the shape of what they wait for or set off."""

from __future__ import annotations

from pathlib import PurePosixPath

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


def script(name: str, *waits_for: str, reads: tuple[str, ...] = (), **parts: object) -> Desired:
    spec = {
        "manifest": {"scriptType": "Js", "name": name, "version": "1"},
        "readSelector": {"matchNames": {device: device for device in reads}},
        "executePolicy": {"readChange": True},
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


def capability(name: str, *writes: str) -> Capability:
    return Capability(
        script=ObjectKey("default", name),
        artifact=f"{name}/1",
        reads=(),
        writes=tuple(Touch(device, "power", device) for device in writes),
        env=(),
        fetches=(),
        is_exact=True,
    )


def test_scripts_that_set_each_other_off_are_noted_and_one_that_reads_what_it_writes_is_not():
    scripts = keyed(script("a", reads=("x",)), script("b", reads=("y",)), script("c", reads=("z",)))
    capabilities = [capability("a", "y"), capability("b", "x"), capability("c", "z")]
    found = list(cycles.triggers(scripts, capabilities, Places({})))
    assert [(it.reason, it.severity, str(it.reference)) for it in found] == [
        ("TriggerCycle", "note", "Script default/a"),
        ("TriggerCycle", "note", "Script default/b"),
    ]
    assert found[0].message == (
        "default/a, default/b set each other off by what they write, perhaps without end"
    )


def test_a_crowd_around_one_device_costs_by_its_size_and_is_named_in_short():
    scripts = keyed(*(script(f"s{number}", reads=("x",)) for number in range(3000)))
    capabilities = [capability(key.name, "x") for key in scripts]
    found = list(cycles.triggers(scripts, capabilities, Places({})))
    assert len(found) == 3000
    assert found[0].message.startswith("default/s0, default/s1, ")
    assert "and 2995 more set each other off" in found[0].message
