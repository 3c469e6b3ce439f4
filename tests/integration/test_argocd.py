"""Argo CD's view of Scripts and ScriptRepositories: health and actions, run by Lua 5.1.

What a controller says on a real API server is produced here, situation by situation, and judged by
the Lua that we ship. The same objects are kept as testdata, in Argo CD's own layout; with
SCRIPTOPS_CAPTURE=1 they are written anew, and `python -m tests.support.argocd` does the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.core.objects import SCRIPT_REPOSITORIES, ObjectKey
from tests.support import kstatus, lua
from tests.support.argocd import CUSTOMIZATIONS, IGNORED, KINDS, config_map, health
from tests.support.gitserver import Repository
from tests.support.kube import DEPLOY, KubeServer
from tests.support.kubeedge import MERGE
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import (
    ROOT,
    System,
    condition,
    executor,
    kubernetes,
    reason,
    serving,
    settings,
)

pytestmark = pytest.mark.kube
CAPTURE = "SCRIPTOPS_CAPTURE" in os.environ
GROUP = "/apis/hit.edu.cn/v1alpha1"
# Every situation that is produced below, and what Argo CD is to make of it.
HEALTH = {
    "Script": {
        "new": "Progressing",
        "waiting": "Progressing",
        "deployed": "Healthy",
        "failing": "Healthy",
        "changed": "Progressing",
        "stalled": "Degraded",
        "suspended": "Suspended",
        "before": "Healthy",
        "canary": "Suspended",
        "undone": "Degraded",
    },
    "ScriptRepository": {
        "new": "Progressing",
        "applied": "Healthy",
        "applied-twice": "Healthy",
        "in-part": "Degraded",
        "unreachable": "Progressing",
        "suspended": "Suspended",
        "rolled-back": "Healthy",
        "unrolled": "Healthy",
        "resumed": "Healthy",
        "synced": "Healthy",
        "published": "Healthy",
    },
}
PLURALS = {"Script": "scripts", "ScriptRepository": "scriptrepositories"}
RULES = {
    "manifests/one.yaml": documents(script("one")),
    "manifests/bad.yaml": documents(script("bad", artifact="bad")),
    "manifests/failing.yaml": documents(script("failing", artifact="failing")),
    "scripts/quiet/1.0.0.js": QUIET,
    "scripts/bad/1.0.0.js": b"function main( {}",
    "scripts/failing/1.0.0.js": b"function main() { throw new Error('no'); }\n",
}


class Stage:
    """Brings about situations, and keeps the objects as they are then."""

    def __init__(self, kube: KubeServer, system: System, folder: Path) -> None:
        self.kube, self.system, self._folder = kube, system, folder
        self.team = kube.namespace("argocd")
        self.seen: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}

    def deploy(self, name: str, files: dict[str, bytes], **spec: Any) -> Repository:
        git = Repository(self._folder / f"{name}.git", "--bare")
        git.commit(files)
        self.system.repository(self.team, git.path, name, **spec)
        return git

    def keep(self, situation: str, live: Any) -> Any:
        self.seen[live["kind"]][situation] = live
        return live

    def repository(self, situation: str, name: str, claim: Any) -> Any:
        key, what = ObjectKey(self.team, name), f"{name} is {situation}"
        return self.keep(situation, self.system.object_is(SCRIPT_REPOSITORIES, key, claim, what))

    def script(self, situation: str, name: str, claim: Any) -> Any:
        key, what = ObjectKey(self.team, name), f"{name} is {situation}"
        return self.keep(situation, self.system.script_is(key, claim, what))

    def patch(self, live: Any, patch: Any) -> Any:
        """As Argo CD does with what an action returns; the object as it is then."""
        metadata, plural = live["metadata"], PLURALS[live["kind"]]
        path = f"{GROUP}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"
        return self.kube.request("PATCH", path, patch, content_type=MERGE)

    def act(self, live: Any, action: str) -> Any:
        """What the object is after an action that we ship."""
        assert not disabled(live)[action]
        return self.patch(live, merge_patch(live, lua.run(lua_of(live["kind"], action), live)))


def merge_patch(before: Any, after: Any) -> dict[str, Any]:
    """What an action changed. An empty table of Lua may stand for an object as well."""
    changed: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        was = before.get(name)
        if isinstance(was, dict) and value == []:
            continue
        if isinstance(was, dict) and isinstance(value, dict):
            if inner := merge_patch(was, value):
                changed[name] = inner
        elif was != value and not (isinstance(was, list) and isinstance(value, list)):
            changed[name] = value
    return changed


def lua_of(kind: str, action: str) -> str:
    return (CUSTOMIZATIONS / kind / "actions" / action / "action.lua").read_text()


def disabled(live: Any) -> dict[str, bool]:
    """Actions by name, and whether they cannot be chosen."""
    told = lua.run((CUSTOMIZATIONS / live["kind"] / "actions" / "discovery.lua").read_text(), live)
    return {name: action["disabled"] for name, action in told.items()}


def canary(version: str, content: bytes) -> dict[str, bytes]:
    rollout = {"type": "Canary", "canary": {"steps": [{"percent": 50}]}}
    rule = script("canary", artifact="canary", version=version, rollout=rollout)
    return {"manifests/canary.yaml": documents(rule), f"scripts/canary/{version}.js": content}


def unattended(kube: KubeServer) -> list[Any]:
    """Both kinds as they are when they have been created and nobody has looked at them."""
    team = kube.namespace("unattended")
    new = [
        script("new"),
        {
            "apiVersion": "hit.edu.cn/v1alpha1",
            "kind": "ScriptRepository",
            "metadata": {"name": "new"},
            "spec": {"url": "https://git.example.org/rules.git"},
        },
    ]
    return [
        kube.request("POST", f"{GROUP}/namespaces/{team}/{PLURALS[it['kind']]}", it) for it in new
    ]


@pytest.fixture(scope="module")
def stage(kube: KubeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """With all situations seen; its system goes on."""
    kube.apply_crds(sorted((ROOT / "deploy" / "crds").glob("*.yaml")))
    folder = tmp_path_factory.mktemp("argocd")
    new = unattended(kube)
    chosen = settings(folder / "data", **kubernetes(kube.controller_kubeconfig))
    with serving(chosen, operator=kube.kubeconfig) as system:
        stage = Stage(kube, system, folder)
        for it in new:
            stage.keep("new", it)
        git = stage.deploy("rules", RULES)
        stage.repository("applied", "rules", lambda o: reason(o) == ("True", "Applied"))
        stage.script("waiting", "one", lambda o: reason(o)[1] == "ExecutorAbsent")
        with executor(system.grpc, folder / "executor.log"):
            produce_scripts(stage)
            produce_repositories(stage, git)
            yield stage


def produce_scripts(stage: Stage) -> None:
    stage.script("stalled", "bad", lambda o: reason(o) == ("False", "LoadFailed"))
    stage.script("failing", "failing", lambda o: o["status"].get("failures") == 1)
    one = stage.script("deployed", "one", lambda o: o["status"].get("runs") == 1)
    stage.keep("changed", stage.patch(one, {"spec": {"env": {"limit": "9"}}}))
    stage.act(one, "suspend")
    one = stage.script("suspended", "one", lambda o: reason(o) == ("True", "Suspended"))
    stage.act(one, "resume")

    git = stage.deploy("canaries", canary("1.0.0", QUIET))
    stage.script("before", "canary", lambda o: o["status"].get("runs") == 1)
    git.commit(canary("1.1.0", QUIET + b"//"))
    live = stage.script("canary", "canary", lambda o: reason(o)[1] == "RolloutPaused")
    stage.act(live, "rollback")
    stage.script("undone", "canary", lambda o: reason(o)[0] == "False")


def produce_repositories(stage: Stage, git: Repository) -> None:
    git.commit({"manifests/one.yaml": documents(script("one", env={"limit": "20"}))})
    live = stage.repository(
        "applied-twice", "rules", lambda o: len(o["status"].get("history", ())) == 2
    )
    stage.act(live, "rollback")
    live = stage.repository("rolled-back", "rules", lambda o: reason(o) == ("True", "RolledBack"))
    stage.act(live, "unroll")
    live = stage.repository("unrolled", "rules", lambda o: reason(o) == ("True", "Applied"))
    stage.act(live, "suspend")
    live = stage.repository("suspended", "rules", lambda o: reason(o) == ("True", "Suspended"))
    live = stage.act(live, "resume")
    live = stage.repository("resumed", "rules", lambda o: reason(o) == ("True", "Applied"))
    wished = stage.act(live, "sync")["metadata"]["annotations"]
    stage.repository(
        "synced",
        "rules",
        lambda o: (
            o["status"].get("lastHandledReconcileAt") == wished["reconcile.hit.edu.cn/requestedAt"]
        ),
    )
    stage.deploy("in-part", {**RULES, "manifests/one.yaml": b"kind: ["})
    stage.repository("in-part", "in-part", lambda o: reason(o)[0] == "False")
    stage.deploy("published", RULES, apply="None")
    stage.repository("published", "published", lambda o: reason(o) == ("True", "Published"))
    stage.system.repository(stage.team, "git://127.0.0.1:1/rules.git", "unreachable")
    stage.repository("unreachable", "unreachable", lambda o: reason(o)[0] == "Unknown")


def test_every_situation_has_the_health_that_it_deserves(stage: Stage) -> None:
    told = {
        kind: {situation: health(live)["status"] for situation, live in found.items()}
        for kind, found in stage.seen.items()
    }
    assert told == HEALTH


def test_argo_cd_and_kstatus_agree(stage: Stage) -> None:
    """Suspended is a word of Argo CD's alone."""
    same = {"Healthy": "Current", "Progressing": "InProgress", "Degraded": "Failed"}
    for kind in KINDS:
        for situation, live in stage.seen[kind].items():
            told = HEALTH[kind][situation]
            assert same.get(told, kstatus.compute(live)) == kstatus.compute(live), situation


