"""From a push to a commit status at the forge: webhook, real git, real executor, real HTTP."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.objects import SCRIPT_REPOSITORIES, SECRETS, ObjectKey, Reference
from tests.fakes.forge import FakeForge, forge
from tests.support import signing
from tests.support.gitserver import Repository, git_daemon
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE, documents, script
from tests.support.system import System

TOKEN = "glpat-t0ken"
PUSH = "hush"
BROKEN = {
    "manifests/broken.yaml": documents(script("broken", artifact="broken")),
    "scripts/broken/1.0.0.js": b"function main( {\n",
}


def secret(system: System, namespace: str, name: str, **data: str) -> None:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    document = {"apiVersion": "v1", "kind": "Secret", "data": encoded}
    metadata = {"name": name, "namespace": namespace}
    system.do(
        system.controller.cluster.apply(
            SECRETS, {**document, "metadata": metadata}, field_manager="operator", force=True
        )
    )


@pytest.fixture(params=["GitHub", "GitLab", "Gitea"])
def told(request: pytest.FixtureRequest) -> Iterator[FakeForge]:
    with forge(request.param, TOKEN) as fake:
        yield fake


def bind(system: System, namespace: str, url: object, told: FakeForge, **spec: Any) -> ObjectKey:
    secret(system, namespace, "forge", token=TOKEN)
    secret(system, namespace, "push", token=PUSH)
    return system.repository(
        namespace,
        url,
        webhook={"secretRef": {"name": "push"}},
        forge={
            "provider": told.provider,
            "url": told.url,
            "repository": "team/rules",
            "secretRef": {"name": "forge"},
        },
        **spec,
    )


def push(system: System, rules: ObjectKey, after: str, token: str = PUSH) -> tuple[int, Any]:
    body = json.dumps({"ref": "refs/heads/main", "after": after}).encode()
    request = urllib.request.Request(  # noqa: S310 - http to this machine
        f"{system.web}/api/v1alpha1/repositories/{rules.namespace}/{rules.name}/push",
        data=body,
        headers={
            "Content-Type": "application/json",
            "Host": "hooks.example.com",
            "X-Signature": f"sha256={signing.hexadecimal(body, token.encode())}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http to this machine
            return answer.status, json.load(answer)["result"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["reason"]


def ends(told: FakeForge, commit: str, state: str) -> str:
    """Wait for the verdict; its description. Before it comes at most one pending."""
    wait_until(lambda: told.states(commit)[-1:] == [state], what=f"{state} is told of {commit}")
    assert told.states(commit)[:-1] in ([], ["pending"])
    return next(it.description for it in told.told if (it.commit, it.state) == (commit, state))


def test_a_commit_is_a_success_when_its_scripts_can_run_and_a_failure_when_one_cannot(
    embedded: System, namespace: str, git: Repository, told: FakeForge
) -> None:
    failure = "failed" if told.provider == "GitLab" else "failure"
    first = git.commit(HOUSE)
    bind(embedded, namespace, git.path, told)
    assert ends(told, first, "success") == "applied; 1 Scripts ready"
    said = ends(told, git.commit(BROKEN), failure)
    assert said.startswith(f"Script {namespace}/broken cannot run: ")
    ends(told, git.commit(dict.fromkeys(BROKEN)), "success")
    said = ends(told, git.commit({"README.md": b"x"}), "success")
    assert said == "nothing to change; 1 Scripts ready"
    wrong = git.commit({"manifests/wrong.yaml": b"kind: Script"})
    assert ends(told, wrong, failure).startswith("manifests/wrong.yaml:1")
    manifests = [path for path in git.files("main") if path.startswith("manifests/")]
    said = ends(told, git.commit(dict.fromkeys(manifests)), failure)
    assert "nothing was changed" in said
    assert told.broken == []
    assert {(t.repository, t.context) for t in told.told} == {("team/rules", "scriptops/default")}


def test_a_webhook_deploys_at_once_and_commits_that_it_passed_over_are_answered(
    embedded: System, namespace: str, git: Repository
) -> None:
    with forge("Gitea", TOKEN) as told, git_daemon(git.path.parent) as url:
        first = git.commit(HOUSE)
        rules = bind(embedded, namespace, f"{url}/{git.path.name}", told, interval="1h")
        embedded.synced(rules, first)
        ends(told, first, "success")
        passed, newest = git.commit({"README.md": b"1"}), git.commit({"README.md": b"2"})
        assert push(embedded, rules, passed, token="wrong") == (403, "SignatureInvalid")
        assert push(embedded, rules, passed) == (202, "queued")
        embedded.synced(rules, newest)
        assert push(embedded, rules, newest) == (200, "current")
        said = ends(told, passed, "success")
        assert said.startswith(f"superseded by {newest[:10]}: ")
        assert ends(told, newest, "success") == "nothing to change; 1 Scripts ready"


def test_a_commit_that_is_rolled_back_is_a_failure_and_the_one_that_mends_it_a_success(
    embedded: System, namespace: str, git: Repository
) -> None:
    with forge("Gitea", TOKEN) as told:
        good = git.commit(HOUSE)
        rules = bind(embedded, namespace, git.path, told)
        ends(told, good, "success")
        bad = git.commit({"manifests/more.yaml": documents(script("more", artifact="relay"))})
        ends(told, bad, "success")
        rollback = {"revision": good, "quarantined": bad}
        embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"rollback": rollback}})
        wait_until(lambda: told.states(bad)[-1] == "failure", what="the rollback is told")
        assert told.told[-1].description.endswith(f"files stay as {good[:10]} has them")
        more = documents(script("more", artifact="relay", env={"MENDED": "yes"}))
        ends(told, git.commit({"manifests/more.yaml": more}), "success")


def test_a_forge_that_wants_a_pause_is_told_afterwards(
    embedded: System, namespace: str, git: Repository
) -> None:
    with forge("GitHub", TOKEN) as told:
        told.pauses += [(403, {"Retry-After": "1"}), (502, {})]
        commit = git.commit(HOUSE)
        bind(embedded, namespace, git.path, told)
        wait_until(lambda: told.states(commit)[-1:] == ["success"], what="it is told")
        assert told.pauses == []


def test_a_token_that_the_forge_refuses_is_an_event_of_the_repository(
    embedded: System, namespace: str, git: Repository
) -> None:
    with forge("Gitea", "another") as told:
        git.commit(HOUSE)
        rules = bind(embedded, namespace, git.path, told)
        said = wait_until(
            lambda: [m for m in events(embedded, rules) if "refuses the status" in m],
            what="the refusal is told",
        )
        assert TOKEN not in "".join(said)
        assert told.told == []


def events(system: System, key: ObjectKey) -> list[str]:
    cluster = system.controller.cluster
    assert isinstance(cluster, EmbeddedCluster)
    return [told.event.message for told in cluster.events(Reference("ScriptRepository", *key))]
