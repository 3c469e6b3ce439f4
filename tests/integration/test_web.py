"""The HTTP door as its users meet it: health, metrics, artifacts, lists, the webhook."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version
from time import monotonic
from urllib.parse import quote

import pytest

from reconciler import errors
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause
from reconciler.ports.registry import ArtifactRef
from tests.fakes.operations import FakeOperations
from tests.integration.web_server import Answer, Door, listening

THERMOSTAT = ObjectKey("default", "thermostat")
HOOK = "/api/v1alpha1/webhook?namespace=default&name=thermostat"
REF = ArtifactRef("default", "rules", "thermostat", "0.1_beta1", "js")
PATH = "/registry/default/rules/thermostat/0.1_beta1.js"
SOURCE = "function main() { /* ü */ }".encode()
DIGEST = "sha256:" + hashlib.sha256(SOURCE).hexdigest()


def script(namespace: str, name: str) -> dict[str, object]:
    return {"kind": "Script", "metadata": {"namespace": namespace, "name": name}}


def run(number: int, name: str = "thermostat") -> dict[str, object]:
    return {"id": f"r{number}", "script": {"namespace": "default", "name": name}}


@pytest.fixture
def door() -> Iterator[Door]:
    operations = FakeOperations(
        script_documents=[script(*THERMOSTAT), script("other", "lamp")],
        repository_documents=[{"metadata": {"namespace": "default", "name": "rules"}}],
        device_documents=[{"metadata": {"namespace": "default", "name": "dht11"}}],
        run_documents=[run(3), run(2, "lamp"), run(1)],
        inside={"store": {"Script": 2}, "triggers": {"default/dht11": ("default/thermostat",)}},
    )
    with listening(operations) as it:
        it.registry.publish(REF, SOURCE)
        yield it


def body(answer: Answer) -> tuple[int, object]:
    assert answer.headers["content-type"] == "application/json"
    return answer.status, answer.json


def test_health_is_being_alive_and_readiness_says_what_is_missing(door: Door) -> None:
    assert body(door.ask("/healthz")) == (200, {"alive": True})
    assert body(door.ask("/readyz")) == (200, {"ready": True, "reasons": []})

    door.operations.reasons.append("the cluster has not been listed yet")

    assert body(door.ask("/healthz")) == (200, {"alive": True})
    assert body(door.ask("/readyz")) == (
        503,
        {"ready": False, "reasons": ["the cluster has not been listed yet"]},
    )


def test_metrics_show_every_closed_label_set_from_the_start(door: Door) -> None:
    door.metrics.runs_total.labels("Succeeded", "Webhook").inc()

    answer = door.ask("/metrics")

    lines = answer.body.decode().splitlines()
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'scriptops_runs_total{cause="Webhook",outcome="Succeeded"} 1.0' in lines
    assert 'scriptops_runs_total{cause="Deployed",outcome="Lost"} 0.0' in lines
    assert 'scriptops_reconcile_total{kind="Script",result="stalled"} 0.0' in lines
    assert 'scriptops_store_objects{kind="Device"} 0.0' in lines
    assert "scriptops_run_queue_depth 0.0" in lines


def test_an_artifact_comes_with_its_digest_in_three_spellings(door: Door) -> None:
    answer = door.ask(PATH)

    raw = base64.b64encode(hashlib.sha256(SOURCE).digest()).decode()
    assert (answer.status, answer.body) == (200, SOURCE)
    assert {
        name: answer.headers[name]
        for name in (
            "etag",
            "docker-content-digest",
            "repr-digest",
            "content-type",
            "cache-control",
        )
    } == {
        "etag": f'"{DIGEST}"',
        "docker-content-digest": DIGEST,
        "repr-digest": f"sha-256=:{raw}:",
        "content-type": "text/javascript; charset=utf-8",
        "cache-control": "public, max-age=31536000, immutable",
    }


def test_head_says_the_same_without_the_bytes(door: Door) -> None:
    whole, head = door.ask(PATH), door.ask(PATH, method="HEAD")

    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        pytest.param(f'"{DIGEST}"', 304, id="this digest"),
        pytest.param(f'W/"{DIGEST}"', 304, id="weakly"),
        pytest.param(f'"other", "{DIGEST}"', 304, id="one of several"),
        pytest.param("*", 304, id="anything"),
        pytest.param('"other"', 200, id="another digest"),
        pytest.param("nonsense", 200, id="no tag at all"),
    ],
)
def test_who_has_it_already_is_told_so(door: Door, tags: str, status: int) -> None:
    answer = door.ask(PATH, headers={"If-None-Match": tags})

    assert (answer.status, answer.body) == (status, SOURCE if status == 200 else b"")
    assert answer.headers["etag"] == f'"{DIGEST}"'


def test_in_dev_caches_ask_again() -> None:
    with listening(dev=True) as door:
        door.registry.publish(REF, SOURCE)
        assert door.ask(PATH).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("ext", "content", "content_type"),
    [
        ("wasm", b"\0asm", "application/wasm"),
        ("zip", b"PK", "application/zip"),
        ("gz", b"\x1f\x8b", "application/gzip"),
    ],
)
def test_other_artifacts_have_their_own_type_and_no_encoding(
    door: Door, ext: str, content: bytes, content_type: str
) -> None:
    door.registry.publish(REF._replace(ext=ext), content)
    answer = door.ask(PATH.replace(".js", f".{ext}"))
    assert (answer.headers["content-type"], answer.body) == (content_type, content)
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/registry/default/rules/thermostat/0.2.js",
        "/registry/default/rules/thermostat/0.1_beta1",
        "/registry/default/rules/..%2fthermostat/0.1_beta1.js",
        "/registry/default/others/thermostat/0.1_beta1.js",
        "/registry/default/rules/thermostat/0.1_beta1.js%00",
        "/registry/%ff/rules/thermostat/0.1_beta1.js",
    ],
)
def test_an_artifact_that_nobody_published_is_not_found(door: Door, path: str) -> None:
    assert door.ask(path).status == 404


def test_damaged_bytes_are_not_served_nor_cached(door: Door) -> None:
    door.registry.damage(DIGEST)
    answer = door.ask(PATH)

    assert answer.refusal == (503, "ArtifactDamaged")
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_repository_lists_its_artifacts(door: Door, slash: str) -> None:
    assert body(door.ask(f"/registry/default/rules{slash}")) == (
        200,
        {
            "items": [
                {
                    "name": "thermostat",
                    "version": "0.1_beta1",
                    "file": "thermostat/0.1_beta1.js",
                    "digest": DIGEST,
                    "size": len(SOURCE),
                }
            ]
        },
    )
    assert body(door.ask(f"/registry/default/nothing{slash}")) == (200, {"items": []})


@pytest.mark.parametrize(
    ("path", "items"),
    [
        pytest.param("scripts", [script(*THERMOSTAT), script("other", "lamp")], id="all scripts"),
        pytest.param("scripts?namespace=other", [script("other", "lamp")], id="of a namespace"),
        pytest.param(
            "repositories", [{"metadata": {"namespace": "default", "name": "rules"}}], id="repos"
        ),
        pytest.param("devices?namespace=none", [], id="no devices"),
        pytest.param("runs", [run(3), run(2, "lamp"), run(1)], id="runs, newest first"),
        pytest.param("runs?script=thermostat", [run(3), run(1)], id="runs of a script"),
        pytest.param("runs?namespace=default&limit=1", [run(3)], id="the newest run"),
    ],
)
def test_lists_are_what_the_controller_knows(door: Door, path: str, items: object) -> None:
    assert body(door.ask(f"/api/v1alpha1/{path}")) == (200, {"items": items})


def test_a_run_is_found_by_its_id(door: Door) -> None:
    assert body(door.ask("/api/v1alpha1/runs/r2")) == (200, run(2, "lamp"))
    assert door.ask("/api/v1alpha1/runs/r9").refusal == (404, "NotFound")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", ""])
def test_a_limit_without_sense_is_refused(door: Door, limit: str) -> None:
    answer = door.ask(f"/api/v1alpha1/runs?limit={limit}")
    assert (answer.status, answer.json["reason"]) == (400, "BadRequest")


def test_debug_and_version_are_plain_documents(door: Door) -> None:
    assert body(door.ask("/api/v1alpha1/debug")) == (
        200,
        {"store": {"Script": 2}, "triggers": {"default/dht11": ["default/thermostat"]}},
    )
    status, document = body(door.ask("/api/v1alpha1/version"))
    assert (status, json.loads(json.dumps(document))["version"]) == (200, version("scriptops"))


def test_a_webhook_queues_a_run_and_says_which(door: Door) -> None:
    event = b'{"level": 3, "big": 123456789012345678901234567890}'

    assert body(door.post(HOOK, event)) == (202, {"runId": "run-1"})
    assert body(door.post(HOOK, b"")) == (202, {"runId": "run-2"})
    assert body(door.post(HOOK.replace("v1alpha1", "v1alpha"), b"1")) == (202, {"runId": "run-3"})
    assert door.operations.triggered == [
        (THERMOSTAT, Cause.WEBHOOK, event),
        (THERMOSTAT, Cause.WEBHOOK, b""),
        (THERMOSTAT, Cause.WEBHOOK, b"1"),
    ]


def test_a_webhook_that_waits_is_answered_with_the_run_or_with_its_id(door: Door) -> None:
    door.operations.run_documents.append({"id": "run-1", "outcome": "Failed"})

    assert body(door.post(f"{HOOK}&wait=5", b"")) == (200, {"id": "run-1", "outcome": "Failed"})
    assert body(door.post(f"{HOOK}&wait=5", b"")) == (202, {"runId": "run-2"})
    for wrong in ("x", "-1", "56", "nan", ""):
        assert door.post(f"{HOOK}&wait={wrong}", b"").refusal == (400, "WaitInvalid")
    assert len(door.operations.triggered) == 2


def test_a_manual_trigger_names_its_script_in_the_path(door: Door) -> None:
    path = "/api/v1alpha1/scripts/default/thermostat/trigger"

    assert body(door.post(path, b'{"a": 1}')) == (202, {"runId": "run-1"})
    assert door.post(path, b"{").refusal == (400, "NotJson")
    assert door.post(path.replace("thermostat", "none"), b"").refusal == (404, "NotFound")
    assert door.ask(path).refusal == (405, "MethodNotAllowed")
    assert door.operations.triggered == [(THERMOSTAT, Cause.MANUAL, b'{"a": 1}')]


@pytest.mark.parametrize(
    ("query", "event"),
    [
        pytest.param("", {}, id="no more parameters"),
        pytest.param("&level=3&unit=%C2%B0C", {"level": "3", "unit": "°C"}, id="parameters"),
        pytest.param("&a=1&a=2", {"a": ["1", "2"]}, id="a repeated one is a list"),
        pytest.param("&wait=5", {"wait": "5"}, id="a GET never waits"),
        pytest.param("&a=1,2&b=", {"a": "1,2", "b": ""}, id="a comma is no list, empty is kept"),
    ],
)
def test_a_get_turns_its_query_into_the_event(door: Door, query: str, event: object) -> None:
    assert body(door.ask(HOOK + query)) == (202, {"runId": "run-1"})
    assert [json.loads(it) for *_, it in door.operations.triggered] == [{"query": event}]


def test_without_a_namespace_default_is_meant(door: Door) -> None:
    assert door.ask("/api/v1alpha1/webhook?name=thermostat").status == 202
    assert door.ask("/api/v1alpha1/webhook?namespace=default").refusal == (400, "NameMissing")


@pytest.mark.parametrize(
    ("error", "status", "reason", "retry_after"),
    [
        pytest.param(errors.ObjectNotFound("x"), 404, "NotFound", None, id="no such script"),
        pytest.param(errors.Forbidden("x"), 403, "Forbidden", None, id="webhook: false"),
        pytest.param(
            errors.Waiting("x", reason="NotReady", requeue_after=timedelta(seconds=2.1)),
            503,
            "NotReady",
            "3",
            id="not ready yet",
        ),
        pytest.param(
            errors.Waiting("x", reason="QueueFull", requeue_after=timedelta(milliseconds=5)),
            429,
            "QueueFull",
            "1",
            id="the queue is full",
        ),
        pytest.param(errors.Throttled("x"), 429, "Throttled", "1", id="throttled"),
        pytest.param(errors.ClusterUnavailable("x"), 503, "ClusterUnavailable", "1", id="cluster"),
        pytest.param(errors.ObjectInvalid("x"), 409, "Invalid", None, id="a person must act"),
        pytest.param(errors.LocalProtocolError("x"), 500, "LocalProtocolError", None, id="our bug"),
    ],
)
def test_an_error_of_ours_is_a_problem(
    door: Door, error: Exception, status: int, reason: str, retry_after: str | None
) -> None:
    door.operations.refusals[THERMOSTAT] = error
    answer = door.ask(HOOK)

    assert answer.refusal == (status, reason)
    assert (answer.json["message"], answer.headers.get("retry-after")) == ("x", retry_after)


def test_a_bug_says_nothing_of_the_inside(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    door.operations.refusals[THERMOSTAT] = RuntimeError("secret inside")
    answer = door.ask(HOOK)

    assert answer.refusal == (500, "InternalError")
    assert b"secret" not in answer.body
    assert [it.message for it in caplog.records] == ["request failed"]
    assert "secret inside" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        pytest.param("GET", "/nowhere", 404, "NotFound", id="no such path"),
        pytest.param("DELETE", "/healthz", 405, "MethodNotAllowed", id="no such method"),
        pytest.param("PUT", HOOK, 405, "MethodNotAllowed", id="a hook is not put"),
        pytest.param("GET", "/" + quote("<script>alert(1)</script>"), 404, "NotFound", id="markup"),
    ],
)
def test_what_is_not_served_is_a_problem_too(
    door: Door, method: str, path: str, status: int, reason: str
) -> None:
    assert door.ask(path, method=method).refusal == (status, reason)


def test_one_connection_serves_many_requests_without_pauses(door: Door) -> None:
    """Where Nagle's algorithm meets delayed ACKs, each of them would take 40 ms."""
    connection = door.connect()
    begun = monotonic()
    for _ in range(100):
        connection.request("POST", HOOK, b"{}", {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert (response.status, response.will_close) == (202, False)
        response.read()
    connection.close()
    assert monotonic() - begun < 2