def test_health_tells_what_the_controller_tells(stage: Stage) -> None:
    for kind in KINDS:
        for situation, live in stage.seen[kind].items():
            if HEALTH[kind][situation] != "Suspended" and reason(live) != ("", ""):
                assert health(live)["message"] == condition(live, "Ready")["message"], situation


def test_what_an_action_asks_for_is_done(stage: Stage) -> None:
    """Each was done above, and its effect waited for."""
    scripts, repositories = stage.seen["Script"], stage.seen["ScriptRepository"]
    assert scripts["suspended"]["spec"]["suspend"] is True
    assert scripts["undone"]["status"]["digest"] == scripts["before"]["status"]["digest"]
    twice, back = repositories["applied-twice"], repositories["rolled-back"]
    assert back["spec"]["rollback"] == {
        "revision": twice["status"]["history"][1]["revision"],
        "quarantined": twice["status"]["history"][0]["revision"],
    }
    assert "rollback" not in repositories["unrolled"]["spec"]
    assert "suspend" not in repositories["resumed"]["spec"]


# Argo CD's own tests of customizations, over the testdata.


def plain(live: Any) -> Any:
    """Without what Argo CD does not show, and with one namespace for all."""
    kept = {k: v for k, v in live["metadata"].items() if k in ("name", "generation", "annotations")}
    document = {**live, "metadata": {"namespace": "greenhouse", **kept}}
    if live["kind"] == "ScriptRepository":
        document["spec"] = {**live["spec"], "url": "https://git.example.org/greenhouse/rules.git"}
    text = json.dumps(
        {k: document[k] for k in ("apiVersion", "kind", "metadata", "spec", "status")}
    )
    return json.loads(text.replace(live["metadata"]["namespace"], "greenhouse"))


