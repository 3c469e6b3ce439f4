"""`scriptops validate`: every finding with file, line, place and fix, and nothing read that a push
would not bring."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.adapters import template
from reconciler.api.report import ValidationReport
from tests.executor.packing import zipped
from tests.integration.command_line import CommandLine

MANIFEST = """\
apiVersion: hit.edu.cn/v1alpha1
kind: Script
metadata:
  name: {name}
spec:
  manifest:
    scriptType: Js
    name: {name}
    version: {version}
"""


@pytest.fixture
def scriptops(capsys):
    return CommandLine(capsys)


@pytest.fixture
def repository(tmp_path):
    shutil.copytree(template.folder(), tmp_path / "rules")
    return tmp_path / "rules"


def write(root: Path, path: str, content: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def test_the_template_is_clean(scriptops, repository):
    assert scriptops("validate", str(repository)) == (
        0,
        "",
        "no problems in 7 files; 10 objects can be deployed\n",
    )


def test_all_findings_are_named_at_once_with_file_line_place_and_fix(scriptops, repository):
    write(repository, "manifests/rules/a.yaml", MANIFEST.format(name="thermostat", version="1.0.9"))
    write(repository, "manifests/rules/b.yaml", "kind: [\n")
    code, out, err = scriptops("validate", str(repository))
    assert code == 1
    assert [line.split("  ")[:2] for line in out.splitlines()] == [
        ["manifests/rules/a.yaml:1 /metadata/name", "DuplicateObject"],
        ["manifests/rules/b.yaml:2", "InvalidYaml"],
        ["manifests/rules/thermostat.yaml:3 /metadata/name", "DuplicateObject"],
    ]
    assert out.splitlines()[0].endswith(
        "Script default/thermostat is also in manifests/rules/thermostat.yaml:3; keep one, until "
        "then none is applied"
    )
    assert err == "3 problems in 9 files; 9 objects can be deployed\n"


CIRCLE = """\
apiVersion: hit.edu.cn/v1alpha1
kind: Script
metadata: {{name: {name}}}
spec:
  readSelector:
    matchNames: {{in: {source}}}
  writeSelector:
    matchNames: {{out: {target}}}
  manifest: {{scriptType: Js, name: {name}, version: 1.0.0}}
  executePolicy:
    readChange: true
    loop: {loop}
