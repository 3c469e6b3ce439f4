"""Argo CD's plugin and examples: what `argocd-cmp-server` would run, run here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kube import DEPLOY, KubeServer
from tests.support.rulebook import HOUSE
from tests.support.system import ROOT

GROUP = "/apis/hit.edu.cn/v1alpha1"


def plugin() -> Any:
    return yaml.safe_load((DEPLOY / "argocd" / "plugin" / "plugin.yaml").read_text())["spec"]


def generate(folder: Path, command: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    """As argocd-cmp-server does, in the folder of the Application."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [*command["command"], *command.get("args", ())],
        cwd=folder,
        env={"PATH": path, "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def checked_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


APPLICATION = {"ARGOCD_APP_NAME": "rules", "ARGOCD_APP_NAMESPACE": "greenhouse"}


def test_the_plugin_prints_scripts_of_the_repository_that_the_application_names(
    tmp_path: Path,
) -> None:
    folder = checked_out(tmp_path, HOUSE)
    for more, repository in (
        ({}, "greenhouse/rules"),
        (
            {"PARAM_REPOSITORY": "other", "PARAM_NAMESPACE": "team"},
            "team/other",
        ),
    ):
        done = generate(folder, plugin()["generate"], **APPLICATION, **more)
        assert (done.returncode, done.stderr) == (0, "")
        (found,) = yaml.safe_load_all(done.stdout)
        register = found["spec"]["manifest"]["register"]
        assert register == (
            f"http://scriptops-controller.scriptops-system:8000/registry/{repository}"
        )


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"manifests/bad.yaml": b"kind: ["}, id="a broken manifest"),
        pytest.param({"scripts/relay/1.0.0.js": b"", "scripts/relay/1.0.0.zip": b""}, id="twice"),
    ],
)
def test_the_plugin_fails_rather_than_print_a_part(tmp_path: Path, files: dict[str, bytes]) -> None:
    """Argo CD would prune what is not printed."""
    done = generate(checked_out(tmp_path, {**HOUSE, **files}), plugin()["generate"], **APPLICATION)
    assert (done.returncode, done.stdout) == (1, "")


def test_the_plugin_renders_for_the_cluster_that_the_application_names(tmp_path: Path) -> None:
    folder = checked_out(tmp_path, {**HOUSE, "scriptops.yaml": b"clusters: [plant-a, plant-b]\n"})
    done = generate(folder, plugin()["generate"], **APPLICATION)
    assert (done.returncode, done.stdout) == (2, "")
    done = generate(folder, plugin()["generate"], **APPLICATION, PARAM_CLUSTER="plant-a")
    assert (done.returncode, done.stderr) == (0, "")
    done = generate(folder, plugin()["generate"], **APPLICATION, PARAM_CLUSTER="a --kind Device")
    assert (done.returncode, done.stdout) == (2, "")


def test_the_plugin_takes_no_application_that_does_not_name_it() -> None:
    assert "discover" not in plugin()


def test_the_plugin_runs_nothing_of_what_it_is_told(tmp_path: Path) -> None:
    hostile = {"PARAM_REPOSITORY": "$(touch made); touch made"}
    folder = checked_out(tmp_path, HOUSE)
    assert generate(folder, plugin()["generate"], **APPLICATION, **hostile).returncode == 2
    assert not (folder / "made").exists()


def test_the_sidecar_joins_the_repo_server_with_the_plugin_of_this_file(tmp_path: Path) -> None:
    """Of Argo CD's own Deployment the part that is patched."""
    server = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "argocd-repo-server"},
        "spec": {
            "template": {
                "spec": {
                    "containers": [{"name": "argocd-repo-server", "image": "argocd"}],
                    "volumes": [
                        {"name": "var-files", "emptyDir": {}},
                        {"name": "plugins", "emptyDir": {}},
                    ],
                }
            }
        },
    }
    component = os.path.relpath(DEPLOY / "argocd" / "plugin", tmp_path)
    kustomization = {"resources": ["server.yaml"], "components": [component]}
    (tmp_path / "server.yaml").write_text(yaml.safe_dump(server))
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = {it["kind"]: it for it in yaml.safe_load_all(done.stdout)}
    pod = made["Deployment"]["spec"]["template"]["spec"]
    volumes = {it["name"]: it for it in pod["volumes"]}
    (sidecar,) = [it for it in pod["containers"] if it["name"] == "scriptops"]
    assert {it["name"] for it in sidecar["volumeMounts"]} <= volumes.keys()
    assert volumes["scriptops-plugin"]["configMap"]["name"] == made["ConfigMap"]["metadata"]["name"]
    assert yaml.safe_load(made["ConfigMap"]["data"]["plugin.yaml"])["spec"] == plugin()


def test_the_application_set_tells_the_plugin_what_it_asks_for() -> None:
    application = yaml.safe_load((DEPLOY / "argocd" / "applicationset.yaml").read_text())
    source = application["spec"]["template"]["spec"]["source"]
    assert (
        source["plugin"]["name"]
        == yaml.safe_load((DEPLOY / "argocd" / "plugin" / "plugin.yaml").read_text())["metadata"][
            "name"
        ]
    )
    told = {it["name"] for it in source["plugin"]["parameters"]}
    assert told <= {it["name"] for it in plugin()["parameters"]["static"]}


@pytest.mark.kube
def test_the_example_of_a_repository_is_taken(kube: KubeServer) -> None:
    kube.apply_crds(sorted((ROOT / "deploy" / "crds").glob("*.yaml")))
    team = kube.namespace("argocd")
    example = yaml.safe_load((DEPLOY / "argocd" / "scriptrepository.yaml").read_text())
    example["metadata"]["namespace"] = team
    made = kube.request("POST", f"{GROUP}/namespaces/{team}/scriptrepositories", example)
    assert made["spec"] == example["spec"]
