"""Teams that share a cluster: what RBAC does not grant is refused by the API server itself."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import yaml

from reconciler.core.objects import LABEL_ENV, SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository
from tests.support.kube import CONTROLLER_USER, DEPLOY, KubeServer, wait_until
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import System, condition, reason

pytestmark = pytest.mark.kube
ACCOUNT = "deployer"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"
QUIET_FILE = {"scripts/quiet/1.0.0.js": QUIET}


@pytest.fixture
def bare(kube: KubeServer) -> Iterator[str]:
    """A namespace where the controller may do nothing."""
    name = kube.namespace("team", granted=False)
    yield name
    for plural in ("scriptrepositories", "scripts"):
        kube.request("DELETE", f"/apis/hit.edu.cn/v1alpha1/namespaces/{name}/{plural}")


def may(kube: KubeServer, user: str, verb: str, resource: str, namespace: str) -> bool:
    group, _, plural = resource.rpartition("/")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "resourceAttributes": {
                "group": group,
                "verb": verb,
                "resource": plural,
                "namespace": namespace,
            },
        },
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(kube.request("POST", path, review)["status"]["allowed"])


def user(namespace: str) -> str:
    return f"system:serviceaccount:{namespace}:{ACCOUNT}"


def with_account(kube: KubeServer, namespace: str) -> None:
    """As `kubectl apply -k deploy/overlays/team-with-account` does."""
    overlay = DEPLOY / "overlays" / "team-with-account" / "account.yaml"
    for document in yaml.safe_load_all(overlay.read_text()):
        for subject in document.get("subjects", ()):
            subject.setdefault("namespace", namespace)
        if document["kind"] == "ServiceAccount":
            kube.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", document)
        else:
            kube.request("POST", f"{RBAC}/{namespace}/rolebindings", document)
    for who, verb, resource in (
        (user(namespace), "create", "hit.edu.cn/scripts"),
        (CONTROLLER_USER, "impersonate", "serviceaccounts"),
    ):
        wait_until(
            lambda w=who, v=verb, r=resource: may(kube, w, v, r, namespace), what="it is granted"
        )


def grant(
    kube: KubeServer, namespace: str, verbs: Sequence[str], *, home: str, plural: str = "scripts"
) -> None:
    """A Role for the account of the team whose namespace is `home`."""
    name = f"{ACCOUNT}-{plural}"
    group = "hit.edu.cn" if plural.startswith("script") else ""
    role = {
        "metadata": {"name": name},
        "rules": [{"apiGroups": [group], "resources": [plural], "verbs": list(verbs)}],
    }
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": home}],
    }
    kube.request("POST", f"{RBAC}/{namespace}/roles", role)
    kube.request("POST", f"{RBAC}/{namespace}/rolebindings", binding)
    resource = f"{group}/{plural}" if group else plural
    wait_until(lambda: may(kube, user(home), verbs[0], resource, namespace), what="the account may")


def account(kube: KubeServer, namespace: str) -> None:
    """A ServiceAccount that may do nothing yet, and that the controller may act as."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    kube.request("POST", accounts, {"metadata": {"name": ACCOUNT}})
    overlay = DEPLOY / "overlays" / "team-with-account" / "account.yaml"
    [binding] = [
        document
        for document in yaml.safe_load_all(overlay.read_text())
        if document["metadata"]["name"] == "scriptops-impersonator"
    ]
    kube.request("POST", f"{RBAC}/{namespace}/rolebindings", binding)
    wait_until(
        lambda: may(kube, CONTROLLER_USER, "impersonate", "serviceaccounts", namespace),
        what="the controller may act as it",
    )


def in_namespace(name: str, namespace: str) -> dict[str, Any]:
    it = script(name)
    return {**it, "metadata": {"name": name, "namespace": namespace}}


def told(live: Any) -> set[tuple[str, str]]:
    return {(p["path"], p["reason"]) for p in live["status"].get("problems", ())}


def has_problem(system: System, key: ObjectKey, path: str, why: str) -> Any:
    return system.object_is(
        SCRIPT_REPOSITORIES,
        key,
        lambda o: (path, why) in told(o) if o.get("status", {}).get("problems") else False,
        f"{path} is said to be {why}",
    )


def test_a_repository_is_deployed_with_the_rights_of_its_teams_account_alone(
    on_kubernetes: Kubernetes, bare: str, git: Repository
) -> None:
    kube, system = on_kubernetes.kube, on_kubernetes.system
    with_account(kube, bare)
    assert not may(kube, CONTROLLER_USER, "create", "hit.edu.cn/scripts", bare)
    rules = system.repository(bare, git.path, serviceAccountName=ACCOUNT)
    files = {
        "manifests/a.yaml": documents(script("a", env={"limit": "1"})),
        "manifests/b.yaml": documents(script("b")),
    }
    live = system.synced(rules, git.commit({**QUIET_FILE, **files}))
    assert reason(live) == ("True", "Applied")
    system.ready(ObjectKey(bare, "a"))
    system.patch(SCRIPTS, ObjectKey(bare, "a"), {"spec": {"env": {"limit": "2"}}})
    system.script_is(
        ObjectKey(bare, "a"), lambda o: o["spec"]["env"] == {"limit": "1"}, "it is put back"
    )
    system.synced(rules, git.commit({"manifests/b.yaml": None}))
    assert set(system.all(SCRIPTS, bare)) == {"a"}


