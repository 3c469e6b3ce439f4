"""Drift: what counts as one, who made it, and how long to wait before it is put back again."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from reconciler.api.scriptrepository import DriftMode, DriftPolicy, DriftRule, PrunePolicy
from reconciler.core import drift
from reconciler.core.drift import Drifted, FieldOwner, Fight
from reconciler.core.objects import (
    ANNOTATION_DIGEST,
    DEVICES_V1BETA1,
    SCRIPTS,
    Json,
    JsonObject,
    ObjectKey,
    Reference,
    reference_of,
)
from reconciler.core.plan import Apply, Patch, Repository, Skip, SkipReason, make
from tests.support.rulebook import device, script

LAMP = Reference("Device", "team", "lamp")
RULE = Reference("Script", "team", "rule")
NAMED = {("spec", "properties"): "name"}


@dataclass(frozen=True)
class Wanted:
    """An object as git has it."""

    document: JsonObject

    @property
    def reference(self) -> Reference:
        return reference_of(self.document)

    @property
    def digest(self) -> str:
        return json.dumps(self.document)


def policy(mode: DriftMode = DriftMode.CORRECT, *ignore: DriftRule) -> DriftPolicy:
    return DriftPolicy(mode=mode, ignore=list(ignore))


def repository(drift_policy: DriftPolicy) -> Repository:
    return Repository(
        key=ObjectKey("team", "rules"),
        uid="repo-1",
        revision="main@sha1:1",
        served=frozenset({SCRIPTS, DEVICES_V1BETA1}),
        prune=PrunePolicy(),
        drift=drift_policy,
    )


def rule(**env: str) -> Wanted:
    document = script("rule", env=env)
    document["metadata"]["namespace"] = "team"
    return Wanted(document)


def lamp(cycle: int = 1000) -> Wanted:
    document = device("lamp", "lamp", "power", "level", cycle=cycle)
    document["metadata"]["namespace"] = "team"
    return Wanted(document)


def applied(desired: Wanted, ref: Reference) -> dict[str, Json]:
    """The object as it is live after its manifest was applied."""
    plan = make((ref,), repository=repository(policy()), desired={ref: desired}, live={})
    [step] = plan.steps
    document = dict(step.document)  # type: ignore[union-attr]  # a new object is made of one
    metadata = {**document["metadata"], "uid": "u-1", "resourceVersion": "7"}  # type: ignore[dict-item]  # as above
    return {**document, "metadata": metadata}


def changed(live: JsonObject, text: str, value: Json) -> dict[str, Json]:
    """`live` with the value at a JSON pointer set; items of lists go by index."""

    def put(node: Json, parts: list[str]) -> Json:
        if not parts:
            return value
        head, *rest = parts
        if isinstance(node, list):
            return [put(v, rest) if str(i) == head else v for i, v in enumerate(node)]
        assert isinstance(node, dict)
        return {**node, head: put(node.get(head, {}), rest)}

    result = put(live, list(drift.path_of(text)))
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize(
    ("live", "wanted_", "pointers"),
    [
        pytest.param({"spec": {"a": 1, "b": 2}}, {"spec": {"a": 1}}, (), id="more is no drift"),
        pytest.param(
            {"spec": {"a": 2}}, {"spec": {"a": 1}}, ("/spec/a",), id="another value is, there"
        ),
        pytest.param({"spec": {}}, {"spec": {"a": {}}}, ("/spec/a",), id="a missing one is"),
        pytest.param(
            {"spec": {"l": [1]}}, {"spec": {"l": [1, 2]}}, ("/spec/l",), id="a list is one value"
        ),
        pytest.param(
            {"spec": {"properties": [{"name": "b", "x": 1}, {"name": "a", "x": 1}]}},
            {"spec": {"properties": [{"name": "a", "x": 1}, {"name": "b", "x": 2}]}},
            ("/spec/properties/b/x",),
            id="items of a named list go by name, in any order",
        ),
        pytest.param(
            {"spec": {"properties": [{"name": "a", "desired": {"value": "1"}}]}},
            {"spec": {"properties": [{"name": "a", "desired": {"value": "2"}}]}},
            (),
            id="what rules desire is none",
        ),
        pytest.param(
            {"metadata": {"labels": {}}},
            {"metadata": {"labels": {"a/b~c": "1"}}},
            ("/metadata/labels/a~1b~0c",),
            id="names are escaped",
        ),
    ],
)
def test_drift_is_named_by_json_pointers(
    live: JsonObject, wanted_: JsonObject, pointers: tuple[str, ...]
) -> None:
    assert drift.differing(live, wanted_, named=NAMED) == pointers


def test_a_changed_script_is_put_back_and_the_step_says_where() -> None:
    desired = rule(limit="20")
    live = changed(applied(desired, RULE), "/spec/env/limit", "30")
    [step] = make(
        (RULE,), repository=repository(policy()), desired={RULE: desired}, live={RULE: live}
    ).steps
    assert isinstance(step, Apply)
    assert step.drifted == ("/spec/env/limit",)


def test_a_changed_device_is_put_back_and_the_step_says_where() -> None:
    desired = lamp()
    live = changed(applied(desired, LAMP), "/spec/properties/1/collectCycle", 5)
    [step] = make(
        (LAMP,), repository=repository(policy()), desired={LAMP: desired}, live={LAMP: live}
    ).steps
    assert isinstance(step, Patch)
    assert step.drifted == ("/spec/properties/level/collectCycle",)


def test_a_new_manifest_is_no_drift() -> None:
    live = applied(rule(limit="20"), RULE)
    [step] = make(
        (RULE,),
        repository=repository(policy(DriftMode.DETECT)),
        desired={RULE: rule(limit="30")},
        live={RULE: live},
    ).steps
    assert isinstance(step, Apply)
    assert step.drifted == ()


def test_where_drift_is_only_told_of_nothing_is_put_back() -> None:
    desired = rule(limit="20")
    live = changed(applied(desired, RULE), "/spec/env/limit", "30")
    [step] = make(
        (RULE,),
        repository=repository(policy(DriftMode.DETECT)),
        desired={RULE: desired},
        live={RULE: live},
    ).steps
    assert step == Skip(
        RULE, SkipReason.DRIFTED, "Script team/rule was changed in the cluster: /spec/env/limit"
    )
    assert isinstance(step, Skip)
    assert (step.drifted, step.may_pass, step.is_problem) == (("/spec/env/limit",), False, False)


IGNORED = [
    pytest.param(RULE, rule(limit="20"), "/spec/env/limit", "30", "/spec/env/limit", id="a field"),
    pytest.param(RULE, rule(limit="20"), "/spec/env/limit", "30", "/spec/env", id="all below"),
    pytest.param(
        LAMP,
        lamp(),
        "/spec/properties/1/collectCycle",
        5,
        "/spec/properties/level/collectCycle",
        id="a field of a property, by its name",
    ),
    pytest.param(
        LAMP,
        lamp(),
        "/spec/properties/1/collectCycle",
        5,
        "/spec/properties/level",
        id="a property",
    ),
]


@pytest.mark.parametrize(("ref", "desired", "where", "value", "pointer"), IGNORED)
def test_what_is_ignored_is_no_drift(
    ref: Reference, desired: Wanted, where: str, value: Json, pointer: str
) -> None:
    live = changed(applied(desired, ref), where, value)
    rules = DriftRule(kind=ref.kind, pointers=[pointer])  # type: ignore[arg-type]  # one of its kinds
    plan = make(
        (ref,),
        repository=repository(policy(DriftMode.CORRECT, rules)),
        desired={ref: desired},
        live={ref: live},
    )
    assert (plan.steps, plan.unchanged) == ((), (ref,))


def test_what_is_ignored_stays_when_the_manifest_changes_elsewhere() -> None:
    live = changed(applied(rule(limit="20", unit="C"), RULE), "/spec/env/limit", "30")
    rules = DriftRule(kind="Script", name="rule", pointers=["/spec/env/limit"])
    [step] = make(
        (RULE,),
        repository=repository(policy(DriftMode.CORRECT, rules)),
        desired={RULE: rule(limit="25", unit="F")},
        live={RULE: live},
    ).steps
    assert isinstance(step, Apply)
    spec = step.document["spec"]
    assert isinstance(spec, dict)
    assert spec["env"] == {"limit": "30", "unit": "F"}


def test_a_rule_for_another_object_ignores_nothing() -> None:
    desired = rule(limit="20")
    live = changed(applied(desired, RULE), "/spec/env/limit", "30")
    rules = DriftRule(kind="Script", name="other", pointers=["/spec/env/limit"])
    plan = make(
        (RULE,),
        repository=repository(policy(DriftMode.CORRECT, rules)),
        desired={RULE: desired},
        live={RULE: live},
    )
    assert len(plan.steps) == 1


def test_what_we_mark_an_object_with_cannot_be_ignored() -> None:
    desired = rule()
    name = ANNOTATION_DIGEST.replace("/", "~1")
    live = changed(applied(desired, RULE), f"/metadata/annotations/{name}", "sha256:0")
    rules = DriftRule(kind="Script", pointers=[f"/metadata/annotations/{name}"])
    plan = make(
        (RULE,),
        repository=repository(policy(DriftMode.CORRECT, rules)),
        desired={RULE: desired},
        live={RULE: live},
    )
    assert len(plan.steps) == 1


def test_whoever_set_a_field_is_named_and_we_are_not() -> None:
    owners = [
        FieldOwner("scriptops", frozenset({("spec", "env", "limit")})),
        FieldOwner("kubectl-edit", frozenset({("spec", "env", "limit"), ("spec", "suspend")})),
        FieldOwner("helm", frozenset({("spec", "env")})),
        FieldOwner("other", frozenset({("spec", "isolation")})),
    ]
    assert drift.manager_of(owners, ["/spec/env/limit"]) == "helm, kubectl-edit"
    assert drift.manager_of(owners, ["/spec/manifest"]) == ""


def test_drift_reads_well() -> None:
    many = tuple(f"/spec/{n}" for n in range(7))
    assert str(Drifted(reference=RULE, pointers=("/spec/a",), manager="helm")) == (
        "Script team/rule: /spec/a changed by helm"
    )
    assert drift.shown(many) == "/spec/0, /spec/1, /spec/2, /spec/3, /spec/4 and 2 more"
    assert drift.shown(("",)) == "deleted"


def test_three_corrections_come_at_once_and_then_ever_later() -> None:
    fight, now, pauses = Fight(), 100.0, []
    for _ in range(14):
        pause = fight.wait(now)
        pauses.append(pause)
        now += pause
        fight = fight.corrected(now)
    assert pauses == [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_quiet_time_ends_a_fight() -> None:
    fight = Fight()
    for _ in range(5):
        fight = fight.corrected(100.0)
    assert (fight.contended, fight.quiet) == (True, 160.0)
    assert fight.corrected(159.0).corrections == 6
    assert fight.corrected(160.0) == Fight(1, 160.0)
    assert fight.wait(160.0) == 0.0
