"""A rollback without a commit: it stays, it hinders nobody, and ends when the branch moves on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from tests.integration.command_line import CommandLine
from tests.support.gitserver import Repository
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import System, condition, serving, settings

TEAM = "team"
RULES = ObjectKey(TEAM, "rules")
ONE, TWO = ObjectKey(TEAM, "one"), ObjectKey(TEAM, "two")


@pytest.fixture
def git(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "srv" / "rules", "--bare")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def rules(**limits: str) -> dict[str, bytes]:
    """A manifest per Script, with the limit that tells versions of it apart."""
    return {
        f"manifests/{name}.yaml": documents(script(name, env={"limit": limit}))
        for name, limit in limits.items()
    }


def limits(system: System) -> dict[str, str]:
    return {
        name: found["spec"]["env"]["limit"] for name, found in system.all(SCRIPTS, TEAM).items()
    }


def settled(system: System, commit: str, reason: str) -> Any:
    """The repository once it is at `commit` and its Ready says `reason`."""
    return system.object_is(
        SCRIPT_REPOSITORIES,
        RULES,
        lambda found: (
            str((found.get("status") or {}).get("revision", "")).endswith(commit)
            and condition(found, "Ready").get("reason") == reason
        ),
        f"{RULES} is {reason} at {commit}",
    )


def test_what_was_rolled_back_stays_away_until_the_branch_changes_it(
    tmp_path: Path, git: Repository, command: CommandLine
) -> None:
    with serving(settings(tmp_path / "data")) as system:
        system.repository(TEAM, git.path)
        artifact = {"scripts/quiet/1.0.0.js": QUIET}
        good = git.commit({**rules(one="1", two="1"), **artifact})
        settled(system, good, "Applied")
        bad = git.commit(rules(one="2", new="2"))
        settled(system, bad, "Applied")

        asked = command("rollback", "rules", "-n", TEAM, "--controller", system.web)
        assert (asked.code, asked.err) == (0, "")
        assert f"what {bad[:10]} has changed is held as in {good[:10]}" in asked.out
        held = settled(system, bad, "RolledBack")
        assert held["status"]["rollback"] == {"revision": good, "quarantined": bad, "files": 2}
        assert limits(system) == {"one": "1", "two": "1"}

        # Another rule goes out, and does not bring the bad one back.
        other = git.commit(rules(two="3"))
        settled(system, other, "RolledBack")
        assert limits(system) == {"one": "1", "two": "3"}

        mended = git.commit(rules(one="4"))
        settled(system, mended, "RolledBack")
        assert limits(system) == {"one": "4", "two": "3"}
        over = git.commit({"manifests/new.yaml": None})
        found = settled(system, over, "Applied")
        assert found["status"]["rollback"]["files"] == 0
        assert limits(system) == {"one": "4", "two": "3"}

        shown = command("history", "rules", "-n", TEAM, "--controller", system.web)
        lines = [line.split() for line in shown.out.splitlines()[1:]]
        assert [line[0].rpartition(":")[2] for line in lines] == [
            commit[:10] for commit in (mended, other, bad, bad, good)
        ]
        assert [line[-1] for line in lines[:3]] == [good[:10]] * 3


def test_a_rollback_outlives_the_controller_and_is_undone_by_one_command(
    tmp_path: Path, git: Repository, command: CommandLine
) -> None:
    with serving(settings(tmp_path / "data")) as system:
        system.repository(TEAM, git.path)
        good = git.commit({**rules(one="1"), "scripts/quiet/1.0.0.js": QUIET})
        settled(system, good, "Applied")
        bad = git.commit(rules(one="2"))
        settled(system, bad, "Applied")
        command("rollback", "rules", good[:9], "-n", TEAM, "--controller", system.web)
        settled(system, bad, "RolledBack")
    with serving(settings(tmp_path / "data")) as system:
        noted = git.commit({"README.md": b"nothing to deploy"})
        settled(system, noted, "RolledBack")
        assert limits(system) == {"one": "1"}
        undone = command("rollback", "rules", "--undo", "-n", TEAM, "--controller", system.web)
        assert undone.out == "team/rules: the rollback has ended\n"
        settled(system, noted, "Applied")
        assert limits(system) == {"one": "2"}


def test_a_revision_that_nobody_knows_is_refused_with_those_that_are_kept(
    tmp_path: Path, git: Repository, command: CommandLine
) -> None:
    with serving(settings(tmp_path / "data")) as system:
        system.repository(TEAM, git.path)
        settled(system, git.commit({**rules(one="1"), "scripts/quiet/1.0.0.js": QUIET}), "Applied")
        asked = command("rollback", "rules", "abcdef123", "-n", TEAM, "--controller", system.web)
        assert (asked.code, asked.out) == (2, "")
        assert "'abcdef123' is no revision to go back to; kept are: none" in asked.err
