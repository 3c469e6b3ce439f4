"""The hooks of pre-commit, installed and run by pre-commit itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reconciler.adapters import template

ROOT = Path(__file__).parents[2]
# What an installation is built from.
SOURCES = (
    *(".pre-commit-hooks.yaml", ".gitignore", "pyproject.toml", "README.md", "LICENSE"),
    *("reconciler", "executor", "proto", "schemas", "deploy/crds", "repo-template"),
)
# An environment with all that scriptops needs is some 40 wheels.
DEADLINE_SECONDS = 400


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "core.hooksPath=/dev/null"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with what stands here, as a release would have it."""
    root = tmp_path_factory.mktemp("scriptops")
    ignored = shutil.ignore_patterns("node_modules", "__pycache__", "*.pyc")
    for name in SOURCES:
        source = ROOT / name
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=ignored)
        else:
            shutil.copy(source, root / name)
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Release")
    git(root, "tag", "v0.1.0")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pre-commit")


@pytest.fixture
def repository(tmp_path: Path, hooks: Path) -> Path:
    root = tmp_path / "rules"
    shutil.copytree(template.folder(), root)
    config = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())
    config["repos"][0]["repo"] = str(hooks)
    config["repos"][0]["hooks"].append({"id": "scriptops-validate-all", "stages": ["manual"]})
    (root / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Start")
    return root


def run(root: Path, cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", "run", *arguments],
        cwd=root,
        env={**os.environ, "PRE_COMMIT_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def test_hooks_pass_the_template_and_stop_a_commit_that_is_wrong(repository, cache):
    clean = run(repository, cache, "--all-files")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    # What stands above is told of the installation.
    hooks = clean.stdout.splitlines()[-2:]
    assert [line.rpartition(".")[2] for line in hooks] == ["Passed", "Passed"]

    # Of a commit only the files in it are told; of the whole repository all.
    thermostat = repository / "manifests/rules/thermostat.yaml"
    thermostat.write_text(thermostat.read_text().replace("version: 1.0.0", "version: 9.9.9"))
    git(repository, "add", "-A")
    lamp = repository / "manifests/rules/door-lamp.yaml"
    lamp.write_text(lamp.read_text().replace("version: 1.0.0", "version: 8.8.8"))
    git(repository, "add", "-A")
    told = run(
        repository, cache, "scriptops-validate", "--files", "manifests/rules/thermostat.yaml"
    )
    assert (told.returncode, "9.9.9" in told.stdout, "8.8.8" in told.stdout) == (1, True, False)
    everything = run(repository, cache, "scriptops-validate-all", "--hook-stage", "manual")
    assert everything.returncode == 1
    assert ("9.9.9" in everything.stdout, "8.8.8" in everything.stdout) == (True, True)