"""
NOT = """\
async function main() {
  Device.setDeviceStatus("out", "power", !Device.getDeviceStatus("in", "power"));
  await Device.commitDevice("out");
}
"""


def test_rules_that_set_each_other_off_are_refused_unless_it_is_meant(scriptops, tmp_path):
    for name, source, target in (("ping", "a", "b"), ("pong", "b", "a")):
        document = CIRCLE.format(name=name, source=source, target=target, loop="Break")
        write(tmp_path, f"manifests/{name}.yaml", document)
        write(tmp_path, f"scripts/{name}/1.0.0.js", NOT)
    code, out, _ = scriptops("validate", str(tmp_path))
    assert code == 1
    assert [line.split("  ")[:2] for line in out.splitlines()] == [
        [f"manifests/{name}.yaml:11 /spec/executePolicy/readChange", "TriggerCycle"]
        for name in ("ping", "pong")
    ]
    document = CIRCLE.format(name="ping", source="a", target="b", loop="Allow")
    write(tmp_path, "manifests/ping.yaml", document)
    assert scriptops("validate", str(tmp_path)).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["."], id="findings"),
        pytest.param(["gone"], id="an error"),
        pytest.param(["--output", "xml"], id="a word that is no format"),
        pytest.param(["--output", "json", "--no-engine"], id="for programs"),
    ],
)
def test_the_program_that_loads_no_other_verb_says_the_same(
    scriptops, repository, monkeypatch, arguments
):
    write(repository, "manifests/rules/b.yaml", "kind: [\n")
    monkeypatch.chdir(repository)
    monkeypatch.setenv("COLUMNS", "80")
    done = subprocess.run(
        [sys.executable, "-m", "reconciler", "validate", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == scriptops("validate", *arguments)


def test_an_artifact_that_is_not_there_is_a_finding_with_its_place(scriptops, tmp_path):
    write(tmp_path, "manifests/x.yaml", MANIFEST.format(name="x", version="v1.1"))
    write(tmp_path, "scripts/x/v1.0.js", "function main() {}")
    code, out, _ = scriptops("validate", str(tmp_path))
    assert code == 1
    assert out.startswith("manifests/x.yaml:9 /spec/manifest/version  ArtifactNotFound  ")


def test_a_device_that_is_not_in_the_repository_is_a_note_and_no_finding(scriptops, repository):
    write(repository, "scripts/extra/v1.js", "function main() {}")
    manifest = MANIFEST.format(name="extra", version="v1")
    manifest += "  readSelector:\n    matchNames:\n      sensor: elsewhere\n"
    write(repository, "manifests/rules/extra.yaml", manifest)
    code, out, err = scriptops("validate", str(repository))
    assert code == 0
    assert out.startswith(
        "manifests/rules/extra.yaml:12 /spec/readSelector/matchNames/sensor  "
        "DeviceNotInRepository  note: "
    )
    assert err == "no problems, 1 note in 9 files; 11 objects can be deployed\n"


def test_json_holds_the_same_findings_with_stable_reasons(scriptops, tmp_path):
    write(tmp_path, "manifests/x.yaml", MANIFEST.format(name="x", version="v1"))
    code, out, err = scriptops("validate", str(tmp_path), "-o", "json")
    document = json.loads(out)
    assert (code, err) == (1, "")
    ValidationReport.model_validate_json(out)
    assert (document["apiVersion"], document["kind"]) == (
        "report.hit.edu.cn/v1",
        "ValidationReport",
    )
    assert document["summary"] == {
        "files": 1,
        "objects": 1,
        "errors": 1,
        "warnings": 0,
        "notes": 0,
    }
    assert [{**it, "message": bool(it["message"])} for it in document["findings"]] == [
        {
            "path": "manifests/x.yaml",
            "line": 9,
            "column": 0,
            "pointer": "/spec/manifest/version",
            "reason": "artifact-not-found",
            "message": True,
            "severity": "error",
            "object": {"kind": "Script", "namespace": "default", "name": "x"},
        }
    ]


def test_a_single_file_is_checked_in_its_repository_and_only_its_findings_shown(
    scriptops, repository
):
    write(repository, "manifests/bad.yaml", "kind: [\n")
    write(repository, "manifests/rules/x.yaml", MANIFEST.format(name="x", version="v1"))
    thermostat = str(repository / "manifests/rules/thermostat.yaml")
    assert scriptops("validate", thermostat).code == 0
    code, out, _ = scriptops("validate", str(repository / "manifests/rules/x.yaml"))
    assert (code, out.count("\n"), "ArtifactNotFound" in out) == (1, 1, True)
    assert scriptops("validate", str(repository / "manifests/rules")).out == out


def test_links_are_refused_and_never_followed(scriptops, repository, tmp_path):
    write(tmp_path, "secret.yaml", "password: hunter2\n")
    (repository / "manifests/link.yaml").symlink_to(tmp_path / "secret.yaml")
    (repository / "scripts/loop").symlink_to(repository / "scripts")
    code, out, _ = scriptops("validate", str(repository))
    assert code == 1
    assert "hunter2" not in out
    assert [line.split("  ")[:2] for line in out.splitlines()] == [
        ["manifests/link.yaml", "SymbolicLink"],
        ["scripts/loop", "SymbolicLink"],
    ]


def test_a_file_too_large_is_refused_unread_and_the_rest_is_checked(scriptops, repository):
    with (repository / "manifests/huge.yaml").open("wb") as file:
        file.truncate(1 << 31)
    code, out, err = scriptops("validate", str(repository))
    assert (code, out) == (
        1,
        "manifests/huge.yaml  FileTooLarge  is larger than 1048576 bytes; split it\n",
    )
    assert err == "1 problem in 7 files; 10 objects can be deployed\n"


def test_what_authors_wrote_cannot_steer_the_terminal(scriptops, tmp_path):
    write(tmp_path, "manifests/x.yaml", 'kind: "\\e]0;pwned\\a\\e[31m"\n')
    code, out, _ = scriptops("validate", str(tmp_path))
    assert code == 1
    assert all(c.isprintable() for c in out.replace("\n", ""))


def test_a_folder_without_rules_is_an_error_that_says_how_to_start(scriptops, tmp_path):
    code, out, err = scriptops("validate", str(tmp_path))
    assert (code, out) == (2, "")
    assert "scriptops init makes one to start from" in err
    assert err.startswith("error: ")


def test_a_path_that_is_not_there_is_an_error(scriptops, tmp_path):
    code, _, err = scriptops("validate", str(tmp_path / "absent"))
    assert (code, err) == (2, f"error: there is no file or folder {tmp_path / 'absent'}\n")


def test_another_namespace_is_a_finding_until_it_is_allowed(scriptops, tmp_path):
    manifest = MANIFEST.format(name="x", version="v1").replace(
        "name: x\nspec", "name: x\n  namespace: other\nspec"
    )
    write(tmp_path, "manifests/x.yaml", manifest)
    write(tmp_path, "scripts/x/v1.js", "function main() {}")
    code, out, _ = scriptops("validate", str(tmp_path))
    assert (code, "/metadata/namespace" in out) == (1, True)
    assert scriptops("validate", str(tmp_path), "--allow-namespace", "other").code == 0


def test_packages_are_unpacked_and_told_what_is_wrong_with_them(scriptops, repository):
    good = repository / "scripts/good"
    good.mkdir()
    (good / "1.0.zip").write_bytes(zipped({"main.js": "export function main() {}"}))
    (good / "1.1.zip").write_bytes(zipped({"rule.js": "export function main() {}"}))
    (good / "1.2.gz").write_bytes(b"function main() {}")
    write(repository, "manifests/rules/good.yaml", MANIFEST.format(name="good", version='"1.0"'))
    code, out, _ = scriptops("validate", str(repository))
    assert (code, out) == (
        1,
        (
            'scripts/good/1.1.zip  PackageInvalid  the package names no entry: add main.js, or "main" in '
            "a package.json at its top\n"
            "scripts/good/1.2.gz  PackageInvalid  this is not gzip (Error -3 while decompressing data: "
            "incorrect header check); pack it anew with `gzip -9 -n`\n"
        ),
    )


def test_a_script_that_does_not_parse_is_told_with_line_and_column(scriptops, repository):
    write(repository, "scripts/thermostat/1.0.0.js", "function main() {\n  if (;\n}\n")
    code, out, _ = scriptops("validate", str(repository))
    assert (code, out.splitlines()[0]) == (
        1,
        "scripts/thermostat/1.0.0.js:2:7  ScriptInvalid  SyntaxError: Unexpected token ';'",
    )


@pytest.mark.parametrize(
    ("source", "told"),
    [
        pytest.param(
            "import { x } from './lib.js';\nexport function main() { x(); }\n",
            "leads to another file, and this artifact is a single one",
            id="a file that is not in the artifact",
        ),
        pytest.param(
            "import _ from 'lodash';\nexport function main() { _(); }\n",
            "is not a file of this package",
            id="a package of npm",
        ),
        pytest.param("const x = 1;\n", "main", id="a script without main"),
    ],
)
def test_what_an_executor_would_not_load_is_an_error(scriptops, repository, source, told):
    write(repository, "scripts/thermostat/1.0.0.js", source)
    code, out, _ = scriptops("validate", str(repository))
    assert (code, told in out, "ScriptInvalid" in out) == (1, True, True)


def test_nothing_of_a_script_is_run(scriptops, repository):
    write(repository, "scripts/extra/1.js", "throw new Error('boom');\nfunction main() {}\n")
    assert scriptops("validate", str(repository)).code == 0


RULE = """\
const HEATER = "heater";
async function main() {
  const { getDeviceStatus } = Device;
  getDeviceStatus("thermometer", "temprature");
  Device.setDeviceStatus(HEATER, "power", "hot");
  Device.setDeviceStatus("lamp", "power", true);
  await Device.commitDevice(HEATER);
  await fetch("https://example.org/x");
  return Deno.env["lwo"];
}
"""


def test_what_a_script_uses_is_held_against_manifest_and_models(scriptops, repository):
    write(repository, "scripts/thermostat/1.0.0.js", RULE)
    code, out, err = scriptops("validate", str(repository))
    assert (code, err) == (
        0,
        "no problems, 5 warnings, 1 note in 7 files; 10 objects can be deployed\n",
    )
    file, who = "scripts/thermostat/1.0.0.js", "Script default/thermostat"
    assert out.splitlines() == [
        (
            f"{file}:4:3  PropertyUnknown  warning: living-room-thermometer ({who}) has no property "
            '"temprature"; did you mean "temperature"?'
        ),
        f"{file}:5:3  WriteRefused  warning: {who}: property power is BOOLEAN, not 'hot'",
        (
            f'{file}:6:3  DeviceNotGranted  warning: "lamp" is not in the writeSelector of {who}; '
            "it has heater"
        ),
        (
            f'{file}:6:3  NeverCommitted  warning: {who}: what is staged for "lamp" is dropped; write '
            '`await Device.commitDevice("lamp")`'
        ),
        (
            f'{file}:8:9  FetchNotAllowed  warning: {who} may not fetch "https://example.org/x"; name '
            "its place in spec.network.allow, and the operator has to allow it too"
        ),
        (
            f'{file}:9:10  EnvNotSet  note: {who} sets no "lwo" in env, so it is undefined; '
            'did you mean "low"?'
        ),
    ]
    assert scriptops("validate", str(repository), "--strict").code == 1
    assert scriptops("validate", str(repository), "--no-engine", "--strict").code == 0


def test_rules_are_told_with_what_they_read_and_write(scriptops, repository):
    rules = json.loads(scriptops("validate", str(repository), "-o", "json").out)["rules"]
    assert rules[1] == {
        "namespace": "default",
        "name": "thermostat",
        "artifact": "thermostat/1.0.0",
        "reads": [
            {"device": "living-room-heater", "property": "power", "alias": "heater"},
            {
                "device": "living-room-thermometer",
                "property": "temperature",
                "alias": "thermometer",
            },
        ],
        "writes": [{"device": "living-room-heater", "property": "power", "alias": "heater"}],
        "env": ["high", "low"],
        "fetches": [],
        "exact": True,
    }


def test_conditions_are_held_against_the_models(scriptops, repository):
    file = repository / "manifests/rules/thermostat.yaml"
    when = "readChange: true\n    when:\n      - {read: heater, property: power, equals: on}\n"
    file.write_text(file.read_text().replace("readChange: true\n", when))
    _, out, _ = scriptops("validate", str(repository), "--no-engine")
    assert out == (
        "manifests/rules/thermostat.yaml:25 /spec/executePolicy/when/0/equals  "
        "ConditionNeverHolds  warning: property power is BOOLEAN, not 'on', so this never holds\n"
    )


def test_devices_are_held_against_their_models_and_the_simulator(scriptops, repository):
    file = repository / "manifests/devices/living-room.yaml"
    text = file.read_text()
    text = text.replace("- name: temperature", "- name: temprature")
    text = text.replace(
        "{simulate: follow, start: false}", "{simulate: follow, start: 3, dealy: 1}"
    )
    file.write_text(text + "      desired: {value: 'hot'}\n")
    code, out, _ = scriptops("validate", str(repository))
    assert code == 0
    assert [line.split("  ", 1)[1] for line in out.splitlines()] == [
        (
            "PropertyNotInModel  warning: DeviceModel thermometer has no property "
            '"temprature"; did you mean "temperature"?'
        ),
        (
            "InvalidSimulation  warning: it reports what its DeviceModel does not allow: "
            "property power is BOOLEAN, not '3'"
        ),
        'InvalidSimulation  warning: follow takes no "dealy"; did you mean "delay"?',
        "ValueNotInModel  warning: property power is BOOLEAN, not 'hot'; it will be refused",
    ]
    assert [line.split(" ")[0].rpartition(":")[2] for line in out.splitlines()] == [
        *("12", "31", "31", "32"),
    ]


def test_a_version_of_the_base_branch_keeps_its_bytes(scriptops, repository):
    git = committed(repository)
    assert scriptops("validate", str(repository), "--base", "main").code == 0
    write(repository, "scripts/thermostat/1.0.0.js", "function main() {}")
    code, out, _ = scriptops("validate", str(repository), "--base", "main")
    assert (code, out) == (
        1,
        (
            "scripts/thermostat/1.0.0.js  VersionImmutable  this version has other bytes in main, and a "
            "version is immutable: rename the file to scripts/thermostat/1.0.1.js and set "
            'spec.manifest.version: "1.0.1"\n'
        ),
    )
    git("checkout", "-q", "-b", "work")
    git("commit", "-qam", "Change it in place")
    assert scriptops("validate", str(repository), "--base", "main").code == 1
    assert scriptops("validate", str(repository), "--base", "work").code == 0
    code, _, err = scriptops("validate", str(repository), "--base", "nowhere")
    assert (code, "nowhere" in err, "is no commit" in err) == (2, True, True)


def test_attributes_of_git_hide_nothing_of_the_base(scriptops, repository):
    write(repository, ".gitattributes", "scripts/** export-ignore\n*.js text eol=crlf\n")
    committed(repository)
    (repository / "scripts/thermostat/1.0.0.js").write_bytes(b"function main() {}\n")
    assert scriptops("validate", str(repository), "--base", "main").code == 1


def test_reports_are_written_beside_what_is_printed(scriptops, repository, tmp_path):
    write(repository, "manifests/rules/a.yaml", MANIFEST.format(name="a", version="1"))
    wanted = {form: tmp_path / form for form in ("json", "junit", "sarif", "github", "markdown")}
    options = [part for form, file in wanted.items() for part in ("--report", f"{form}={file}")]
    code, out, _ = scriptops("validate", str(repository), *options)
    assert (code, out.count("\n")) == (1, 1)
    for form, file in wanted.items():
        assert file.read_text() == scriptops("validate", str(repository), "-o", form).out
    code, _, err = scriptops("validate", str(repository), "--report", "pdf=x")
    assert (code, "is not FORMAT=FILE" in err) == (2, True)


def committed(repository: Path):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=repository, check=True)

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-qm", "Start")
    return git


def test_scripts_that_wait_for_each_other_and_for_a_later_wave_are_found(scriptops, tmp_path):
    def waits(name: str, rest: str) -> None:
        write(tmp_path, f"scripts/{name}/v1.js", "function main() {}")
        manifest = MANIFEST.format(name=name, version="v1")
        write(tmp_path, f"manifests/{name}.yaml", manifest + rest)

    waits("a", "  dependsOn:\n    - name: b\n")
    waits("b", "  dependsOn:\n    - name: c\n")
    waits("c", "  dependsOn:\n    - name: a\n")
    waits("d", "  dependsOn:\n    - name: b\n    - name: e\n")
    waits("e", "  wave: 1\n")
    waits("f", "  wave: 2\n  dependsOn:\n    - name: e\n")
    code, out, err = scriptops("validate", str(tmp_path))
    assert code == 1
    circle = (
        "DependencyCycle  default/a, default/b, default/c wait for each other, so none is "
        "deployed; remove one dependsOn"
    )
    later = (
        "DependencyOfLaterWave  Script default/e is of wave 1, which waits for wave 0 and so for "
        "Script default/d: none of the two is deployed; remove the dependsOn or change a wave"
    )
    assert out.splitlines() == [
        f"manifests/a.yaml:10 /spec/dependsOn  {circle}",
        f"manifests/b.yaml:10 /spec/dependsOn  {circle}",
        f"manifests/c.yaml:10 /spec/dependsOn  {circle}",
        f"manifests/d.yaml:12 /spec/dependsOn/1/name  {later}",
    ]
    assert err.startswith("4 problems in 12 files")
