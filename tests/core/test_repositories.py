"""A ScriptRepository as the cluster has it, and the status that follows."""

from __future__ import annotations

import pytest

from reconciler.api.scriptrepository import Counts, Problem, ScriptRepositoryStatus
from reconciler.core import conditions
from reconciler.core.objects import JsonObject, ObjectKey
from reconciler.core.repositories import SHOWN_PROBLEMS, Applied, decode_repository, status_of
from reconciler.errors import ObjectInvalid


def document(**parts: object) -> JsonObject:
    return {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {
            "name": "rules",
            "namespace": "default",
            "uid": "u1",
            "resourceVersion": "7",
            "generation": 3,
            "managedFields": [{"manager": "x"}],
        },
        "spec": {"url": "https://git.example/rules.git"},
        **parts,
    }  # type: ignore[dict-item]  # parts are what a test makes of JSON


def test_repository_is_read_without_managed_fields():
    record = decode_repository(document())
    assert (record.key, record.uid, record.resource_version, record.generation) == (
        ObjectKey("default", "rules"),
        "u1",
        "7",
        3,
    )
    assert (record.deleting, record.problem, record.status) == (False, "", ScriptRepositoryStatus())
    assert record.spec is not None
    assert record.spec.url == "https://git.example/rules.git"
    assert "managedFields" not in str(record.document)


@pytest.mark.parametrize("metadata", [{"name": "rules"}, {"uid": "u"}, {}, None, "text"], ids=str)
def test_object_without_identity_is_refused(metadata):
    with pytest.raises(ObjectInvalid):
        decode_repository(document(metadata=metadata))


@pytest.mark.parametrize(
    "spec", [None, {}, [], {"url": 5}, {"url": "https://x/y", "more": 1}], ids=str
)
def test_bad_spec_is_a_problem_that_names_the_field(spec):
    record = decode_repository(document(spec=spec))
    assert record.spec is None
    assert record.problem.startswith("spec")


def test_status_that_cannot_be_read_is_not_trusted():
    assert decode_repository(document(status={"revision": 5})).status == ScriptRepositoryStatus()


def test_status_keeps_what_was_reached_where_nothing_was():
    live = {
        "observedGeneration": 2,
        "revision": "main@sha1:1",
        "digest": "sha256:1",
        "problems": [{"path": "a.yaml", "reason": "Invalid", "message": "bad"}],
        "problemCount": 30,
        "statusCommit": "c1",
    }
    record = decode_repository(document(status=live))
    verdict = conditions.reconciling("SourceUnavailable", "no answer")
    status = status_of(record, verdict, None, status_commit="", now=0)
    assert status == ScriptRepositoryStatus(
        observed_generation=3,
        conditions=conditions.conditions(verdict, previous=(), generation=3, now=0),
        revision="main@sha1:1",
        digest="sha256:1",
        problems=[Problem(path="a.yaml", reason="Invalid", message="bad")],
        problem_count=30,
        status_commit="c1",
    )


def test_status_shows_some_problems_and_counts_all():
    problems = [Problem(path=f"{n}.yaml", reason="Invalid", message="bad") for n in range(50)]
    applied = Applied(revision="r", digest="d", counts=Counts(), problems=problems)
    status = status_of(
        decode_repository(document()),
        conditions.ready("Applied", ""),
        applied,
        status_commit="c2",
        now=0,
    )
    assert (status.problems, status.problem_count) == (problems[:SHOWN_PROBLEMS], 50)
    assert (status.revision, status.digest, status.counts, status.status_commit) == (
        "r",
        "d",
        Counts(),
        "c2",
    )
