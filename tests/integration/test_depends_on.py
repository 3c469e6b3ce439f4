"""A Script waits for those it depends on, by watch, and hinders nobody meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.objects import SCRIPTS, ObjectKey
from tests.support.gitserver import Repository
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import condition, executor, is_ready, serving, settings

TEAM = "team"
FIRST, SECOND, OTHER = (ObjectKey(TEAM, name) for name in ("first", "second", "other"))
BROKEN = b"function main( {"


@pytest.fixture
def git(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "srv" / "rules", "--bare")


def rules(first: str) -> dict[str, bytes]:
    return {
        "manifests/first.yaml": documents(script("first", version=first)),
        "manifests/second.yaml": documents(
            script("second", version="1.0.0", dependsOn=[{"name": "first"}])
        ),
        "manifests/other.yaml": documents(script("other")),
        "scripts/quiet/1.0.0.js": QUIET,
        "scripts/quiet/2.0.0.js": BROKEN,
    }


def test_a_script_begins_when_the_one_it_depends_on_is_ready(
    tmp_path: Path, git: Repository
) -> None:
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        system.repository(TEAM, git.path)
        git.commit(rules(first="2.0.0"))
        system.ready(OTHER)
        waiting = system.script_is(
            SECOND,
            lambda it: condition(it, "Ready").get("reason") == "DependencyNotReady",
            "the second one waits",
        )
        assert condition(waiting, "Ready")["status"] == "Unknown"
        assert condition(waiting, "Reconciling")["message"] == (
            "it depends on Script team/first, which is not ready"
        )
        assert system.runs(*SECOND) == []

        git.commit(rules(first="1.0.0"))
        system.ready(SECOND)
        assert is_ready(system.get(SCRIPTS, FIRST))

        # It has begun: what becomes of the first one does not stop it.
        git.commit(rules(first="2.0.0"))
        system.script_is(
            FIRST, lambda it: condition(it, "Ready").get("status") == "False", "the first one broke"
        )
        assert is_ready(system.get(SCRIPTS, SECOND))
