"""Users of a controller on Kubernetes: real tokens of ServiceAccounts, real RBAC, what we ship."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.command_line import CommandLine
from tests.support.gitserver import Repository
from tests.support.kube import KubeServer, wait_until
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import ROOT, System, executor, kubernetes, serving, settings

pytestmark = pytest.mark.kube
RBAC = "rbac.authorization.k8s.io"
API = "/api/v1alpha1"
RULES = {"manifests/one.yaml": documents(script("one")), "scripts/quiet/1.0.0.js": QUIET}


@pytest.fixture(scope="module")
def system(kube: KubeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One that listens on all addresses, as in a pod, so that everybody needs a token."""
    folder = tmp_path_factory.mktemp("access")
    kube.apply_crds(sorted((ROOT / "deploy" / "crds").glob("*.yaml")))
    given = settings(folder / "data", web="0.0.0.0:0", **kubernetes(kube.controller_kubeconfig))
    with (
        serving(given, operator=kube.kubeconfig) as it,
        executor(it.grpc, folder / "executor.log"),
    ):
        yield it


@pytest.fixture
def team(kube: KubeServer) -> str:
    return kube.namespace("team")


def token(
    kube: KubeServer, team: str, name: str, role: str = "", *, audience: str = "scriptops"
) -> str:
    """Of a new ServiceAccount, bound to one of the ClusterRoles that we ship."""
    accounts = f"/api/v1/namespaces/{team}/serviceaccounts"
    kube.request("POST", accounts, {"metadata": {"name": name}})
    if role:
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": team}],
        }
        kube.request("POST", f"/apis/{RBAC}/v1/namespaces/{team}/rolebindings", binding)
    spec = {"spec": {"audiences": [audience]}}
    return str(kube.request("POST", f"{accounts}/{name}/token", spec)["status"]["token"])


def ask(system: System, path: str, token: str = "", *, method: str = "GET") -> tuple[int, Any]:
    port = system.controller.addresses.web.port
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", method=method, headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - as above
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_what_the_roles_that_we_ship_let_people_do(
    kube: KubeServer, system: System, team: str, git: Repository
) -> None:
    rules = system.repository(team, git.path)
    system.synced(rules, git.commit(RULES))
    asked = {
        "list": ("GET", f"{API}/scripts?namespace={team}"),
        "runs": ("GET", f"{API}/runs?namespace={team}"),
        "artifact": ("GET", f"/registry/{team}/rules"),
        "everywhere": ("GET", f"{API}/scripts"),
        "recordings": ("GET", f"{API}/recordings?namespace={team}"),
        "debug": ("GET", f"{API}/debug"),
        "trigger": ("POST", f"{API}/scripts/{team}/one/trigger"),
        "resume": ("POST", f"{API}/scripts/{team}/one/resume"),
        "reconcile": ("POST", f"{API}/repositories/{team}/rules/reconcile"),
    }
    tokens = {
        "nobody": token(kube, team, "nobody"),
        "viewer": token(kube, team, "viewer", "scriptops-view"),
        "editor": token(kube, team, "editor", "scriptops-edit"),
        "admin": token(kube, team, "admin", "scriptops-admin"),
    }

    def may(who: str) -> set[str]:
        answers = {
            name: ask(system, path, tokens[who], method=m)[0] for name, (m, path) in asked.items()
        }
        return {name for name, status in answers.items() if status != 403}

    # RBAC is judged by copies that are a moment behind, and we keep answers for seconds.
    expected = {
        "admin": {"reconcile"},
        "editor": {"trigger", "resume", "recordings"},
        "viewer": {"list", "runs", "artifact"},
        "nobody": set(),
    }
    seen: list[object] = [None]

    def is_so() -> bool:
        seen[0] = {who: may(who) for who in expected}
        return seen[0] == expected

    try:
        wait_until(is_so, what="every role lets do what it says", every=0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}; last: {seen[0]}") from None


def test_a_token_of_the_api_server_or_none_is_refused(
    kube: KubeServer, system: System, team: str
) -> None:
    path = f"{API}/scripts?namespace={team}"
    other = token(kube, team, "other", "scriptops-view", audience="https://scriptops.test")
    assert [ask(system, path, it)[0] for it in ("", other, kube.token, "x.y.z")] == [401] * 4
    assert ask(system, path, other)[1]["reason"] == "TokenRefused"


def test_a_user_who_is_gone_is_refused_when_the_kept_answer_is_over(
    kube: KubeServer, system: System, team: str
) -> None:
    path = f"{API}/scripts?namespace={team}"
    given = token(kube, team, "leaver", "scriptops-view")
    wait_until(lambda: ask(system, path, given)[0] == 200, what="is let in", every=0.5)
    kube.request("DELETE", f"/api/v1/namespaces/{team}/serviceaccounts/leaver")
    wait_until(lambda: ask(system, path, given)[0] == 401, what="is let in no more", every=0.5)


def test_the_command_line_brings_a_token(
    kube: KubeServer,
    system: System,
    team: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_line = CommandLine(capsys)
    file = tmp_path / "token"
    file.write_text(token(kube, team, "cli", "scriptops-view") + "\n")
    at = (f"--controller=http://127.0.0.1:{system.controller.addresses.web.port}", "-n", team)
    asked = command_line("get", "scripts", *at)
    assert (asked.code, "give --token" in asked.err) == (2, True)
    wait_until(
        lambda: command_line("get", "scripts", "--token", f"@{file}", *at).code == 0,
        what="is let in",
        every=0.5,
    )
    refused = command_line("trigger", "one", "--token", f"@{file}", *at)
    assert refused.code == 2
    assert (
        f"system:serviceaccount:{team}:cli may not create scripts/trigger {team}/one" in refused.err
    )
