"""The controller has the rights that it needs, and no others: asked of a real API server.

What the ServiceAccount asked for is read from the server's audit log; what it was given is exactly
that.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.adapters.kube import connect
from reconciler.core.objects import (
    DEVICES_V1BETA1,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
    Reference,
)
from reconciler.ports.cluster import ClusterEvent
from tests.integration.command_line import CommandLine
from tests.integration.conftest import Kubernetes, running_on
from tests.support.gitserver import Repository
from tests.support.kinds import DEVICE_CRDS, DEVICE_STATUS_CRD
from tests.support.kube import DEPLOY, SYSTEM, KubeServer, wait_until
from tests.support.kubeedge import MERGE, Layout
from tests.support.rulebook import HOUSE, QUIET, documents, relay, script
from tests.support.system import condition, reason

pytestmark = pytest.mark.kube
DEVICES = "/apis/devices.kubeedge.io/v1beta1/namespaces"
IN_ALL, IN_GRANTED = "scriptops-controller", "scriptops-deployer"
Right = tuple[str, str, str]
CREATE_BY_APPLY = ("hit.edu.cn", "scripts", "create")
QUIET_RULES = {"manifests/one.yaml": documents(script("one")), "scripts/quiet/1.0.0.js": QUIET}


@dataclass(frozen=True)
class Open(Layout):
    """Devices that may say anything, for tests without KubeEdge's definitions."""

    def install(self, kube: KubeServer) -> None:
        kube.apply_crds([*DEVICE_CRDS, DEVICE_STATUS_CRD])


LAYOUT = Open(release="none", version="v1beta1", has_device_status=True)


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def expanded(rules: Any) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def granted(*names: str) -> set[Right]:
    """What the roles of these names say, as we ship them."""
    roles = [
        document
        for document in yaml.safe_load_all((DEPLOY / "base" / "rbac.yaml").read_text())
        if document["kind"] == "ClusterRole" and document["metadata"]["name"] in names
    ]
    assert len(roles) == len(names)
    return expanded(rule for role in roles for rule in role["rules"])


class Account:
    """The API server as the controller's ServiceAccount sees it."""

    def __init__(self, kube: KubeServer) -> None:
        self._kube = kube
        config = yaml.safe_load(kube.controller_kubeconfig.read_text())
        self._token = config["users"][0]["user"]["token"]

    def request(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own loopback server
            self._kube.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": MERGE if method == "PATCH" else "application/json",
            },
        )
        trust = ssl.create_default_context(cafile=str(self._kube.certificate))
        with urllib.request.urlopen(request, timeout=30, context=trust) as response:  # noqa: S310 - as above
            return json.loads(response.read())

    def rights(self, namespace: str) -> set[Right]:
        """What it may do there, in the server's own words."""
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        told = self.request("POST", path, {"spec": {"namespace": namespace}})
        found = expanded(told["status"]["resourceRules"])
        # Everybody who is known may ask what they may do.
        return {it for it in found if not it[1].startswith("selfsubject")}


def test_no_rule_names_everything() -> None:
    for document in yaml.safe_load_all((DEPLOY / "base" / "rbac.yaml").read_text()):
        for rule in document.get("rules", ()):
            assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}


def test_the_page_says_what_the_roles_say() -> None:
    page = (DEPLOY.parent / "docs" / "kubernetes.md").read_text()
    section = page.partition("## Rights\n")[2].partition("\n## ")[0]
    tables = [
        {
            ("" if group == "core" else group.strip("`"), resource, verb)
            for group, resources, verbs in re.findall(
                r"^\| (\S+) \| (.+) \| (.+) \|$", table, re.MULTILINE
            )
            if group != "group"
            for resource in re.findall(r"`([^`]+)`", resources)
            for verb in verbs.split(", ")
        }
        for table in section.split("\n\n")
        if table.startswith("| group")
    ]
    assert tables == [granted(IN_ALL), granted(IN_GRANTED)]


