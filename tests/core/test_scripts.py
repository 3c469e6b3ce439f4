"""A Script as the cluster has it, and the status that follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.api.script import RunStatus, ScriptStatus
from reconciler.core import conditions
from reconciler.core.objects import JsonObject, ObjectKey
from reconciler.core.runs import STATUS_CODES, Outcome
from reconciler.core.scripts import (
    LastRun,
    RunFacts,
    ScriptRecord,
    decode_script,
    is_transition,
    ready_digest,
    status_of,
)
from reconciler.errors import ObjectInvalid

DIGEST = "sha256:" + "a" * 64
READY = conditions.ready("Deployed", "t 1")
NO_RUNS = RunFacts()
# As the first design of the Script kind wrote it.
MANIFEST: JsonObject = {
    "readSelector": {"matchNames": {"temp-sensor-name": "dht11"}},
    "writeSelector": {"matchNames": {"target-device-name": "switch"}},
    "env": {
        "filter_service_url": "http://127.0.0.1:8003/api/v1alpha1/filter",
        "threshold-value": "400",
    },
    "manifest": {
        "scriptType": "Js",
        "name": "test",
        "version": "0.1_beta1",
        "register": "http://127.0.0.1:8080",
    },
    "executePolicy": {"readChange": True, "webhook": True, "cron": "", "qos": "AtMostOnce"},
}


def document(**parts: object) -> JsonObject:
    return {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "Script",
        "metadata": {
            "name": "test-script",
            "namespace": "default",
            "uid": "u1",
            "resourceVersion": "7",
            "generation": 3,
            "labels": {"scriptops.hit.edu.cn/repository-uid": "r1"},
            "annotations": {"scriptops.hit.edu.cn/revision": "main@sha1:1"},
        },
        "spec": MANIFEST,
        **parts,
    }  # type: ignore[dict-item]  # parts are what a test makes of JSON


def record(**parts: object) -> ScriptRecord:
    return decode_script(document(**parts))


def last(outcome: Outcome = Outcome.SUCCEEDED, message: str = "") -> LastRun:
    return LastRun(
        run_id="run-1",
        cause="ReadChange",
        outcome=outcome,
        message=message,
        finished_at=1_700_000_000.0,
        duration_us=7,
        changed=1,
        unchanged=2,
    )


def status(
    it: ScriptRecord, facts: RunFacts = NO_RUNS, verdict: conditions.Verdict = READY
) -> ScriptStatus:
    return status_of(it, verdict, DIGEST, facts, live=it.status, now=0)


def test_manifest_of_the_first_design_is_taken_as_it_stands():
    it = record()
    assert (it.problem, it.repository_uid, it.revision, it.generation, it.deleting) == (
        "",
        "r1",
        "main@sha1:1",
        3,
        False,
    )
    assert it.spec is not None
    assert it.spec.manifest.register_url == "http://127.0.0.1:8080"


@pytest.mark.parametrize("metadata", [{"name": "x"}, {"uid": "u"}, None], ids=str)
def test_object_without_identity_is_refused(metadata):
    with pytest.raises(ObjectInvalid):
        record(metadata=metadata)


def test_bad_spec_is_a_problem_that_names_the_first_field_and_counts_the_others():
    it = record(spec={"manifest": {"scriptType": "Lua", "name": "t", "version": "1"}, "evn": {}})
    assert it.spec is None
    assert it.problem.startswith("spec.manifest.scriptType: ")
    assert it.problem.endswith("(and 1 more)")


def test_status_written_by_somebody_else_is_not_trusted():
    assert record(status={"runs": "many"}).status == ScriptStatus()


def test_status_of_a_script_that_never_ran_says_nothing_of_runs():
    it = record()
    assert status(it) == ScriptStatus(
        observed_generation=3,
        conditions=conditions.conditions(READY, previous=(), generation=3, now=0),
        revision="main@sha1:1",
        digest=DIGEST,
    )


def test_a_script_that_pauses_after_crashes_is_ready_and_says_when_it_is_tried_again():
    message = "not run: its last 3 runs were ended; it is tried again after 2026-03-01T10:00:40Z"
    facts = RunFacts(last=last(Outcome.CRASH_LOOP, message), runs=4, failures=4)
    it = status(record(), facts)
    assert [(c.type, c.status, c.reason, c.message) for c in it.conditions] == [
        ("Ready", "True", "Deployed", "t 1"),
        ("RunsSucceeding", "False", "CrashLoop", message),
    ]
    assert (it.status, it.message) == (2, message)


def test_status_of_a_run_tells_its_outcome_in_all_places():
    facts = RunFacts(last=last(Outcome.FAILED, "boom"), runs=4, failures=2)
    it = status(record(), facts)
    assert [(c.type, c.status, c.reason, c.message) for c in it.conditions] == [
        ("Ready", "True", "Deployed", "t 1"),
        ("RunsSucceeding", "False", "Failed", "boom"),
    ]
    assert (it.status, it.message, it.runs, it.failures) == (1, "boom", 4, 2)
    assert it.last_run == RunStatus(
        id="run-1",
        cause="ReadChange",
        outcome="Failed",
        finished_at="2023-11-14T22:13:20Z",
        duration_microseconds=7,
        writes=1,
        unchanged=2,
    )


def test_every_outcome_has_a_number():
    assert {outcome: STATUS_CODES[outcome] for outcome in Outcome}.keys() == set(Outcome)
    assert [o for o, code in STATUS_CODES.items() if code == 0] == [Outcome.SUCCEEDED]


def test_what_is_live_of_runs_stays_where_this_process_saw_none():
    ran = status(record(), RunFacts(last=last(Outcome.FAILED, "boom"), runs=4, failures=2))
    again = replace(record(), status=ran)
    assert status(again, RunFacts(runs=4, failures=2)) == ran


def test_status_is_equal_when_there_is_nothing_to_write():
    written = status(record(), RunFacts(last=last(), runs=1))
    live = record(status=written.model_dump(mode="json", exclude_none=True))
    assert live.status == written == status(live, RunFacts(runs=1))


@pytest.mark.parametrize(
    ("facts", "verdict", "expected"),
    [
        pytest.param(RunFacts(last=last(), runs=2), READY, False, id="another good run"),
        pytest.param(RunFacts(last=last(Outcome.FAILED), runs=2), READY, True, id="good to bad"),
        pytest.param(
            RunFacts(last=last(), runs=2), conditions.stalled("X", ""), True, id="not ready"
        ),
        pytest.param(
            RunFacts(last=last(), runs=2),
            conditions.ready("Deployed", "t 2"),
            False,
            id="other words for the same",
        ),
    ],
)
def test_transition_is_what_changes_more_than_counters(facts, verdict, expected):
    old = status(record(), RunFacts(last=last(), runs=1))
    new = status(replace(record(), status=old), facts, verdict)
    assert is_transition(old, new) is expected


def test_other_kind_of_failure_is_a_transition():
    old = status(record(), RunFacts(last=last(Outcome.FAILED)))
    new = status(record(), RunFacts(last=last(Outcome.TIMED_OUT)))
    assert is_transition(old, new)


def test_digest_counts_as_ready_only_with_the_very_spec_that_was_ready():
    ready = status(record())
    assert ready_digest(replace(record(), status=ready)) == DIGEST
    assert ready_digest(replace(record(), status=ready, generation=4)) == ""
    # A new spec whose artifact could not be fetched still shows the digest of the old one.
    stalled = status(
        replace(record(), status=ready, generation=4), verdict=conditions.stalled("X", "")
    )
    assert (stalled.digest, stalled.observed_generation) == (DIGEST, 4)
    assert ready_digest(replace(record(), status=stalled, generation=4)) == ""


def test_key_and_document_are_those_of_the_object():
    it = record()
    assert (it.key, it.document) == (ObjectKey("default", "test-script"), document())
