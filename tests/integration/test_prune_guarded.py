"""A prune that is too large waits for a person; what goes may have to pass a quarantine."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.objects import (
    ANNOTATION_QUARANTINED_AT,
    LABEL_QUARANTINED,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
)
from tests.integration.command_line import CommandLine
from tests.integration.test_drift import says
from tests.support.gitserver import Repository
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import System, condition, reason

NAMES = ("a", "b", "c", "d")
RULES = {
    **{f"manifests/{name}.yaml": documents(script(name)) for name in NAMES},
    "scripts/quiet/1.0.0.js": QUIET,
}


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def without(*names: str) -> dict[str, Any]:
    return {f"manifests/{name}.yaml": None for name in names}


def blocked(system: System, rules: ObjectKey, count: int) -> Any:
    """The status once a plan to delete that many waits."""
    live = system.object_is(
        SCRIPT_REPOSITORIES,
        rules,
        lambda o: (o["status"].get("pendingPrune") or {}).get("count") == count,
        f"a plan of {count} waits",
    )
    return live["status"]


def test_a_prune_beyond_the_limit_waits_and_the_rest_of_the_revision_goes_out(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, prune={"maxCount": 1})
    embedded.synced(rules, git.commit(RULES))
    commit = git.commit({**without("a", "b"), "manifests/new.yaml": documents(script("new"))})
    live = embedded.synced(rules, commit)
    assert set(embedded.all(SCRIPTS, namespace)) == {*NAMES, "new"}
    pending = live["status"]["pendingPrune"]
    assert pending["count"] == 2
    assert pending["objects"] == [f"Script {namespace}/a", f"Script {namespace}/b"]
    message = (
        f"2 objects left git, more than prune.maxCount 1 allows, and stay: Script {namespace}/a, "
        f"Script {namespace}/b; bring them back, or let exactly these go with: scriptops approve "
        f"rules {pending['plan']} -n {namespace}"
    )
    assert reason(live) == ("False", "PruneBudgetExceeded")
    assert condition(live, "Stalled")["message"] == message
    assert says(embedded, SCRIPT_REPOSITORIES, rules, "PruneBudgetExceeded") == message


def test_an_approved_plan_is_carried_out_and_no_other(
    embedded: System, namespace: str, git: Repository, command_line: CommandLine
) -> None:
    rules = embedded.repository(namespace, git.path, prune={"maxPercent": 25})
    embedded.synced(rules, git.commit(RULES))
    embedded.synced(rules, git.commit(without("a", "b")))
    first = blocked(embedded, rules, 2)["pendingPrune"]["plan"]
    # One more leaves before the approval comes: that is another plan.
    embedded.synced(rules, git.commit(without("c")))
    second = blocked(embedded, rules, 3)["pendingPrune"]["plan"]
    at = ("-n", namespace, "--controller", embedded.web)
    refused = command_line("approve", "rules", first, *at)
    assert refused.code == 2
    assert f"no plan {first} of {namespace}/rules waits for approval; {second} does" in refused.err
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"prune": {"approve": first}}})
    embedded.object_is(
        SCRIPT_REPOSITORIES,
        rules,
        lambda o: reason(o) == ("False", "PruneBudgetExceeded"),
        "an approval of the first is none of the second",
    )
    assert set(embedded.all(SCRIPTS, namespace)) == set(NAMES)
    approved = command_line("approve", "rules", second, *at)
    assert (approved.code, approved.out) == (
        0,
        f"plan {second} of {namespace}/rules is approved\n",
    )
    live = embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Applied"), "it goes on"
    )
    assert set(embedded.all(SCRIPTS, namespace)) == {"d"}
    assert live["status"].get("pendingPrune") is None
    # It was for once: what leaves later waits again.
    embedded.synced(rules, git.commit({**without("d"), "manifests/e.yaml": documents(script("e"))}))
    blocked(embedded, rules, 1)


def test_what_comes_back_to_git_ends_the_wait(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, prune={"maxCount": 0})
    embedded.synced(rules, git.commit(RULES))
    uid = embedded.get(SCRIPTS, ObjectKey(namespace, "a"))["metadata"]["uid"]
    embedded.synced(rules, git.commit(without("a")))
    blocked(embedded, rules, 1)
    live = embedded.synced(rules, git.commit({"manifests/a.yaml": RULES["manifests/a.yaml"]}))
    assert reason(live) == ("True", "Applied")
    assert live["status"].get("pendingPrune") is None
    assert embedded.get(SCRIPTS, ObjectKey(namespace, "a"))["metadata"]["uid"] == uid


def test_a_script_that_leaves_is_suspended_and_labelled_and_goes_when_its_time_is_up(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, prune={"quarantine": "1h"})
    embedded.synced(rules, git.commit(RULES))
    key = ObjectKey(namespace, "a")
    embedded.ready(key)
    embedded.synced(rules, git.commit(without("a")))
    live = embedded.script_is(key, lambda o: reason(o) == ("True", "Suspended"), "it rests")
    assert live["spec"]["suspend"] is True
    assert live["metadata"]["labels"][LABEL_QUARANTINED] == "true"
    assert says(embedded, SCRIPTS, key, "Quarantined").startswith("it left the repository")
    # An hour later.
    past = {"metadata": {"annotations": {ANNOTATION_QUARANTINED_AT: "2020-01-01T00:00:00Z"}}}
    embedded.patch(SCRIPTS, key, past)
    live = embedded.synced(rules, git.commit({"README.md": b"x"}))
    assert live["status"]["counts"]["pruned"] == 1
    assert set(embedded.all(SCRIPTS, namespace)) == {"b", "c", "d"}


def test_the_end_of_a_quarantine_needs_no_commit(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, prune={"quarantine": "1s"}, interval="1h")
    embedded.synced(rules, git.commit(RULES))
    embedded.synced(rules, git.commit(without("a")))
    embedded.object_is(
        SCRIPT_REPOSITORIES,
        rules,
        lambda _: set(embedded.all(SCRIPTS, namespace)) == {"b", "c", "d"},
        "its second is over",
    )


def test_a_script_that_comes_back_to_git_leaves_quarantine_and_runs_on(
    embedded: System, namespace: str, git: Repository
) -> None:
    rules = embedded.repository(namespace, git.path, prune={"quarantine": "1h"})
    embedded.synced(rules, git.commit(RULES))
    key = ObjectKey(namespace, "a")
    before = embedded.ready(key)
    embedded.synced(rules, git.commit(without("a")))
    embedded.script_is(key, lambda o: reason(o) == ("True", "Suspended"), "it rests")
    embedded.synced(rules, git.commit({"manifests/a.yaml": RULES["manifests/a.yaml"]}))
    live = embedded.script_is(key, lambda o: reason(o) == ("True", "Deployed"), "it is back")
    assert live["metadata"]["uid"] == before["metadata"]["uid"]
    assert live["spec"] == before["spec"]
    assert LABEL_QUARANTINED not in live["metadata"]["labels"]
    assert ANNOTATION_QUARANTINED_AT not in live["metadata"]["annotations"]