def test_what_the_account_may_not_do_is_said_and_not_done_by_the_controller_that_may(
    on_kubernetes: Kubernetes, team: str, git: Repository
) -> None:
    kube, system = on_kubernetes.kube, on_kubernetes.system
    account(kube, team)
    for verb in ("create", "patch", "delete"):
        assert may(kube, CONTROLLER_USER, verb, "hit.edu.cn/scripts", team)
    rules = system.repository(team, git.path, serviceAccountName=ACCOUNT, interval="1s")
    files = {"manifests/a.yaml": documents(script("a", env={"limit": "1"}))}
    git.commit({**QUIET_FILE, **files})
    live = has_problem(system, rules, "manifests/a.yaml", "Forbidden")
    [problem] = live["status"]["problems"]
    assert f'User "{user(team)}" cannot patch resource "scripts"' in problem["message"]
    assert reason(live)[0] == "False"
    assert system.all(SCRIPTS, team) == {}
    grant(kube, team, ("patch", "create"), home=team)
    system.ready(ObjectKey(team, "a"))
    system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o) == ("True", "Applied"), "it is all applied"
    )
    # Pruning, too.
    git.commit({"manifests/a.yaml": None, "manifests/b.yaml": documents(script("b"))})
    system.ready(ObjectKey(team, "b"))
    system.object_is(
        SCRIPT_REPOSITORIES,
        rules,
        lambda o: "cannot delete resource" in json.dumps(o["status"]),
        "that it may not be deleted is said",
    )
    assert set(system.all(SCRIPTS, team)) == {"a", "b"}


def test_a_repository_reaches_a_neighbour_only_if_the_neighbour_grants_it(
    on_kubernetes: Kubernetes, team: str, kube: KubeServer, git: Repository
) -> None:
    """The controller may write to both namespaces, for their own repositories."""
    system = on_kubernetes.system
    neighbour = kube.namespace("neighbour")
    files = {
        "manifests/a.yaml": documents(script("mine")),
        "manifests/b.yaml": documents(in_namespace("theirs", neighbour)),
    }
    git.commit({**QUIET_FILE, **files})
    both = [team, neighbour]
    rules = system.repository(team, git.path, namespaces=both, interval="1s")
    live = has_problem(system, rules, "manifests/b.yaml", "NamespaceNotAllowed")
    [problem] = live["status"]["problems"]
    assert (problem["line"], "no operator has granted it" in problem["message"]) == (5, True)
    system.ready(ObjectKey(team, "mine"))
    assert system.all(SCRIPTS, neighbour) == {}
    account(kube, team)
    grant(kube, team, ("patch", "create"), home=team)
    system.patch(SCRIPT_REPOSITORIES, rules, {"spec": {"serviceAccountName": ACCOUNT}})
    has_problem(system, rules, "manifests/b.yaml", "Forbidden")
    assert system.all(SCRIPTS, neighbour) == {}
    grant(kube, neighbour, ("patch", "create"), home=team)
    system.script_is(ObjectKey(neighbour, "theirs"), lambda _: True, "it is there")
    kube.request("DELETE", f"/apis/hit.edu.cn/v1alpha1/namespaces/{neighbour}/scripts")


def test_an_account_that_the_controller_may_not_act_as_is_said(
    on_kubernetes: Kubernetes, team: str, git: Repository
) -> None:
    system = on_kubernetes.system
    git.commit({**QUIET_FILE, "manifests/a.yaml": documents(script("a"))})
    rules = system.repository(team, git.path, serviceAccountName=ACCOUNT)
    live = has_problem(system, rules, "manifests/a.yaml", "Forbidden")
    assert "cannot impersonate resource" in live["status"]["problems"][0]["message"]
    assert system.all(SCRIPTS, team) == {}


def test_secrets_of_rules_are_read_with_the_rights_of_the_account(
    on_kubernetes: Kubernetes, team: str, git: Repository
) -> None:
    kube, system = on_kubernetes.kube, on_kubernetes.system
    account(kube, team)
    grant(kube, team, ("patch", "create"), home=team)
    secret = {
        "metadata": {"name": "api", "labels": {LABEL_ENV: "true"}},
        "stringData": {"token": "canary"},
    }
    kube.request("POST", f"/api/v1/namespaces/{team}/secrets", secret)
    source = {"token": {"secretKeyRef": {"name": "api", "key": "token"}}}
    git.commit({**QUIET_FILE, "manifests/a.yaml": documents(script("a", envFrom=source))})
    system.repository(team, git.path, serviceAccountName=ACCOUNT)
    key = ObjectKey(team, "a")
    live = system.script_is(key, lambda o: reason(o)[1] == "SecretForbidden", "it is said")
    assert condition(live, "Ready")["message"] == (
        f"envFrom.token: ServiceAccount {team}/{ACCOUNT} may not read Secret {team}/api; "
        "grant it with a Role"
    )
    grant(kube, team, ("get",), home=team, plural="secrets")
    system.ready(key)


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param("", id="empty"),
        pytest.param("team-b/builder", id="of another namespace"),
        pytest.param("system:serviceaccount:team-b:builder", id="a user"),
        pytest.param("system:masters", id="a group"),
        pytest.param("a\nImpersonate-Group: system:masters", id="a second header"),
    ],
)
def test_a_claim_to_be_anybody_else_is_refused_by_the_api_server(
    on_kubernetes: Kubernetes, team: str, claim: str
) -> None:
    document = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {"name": "rules", "namespace": team},
        "spec": {"url": "https://git.example/rules.git", "serviceAccountName": claim},
    }
    path = f"/apis/hit.edu.cn/v1alpha1/namespaces/{team}/scriptrepositories"
    with pytest.raises(urllib.error.HTTPError) as caught:
        on_kubernetes.kube.request("POST", path, document)
    assert caught.value.code == 422
    assert "spec.serviceAccountName" in caught.value.read().decode()
