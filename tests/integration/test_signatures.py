"""From a push to SourceVerified: real keys, a real git server, a whole controller."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, SECRETS, ObjectKey, Reference
from tests.fakes.forge import forge
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository, git_daemon
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE, QUIET, documents, script
from tests.support.signers import SshSigner
from tests.support.system import Process, System, condition, reason

MORE = {
    "manifests/more.yaml": documents(script("more", artifact="more")),
    "scripts/more/1.0.0.js": QUIET,
}
VERIFY = {"verify": {"secretRef": {"name": "signers"}}}


@pytest.fixture
def url(git: Repository) -> Iterator[str]:
    with git_daemon(git.path.parent) as base:
        yield f"{base}/{git.path.name}"


@pytest.fixture
def alice(tmp_path: Path) -> SshSigner:
    return SshSigner(tmp_path, "alice")


def give(system: System, namespace: str, **data: str) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "signers", "namespace": namespace},
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in data.items()},
    }
    system.do(system.hands.apply(SECRETS, document, field_manager="operator", force=True))


def verified(system: System, rules: ObjectKey, status: str, why: str) -> Any:
    """The repository once SourceVerified says so."""
    return system.object_is(
        SCRIPT_REPOSITORIES,
        rules,
        lambda found: (
            (told := condition(found, "SourceVerified"))
            and (told["status"], told["reason"]) == (status, why)
        ),
        f"{rules} is {why}",
    )


def test_only_what_is_signed_is_applied_and_whoever_looks_is_told_why(
    embedded: System, namespace: str, git: Repository, url: str, alice: SshSigner
) -> None:
    with forge("Gitea", "t0ken") as told:
        give(embedded, namespace, allowed_signers=alice.allowed(), token="t0ken")
        git.commit(HOUSE)
        good = alice.commit(git)
        rules = embedded.repository(
            namespace,
            url,
            interval="1s",
            forge={
                "provider": told.provider,
                "url": told.url,
                "repository": "team/rules",
                "secretRef": {"name": "signers"},
            },
            **VERIFY,
        )
        embedded.synced(rules, good)
        found = verified(embedded, rules, "True", "Succeeded")
        assert condition(found, "SourceVerified")["message"] == (
            f"commit {good[:10]} is signed by {alice.name} ({alice.fingerprint})"
        )
        wait_until(lambda: told.states(good)[-1:] == ["success"], what="success is told")

        bad = git.commit(MORE)
        found = verified(embedded, rules, "False", "SignatureMissing")
        assert reason(found) == ("False", "SignatureMissing")
        assert condition(found, "Stalled")["status"] == "True"
        assert found["status"]["revision"] == f"main@sha1:{good}"
        wait_until(lambda: told.states(bad)[-1:] == ["failure"], what="failure is told")
        cluster = embedded.controller.cluster
        assert isinstance(cluster, EmbeddedCluster)
        events = cluster.events(Reference("ScriptRepository", *rules))
        assert "SignatureMissing" in [
            it.event.reason for it in events if it.event.type == "Warning"
        ]
        assert set(embedded.all(SCRIPTS, namespace)) == {"relay"}
        assert is_published(embedded, rules) is False

        signed = alice.commit(git)
        embedded.synced(rules, signed)
        verified(embedded, rules, "True", "Succeeded")
        assert set(embedded.all(SCRIPTS, namespace)) == {"more", "relay"}
        assert is_published(embedded, rules) is True


def test_a_rollback_waits_until_the_key_of_the_commit_it_returns_to_counts_again(
    embedded: System, namespace: str, git: Repository, url: str, alice: SshSigner, tmp_path: Path
) -> None:
    bob = SshSigner(tmp_path, "bob")
    give(embedded, namespace, allowed_signers=alice.allowed() + bob.allowed())
    git.commit({**HOUSE, **MORE})
    good = alice.commit(git)
    rules = embedded.repository(namespace, url, interval="1s", **VERIFY)
    embedded.synced(rules, good)
    git.commit({"manifests/more.yaml": documents(script("other", artifact="more"))})
    bad = bob.commit(git)
    embedded.synced(rules, bad)
    assert set(embedded.all(SCRIPTS, namespace)) == {"other", "relay"}

    give(embedded, namespace, allowed_signers=bob.allowed())
    rollback = {"revision": good, "quarantined": bad}
    embedded.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"rollback": rollback}})
    found = verified(embedded, rules, "False", "SignerUnknown")
    assert good[:10] in condition(found, "SourceVerified")["message"]
    assert set(embedded.all(SCRIPTS, namespace)) == {"other", "relay"}

    give(embedded, namespace, allowed_signers=alice.allowed() + bob.allowed())
    found = verified(embedded, rules, "True", "Succeeded")
    assert condition(found, "SourceVerified")["message"] == (
        f"commit {bad[:10]} is signed by {bob.name} ({bob.fingerprint}); "
        f"commit {good[:10]} is signed by {alice.name} ({alice.fingerprint})"
    )
    assert reason(found) == ("True", "RolledBack")
    assert set(embedded.all(SCRIPTS, namespace)) == {"more", "relay"}


def test_a_branch_of_tagged_releases_takes_a_commit_when_its_tag_is_signed(
    embedded: System, namespace: str, git: Repository, url: str, alice: SshSigner
) -> None:
    give(embedded, namespace, allowed_signers=alice.allowed())
    first = git.commit(HOUSE)
    alice.tag(git, "v1")
    verify = {"mode": "Tag", **VERIFY["verify"]}
    rules = embedded.repository(namespace, url, interval="1s", verify=verify)
    embedded.synced(rules, first)
    second = git.commit(MORE)
    verified(embedded, rules, "False", "TagMissing")
    # What was signed as the first version does not become the second by a move.
    signed = git.git("rev-parse", "refs/tags/v1")
    git.git("update-ref", "refs/tags/v2", signed)
    verified(embedded, rules, "False", "TagMissing")
    git.git("tag", "-f", "-a", "-m", "v2", "v2", "main")
    verified(embedded, rules, "False", "SignatureMissing")
    assert set(embedded.all(SCRIPTS, namespace)) == {"relay"}
    alice.tag(git, "v2")
    embedded.synced(rules, second)
    verified(embedded, rules, "True", "Succeeded")


def is_published(system: System, rules: ObjectKey) -> bool:
    path = f"/registry/{rules.namespace}/{rules.name}/more/1.0.0.js"
    try:
        system.ask(path)
    except ValueError:
        # It is there, and no JSON.
        return True
    except OSError:
        return False
    return True


def test_up_asks_for_signatures_where_the_secrets_have_signers(
    tmp_path: Path, git: Repository, url: str, alice: SshSigner
) -> None:
    signers = tmp_path / "secrets" / "signers"
    signers.mkdir(parents=True)
    (signers / "allowed_signers").write_text(alice.allowed())
    git.commit({**HOUSE, **MORE})
    process = Process(
        [
            *("reconciler", "up", url, "--secrets", str(signers.parent), "--interval", "1s"),
            *("--data", str(tmp_path / "data"), "--mqtt", ""),
            *("--grpc", "127.0.0.1:0", "--web", "127.0.0.1:0"),
        ],
        tmp_path / "up.log",
    )
    process.start()
    try:
        wait_until(lambda: "is not signed" in process.output, what="the refusal is told")
        alice.commit(git)
        wait_until(lambda: "created" in process.output, what="the signed commit is applied")
    finally:
        process.kill()


def test_on_kubernetes_the_keys_are_a_secret_beside_the_repository(
    on_kubernetes: Kubernetes, team: str, git: Repository, url: str, alice: SshSigner
) -> None:
    system = on_kubernetes.system
    git.commit(MORE)
    rules = system.repository(team, url, interval="1s", **VERIFY)
    verified(system, rules, "False", "CredentialsNotFound")
    give(system, team, allowed_signers=alice.allowed())
    verified(system, rules, "False", "SignatureMissing")
    assert system.all(SCRIPTS, team) == {}
    system.synced(rules, alice.commit(git))
    verified(system, rules, "True", "Succeeded")
    assert set(system.all(SCRIPTS, team)) == {"more"}
