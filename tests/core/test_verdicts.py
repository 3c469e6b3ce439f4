"""Expected and come: what counts as the same, and how a difference reads."""

from __future__ import annotations

import pytest

from reconciler.api.scripttest import Then
from reconciler.core import redacting
from reconciler.core.recordings import Completion
from reconciler.core.runs import LogLine, Outcome, Write
from reconciler.core.verdicts import Mismatch, diff, judge, told

CAME = Completion(
    outcome=Outcome.SUCCEEDED,
    logs=(LogLine("info", "cold"), LogLine("warn", "very")),
    writes=(
        Write("heater", "power", False),
        Write("heater", "power", True),
        Write("heater", "level", 22.0, 1, True),
    ),
    state={"count": 2.0, "list": [1, {"a": 1.0}]},
)


def judged(then, completion=CAME, fetches=()):
    return judge(Then.model_validate(then, by_name=False), completion, fetches)


@pytest.mark.parametrize(
    "then",
    [
        pytest.param({}, id="that it succeeds"),
        pytest.param({"writes": {"heater": {"level": 22, "power": True}}}, id="the last writes"),
        pytest.param(
            {"writes": {"heater": {"level": {"value": 22, "qos": 1}, "power": True}}},
            id="a promise",
        ),
        pytest.param(
            {"writes": {"heater": {"level": {"value": 22, "force": True}, "power": True}}},
            id="force",
        ),
        pytest.param({"logs": ["cold", "very"]}, id="all lines"),
        pytest.param({"logs": ["cold", {"level": "warn", "text": "very"}]}, id="a level"),
        pytest.param({"logsContain": ["er", "ol"]}, id="parts of lines"),
        pytest.param({"state": {"list": [1.0, {"a": 1}], "count": 2}}, id="the state"),
    ],
)
def test_what_was_expected_and_came_is_good(then):
    assert judged(then) == ()


@pytest.mark.parametrize(
    ("then", "what", "lines"),
    [
        pytest.param(
            {"writes": {"heater": {"power": False, "level": 22}}},
            "writes",
            ["+heater.power = true", "-heater.power = false"],
            id="another value",
        ),
        pytest.param(
            {"writes": {}}, "writes", ["+heater.level = 22", "+heater.power = true"], id="no writes"
        ),
        pytest.param(
            {"writes": {"heater": {"power": True, "level": {"value": 22, "qos": 2}}}},
            "writes",
            ["+heater.level = 22 qos 1", "-heater.level = 22 qos 2"],
            id="another promise",
        ),
        pytest.param({"logs": ["cold"]}, "logs", ["+very"], id="a line more"),
        pytest.param(
            {"logs": [{"level": "error", "text": "cold"}, "very"]},
            "logs",
            ["+info: cold", "-error: cold"],
            id="another level",
        ),
        pytest.param(
            {"state": {"count": 3, "list": [1, {"a": 1}]}},
            "state",
            ["+count = 2", "-count = 3"],
            id="another state",
        ),
        pytest.param(
            {"fetches": ["GET https://a/"]}, "fetches", ["-GET https://a/"], id="a request less"
        ),
    ],
)
def test_what_came_otherwise_is_shown_as_a_diff(then, what, lines):
    (mismatch,) = judged(then)
    assert mismatch.what == what
    changed = [it for it in mismatch.lines if it[0] in "+-" and it[:3] not in {"+++", "---"}]
    assert sorted(changed) == lines


def test_an_outcome_that_was_not_expected_is_told_with_its_message():
    failed = Completion(outcome=Outcome.FAILED, message="Error: no (a.js:1:2)")
    assert judged({}, failed) == (
        Mismatch("outcome", "the run ended as Failed, not Succeeded: Error: no (a.js:1:2)"),
    )
    assert judged({"outcome": "Failed", "message": "Error: no"}, failed) == ()
    assert judged({"outcome": "Failed", "message": "yes"}, failed) == (
        Mismatch("message", '"yes" is no part of "Error: no (a.js:1:2)"'),
    )


def test_a_line_that_is_missing_is_told_with_those_that_came():
    assert judged({"logsContain": ["warm"]}) == (
        Mismatch("logs", 'no line contains "warm"; it printed:', (" cold", " very")),
    )


def test_two_completions_are_told_apart_by_a_unified_diff():
    other = Completion(outcome=Outcome.SUCCEEDED, writes=(Write("heater", "power", True),))
    assert diff(told(CAME), told(other), "recorded", "again") == (
        "--- recorded",
        "+++ again",
        "@@ -1,8 +1,2 @@",
        " outcome Succeeded",
        "-log info: cold",
        "-log warn: very",
        "-write heater.power = false",
        " write heater.power = true",
        "-write heater.level = 22 qos 1 force true",
        "-state count = 2",
        '-state list = [1,{"a":1}]',
    )
    assert diff(told(CAME), told(CAME), "recorded", "again") == ()


def test_a_stand_in_of_an_exported_test_passes_for_what_really_came():
    instead = redacting.stand_in("canary", b"k")
    then = Then(logs=[f"token {instead}"], fetches=[f"GET https://a/?key={instead}"])
    came = Completion(outcome=Outcome.SUCCEEDED, logs=(LogLine("info", "token canary"),))
    assert judge(then, came, ["GET https://a/?key=canary"]) == ()
    assert judge(then, came, ["GET https://b/?key=canary"]) != ()