def conditions_of(live: Any) -> dict[str, tuple[str, str]]:
    told = (live.get("status") or {}).get("conditions") or ()
    return {c["type"]: (c["status"], c["reason"]) for c in told}


def test_the_testdata_is_what_a_controller_says(stage: Stage) -> None:
    for kind in KINDS:
        folder = CUSTOMIZATIONS / kind / "testdata"
        if CAPTURE:
            for situation, live in stage.seen[kind].items():
                text = yaml.safe_dump(plain(live), sort_keys=False, width=1000)
                (folder / f"{situation}.yaml").write_text(text)
        known = {file.stem: yaml.safe_load(file.read_text()) for file in folder.glob("*.yaml")}
        assert {name: conditions_of(it) for name, it in known.items()} == {
            name: conditions_of(it) for name, it in stage.seen[kind].items()
        }
        for situation, it in known.items():
            assert it["status"].keys() <= stage.seen[kind][situation]["status"].keys(), situation


@pytest.mark.parametrize("kind", KINDS)
def test_health_tests_in_argo_cds_layout_pass(kind: str) -> None:
    folder = CUSTOMIZATIONS / kind
    tests = yaml.safe_load((folder / "health_test.yaml").read_text())["tests"]
    paths = [test["inputPath"] for test in tests]
    assert sorted(paths) == sorted(f"testdata/{f.name}" for f in folder.glob("testdata/*.yaml"))
    for test in tests:
        live = yaml.safe_load((folder / test["inputPath"]).read_text())
        assert health(live) == test["healthStatus"], test["inputPath"]


