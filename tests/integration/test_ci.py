"""What CI servers are given, run as they run it: the GitHub Action, the GitLab include, the image."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reconciler.adapters import template

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "deploy/github-action/action.yml"
GITLAB = ROOT / "deploy/gitlab/scriptops.gitlab-ci.yml"
BIN = Path(sys.executable).parent
DEADLINE_SECONDS = 120


def run(folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {"HOME": str(folder), "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
        cwd=folder,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository whose branch `work` makes the thermostat colder."""
    root = tmp_path / "origin"
    shutil.copytree(template.folder(), root / "rules")
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Start")
    git(root, "checkout", "-qb", "work")
    file = root / "rules/manifests/rules/thermostat.yaml"
    file.write_text(file.read_text().replace('"19"', '"18"'))
    git(root, "commit", "-qam", "Colder")
    return root


class Runner:
    """Does with a composite action what a runner of GitHub does: environment in, files out."""

    def __init__(self, folder: Path, origin: Path) -> None:
        self.folder = folder / "workspace"
        # As actions/checkout leaves it: one commit deep.
        git(folder, "clone", "-q", "--depth=1", "--branch=work", f"file://{origin}", "workspace")
        self.output = folder / "output"
        self.summary = folder / "summary"
        self.temp = folder / "temp"
        self.base = git(origin, "rev-parse", "main")
        self.action = yaml.safe_load(ACTION.read_text())

    def check(self, **inputs: str) -> subprocess.CompletedProcess[str]:
        """The step that checks, with scriptops installed already."""
        for file in (self.output, self.summary):
            file.write_text("")
        (self.temp / "scriptops").mkdir(parents=True, exist_ok=True)
        if not (self.temp / "scriptops/bin").exists():
            (self.temp / "scriptops/bin").symlink_to(BIN)
        given = {name: it.get("default", "") for name, it in self.action["inputs"].items()}
        given |= {name.replace("_", "-"): value for name, value in inputs.items()}
        step = next(it for it in self.action["runs"]["steps"] if it.get("id") == "check")
        return run(
            self.folder,
            step["run"],
            **{name: self._evaluated(value, given) for name, value in step["env"].items()},
            GITHUB_ACTION_PATH=str(ACTION.parent),
            GITHUB_OUTPUT=str(self.output),
            GITHUB_STEP_SUMMARY=str(self.summary),
            RUNNER_TEMP=str(self.temp),
        )

    def _evaluated(self, text: str, inputs: dict[str, str]) -> str:
        known = {f"inputs.{name}": value for name, value in inputs.items()}
        known |= {"github.event.pull_request.base.sha": self.base, "github.event.before": ""}
        expression = re.fullmatch(r"\$\{\{ (.*) \}\}", text)
        assert expression is not None
        return next((v for name in expression[1].split(" || ") if (v := known[name])), "")


@pytest.fixture
def runner(tmp_path: Path, origin: Path) -> Runner:
    return Runner(tmp_path, origin)


def test_a_pull_request_is_checked_and_what_it_changes_is_in_the_summary(runner):
    done = runner.check(path="rules")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    summary = runner.summary.read_text()
    assert summary.startswith("### ✅ scriptops\n")
    assert "- **configure** `Script default/thermostat`" in summary
    assert '`/spec/env/low`: `"19"` → `"18"`' in summary
    assert runner.output.read_text().startswith("result=clean\n")
    assert json.loads((runner.folder / "scriptops.sarif").read_text())["runs"][0]["results"] == []


def test_what_is_wrong_is_annotated_and_fails_the_check(runner):
    (runner.folder / "rules/scripts/thermostat/1.0.0.js").write_text("function main() {\n  (\n}\n")
    done = runner.check(path="rules")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "::error file=rules/scripts/thermostat/1.0.0.js,line=1,title=version-immutable::"
        + version_immutable(runner.base),
        (
            "::error file=rules/scripts/thermostat/1.0.0.js,line=3,col=1,title=script-invalid::"
            "SyntaxError: Unexpected token '}'"
        ),
    ]
    assert runner.output.read_text().startswith("result=findings\n")


