"""Test files of scripts: what they may say, what they borrow from manifests, how they fail."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from reconciler.api.script import ScriptSpec
from reconciler.core import fixtures
from reconciler.core.fixtures import Subject
from reconciler.core.objects import ObjectKey

PATH = PurePosixPath("scripts/thermostat/1.0.0.test.yaml")
KEY = ObjectKey("default", "thermostat")
SPEC = ScriptSpec.model_validate(
    {
        "readSelector": {"matchNames": {"thermometer": "t1", "heater": "h1"}},
        "writeSelector": {"matchNames": {"heater": "h1"}},
        "env": {"low": "19", "high": "22"},
        "manifest": {"scriptType": "Js", "name": "thermostat", "version": "1.0.0"},
    }
)


def read(text, deployed=None):
    return fixtures.read(PATH, text.encode(), {KEY: SPEC} if deployed is None else deployed)


def only(text, deployed=None):
    file = read(text, deployed)
    assert file.problems == ()
    (fixture,) = file.fixtures
    return fixture


@pytest.mark.parametrize(
    ("path", "tested"),
    [
        pytest.param("scripts/a/1.0.0.test.yaml", Subject("a", "1.0.0"), id="beside its version"),
        pytest.param("scripts/a/0.1_b.test.yml", Subject("a", "0.1_b"), id="the other suffix"),
        pytest.param("scripts/a/1.0.0.test.js", Subject("a", "1.0.0"), id="a program"),
        pytest.param("scripts/a/1.0.0.yaml", None, id="no test"),
        pytest.param("scripts/a/b/1.test.yaml", None, id="too deep"),
        pytest.param("manifests/a/1.test.yaml", None, id="not among scripts"),
        pytest.param("scripts/a/.1.test.yaml", None, id="hidden"),
        pytest.param("scripts/a/.test.yaml", None, id="of no version"),
    ],
)
def test_a_test_file_is_known_by_its_place_and_name(path, tested):
    assert fixtures.parse_path(PurePosixPath(path)) == tested


def test_a_case_that_says_nothing_has_the_world_of_its_manifest():
    fixture = only("cases: [{name: plain}]")
    assert fixture.script == KEY
    assert fixture.activation == {
        "now": 1_767_225_600_000,
        "seed": 1,
        "cause": "ReadChange",
        "event": None,
        "env": {"low": "19", "high": "22"},
        "read": {"thermometer": {}, "heater": {}},
        "write": ["heater"],
        "state": {},
    }


def test_a_case_adds_to_what_its_file_gives_and_says_otherwise():
    fixture = only("""
given:
  devices: {thermometer: {temperature: 20, humidity: 40}, heater: {power: false}}
  env: {low: "18"}
  state: {count: 1}
  seed: 7
  now: 2026-01-31T06:30:00+01:00
cases:
  - name: colder
    given:
      devices: {thermometer: {temperature: 1.5}}
      env: {extra: "on"}
      state: {since: [1, 2]}
    when: {cause: Webhook, event: {a: [1]}}