@pytest.mark.parametrize("kind", KINDS)
def test_action_tests_in_argo_cds_layout_pass(kind: str) -> None:
    folder = CUSTOMIZATIONS / kind / "actions"
    tests = yaml.safe_load((folder / "action_test.yaml").read_text())
    for test in tests["discoveryTests"]:
        live = yaml.safe_load((folder / test["inputPath"]).read_text())
        assert disabled(live) == {it["name"]: it["disabled"] for it in test["result"]}
    for test in tests["actionTests"]:
        before = yaml.safe_load((folder / test["inputPath"]).read_text())
        after = yaml.safe_load((folder / test["expectedOutputPath"]).read_text())
        made = merge_patch(before, lua.run(lua_of(kind, test["action"]), before))
        # The time of day is in annotations.
        wished = made.get("metadata", {}).get("annotations", {})
        wished |= {name: after["metadata"]["annotations"][name] for name in wished}
        assert made == merge_patch(before, after), test["action"]
    done = {test["action"] for test in tests["actionTests"]}
    assert done == {path.parent.name for path in folder.glob("*/action.lua")}


def test_both_kinds_are_judged_by_one_text() -> None:
    assert len({(CUSTOMIZATIONS / kind / "health.lua").read_text() for kind in KINDS}) == 1


def test_the_config_map_is_made_of_these_files() -> None:
    """`python -m tests.support.argocd` writes it."""
    data = yaml.safe_load((DEPLOY / "argocd" / "argocd-cm.yaml").read_text())["data"]
    assert data == config_map()
    for kind in KINDS:
        actions = yaml.safe_load(data[f"resource.customizations.actions.hit.edu.cn_{kind}"])
        scripts = {it["name"]: it["action.lua"] for it in actions["definitions"]}
        assert scripts == {
            path.parent.name: path.read_text()
            for path in (CUSTOMIZATIONS / kind / "actions").glob("*/action.lua")
        }


def test_updates_that_are_ignored_are_of_fields_that_there_are() -> None:
    for kind in KINDS:
        schema = json.loads((ROOT / "schemas" / "v1alpha1" / f"{kind.lower()}.json").read_text())
        status = schema["$defs"][f"{kind}Status"]["properties"]
        assert {p.removeprefix("/status/") for p in IGNORED[kind]} <= status.keys()
