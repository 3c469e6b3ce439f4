"""Recorded runs as test files."""

from __future__ import annotations

import base64
from pathlib import PurePosixPath

import orjson

from reconciler.core import exporting, fixtures, recordings, verdicts
from reconciler.core.objects import mapping, sequence
from reconciler.core.runs import LogLine, Outcome, Write
from tests.support.recordings import recording

PATH = PurePosixPath("scripts/thermostat/1.0.0.test.yaml")


def recorded(run_id="run-1", **parts):
    made = recording(run_id, **parts)
    return recordings.read(orjson.loads(recordings.encoded(made, key=b"k" * 32)))


REPLIES = [
    {
        "n": 1,
        "request": "POST https://a/x",
        "ok": False,
        "code": "TimedOut",
        "message": "no answer",
    },
    {
        "n": 0,
        "request": "GET https://a/?b=1",
        "ok": True,
        "status": 404,
        "headers": [["content-type", "text/plain"]],
        "body": base64.b64encode("nö".encode()).decode(),
    },
]


def test_a_run_becomes_a_case_with_all_that_it_was_given_and_answered():
    run = recorded(
        activation={"state": {"n": 1}, "event": [1], "cause": "Webhook"},
        replies=orjson.dumps(REPLIES),
        state=b'{"n":2}',
        logs=(LogLine("info", "a"), LogLine("warn", "b")),
        writes=(Write("heater", "power", True), Write("heater", "level", 3.5, 1)),
    )
    assert exporting.test_document([run]) == {
        "cases": [
            {
                "name": "writes heater.power, heater.level (run-1)",
                "given": {
                    "now": "2023-11-14T22:13:20.000Z",
                    "seed": 7,
                    "env": {"low": "19", "token": "hunter2-hunter2"},
                    "devices": {"thermometer": {"temperature": 18.5}},
                    "write": ["heater"],
                    "state": {"n": 1},
                    "fetch": [
                        {
                            "url": "https://a/?b=1",
                            "status": 404,
                            "headers": {"content-type": "text/plain"},
                            "body": "nö",
                        },
                        {"url": "https://a/x", "method": "POST", "error": "TimedOut"},
                    ],
                },
                "when": {"cause": "Webhook", "event": [1]},
                "then": {
                    "outcome": "Succeeded",
                    "writes": {
                        "heater": {
                            "power": True,
                            "level": {"value": 3.5, "qos": 1, "force": False},
                        }
                    },
                    "logs": ["a", {"level": "warn", "text": "b"}],
                    "state": {"n": 2},
                    "fetches": ["GET https://a/?b=1", "POST https://a/x"],
                },
            }
        ]
    }


def test_commits_that_were_waited_for_become_what_a_test_is_given():
    named = {"op": "commit", "alias": "heater"}
    replies = [
        {**named, "n": 0, "qos": 2, "ok": True, "reached": 2, "ms": 40},
        {**named, "n": 1, "qos": 2, "ok": True, "reached": 1, "ms": 0, "code": "NotConverged"},
        {**named, "n": 2, "qos": 2, "ok": False, "ms": 0, "code": "Denied", "message": "no"},
    ]
    run = recorded(
        replies=orjson.dumps(replies), writes=(Write("heater", "on", True, 2, done=True),)
    )
    document = exporting.test_document([run])
    (case,) = map(mapping, sequence(document["cases"]))
    assert mapping(case["given"])["commit"] == [
        {"device": "heater", "ms": 40, "reached": 2},
        {"device": "heater", "reached": 1},
        {"device": "heater", "error": "Denied"},
    ]
    assert "fetch" not in mapping(case["given"])
    file = fixtures.read(PATH, orjson.dumps(document), {})
    assert (file.problems, len(file.fixtures[0].commits)) == ((), 3)


def test_what_was_exported_reads_as_a_test_that_the_recorded_answer_passes():
    runs = [
        recorded("a", replies=orjson.dumps(REPLIES), state=b'{"n":2}'),
        recorded("b", outcome=Outcome.FAILED, message="Error: x (t.js:1:2)", writes=(), logs=()),
    ]
    document = orjson.dumps(exporting.test_document(runs))
    file = fixtures.read(PATH, document, {})
    assert file.problems == ()
    for fixture, run in zip(file.fixtures, runs, strict=True):
        fetches = ["GET https://a/?b=1", "POST https://a/x"] if run.run_id == "a" else []
        assert verdicts.judge(fixture.then, run.completion, fetches) == ()


def test_runs_that_differ_in_clock_and_chance_only_are_one_case_and_lost_ones_none():
    runs = [
        recorded("lost", outcome=Outcome.LOST),
        recorded("one", activation={"now": 1, "seed": 1}),
        recorded("two", activation={"now": 2, "seed": 2}),
        recorded("other", activation={"now": 3, "event": 1}),
    ]
    cases = sequence(exporting.test_document(runs)["cases"])
    assert [mapping(case)["name"] for case in cases] == [
        "writes heater.power (one)",
        "writes heater.power (other)",
    ]


def test_an_answer_is_shown_as_json_where_that_says_all_and_without_what_its_server_adds():
    reply = {"n": 0, "ok": True, "request": "GET https://a/", "status": 200}
    headers = [["content-type", "application/json"], ["date", "now"], ["etag", "x"]]
    bodies = {b'{"low":19}': {"json": {"low": 19}}, b'{"low": 19}': {"body": '{"low": 19}'}}
    for body, shown in bodies.items():
        replies = [{**reply, "headers": headers, "body": base64.b64encode(body).decode()}]
        (case,) = sequence(
            exporting.test_document([recorded(replies=orjson.dumps(replies))])["cases"]
        )
        (fetch,) = sequence(mapping(mapping(case)["given"])["fetch"])
        kept = {"etag": "x"} if "json" in shown else {"content-type": headers[0][1], "etag": "x"}
        assert fetch == {"url": "https://a/", "status": 200, **shown, "headers": kept}