def journey(running: Kubernetes, team: str, git: Repository, command_line: CommandLine) -> None:
    """From a push to a device that moves, and what else a controller ever writes."""
    kube, system = running.kube, running.system
    secret = {"metadata": {"name": "git"}, "stringData": {"username": "u", "password": "p"}}
    kube.request("POST", f"/api/v1/namespaces/{team}/secrets", secret)
    second = {"manifests/second.yaml": documents(relay("second"))}
    rules = system.repository(team, git.path, credentials={"name": "git"}, prune={"devices": True})
    system.synced(rules, git.commit({**HOUSE, **second}))
    system.ready(ObjectKey(team, "relay"))

    def lamp() -> Any:
        return kube.request("GET", f"{DEVICES}/{team}/devices/lamp")["spec"]

    LAYOUT.report(kube, team, "door", "open", "true")
    wait_until(
        lambda: lamp()["properties"][0].get("desired", {}).get("value") == "true",
        what="the lamp is on",
    )
    at = ("-n", team, "--controller", system.web)
    # Whoever brings a token is asked about.
    accounts = f"/api/v1/namespaces/{team}/serviceaccounts"
    kube.request("POST", accounts, {"metadata": {"name": "person"}})
    made = kube.request("POST", f"{accounts}/person/token", {"spec": {"audiences": ["scriptops"]}})
    assert command_line("get", "scripts", *at, "--token", made["status"]["token"]).code == 2
    assert command_line("suspend", "script", "second", *at).code == 0
    assert command_line("reconcile", "rules", "--wait", *at).code == 0
    for path, field in (
        (f"{DEVICES}/{team}/devicemodels/lamp", "protocol"),
        (f"{DEVICES}/{team}/devices/lamp", "protocol"),
        (f"/apis/hit.edu.cn/v1alpha1/namespaces/{team}/scripts/relay", "readSelector"),
    ):
        before = kube.request("GET", path)["spec"][field]
        kube.request("PATCH", path, {"spec": {field: None}}, content_type=MERGE)
        wait_until(
            lambda p=path, f=field, b=before: kube.request("GET", p)["spec"].get(f) == b,
            what=f"{field} of {path} is put back",
        )
    commit = git.commit({path: None for path in HOUSE if path.startswith("manifests/")})
    system.synced(rules, commit)
    assert set(system.all(SCRIPTS, team)) == {"second"}
    assert system.all(DEVICES_V1BETA1, team) == {}


async def tell_again(kube: KubeServer, team: str) -> None:
    """As after a restart: what was told before is counted."""
    second = kube.request("GET", f"/apis/hit.edu.cn/v1alpha1/namespaces/{team}/scripts/second")
    event = ClusterEvent(
        regarding=Reference("Script", team, "second"),
        api_version=SCRIPTS.api_version,
        uid=second["metadata"]["uid"],
        type="Normal",
        reason="Told",
        message="again",
    )
    for _ in range(2):
        cluster = await connect(kubeconfig=str(kube.controller_kubeconfig))
        await cluster.emit(event)
        await cluster.close()


def test_what_a_controller_asks_for_is_what_it_is_granted_and_nothing_is_denied(
    kube: KubeServer, tmp_path: Path, git: Repository, command_line: CommandLine
) -> None:
    team, before = kube.namespace("rights"), kube.audited()
    with running_on(kube, tmp_path, layout=LAYOUT) as running:
        journey(running, team, git, command_line)
        asyncio.run(tell_again(kube, team))
    # Watches are in the log when they have ended.
    asked = [it for it in kube.asked(team, since=before) if it.resource]
    assert [it for it in asked if not it.allowed] == []
    assert {it.right for it in asked} == granted(IN_ALL, IN_GRANTED) - {CREATE_BY_APPLY}


