"""Pruning: how much may go at once, what has to be approved, and what waits in quarantine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from reconciler.api.scriptrepository import PrunePolicy
from reconciler.core import pruning, quarantine
from reconciler.core.conditions import rfc3339
from reconciler.core.objects import (
    ANNOTATION_DIGEST,
    ANNOTATION_QUARANTINED_AT,
    DEVICES_V1BETA1,
    LABEL_QUARANTINED,
    LABEL_REPOSITORY_UID,
    SCRIPTS,
    JsonObject,
    ObjectKey,
    Reference,
)
from reconciler.core.plan import (
    Apply,
    Plan,
    Prune,
    Quarantine,
    Repository,
    Skip,
    SkipReason,
    make,
)
from reconciler.core.pruning import Pending
from tests.core.test_drift import Wanted
from tests.support.rulebook import script

NOW = 1_800_000_000.0
TEN = tuple(Reference("Script", "team", f"s{n}") for n in range(10))
LAMP = Reference("Device", "team", "lamp")


def repository(**prune: Any) -> Repository:
    return Repository(
        key=ObjectKey("team", "rules"),
        uid="repo-1",
        revision="main@sha1:1",
        served=frozenset({SCRIPTS, DEVICES_V1BETA1}),
        prune=PrunePolicy(**prune),
        now=NOW,
    )


def prunes(*refs: Reference) -> Plan:
    return Plan(tuple(Prune(ref, SCRIPTS, f"uid-{ref.name}") for ref in refs), ())


def limited(plan: Plan, **policy: Any) -> tuple[Plan, Pending | None]:
    return pruning.limited(plan, PrunePolicy(**policy), {"Script": 10, "Device": 100}.__getitem__)


WITHIN = [
    pytest.param(TEN, {}, id="everything without a limit"),
    pytest.param(TEN[:3], {"max_count": 3}, id="as many as may go"),
    pytest.param(TEN[:3], {"max_percent": 30}, id="as large a part as may go"),
    pytest.param((), {"max_count": 0, "max_percent": 0}, id="nothing"),
]
BEYOND = [
    pytest.param(TEN[:4], {"max_count": 3}, "prune.maxCount 3", id="one more than may go"),
    pytest.param(TEN[:4], {"max_percent": 39}, "prune.maxPercent 39", id="a larger part"),
    pytest.param(TEN[:1], {"max_count": 0}, "prune.maxCount 0", id="one where none may go"),
    pytest.param(
        (*TEN[:4], LAMP),
        {"max_percent": 20},
        "prune.maxPercent 20",
        id="a larger part of one kind, however many there are of another",
    ),
]


@pytest.mark.parametrize(("refs", "policy"), WITHIN)
def test_what_is_within_the_limits_goes(
    refs: tuple[Reference, ...], policy: dict[str, int]
) -> None:
    plan = prunes(*refs)
    assert limited(plan, **policy) == (plan, None)


@pytest.mark.parametrize(("refs", "policy", "limit"), BEYOND)
def test_beyond_the_limits_nothing_goes_and_the_plan_has_a_hash(
    refs: tuple[Reference, ...], policy: dict[str, int], limit: str
) -> None:
    plan, pending = limited(prunes(*refs), **policy)
    assert {(type(step), step.reference) for step in plan.steps} == {(Skip, ref) for ref in refs}
    assert pending is not None
    assert (pending.references, pending.limit) == (refs, limit)
    assert all(isinstance(s, Skip) and s.may_pass and not s.is_problem for s in plan.steps)


def test_the_rest_of_the_plan_goes_out() -> None:
    kept = Apply(Reference("Script", "team", "new"), SCRIPTS, {}, is_new=True)
    plan, pending = limited(Plan((kept, *prunes(*TEN).steps), ()), max_count=1)
    assert pending is not None
    assert plan.steps[0] == kept


def test_an_approval_is_for_exactly_one_plan() -> None:
    _, pending = limited(prunes(*TEN[:4]), max_count=3)
    assert pending is not None
    approved = {"max_count": 3, "approve": pending.plan}
    assert limited(prunes(*TEN[:4]), **approved) == (prunes(*TEN[:4]), None)
    assert limited(prunes(*reversed(TEN[:4])), **approved)[1] is None
    for other in (prunes(*TEN[:5]), prunes(*TEN[1:5])):
        assert limited(other, **approved)[1] is not None
    again = Plan(tuple(Prune(ref, SCRIPTS, "made anew") for ref in TEN[:4]), ())
    assert limited(again, **approved)[1] is not None


def test_what_waits_is_told_with_the_command_that_lets_it_go() -> None:
    _, pending = limited(prunes(*TEN[:5]), max_count=3)
    assert pending is not None
    assert pending.message(ObjectKey("team", "rules")) == (
        "5 objects left git, more than prune.maxCount 3 allows, and stay: Script team/s0, Script "
        "team/s1, Script team/s2 and 2 more; bring them back, or let exactly these go with: "
        f"scriptops approve rules {pending.plan} -n team"
    )


# Quarantine.


def live(*, since: float | None = None, **spec: Any) -> dict[str, Any]:
    document = script("s0", **spec)
    labels = {LABEL_REPOSITORY_UID: "repo-1", "team": "a"}
    annotations = {ANNOTATION_DIGEST: "sha256:1", "note": "x"}
    if since is not None:
        labels[LABEL_QUARANTINED] = "true"
        annotations = {"note": "x", ANNOTATION_QUARANTINED_AT: rfc3339(since)}
    document["metadata"] |= {
        "namespace": "team",
        "uid": "uid-s0",
        "resourceVersion": "9",
        "labels": labels,
        "annotations": annotations,
    }
    return document


STAYS = Wanted({**script("stays"), "metadata": {"name": "stays", "namespace": "team"}})


def leaving(found: JsonObject, **prune: Any) -> Any:
    """The step for a Script that git has no longer."""
    plan = make(
        (TEN[0],),
        repository=repository(**prune),
        desired={STAYS.reference: STAYS},
        live={TEN[0]: found},
    )
    [step] = plan.steps
    return step


def test_without_a_quarantine_a_script_goes_at_once() -> None:
    assert leaving(live()) == Prune(TEN[0], SCRIPTS, "uid-s0")


def test_a_script_that_leaves_is_suspended_and_marked_first() -> None:
    step = leaving(live(env={"a": "1"}), quarantine="1h")
    assert isinstance(step, Quarantine)
    assert (step.uid, step.due, step.document) == (
        "uid-s0",
        NOW + 3600,
        {
            "apiVersion": "hit.edu.cn/v1alpha1",
            "kind": "Script",
            "metadata": {
                "name": "s0",
                "namespace": "team",
                "uid": "uid-s0",
                "labels": {LABEL_REPOSITORY_UID: "repo-1", "team": "a", LABEL_QUARANTINED: "true"},
                "annotations": {"note": "x", ANNOTATION_QUARANTINED_AT: rfc3339(NOW)},
            },
            "spec": {**script("s0", env={"a": "1"})["spec"], "suspend": True},
        },
    )


def test_while_its_time_is_not_up_it_stays() -> None:
    step = leaving(live(since=NOW - 3599), quarantine="1h")
    assert isinstance(step, Skip)
    assert (step.reason, step.due, step.may_pass) == (SkipReason.QUARANTINED, NOW + 1, True)


@pytest.mark.parametrize("prune", [{"quarantine": "1h"}, {}])
def test_when_its_time_is_up_it_goes_and_needs_no_other_approval(prune: Mapping[str, Any]) -> None:
    step = leaving(live(since=NOW - 3600), **prune)
    assert step == Prune(TEN[0], SCRIPTS, "uid-s0", was_quarantined=True)
    assert limited(Plan((step,), ()), max_count=0) == (Plan((step,), ()), None)


def test_entering_quarantine_counts_as_leaving() -> None:
    step = leaving(live(), quarantine="1h")
    plan, pending = limited(Plan((step,), ()), max_count=0)
    assert pending is not None
    assert [type(it) for it in plan.steps] == [Skip]


def test_a_mark_without_a_time_begins_anew() -> None:
    found = live(since=NOW)
    found["metadata"]["annotations"][ANNOTATION_QUARANTINED_AT] = "yesterday"
    assert quarantine.since(found) is None
    assert isinstance(leaving(found, quarantine="1h"), Quarantine)


def test_a_script_that_comes_back_is_applied_although_it_says_what_it_said() -> None:
    back = Wanted({**script("s0"), "metadata": {"name": "s0", "namespace": "team"}})
    plan = make(
        (TEN[0],),
        repository=repository(quarantine="1h"),
        desired={TEN[0]: back},
        live={TEN[0]: live(since=NOW - 5)},
    )
    assert [type(step) for step in plan.steps] == [Apply]
