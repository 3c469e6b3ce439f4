"""When a commit is deployed, and what of that a forge is told."""

from __future__ import annotations

from reconciler.core import conditions
from reconciler.core.deployment import MOST_STATUSES, Deployment, Standing
from reconciler.core.objects import ObjectKey

A, B, C = ("a" * 40, "b" * 40, "c" * 40)
ONE, TWO = ObjectKey("team", "one"), ObjectKey("team", "two")
APPLIED = conditions.ready("Applied", "applied main@sha1:a")
READY = Standing(is_ready=True)
WAITS = Standing(is_ready=False)
BROKEN = Standing(is_ready=False, problem="main is not a function")


def tell(deployment: Deployment) -> list[tuple[str, str]]:
    """Everything there is to tell now, as told."""
    said = []
    while news := deployment.news():
        deployment.told(news[0])
        said.append((news[0].commit[0], str(news[0].state)))
    return said


def deployed(commit: str = A) -> Deployment:
    deployment = Deployment(scripts=2)
    deployment.begin(commit, was_ready=False)
    deployment.conclude(APPLIED, {}, is_change=True)
    tell(deployment)
    return deployment


def test_success_comes_only_when_all_is_applied_seen_and_ready() -> None:
    deployment = Deployment(scripts=2)
    assert tell(deployment) == []
    deployment.begin(A, was_ready=False)
    assert tell(deployment) == [("a", "pending")]
    deployment.conclude(APPLIED, {ONE: "sha256:1"}, is_change=True)
    assert tell(deployment) == []
    deployment.stands(ONE, WAITS)
    deployment.written.clear()
    assert tell(deployment) == []
    deployment.stands(ONE, READY)
    assert tell(deployment) == [("a", "success")]
    assert tell(deployment) == []
    status = deployment.status()
    assert status is not None
    assert status.description == "applied; 2 Scripts ready"


def test_a_script_that_cannot_run_is_a_failure_and_its_repair_a_success() -> None:
    deployment = deployed()
    deployment.stands(TWO, BROKEN)
    status = deployment.status()
    assert status is not None
    assert status.description == "Script team/two cannot run: main is not a function"
    assert tell(deployment) == [("a", "failure")]
    deployment.stands(TWO, None)
    assert tell(deployment) == [("a", "success")]


def test_a_problem_of_the_revision_is_a_failure_and_what_passes_by_itself_is_not() -> None:
    deployment = Deployment()
    deployment.begin(A, was_ready=False)
    deployment.conclude(conditions.reconciling("Conflict", "2 objects"), {}, is_change=False)
    assert tell(deployment) == [("a", "pending")]
    deployment.conclude(
        conditions.stalled("InvalidSpec", "manifests/a.yaml:3"), {}, is_change=False
    )
    assert tell(deployment) == [("a", "failure")]


def test_what_was_told_does_not_go_back_to_pending() -> None:
    deployment = deployed()
    deployment.stands(ONE, WAITS)
    assert tell(deployment) == []
    deployment.stands(ONE, READY)
    assert tell(deployment) == []


def test_a_commit_that_changes_nothing_is_answered() -> None:
    deployment = deployed()
    deployment.begin(B, was_ready=False)
    deployment.conclude(APPLIED, {}, is_change=False)
    status = deployment.status()
    assert status is not None
    assert status.description == "nothing to change; 2 Scripts ready"
    assert tell(deployment) == [("b", "success")]


def test_commits_that_were_passed_over_get_the_verdict_of_the_one_that_was_deployed() -> None:
    deployment = Deployment(scripts=1)
    deployment.begin(A, was_ready=False)
    assert tell(deployment) == [("a", "pending")]
    deployment.begin(C, was_ready=False)
    deployment.owe((B, A))
    assert tell(deployment) == [("c", "pending")]
    deployment.conclude(APPLIED, {}, is_change=True)
    assert deployment.news()[1].description == (
        "superseded by cccccccccc: applied; 1 Scripts ready"
    )
    assert tell(deployment) == [("c", "success"), ("a", "success"), ("b", "success")]
    deployment.owe((A,))
    assert tell(deployment) == []


def test_after_a_restart_a_deployed_commit_is_not_pending_again() -> None:
    deployment = Deployment()
    deployment.begin(A, was_ready=True)
    assert tell(deployment) == []
    deployment.conclude(APPLIED, {}, is_change=False)
    assert tell(deployment) == [("a", "success")]


def test_a_script_that_comes_and_goes_does_not_use_up_what_the_forge_takes() -> None:
    deployment = deployed()
    for _ in range(1000):
        deployment.stands(ONE, BROKEN)
        tell(deployment)
        deployment.stands(ONE, READY)
        tell(deployment)
    assert deployment._count == MOST_STATUSES
    deployment.begin(B, was_ready=False)
    assert tell(deployment) == [("b", "pending")]
    assert deployment.news() == ()
