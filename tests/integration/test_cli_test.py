"""`scriptops test`: rules tested on this machine, in a real executor, without any network."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.integration.command_line import CommandLine

TEMPLATE = Path(__file__).resolve().parents[2] / "repo-template"
PATIENCE = 60

RULE = """\
async function main(event) {
  const count = (State.get("count") ?? 0) + 1;
  State.set("count", count);
  console.log(`${event?.who ?? "nobody"} at ${new Date().toISOString()}`);
  if (count > 2) {
    console.warn("often");
  }
  const answer = await fetch("https://api.example/levels?for=lamp");
  const { level } = await answer.json();
  Device.setDeviceStatus("lamp", "brightness", level);
  await Device.commitDevice("lamp");
}
"""
MANIFEST = """\
apiVersion: hit.edu.cn/v1alpha1
kind: Script
metadata: {name: lamp}
spec:
  writeSelector: {matchNames: {lamp: hall-lamp}}
  manifest: {scriptType: Js, name: lamp, version: 1.0.0}
  network: {allow: ["https://api.example"]}
"""
TESTS = """\
given:
  now: 2026-01-31T06:30:00Z
  fetch: [{url: "https://api.example/levels?for=lamp", json: {level: 7}}]
cases:
  - name: asks for the level
    when: {event: {who: door}}
    then:
      writes: {lamp: {brightness: 7}}
      logs: ["door at 2026-01-31T06:30:00.000Z"]
      state: {count: 1}
      fetches: ["GET https://api.example/levels?for=lamp"]
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A repository with the rule above, its manifest and its tests."""
    for path, content in {
        "scripts/lamp/1.0.0.js": RULE,
        "manifests/lamp.yaml": MANIFEST,
        "scripts/lamp/1.0.0.test.yaml": TESTS,
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return tmp_path


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


IN_JAVASCRIPT = """\
given({
  now: new Date("2026-01-31T06:30:00Z"),
  fetch: [{ url: "https://api.example/levels?for=lamp", json: { level: 7 } }],
});

for (const who of ["door", "window"]) {
  test(`is asked by the ${who}`, {
    when: { event: { who } },
    then: { writes: { lamp: { brightness: 7 } } },
  }, async (run) => {
    await null;
    assert.match(run.logs[0].text, new RegExp(`^${who} at 2026-01-31`));
    assert.equal(run.state, { count: 1 });
    assert.equal(run.fetches, ["GET https://api.example/levels?for=lamp"]);
    assert(run.outcome === "Succeeded");
  });
}
"""


def write_tests(rules: Path, text: str) -> None:
    (rules / "scripts/lamp/1.0.0.test.yaml").write_text(text, encoding="utf-8")


def test_the_rules_of_the_template_pass_their_tests_and_all_lines_are_reached(
    command_line: CommandLine, tmp_path: Path
) -> None:
    ended = command_line("test", str(TEMPLATE), "--coverage", "--lcov", str(tmp_path / "lcov"))
    assert ended.out == (
        "ok    scripts/door-lamp/1.0.0.test.yaml  3 passed\n"
        "ok    scripts/thermostat/1.0.0.test.yaml  4 passed\n"
        "\n"
        "coverage                     lines   not reached\n"
        "scripts/door-lamp/1.0.0.js    100%\n"
        "scripts/thermostat/1.0.0.js   100%\n"
    )
    assert ended.code == 0
    lcov = (tmp_path / "lcov").read_text()
    assert lcov.startswith("TN:\nSF:scripts/door-lamp/1.0.0.js\nDA:3,3\n")
    assert lcov.count("end_of_record") == 2


def test_the_template_validates_with_its_tests_in_it(command_line: CommandLine) -> None:
    ended = command_line("validate", str(TEMPLATE))
    assert (ended.code, ended.out) == (0, "")


def test_a_case_has_its_clock_event_state_and_answers(
    command_line: CommandLine, rules: Path
) -> None:
    ended = command_line("test", str(rules))
    assert (ended.code, ended.out) == (0, "ok    scripts/lamp/1.0.0.test.yaml  1 passed\n")


def test_a_failing_case_shows_where_it_stands_and_what_came_instead(
    command_line: CommandLine, rules: Path
) -> None:
    write_tests(rules, TESTS.replace("brightness: 7}}", "brightness: 8}}"))
    ended = command_line("test", str(rules))
    assert ended.code == 1
    assert ended.out == (
        "FAIL  scripts/lamp/1.0.0.test.yaml  0 passed, 1 failed\n"
        "\n"
        "    scripts/lamp/1.0.0.test.yaml:5  asks for the level\n"
        "      writes are not as expected\n"
        "        --- expected\n"
        "        +++ came\n"
        "        @@ -1 +1 @@\n"
        "        -lamp.brightness = 8\n"
        "        +lamp.brightness = 7\n"
        "\n"
    )
    assert ended.err.startswith("0 passed, 1 failed in ")


def test_a_request_that_the_test_does_not_answer_is_named_and_never_sent(
    command_line: CommandLine, rules: Path
) -> None:
    write_tests(rules, "cases: [{name: unanswered}]")
    ended = command_line("test", str(rules), "-o", "json")
    assert ended.code == 1
    (case,) = json.loads(ended.out)["cases"]
    assert case["mismatches"][-1]["message"] == (
        "the test has no answer to GET https://api.example/levels?for=lamp; add it to given.fetch"
    )


def test_a_failed_request_can_be_given_too(command_line: CommandLine, rules: Path) -> None:
    write_tests(
        rules,
        """
