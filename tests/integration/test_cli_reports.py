"""Reports as CI servers take them: schemas hold, and nothing that an author wrote steers a reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from reconciler.adapters import template
from reconciler.api.report import Finding, ReportObject, Summary, ValidationReport
from reconciler.cli import reports
from tests.integration.command_line import CommandLine
from tests.support import toolchains

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scriptops(capsys):
    return CommandLine(capsys)


@pytest.fixture
def repository(tmp_path):
    """One error, warnings and a note."""
    root = tmp_path / "rules"
    shutil.copytree(template.folder(), root)
    (root / "manifests/rules/broken.yaml").write_text("kind: [\n")
    (root / "scripts/thermostat/1.0.0.js").write_text(
        'function main() {\n  Device.setDeviceStatus("lamp", "power", Deno.env["x"]);\n}\n'
    )
    return root


def finding(**given: object) -> Finding:
    known = {
        "reason": "invalid-field",
        "severity": "error",
        "message": "it is wrong",
        "path": "manifests/a.yaml",
        "line": 3,
        "pointer": "/spec/env",
        "object": ReportObject(kind="Script", namespace="default", name="a"),
    }
    return Finding.model_validate({**known, **given})


def report(*findings: Finding, prefix: str = "") -> ValidationReport:
    return ValidationReport(
        scriptops="0.1.0",
        root="/rules",
        prefix=prefix,
        summary=Summary(files=1, objects=1, errors=len(findings)),
        findings=list(findings),
    )


def test_sarif_is_as_its_schema_has_it(scriptops, repository):
    document = json.loads(scriptops("validate", str(repository), "-o", "sarif").out)
    schema = json.loads(toolchains.sarif_schema().read_text())
    jsonschema.validate(document, schema)
    (run,) = document["runs"]
    assert [(it["ruleId"], it["level"]) for it in run["results"]] == [
        ("invalid-yaml", "error"),
        ("device-not-granted", "warning"),
        ("never-committed", "warning"),
        ("env-not-set", "note"),
    ]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[it["ruleIndex"]]["id"] for it in run["results"]] == [
        it["ruleId"] for it in run["results"]
    ]


def test_sarif_of_any_path_is_a_uri(scriptops):
    made = json.loads(reports.sarif(report(finding(path="manifests/ä b%.yaml"), prefix="r")))
    jsonschema.validate(made, json.loads(toolchains.sarif_schema().read_text()))
    location = made["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "r/manifests/%C3%A4%20b%25.yaml"


def test_an_alert_stays_the_same_when_it_moves_to_another_line():
    def prints(line: int) -> object:
        made = json.loads(reports.sarif(report(finding(line=line))))
        return made["runs"][0]["results"][0]["partialFingerprints"]

    assert prints(3) == prints(30)
    assert (
        prints(3)
        != json.loads(reports.sarif(report(finding(message="other"))))["runs"][0]["results"][0][
            "partialFingerprints"
        ]
    )


def test_no_more_results_are_given_than_a_forge_keeps_and_errors_come_first():
    notes = [finding(severity="note", line=n) for n in range(1, 6000)]
    made = json.loads(reports.sarif(report(*notes, finding(line=7000))))
    results = made["runs"][0]["results"]
    assert (len(results), results[0]["level"]) == (reports.MOST_SARIF_RESULTS, "error")


def test_junit_counts_what_fails(scriptops, repository):
    root = ET.fromstring(scriptops("validate", str(repository), "-o", "junit").out)  # noqa: S314 - our own output
    assert [
        (it.get("name"), it.get("tests"), it.get("failures")) for it in root.iter("testsuite")
    ] == [
        ("manifests/rules/broken.yaml", "1", "1"),
        ("scripts/thermostat/1.0.0.js", "3", "2"),
    ]
    assert [it.get("type") for it in root.iter("failure")] == ["error", "warning", "warning"]


def test_junit_is_xml_whatever_was_written():
    root = ET.fromstring(reports.junit(report(finding(message="\x00\x1b]0;x\x07 ]]> <&\ud7ff"))))  # noqa: S314 - as above
    assert next(root.iter("failure")).get("message") == "\ufffd\ufffd]0;x\ufffd ]]> <&\ufffd"


def test_annotations_stand_at_their_lines(scriptops, repository):
    lines = scriptops("validate", str(repository), "-o", "github").out.splitlines()
    assert [line.partition("::")[2].partition(" ")[0] for line in lines] == [
        *("error", "warning", "warning", "notice"),
    ]
    assert lines[1].startswith(
        "::warning file=scripts/thermostat/1.0.0.js,line=2,col=3,title=device-not-granted::"
    )


def test_what_authors_wrote_is_no_command_and_no_markup():
    bad = finding(
        message="x\n::set-output name=a::b\r%0A <img src=x> | `y`",
        path="manifests/a,line=9::b.yaml",
    )
    (line,) = reports.github(report(bad))
    assert line == (
        "::error file=manifests/a%2Cline=9%3A%3Ab.yaml,line=3,title=invalid-field"
        "::x%0A::set-output name=a::b\\r%250A <img src=x> | `y`"
    )
    row = reports.markdown(report(bad)).splitlines()[-1]
    assert row.endswith("| x\\n::set-output name=a::b\\r%0A &lt;img src=x&gt; \\| `y` |")


def test_markdown_ends_where_a_comment_has_to():
    text = reports.markdown(report(*(finding(line=n, message="m" * 200) for n in range(2000))))
    assert (len(text) < 65_536, text.endswith("The rest is cut off here.\n")) == (True, True)


@pytest.mark.parametrize("name", ["validation-report", "diff-report"])
def test_json_is_as_the_published_schema_has_it(scriptops, repository, name):
    schema = json.loads((ROOT / f"schemas/report/v1/{name}.json").read_text())
    if name == "validation-report":
        made = json.loads(scriptops("validate", str(repository), "-o", "json").out)
        jsonschema.validate(made, schema)
    jsonschema.Draft202012Validator.check_schema(schema)
