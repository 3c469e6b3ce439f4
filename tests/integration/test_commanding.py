"""`scriptops reconcile`, `suspend` and `resume`: by command line, against a whole system."""

from __future__ import annotations

import pytest

from reconciler.core.objects import (
    ANNOTATION_REQUESTED_AT,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
    Reference,
)
from reconciler.errors import Stalled
from tests.integration.command_line import CommandLine
from tests.integration.web_server import listening
from tests.support.gitserver import Repository
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import System, is_ready, reason

RULES = {
    "manifests/rule.yaml": documents(script("rule")),
    "manifests/said.yaml": documents(script("said", suspend=False)),
    "scripts/quiet/1.0.0.js": QUIET,
}


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def test_a_repository_is_looked_at_now_and_the_outcome_is_waited_for(
    embedded: System, namespace: str, git: Repository, command_line: CommandLine
) -> None:
    url = git.path.as_uri()  # looked at by interval only
    git.commit(RULES)
    rules = embedded.repository(namespace, url, interval="24h")
    embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Applied"), "applied"
    )
    commit = git.commit({"manifests/more.yaml": documents(script("more"))})
    ended = command_line(
        *("reconcile", "rules", "--wait", "-n", namespace, "--controller", embedded.web)
    )
    assert (ended.code, ended.out) == (0, f"applied main@sha1:{commit}\n")
    assert embedded.get(SCRIPTS, ObjectKey(namespace, "more")) is not None
    live = embedded.get(SCRIPT_REPOSITORIES, rules)
    asked = live["metadata"]["annotations"][ANNOTATION_REQUESTED_AT]
    assert live["status"]["lastHandledReconcileAt"] == asked


def test_an_annotation_by_anybody_asks_for_a_reconcile(
    embedded: System, namespace: str, git: Repository, command_line: CommandLine
) -> None:
    git.commit(RULES)
    rules = embedded.repository(namespace, git.path.as_uri(), interval="24h")
    embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Applied"), "applied"
    )
    git.commit({"README.md": b"x"})
    asked = {"metadata": {"annotations": {ANNOTATION_REQUESTED_AT: "now, please"}}}
    embedded.patch(SCRIPT_REPOSITORIES, rules, asked)
    embedded.object_is(
        SCRIPT_REPOSITORIES,
        rules,
        lambda o: o["status"].get("lastHandledReconcileAt") == "now, please",
        "it was done",
    )
    # What another wrote there is not taken for the answer to what we ask.
    commit = git.commit({"README.md": b"y"})
    ended = command_line(
        *("reconcile", "rules", "--wait", "-n", namespace, "--controller", embedded.web)
    )
    assert ended.out == f"applied main@sha1:{commit}\n"


def test_an_outcome_that_is_not_good_is_exit_code_one(
    embedded: System, namespace: str, git: Repository, command_line: CommandLine
) -> None:
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(RULES))
    git.commit({"manifests/rule.yaml": b"kind: ["})
    ended = command_line(
        *("reconcile", "rules", "--wait", "-n", namespace, "--controller", embedded.web)
    )
    assert ended.code == 1
    assert "manifests/rule.yaml" in ended.out


def test_a_suspended_repository_is_not_reconciled_and_whoever_asks_is_told(
    embedded: System, namespace: str, git: Repository, command_line: CommandLine
) -> None:
    at = ("-n", namespace, "--controller", embedded.web)
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(RULES))
    ended = command_line("suspend", "repository", "rules", *at)
    assert (ended.code, ended.out) == (0, f"repository {namespace}/rules is suspended\n")
    embedded.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Suspended"), "suspended"
    )
    ended = command_line("suspend", "repository", "rules", *at)
    assert (ended.code, ended.out) == (0, f"repository {namespace}/rules is already suspended\n")
    ended = command_line("reconcile", "rules", *at)
    assert ended.code == 2
    assert f"resume it with: scriptops resume repository rules -n {namespace}" in ended.err
    commit = git.commit({"README.md": b"x"})
    ended = command_line("resume", "repository", "rules", *at)
    assert (ended.code, ended.out) == (0, f"repository {namespace}/rules is resumed\n")
    live = embedded.synced(rules, commit)
    assert "suspend" not in live["spec"]


