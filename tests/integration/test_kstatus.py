"""What other tools make of our statuses: kstatus, and CEL expressions for Flux.

Over every situation that Argo CD's customizations are tested with, which are a real controller's;
besides, each status that any controller of these suites writes is judged as it is written.
"""

from __future__ import annotations

from typing import Any

import celpy
import pytest
import yaml
from celpy.adapter import json_to_cel

from tests.support import kstatus
from tests.support.kube import DEPLOY

SITUATIONS = {
    f"{path.parts[-3]} {path.stem}": yaml.safe_load(path.read_text())
    for path in sorted((DEPLOY / "argocd").glob("resource_customizations/*/*/testdata/*.yaml"))
}
CURRENT = {
    *(f"Script {it}" for it in ("before", "deployed", "failing", "suspended")),
    *(
        f"ScriptRepository {it}"
        for it in (
            *("applied", "applied-twice", "published", "resumed", "rolled-back", "suspended"),
            *("synced", "unrolled"),
        )
    ),
}
FAILED = {"Script stalled", "Script undone", "ScriptRepository in-part"}
# A canary waits for a person; who deploys with Flux need not wait for that person, too.
EARLIER = {"Script canary"}


def expected(situation: str) -> str:
    if situation in CURRENT:
        return "Current"
    return "Failed" if situation in FAILED else "InProgress"


def test_kstatus_reads_every_situation_as_it_is_meant() -> None:
    told = {name: kstatus.compute(obj) for name, obj in SITUATIONS.items()}
    assert told == {name: expected(name) for name in SITUATIONS}
    assert {name: kstatus.violations(obj) for name, obj in SITUATIONS.items()} == {
        name: [] for name in SITUATIONS
    }


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param({}, "no observedGeneration from creation on", id="nothing"),
        pytest.param(
            {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "False"}]},
            "neither Ready nor says what it waits for",
            id="not ready without saying whether that passes",
        ),
        pytest.param(
            {
                "observedGeneration": 1,
                "conditions": [
                    {"type": "Ready", "status": "True"},
                    {"type": "Stalled", "status": "True"},
                ],
            },
            "Ready and Stalled at once",
            id="ready and stalled",
        ),
        pytest.param(
            {
                "observedGeneration": 1,
                "conditions": [
                    {"type": "Ready", "status": "Unknown"},
                    {"type": "Stalled", "status": "True"},
                ],
            },
            "read as Failed, meant as InProgress",
            id="stalled without a clear no",
        ),
    ],
)
def test_a_status_that_breaks_a_rule_is_found(status: Any, words: str) -> None:
    for condition in status.get("conditions", ()):
        condition |= {"observedGeneration": 1, "reason": "X", "lastTransitionTime": "now"}
    obj = {"metadata": {"generation": 1}, "status": status}
    assert words in kstatus.violations(obj)


def expressions() -> dict[str, dict[str, str]]:
    """By kind, as Flux's Kustomizations have them."""
    documents = yaml.safe_load_all((DEPLOY / "flux" / "rules.yaml").read_text())
    documents = [
        *documents,
        *yaml.safe_load_all((DEPLOY / "flux" / "repositories.yaml").read_text()),
    ]
    return {
        check["kind"]: check
        for document in documents
        for check in document["spec"].get("healthCheckExprs", ())
    }


def judged(check: dict[str, str], obj: Any) -> str:
    """As kustomize-controller does: the generation first, then the expressions in this order."""
    observed = (obj.get("status") or {}).get("observedGeneration")
    if observed is not None and observed != obj["metadata"]["generation"]:
        return "InProgress"
    environment = celpy.Environment()
    for word, outcome in (
        ("inProgress", "InProgress"),
        ("failed", "Failed"),
        ("current", "Current"),
    ):
        if word not in check:
            continue
        program = environment.program(environment.compile(check[word]))
        variables = {name: json_to_cel(value) for name, value in obj.items()}
        if program.evaluate(variables):
            return outcome
    return "InProgress"


def test_fluxs_expressions_read_every_situation_as_it_is_meant() -> None:
    checks = expressions()
    told = {name: judged(checks[obj["kind"]], obj) for name, obj in SITUATIONS.items()}
    assert told == {name: "Current" if name in EARLIER else expected(name) for name in SITUATIONS}