def version_immutable(base: str) -> str:
    return (
        f"this version has other bytes in {base}, and a version is immutable: rename the file to "
        'scripts/thermostat/1.0.1.js and set spec.manifest.version: "1.0.1"'
    )


def test_an_input_is_never_a_command(runner, tmp_path):
    done = runner.check(path='$(touch "$HOME/pwned"); `touch pwned`', namespace="a; touch pwned")
    assert done.returncode == 2
    assert list(tmp_path.rglob("pwned")) == []
    assert runner.output.read_text().startswith("result=error\n")


def test_a_name_that_forges_outputs_forges_none(runner):
    done = runner.check(path="rules", sarif_file="x\nresult=forged")
    first, opened, *value, closed = runner.output.read_text().splitlines()
    assert (done.returncode, first, opened) == (0, "result=clean", f"sarif-file<<{closed}")
    assert value == ["x", "result=forged"]


def test_the_action_takes_inputs_through_the_environment_alone():
    action = yaml.safe_load(ACTION.read_text())
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"]
        assert "uses" not in step


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        pytest.param("vendor.github-actions", ACTION, id="the action"),
        pytest.param(
            "vendor.github-workflows",
            ROOT / "repo-template/.github/workflows/rules.yaml",
            id="the workflow of the template",
        ),
        pytest.param(
            "vendor.gitlab-ci", ROOT / "repo-template/.gitlab-ci.yml", id="the template's pipeline"
        ),
    ],
)
def test_what_forges_read_is_as_their_schemas_have_it(schema, file):
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", schema, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def gitlab(**inputs: str) -> tuple[dict[str, object], str]:
    """The include's jobs as GitLab makes them of its inputs."""
    head, body = GITLAB.read_text().split("\n---\n")
    spec = yaml.safe_load(head)["spec"]["inputs"]
    values = {name: str(it["default"]) for name, it in spec.items()} | inputs
    text = re.sub(r"\$\[\[ inputs\.(\w+) \]\]", lambda m: json.dumps(values[m[1]]), body)
    return yaml.safe_load(text), body


def test_the_gitlab_job_checks_a_merge_request(tmp_path, origin):
    jobs, body = gitlab(path="rules", strict="true")
    job = jobs["scriptops"]
    git(tmp_path, "clone", "-q", "--branch=work", str(origin), "work")
    base = git(origin, "rev-parse", "main")
    done = run(
        tmp_path / "work",
        "\n".join(job["script"]),
        **job["variables"],
        CI_MERGE_REQUEST_DIFF_BASE_SHA=base,
    )
    assert done.returncode == 0, done.stderr
    made = {file: (tmp_path / "work" / file).read_text() for file in job["artifacts"]["paths"]}
    assert "`Script default/thermostat`" in made["scriptops-diff.md"]
    assert json.loads(made["scriptops.json"])["base"] == base
    junit = tmp_path / "work" / job["artifacts"]["reports"]["junit"]
    assert "nothing is wrong" in junit.read_text()
    # Inputs are values of variables, and of what GitLab itself reads.
    script = body.partition("  script:")[2].partition("  artifacts:")[0]
    assert "$[[" not in script


def test_the_gitlab_job_fails_where_something_is_wrong(tmp_path, origin):
    job = gitlab(path="rules", strict="true")[0]["scriptops"]
    git(tmp_path, "clone", "-q", "--branch=work", str(origin), "work")
    (tmp_path / "work/rules/manifests/rules/thermostat.yaml").write_text("kind: [\n")
    done = run(tmp_path / "work", "\n".join(job["script"]), **job["variables"])
    assert (done.returncode, "InvalidYaml" in done.stdout) == (1, True)


def test_the_gitlab_job_is_as_gitlabs_schema_has_it(tmp_path):
    file = tmp_path / ".gitlab-ci.yml"
    file.write_text(yaml.safe_dump(gitlab()[0]))
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.gitlab-ci", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_recipe_of_the_image_is_without_a_finding():
    recipe = ROOT / "deploy/images/Containerfile"
    command = [str(BIN / "hadolint"), str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", recipe.read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert [source for source in sources if not (ROOT / source).exists()] == []