def test_a_suspended_script_stays_so_when_its_manifest_changes(
    embedded: System, namespace: str, git: Repository, command_line: CommandLine
) -> None:
    at = ("-n", namespace, "--controller", embedded.web)
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(RULES))
    key = ObjectKey(namespace, "rule")
    embedded.ready(key)
    assert command_line("suspend", "script", "rule", *at).code == 0
    embedded.script_is(key, lambda o: reason(o) == ("True", "Suspended"), "suspended")
    newer = documents(script("rule", env={"a": "1"}))
    embedded.synced(rules, git.commit({"manifests/rule.yaml": newer}))
    live = embedded.script_is(key, lambda o: is_ready(o) and "env" in o["spec"], "newer")
    assert reason(live) == ("True", "Suspended")
    assert command_line("resume", "script", "rule", *at).code == 0
    live = embedded.script_is(key, lambda o: reason(o) == ("True", "Deployed"), "runs")
    assert "suspend" not in live["spec"]


def test_what_the_manifest_says_of_suspend_is_changed_in_git(
    embedded: System, namespace: str, git: Repository, command_line: CommandLine
) -> None:
    embedded.synced(embedded.repository(namespace, git.path), git.commit(RULES))
    ended = command_line(
        *("suspend", "script", "said", "-n", namespace, "--controller", embedded.web)
    )
    assert ended.code == 2
    assert f"the manifest of Script {namespace}/said says suspend: false" in ended.err


def test_what_is_not_there_cannot_be_suspended(
    embedded: System, namespace: str, command_line: CommandLine
) -> None:
    at = ("-n", namespace, "--controller", embedded.web)
    for what, words in (
        ("script", f"there is no Script {namespace}/x"),
        ("repository", f"there is no ScriptRepository {namespace}/x"),
    ):
        ended = command_line("suspend", what, "x", *at)
        assert (ended.code, words in ended.err) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("approve", "rules", "1234"), id="a hash that is none"),
        pytest.param(("suspend", "device", "x"), id="a kind that cannot be suspended"),
        pytest.param(("reconcile", "../x"), id="a name that is a path"),
    ],
)
def test_what_makes_no_sense_is_not_sent(
    command_line: CommandLine, arguments: tuple[str, ...]
) -> None:
    assert command_line(*arguments, "--controller", "http://127.0.0.1:9").code == 2


# The HTTP door.


def test_each_command_is_one_post() -> None:
    with listening() as door:
        base = "/api/v1alpha1/repositories/team/rules"
        answer = door.post(f"{base}/reconcile", b"")
        assert (answer.status, answer.json) == (
            202,
            {"requestedAt": "2026-01-01T00:00:00.000000+00:00"},
        )
        assert door.post(f"{base}/suspend", b"").json == {"suspend": True, "changed": True}
        assert door.post(f"{base}/resume", b"").json == {"suspend": False, "changed": True}
        assert door.post(f"{base}/approve", b'{"plan": "ab"}').json == {"plan": "ab"}
        assert door.post("/api/v1alpha1/scripts/team/rule/suspend", b"").status == 202
        rules, rule = ("ScriptRepository", "team", "rules"), ("Script", "team", "rule")
        assert door.commands.given == [
            ("reconcile", ObjectKey("team", "rules")),
            ("suspend", Reference(*rules)),
            ("resume", Reference(*rules)),
            ("approve", ObjectKey("team", "rules"), "ab"),
            ("suspend", Reference(*rule)),
        ]


def test_what_is_refused_is_said_with_its_reason() -> None:
    with listening() as door:
        path = "/api/v1alpha1/repositories/team/rules/approve"
        assert door.post(path, b"{").refusal == (400, "NotJson")
        assert door.post(path, b"{}").refusal == (400, "PlanMissing")
        assert door.post(path, b"[]").refusal == (400, "PlanMissing")
        door.commands.refusal = Stalled("no", reason="NoSuchPlan")
        assert door.post(path, b'{"plan": "x"}').refusal == (409, "NoSuchPlan")
        assert door.ask(path).status == 405


def test_pages_of_other_sites_command_nothing() -> None:
    with listening() as door:
        path = "/api/v1alpha1/repositories/team/rules/suspend"
        answer = door.post(path, b"", origin="https://evil.example")
        assert answer.refusal == (403, "CrossSite")
        assert door.commands.given == []