given:
  fetch: [{url: "https://api.example/levels?for=lamp", error: TimedOut}]
cases:
  - name: no answer in time
    then: {outcome: Failed, writes: {}}
""",
    )
    assert command_line("test", str(rules)).code == 0


WAITING_RULE = """\
async function main() {
  const answer = await fetch("https://api.example/levels?for=lamp");
  Device.setDeviceStatus("lamp", "brightness", (await answer.json()).level);
  const began = performance.now();
  try {
    const { reached, code } = await Device.commitDevice("lamp", 2);
    console.log(reached, code, performance.now() - began);
  } catch (error) {
    console.log(error.name, error.code);
  }
  Device.setDeviceStatus("lamp", "power", true);
  console.log((await Device.commitDevice("lamp", 1)).reached);
}
"""


def test_what_becomes_of_commits_is_given_like_answers_and_all_is_well_without(
    command_line: CommandLine, rules: Path
) -> None:
    (rules / "scripts/lamp/1.0.0.js").write_text(WAITING_RULE)
    write_tests(
        rules,
        """
given:
  fetch: [{url: "https://api.example/levels?for=lamp", json: {level: 7}}]
cases:
  - name: all is well
    then:
      logs: ["2 undefined 0", "1"]
      writes: {lamp: {brightness: {value: 7, qos: 2}, power: {value: true, qos: 1}}}
      fetches: ["GET https://api.example/levels?for=lamp"]
  - name: the lamp is slow
    given: {commit: [{device: lamp, reached: 1, ms: 2500}, {device: lamp, reached: 0}]}
    then: {logs: ["1 NotConverged 2500", "0"]}
  - name: it is refused
    given: {commit: [{device: lamp, error: Denied}]}
    then: {logsContain: ["Denied undefined"]}
  - name: the cluster is away
    given: {commit: [{device: lamp, error: Failed}]}
    then: {logsContain: ["Error Failed"]}
