"""`scriptops diff`: what a change would do, and what it would do to runs that were recorded."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

from reconciler.adapters import template
from reconciler.api.report import DiffReport
from reconciler.core import recordings
from tests.integration.command_line import CommandLine
from tests.support.recordings import ACTIVATION, recording

SECOND_WRITER = """\
apiVersion: hit.edu.cn/v1alpha1
kind: Script
metadata:
  name: night
spec:
  writeSelector:
    matchNames:
      heater: living-room-heater
  manifest:
    scriptType: Js
    name: night
    version: 1.0.0
"""
NIGHT = """\
async function main() {
  Device.setDeviceStatus("heater", "power", false);
  await Device.commitDevice("heater");
}
"""


@pytest.fixture
def scriptops(capsys):
    return CommandLine(capsys)


@pytest.fixture
def repository(tmp_path):
    shutil.copytree(template.folder(), tmp_path / "rules")
    root = tmp_path / "rules"
    git(root, "init", "-q", "-b", "main")
    commit(root, "Start")
    return root


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True)


def commit(root: Path, message: str) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", message)


def edit(root: Path, path: str, old: str, new: str) -> None:
    file = root / path
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def recorded(root: Path, *temperatures: float) -> None:
    items = [
        orjson.loads(
            recordings.encoded(
                recording(
                    f"run-{temperature}",
                    activation={
                        **ACTIVATION,
                        "env": {"low": "19", "high": "22"},
                        "read": {
                            "thermometer": {"temperature": temperature},
                            "heater": {"power": False},
                        },
                    },
                ),
                key=b"k" * 32,
            )
        )
        for temperature in temperatures
    ]
    (root / "recordings").mkdir()
    (root / "recordings/thermostat.json").write_bytes(orjson.dumps({"items": items}))


def test_a_change_of_nothing_that_is_deployed_is_none(scriptops, repository):
    (repository / "README.md").write_text("Other words.\n")
    assert scriptops("diff", "main", str(repository)) == (
        0,
        "main..the folder changes nothing that is deployed\n",
        "no problems in 7 files; 10 objects can be deployed\n",
    )


def test_objects_are_told_by_the_fields_that_change(scriptops, repository):
    edit(repository, "manifests/rules/thermostat.yaml", 'low: "19"', 'low: "18"')
    edit(repository, "manifests/devices/hall.yaml", "every: 20000", "every: 30000")
    git(repository, "checkout", "-qb", "work")
    commit(repository, "Colder")
    code, out, _ = scriptops("diff", "main..work", str(repository))
    assert (code, out.splitlines()) == (
        1,
        [
            "~ Device default/front-door  manifests/devices/hall.yaml:2",
            "    /spec/properties/0/visitors/configData/every  20000 -> 30000",
            "~ Script default/thermostat  manifests/rules/thermostat.yaml:3",
            '    /spec/env/low  "19" -> "18"',
            "! Script default/thermostat runs once when deployed: its manifest changed",
        ],
    )
    assert scriptops("diff", "work...main", str(repository)).code == 0


def test_a_device_that_gets_a_second_writer_is_a_warning(scriptops, repository):
    (repository / "manifests/rules/night.yaml").write_text(SECOND_WRITER)
    (repository / "scripts/night").mkdir()
    (repository / "scripts/night/1.0.0.js").write_text(NIGHT)
    made = DiffReport.model_validate_json(
        scriptops("diff", "main", str(repository), "-o", "json").out
    )
    assert [it.model_dump(by_alias=True) for it in made.writers] == [
        {
            "namespace": "default",
            "device": "living-room-heater",
            "property": "power",
            "before": ["thermostat"],
            "after": ["night", "thermostat"],
            "gained": ["night"],
            "lost": [],
        }
    ]
    assert sorted((it.reason, it.severity, it.path) for it in made.findings) == [
        ("several-writers", "warning", "manifests/rules/night.yaml"),
        ("several-writers", "warning", "manifests/rules/thermostat.yaml"),
        ("writer-gained", "warning", "manifests/rules/night.yaml"),
    ]
    assert (made.summary.created, made.summary.artifacts) == (1, 1)
    assert [(it.name, it.why) for it in made.runs] == [("night", "created")]


def test_a_rule_that_goes_leaves_its_device_without_a_writer(scriptops, repository):
    (repository / "manifests/rules/door-lamp.yaml").unlink()
    out = scriptops("diff", "main", str(repository)).out
    assert "- Script default/door-lamp  manifests/rules/door-lamp.yaml:3\n" in out
    assert "! default/hall-lamp.power is written by nobody (before: door-lamp)\n" in out


def test_recorded_runs_are_tried_by_both_versions(scriptops, repository):
    recorded(repository, 17.5, 18.5)
    edit(repository, "manifests/rules/thermostat.yaml", 'low: "19"', 'low: "18"')
    made = DiffReport.model_validate_json(
        scriptops("diff", "main", str(repository), "-o", "json").out
    )
    assert [(it.id, it.same, it.before, it.after) for it in made.replays] == [
        (
            "run-17.5",
            True,
            {"outcome": "Succeeded", "writes": ["heater.power = true"]},
            {"outcome": "Succeeded", "writes": ["heater.power = true"]},
        ),
        (
            "run-18.5",
            False,
            {"outcome": "Succeeded", "writes": ["heater.power = true"]},
            {"outcome": "Succeeded", "writes": ["heater.power = false"]},
        ),
    ]
    assert (made.summary.replayed, made.summary.differing) == (2, 1)
    code, out, _ = scriptops("diff", "main", str(repository))
    assert (code, "! run run-18.5 of thermostat goes otherwise\n" in out) == (1, True)
    assert "1 of 2 recorded runs would go otherwise\n" in out
    junit = scriptops("diff", "main", str(repository), "-o", "junit").out
    assert '<testsuite name="replays" tests="2" failures="1" skipped="0">' in junit


def test_runs_that_differ_alike_are_told_once(scriptops, repository):
    recorded(repository, 18.5)
    file = repository / "recordings/thermostat.json"
    [run] = json.loads(file.read_text())["items"]
    file.write_text(json.dumps({"items": [run, {**run, "id": "run-again"}]}))
    edit(repository, "manifests/rules/thermostat.yaml", 'low: "19"', 'low: "18"')
    code, out, _ = scriptops("diff", "main", str(repository))
    assert code == 1
    assert [line for line in out.splitlines() if " go otherwise" in line] == [
        "! run run-18.5 of thermostat and 1 other go otherwise",
        "2 of 2 recorded runs would go otherwise",
    ]


def test_runs_of_rules_that_stay_as_they_are_are_not_tried(scriptops, repository):
    recorded(repository, 17.5)
    edit(repository, "manifests/rules/door-lamp.yaml", '"80"', '"70"')
    made = json.loads(scriptops("diff", "main", str(repository), "-o", "json").out)
    assert made["replays"] == []


def test_a_recording_of_a_rule_that_is_gone_says_why_it_was_not_tried(scriptops, repository):
    recorded(repository, 17.5)
    (repository / "manifests/rules/thermostat.yaml").unlink()
    out = scriptops("diff", "main", str(repository)).out
    assert (
        "? run run-17.5 of thermostat was not tried: the folder has no Script default/thermostat\n"
    ) in out


def test_only_what_is_wrong_now_and_was_not_before_is_told(scriptops, repository):
    edit(repository, "manifests/rules/door-lamp.yaml", "version: 1.0.0", "version: 2.0.0")
    commit(repository, "Break the lamp")
    (repository / "scripts/thermostat/1.0.0.js").write_text("function main( {}\n")
    made = json.loads(scriptops("diff", "main", str(repository), "-o", "json").out)
    errors = [it["reason"] for it in made["findings"] if it["severity"] == "error"]
    assert errors == ["script-invalid", "version-immutable"]


@pytest.mark.parametrize(
    ("revisions", "told"),
    [
        pytest.param("nowhere", "is no commit", id="no such commit"),
        pytest.param("main..--output=x", "is no commit", id="an option in disguise"),
    ],
)
def test_what_is_no_commit_is_an_error(scriptops, repository, revisions, told):
    code, out, err = scriptops("diff", revisions, str(repository))
    assert (code, out, told in err) == (2, "", True)


def test_a_token_is_not_sent_in_the_clear(scriptops, repository):
    code, _, err = scriptops(
        "diff", "main", str(repository), "--controller", "http://192.0.2.1", "--token", "secret"
    )
    assert (code, "write https://" in err, "secret" in err) == (2, True, False)


def test_names_in_reports_lead_from_the_top_of_the_git_repository(scriptops, repository, tmp_path):
    nested = tmp_path / "nested"
    shutil.copytree(template.folder(), nested / "rules")
    git(nested, "init", "-q", "-b", "main")
    commit(nested, "Start")
    edit(nested, "rules/manifests/rules/thermostat.yaml", "version: 1.0.0", "version: 9.0.0")
    out = scriptops("validate", str(nested / "rules"), "-o", "github").out
    assert out.startswith("::error file=rules/manifests/rules/thermostat.yaml,line=")
    made = json.loads(scriptops("diff", "main", str(nested / "rules"), "-o", "json").out)
    assert (made["prefix"], made["summary"]["configured"]) == ("rules", 1)