""")
    assert fixture.activation == {
        "now": 1_769_837_400_000,
        "seed": 7,
        "cause": "Webhook",
        "event": {"a": [1]},
        "env": {"low": "18", "high": "22", "extra": "on"},
        "read": {"thermometer": {"temperature": 1.5, "humidity": 40}, "heater": {"power": False}},
        "write": ["heater"],
        "state": {"count": 1, "since": [1, 2]},
    }


def test_without_a_manifest_a_case_brings_its_own_devices():
    fixture = only(
        "cases: [{name: x, given: {devices: {a: {p: 1}}}, then: {writes: {b: {q: 2}}}}]", {}
    )
    assert (fixture.script, fixture.spec) == (None, None)
    assert fixture.activation["read"] == {"a": {"p": 1}}
    assert fixture.activation["write"] == ["b"]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param(
            "cases:\n- name: x\n  then: {wrties: {}}",
            [(3, "/cases/0/then/wrties", 'unknown field "wrties"; did you mean "writes"?')],
            id="a field misspelt",
        ),
        pytest.param("cases: []", [(1, "/cases", None)], id="no case"),
        pytest.param("given: {}", [(1, "/cases", "cases is missing; add it")], id="no list"),
        pytest.param(
            "cases:\n- name: x\n  given: {env: {low: 19}}",
            [
                (
                    3,
                    "/cases/0/given/env/low",
                    "low must be a string, and 19 is none; put it in quotes",
                )
            ],
            id="a number in the environment",
        ),
        pytest.param(
            "cases:\n- name: x\n- name: x",
            [(3, "/cases/1/name", 'the case "x" stands twice, first in line 2')],
            id="a name twice",
        ),
        pytest.param(
            "cases:\n- name: x\n  given: {devices: {thermomter: {t: 1}}}",
            [
                (
                    3,
                    "/cases/0/given/devices/thermomter",
                    (
                        '"thermomter" is not in the readSelector of the manifest; '
                        'did you mean "thermometer"?'
                    ),
                )
            ],
            id="a device that production will not have",
        ),
        pytest.param(
            "cases:\n- name: x\n  then: {writes: {thermometer: {t: 1}}}",
            [
                (
                    3,
                    "/cases/0/then/writes/thermometer",
                    '"thermometer" is not in the writeSelector of the manifest; it has heater',
                )
            ],
            id="a write that production will refuse",
        ),
        pytest.param(
            "cases:\n- name: x\n  given: {now: tomorrow}",
            [
                (
                    3,
                    "/cases/0/given/now",
                    "now: 'tomorrow' is no point in time; write it as 2026-01-31T06:30:00Z",
                )
            ],
            id="a time that is none",
        ),
        pytest.param(
            "script: thermostt\ncases: [{name: x}]",
            [
                (
                    1,
                    "/script",
                    'there is no Script "thermostt" in the manifests; did you mean "thermostat"?',
                )
            ],
            id="a Script that is not there",
        ),
        pytest.param(
            "cases: [{name: x}]\n---\ncases: [{name: y}]",
            [(1, "", "a test file is one document with a list of cases; move them into one")],
            id="two documents",
        ),
        pytest.param(
            "cases: &a [{name: x}]",
            [(1, "/cases", "the anchor &a is not used here; remove it")],
            id="an anchor",
        ),
        pytest.param("cases: [", [(2, "", None)], id="no YAML"),
    ],
)
def test_what_is_wrong_is_said_with_line_place_and_fix(text, problems):
    found = read(text)
    assert found.fixtures == ()
    assert [(p.line, p.pointer) for p in found.problems] == [(line, at) for line, at, _ in problems]
    for problem, (_, _, words) in zip(found.problems, problems, strict=True):
        assert words is None or problem.message == words


def test_which_of_two_scripts_is_meant_must_be_said():
    two = {KEY: SPEC, ObjectKey("default", "upstairs"): SPEC}
    (problem,) = read("cases: [{name: x}]", two).problems
    assert problem.message == (
        "default/thermostat, default/upstairs deploy this version; "
        "say which is meant with script: <name>"
    )
    assert only("{script: upstairs, cases: [{name: x}]}", two).script == ("default", "upstairs")


def test_a_property_that_the_model_has_not_is_no_test_of_what_production_sees():
    text = """\
given: {devices: {thermometer: {humidity: 3}}}
cases:
  - name: misspelt
    given: {devices: {thermometer: {temprature: 3}}}
    then: {writes: {heater: {powr: true, power: true}}}
  - name: not of a model that is known
    given: {devices: {heater: {}}}
"""
    has = {ObjectKey("default", "t1"): ("temperature",), ObjectKey("default", "h1"): ("power",)}
    file = fixtures.read(PATH, text.encode(), {KEY: SPEC}, has.__getitem__)
    assert file.fixtures == ()
    assert [(it.line, it.pointer, it.message) for it in file.problems] == [
        (
            4,
            "/cases/0/given/devices/thermometer/temprature",
            'the model of "thermometer" has no property "temprature"; did you mean "temperature"?',
        ),
        (
            5,
            "/cases/0/then/writes/heater/powr",
            'the model of "heater" has no property "powr"; did you mean "power"?',
        ),
        (
            1,
            "/given/devices/thermometer/humidity",
            'the model of "thermometer" has no property "humidity"; it has temperature',
        ),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "# later", "the test file is empty; begin with cases: and a list of them", id="empty"
        ),
        pytest.param("cases: []", "cases is empty; write at least one item", id="no case"),
        pytest.param(
            "cases: [{name: x, given: {fetch: [{url: u, body: b, json: 1}]}}]",
            "fetch[0]: it has body and json; keep one of them",
            id="two bodies",
        ),
    ],
)
def test_what_is_missing_or_too_much_is_said_with_what_to_do(text, message):
    assert [problem.message for problem in read(text).problems] == [message]
