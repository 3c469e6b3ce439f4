"""`scriptops validate`: every finding with file, line, place and fix, and nothing read that a push
would not bring."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reconciler.adapters import template
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
        ["manifests/rules/thermostat.yaml:2 /metadata/name", "DuplicateObject"],
    ]
    assert out.splitlines()[0].endswith(
        "Script default/thermostat is also in manifests/rules/thermostat.yaml:2; keep one, until "
        "then none is applied"
    )
    assert err == "3 problems in 9 files; 9 objects can be deployed\n"


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


def test_json_holds_the_same_findings(scriptops, tmp_path):
    write(tmp_path, "manifests/x.yaml", MANIFEST.format(name="x", version="v1"))
    code, out, err = scriptops("validate", str(tmp_path), "-o", "json")
    document = json.loads(out)
    assert (code, err, document["files"], document["objects"]) == (1, "", 1, 1)
    assert [{**p, "message": bool(p["message"])} for p in document["problems"]] == [
        {
            "path": "manifests/x.yaml",
            "line": 9,
            "pointer": "/spec/manifest/version",
            "reason": "ArtifactNotFound",
            "message": True,
            "severity": "error",
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