""",
    )
    ended = command_line("test", str(rules))
    assert (ended.code, ended.out) == (0, "ok    scripts/lamp/1.0.0.test.yaml  4 passed\n")


def test_a_commit_of_a_device_that_the_manifest_does_not_grant_is_a_mistake(
    command_line: CommandLine, rules: Path
) -> None:
    write_tests(rules, "cases: [{name: x, given: {commit: [{device: lmap}]}}]")
    ended = command_line("test", str(rules))
    assert ended.code == 1
    assert '"lmap" is not in the writeSelector of the manifest; did you mean "lamp"?' in ended.out


def test_a_place_that_the_manifest_does_not_allow_is_denied_as_in_production(
    command_line: CommandLine, rules: Path
) -> None:
    (rules / "manifests/lamp.yaml").write_text(MANIFEST.replace("api.example", "other.example"))
    ended = command_line("test", str(rules))
    assert ended.code == 1
    assert "https://api.example is not in spec.network.allow of the Script" in ended.out


def test_lines_that_no_case_reaches_are_told(command_line: CommandLine, rules: Path) -> None:
    ended = command_line("test", str(rules), "--coverage")
    assert ended.out.splitlines()[-1] == "scripts/lamp/1.0.0.js    89%   6"


def test_cases_are_chosen_by_path_script_and_word(command_line: CommandLine) -> None:
    chosen = {
        (str(TEMPLATE / "scripts/thermostat"),): 4,
        (str(TEMPLATE / "scripts/door-lamp/1.0.0.test.yaml"),): 3,
        (str(TEMPLATE / "scripts/door-lamp/1.0.0.js"),): 3,
        (str(TEMPLATE), "-k", "too"): 2,
    }
    for arguments, number in chosen.items():
        ended = command_line("test", *arguments, "-o", "json")
        assert (ended.code, json.loads(ended.out)["passed"]) == (0, number)


def test_a_skipped_case_is_counted_and_says_why_to_ci(
    command_line: CommandLine, rules: Path
) -> None:
    write_tests(rules, "cases: [{name: later, skip: 'waits for a <lamp>'}]")
    ended = command_line("test", str(rules), "-o", "junit")
    (case,) = ET.fromstring(ended.out).iter("testcase")  # noqa: S314 - we wrote it
    assert (ended.code, case.get("name")) == (0, "later")
    assert [(it.tag, it.get("message")) for it in case] == [("skipped", "waits for a <lamp>")]


def test_junit_has_a_suite_per_file_and_an_error_for_what_cannot_be_read(
    command_line: CommandLine, rules: Path
) -> None:
    write_tests(rules, TESTS.replace("{count: 1}", "{count: 2}"))
    (rules / "scripts/lamp/2.0.0.test.yaml").write_text("cases: [{nam: x}]")
    ended = command_line("test", str(rules), "-o", "junit")
    suites = ET.fromstring(ended.out)  # noqa: S314 - we wrote it
    assert ended.code == 1
    assert [dict(suite.attrib) for suite in suites] == [
        {"name": "scripts/lamp/1.0.0.test.yaml", "tests": "1", "failures": "1", "skipped": "0"},
        *(
            {"name": "scripts/lamp/2.0.0.test.yaml", "tests": "1", "errors": "1"}
            for _ in range(len(suites) - 1)
        ),
    ]
    (failure,) = suites.iter("failure")
    assert failure.text == (
        "the state is not as expected\n--- expected\n+++ came\n@@ -1 +1 @@\n-count = 2\n+count = 1"
    )


def write_program(rules: Path, text: str) -> None:
    (rules / "scripts/lamp/1.0.0.test.yaml").unlink(missing_ok=True)
    (rules / "scripts/lamp/1.0.0.test.js").write_text(text, encoding="utf-8")


def test_cases_can_be_made_and_looked_at_by_a_program(
    command_line: CommandLine, rules: Path
) -> None:
    (rules / "scripts/lamp/1.0.0.test.js").write_text(IN_JAVASCRIPT, encoding="utf-8")
    ended = command_line("test", str(rules))
    assert (ended.code, ended.out) == (
        0,
        (
            "ok    scripts/lamp/1.0.0.test.js  2 passed\n"
            "ok    scripts/lamp/1.0.0.test.yaml  1 passed\n"
        ),
    )
    assert command_line("validate", str(rules)).code == 0


def test_the_examples_of_the_page_about_tests_pass(
    command_line: CommandLine, tmp_path: Path
) -> None:
    page = (TEMPLATE.parent / "docs" / "testing-rules.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(it) for it in re.findall(r"\n\n((?:(?:    .*)?\n)+?)(?=\S)", page)]
    (written,) = [it for it in blocks if it.startswith("given:")]
    (program,) = [it for it in blocks if it.startswith("given({")]
    shutil.copytree(TEMPLATE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "scripts/thermostat/1.0.0.test.yaml").write_text(written, encoding="utf-8")
    (tmp_path / "scripts/thermostat/1.0.0.test.js").write_text(program, encoding="utf-8")
    ended = command_line("test", str(tmp_path / "scripts/thermostat"))
    assert (ended.code, ended.out.splitlines()) == (
        0,
        [
            "ok    scripts/thermostat/1.0.0.test.js  3 passed",
            "ok    scripts/thermostat/1.0.0.test.yaml  1 passed",
        ],
    )


def test_a_check_that_fails_shows_its_line_and_what_came(
    command_line: CommandLine, rules: Path
) -> None:
    write_program(rules, IN_JAVASCRIPT.replace("{ count: 1 }", "{ count: 2 }"))
    ended = command_line("test", str(rules), "-k", "door")
    assert (ended.code, ended.out) == (
        1,
        (
            "FAIL  scripts/lamp/1.0.0.test.js  0 passed, 1 failed\n"
            "\n"
            "    scripts/lamp/1.0.0.test.js:7  is asked by the door\n"
            "      not as expected (scripts/lamp/1.0.0.test.js:13)\n"
            '        -{"count":2}\n'
            '        +{"count":1}\n'
            "\n"
        ),
    )


@pytest.mark.parametrize(
    ("program", "told"),
    [
        pytest.param(
            "\ntest('x', { thn: {} });",
            ':2 /cases/0/thn  UnknownField  unknown field "thn"; did you mean "then"?',
            id="a misspelt part",
        ),
        pytest.param(
            "test('x');\ntest('x');",
            ':2 /cases/1/name  DuplicateName  the case "x" stands twice, first in line 1',
            id="a name twice",
        ),
        pytest.param(
            "\n\ntest(5);",
            ":3  InvalidTest  a test begins with its name: "
            'test("is on when ...", { given, when, then }), not 5',
            id="no name",
        ),
        pytest.param(
            "\ntest('x', (run) => {});",
            ':2  InvalidTest  test("x"): what it is given stands before the check: '
            "test(name, { given, when, then }, (run) => ...)",
            id="a check without a world",
        ),
        pytest.param(
            "const a = 1;\nconst b = {;",
            ":2  InvalidTest  SyntaxError: Unexpected token ';'",
            id="a syntax error",
        ),
        pytest.param(
            "\ntset('x');", ":2  InvalidTest  ReferenceError: tset is not defined", id="an error"
        ),
        pytest.param(
            'import x from "./x.js";',
            ":1  InvalidTest  a test file imports and exports nothing; "
            "what it calls is there: test, assert",
            id="an import",
        ),
        pytest.param(
            "// later",
            ":1  InvalidTest  it has no case; call test(name, { given, when, then })",
            id="no case",
        ),
    ],
)
def test_a_mistake_in_a_program_is_told_with_its_line(
    command_line: CommandLine, rules: Path, program: str, told: str
) -> None:
    write_program(rules, program)
    ended = command_line("test", str(rules))
    assert (ended.code, ended.out) == (1, f"FAIL  scripts/lamp/1.0.0.test.js{told}\n")


def test_github_gets_an_annotation_at_the_line_of_the_case(
    command_line: CommandLine, rules: Path
) -> None:
    write_tests(rules, TESTS.replace("{count: 1}", "{count: 2}"))
    ended = command_line("test", str(rules), "-o", "github")
    assert ended.out == (
        "::error file=scripts/lamp/1.0.0.test.yaml,line=5,title=asks for the level::"
        "the state is not as expected%0A--- expected%0A+++ came%0A@@ -1 +1 @@%0A"
        "-count = 2%0A+count = 1\n"
    )


def test_a_test_file_with_a_mistake_is_a_finding_and_the_others_run(
    command_line: CommandLine, rules: Path
) -> None:
    shutil.copy(rules / "scripts/lamp/1.0.0.js", rules / "scripts/lamp/1.1.0.js")
    (rules / "scripts/lamp/1.1.0.test.yaml").write_text("cases:\n- name: x\n  then: {log: []}\n")
    ended = command_line("test", str(rules))
    assert ended.code == 1
    assert ended.out == (
        "ok    scripts/lamp/1.0.0.test.yaml  1 passed\n"
        "FAIL  scripts/lamp/1.1.0.test.yaml:3 /cases/0/then/log  UnknownField  "
        'unknown field "log"; did you mean "logs"?\n'
    )


def test_where_there_is_no_test_it_is_said(command_line: CommandLine, rules: Path) -> None:
    ended = command_line("test", str(rules), "-k", "nothing")
    assert ended.code == 2
    assert "there is no test with 'nothing' in its name at or below" in ended.err


def test_what_a_script_prints_cannot_steer_the_terminal(
    command_line: CommandLine, rules: Path
) -> None:
    (rules / "scripts/lamp/1.0.0.js").write_text('function main() { console.log("\\x1b[2Jgone"); }')
    write_tests(rules, "cases: [{name: x, then: {logs: []}}]")
    ended = command_line("test", str(rules))
    assert "\x1b" not in ended.out
    assert "+\\x1b[2Jgone" in ended.out


@pytest.fixture
def watching(rules: Path) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "reconciler", "test", str(rules), "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield child
    if child.poll() is None:
        child.kill()
    child.communicate(timeout=PATIENCE)


def test_watching_runs_them_again_at_every_change_until_it_is_told_to_stop(
    watching: subprocess.Popen[str], rules: Path
) -> None:
    assert watching.stdout is not None
    assert watching.stderr is not None
    assert watching.stdout.readline() == "ok    scripts/lamp/1.0.0.test.yaml  1 passed\n"
    # The watch begins after the first round: a change is repeated until it has been seen.
    os.set_blocking(watching.stdout.fileno(), False)
    line, attempt = "", 0
    while not line.startswith("FAIL"):
        attempt += 1
        assert attempt < 1000
        changed = TESTS.replace("brightness: 7", "brightness: 8") + "\n" * attempt
        write_tests(rules, changed)
        try:
            watching.wait(0.1)
        except subprocess.TimeoutExpired:
            line = watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    assert watching.wait(PATIENCE) == 0