def test_applying_a_script_that_is_not_there_takes_the_right_to_create_it(
    kube: KubeServer, tmp_path: Path, git: Repository
) -> None:
    """The log tells of an apply as a patch alone."""
    team = kube.namespace("rights", granted=False)
    less = granted(IN_GRANTED) - {CREATE_BY_APPLY}
    rules = [{"apiGroups": [g], "resources": [r], "verbs": [v]} for g, r, v in sorted(less)]
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{team}"
    kube.request("POST", f"{path}/roles", {"metadata": {"name": "less"}, "rules": rules})
    kube.grant(
        team, role={"kind": "Role", "name": "less"}, right=("hit.edu.cn", "scripts", "patch")
    )
    git.commit(QUIET_RULES)
    with running_on(kube, tmp_path, layout=None) as running:
        live = running.system.object_is(
            SCRIPT_REPOSITORIES,
            running.system.repository(team, git.path),
            lambda o: reason(o)[0] == "False",
            "it is told",
        )
        assert reason(live) == ("False", "Forbidden")


def test_the_server_says_that_it_may_do_what_we_ship_and_nothing_else(kube: KubeServer) -> None:
    account, team = Account(kube), kube.namespace("rights")
    elsewhere = kube.namespace("rights", granted=False)
    assert account.rights(team) == granted(IN_ALL, IN_GRANTED)
    assert account.rights(elsewhere) == granted(IN_ALL)
    assert account.rights(SYSTEM) == granted(IN_ALL)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("GET", "/api/v1/secrets", None, id="list the Secrets of all"),
        pytest.param("GET", "/api/v1/namespaces/{team}/secrets", None, id="list those of a team"),
        pytest.param("GET", "/api/v1/namespaces/{other}/secrets/git", None, id="read of others"),
        pytest.param(
            "POST", "/api/v1/namespaces/{team}/pods", {"metadata": {"name": "x"}}, id="start a pod"
        ),
        pytest.param(
            "POST",
            "/apis/hit.edu.cn/v1alpha1/namespaces/{other}/scripts",
            {"metadata": {"name": "x"}},
            id="deploy where nobody granted it",
        ),
        pytest.param(
            "PATCH",
            "/apis/devices.kubeedge.io/v1beta1/namespaces/{other}/devices/lamp",
            {"spec": {}},
            id="switch devices there",
        ),
        pytest.param(
            "POST",
            "/apis/hit.edu.cn/v1alpha1/namespaces/{team}/scriptrepositories",
            {"metadata": {"name": "x"}},
            id="add a repository",
        ),
        pytest.param(
            "PATCH",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/scriptops-controller",
            {"rules": []},
            id="change its own role",
        ),
        pytest.param(
            "POST",
            f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/scriptops-controller/token",
            {"spec": {}},
            id="make tokens",
        ),
    ],
)
def test_it_may_not(kube: KubeServer, method: str, path: str, body: Any) -> None:
    team, other = kube.namespace("rights"), kube.namespace("rights", granted=False)
    with pytest.raises(urllib.error.HTTPError) as refused:
        Account(kube).request(method, path.format(team=team, other=other), body)
    with refused.value as answer:
        assert (answer.code, json.loads(answer.read())["reason"]) == (403, "Forbidden")


def test_a_repository_where_nothing_is_granted_says_so_and_goes_on_when_it_is(
    on_kubernetes: Kubernetes, git: Repository
) -> None:
    kube, system = on_kubernetes.kube, on_kubernetes.system
    other = kube.namespace("rights", granted=False)
    git.commit(QUIET_RULES)
    rules = system.repository(other, git.path)
    live = system.object_is(
        SCRIPT_REPOSITORIES, rules, lambda o: reason(o)[0] == "False", "it is told"
    )
    assert reason(live) == ("False", "Forbidden")
    assert 'in the namespace "' + other in condition(live, "Stalled")["message"]
    assert system.all(SCRIPTS, other) == {}
    kube.grant(other)
    commit = git.commit({"README.md": b"x"})
    assert reason(system.synced(rules, commit)) == ("True", "Applied")
