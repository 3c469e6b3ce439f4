"""The image as users have it: another user than root, a file system that cannot be written."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.image import Image, workspace
from tests.support.kinds import DEVICE_CRDS
from tests.support.kube import KubeServer, free_port, wait_until
from tests.support.system import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def work(tmp_path: Path, image: Image) -> Path:
    """The working folder of containers, with a repository of rules in `rules`."""
    folder = workspace(tmp_path / "work", image)
    done = image.run(folder, "init", "rules")
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_it_is_run_by_nobody_who_may_write_but_where_he_works(image: Image, work: Path) -> None:
    asked = "id -u; id -G; touch /x /opt/scriptops/x /home/scriptops/x; touch /tmp/x /work/x"
    done = image.run(work, "-c", asked, entrypoint="sh")
    refused = [line.rpartition(": ")[2] for line in done.stderr.splitlines()]
    assert (done.stdout.split(), refused, done.returncode) == (
        ["65532", "65532"],
        ["Read-only file system"] * 3,
        0,
    )


def test_its_programs_are_of_this_version(image: Image, work: Path) -> None:
    done = image.run(work, "version")
    assert done.stdout.splitlines()[0] == f"scriptops {metadata.version('scriptops')}"
    helped = [image.run(work, "--help", entrypoint=it) for it in ("executor", "kubectl-scriptops")]
    assert [it.returncode for it in helped] == [0, 0]


def test_what_it_makes_it_finds_no_problem_in(image: Image, work: Path) -> None:
    done = image.run(work, "validate", "rules")
    assert (done.returncode, done.stderr) == (
        0,
        "no problems in 7 files; 10 objects can be deployed\n",
    )


def test_workers_have_all_layers_of_their_sandbox(image: Image, work: Path) -> None:
    done = image.run(work, "doctor", "-o", "json")
    assert [it for it in json.loads(done.stdout) if not it["holds"]] == []
    assert done.returncode == 0


def test_the_demo_goes_from_a_push_to_a_device_and_back(image: Image, work: Path) -> None:
    done = image.run(work, "demo", "--once")
    assert (done.returncode, "failedRuns         0" in done.stdout) == (0, True), done.stdout


def test_controller_and_executor_deploy_to_a_cluster(
    image: Image, work: Path, tmp_path: Path, kube: KubeServer
) -> None:
    kube.apply_crds(sorted((ROOT / "deploy" / "crds").glob("*.yaml")))
    kube.apply_crds(DEVICE_CRDS)
    namespace = kube.namespace("image")
    kubeconfig = yaml.safe_load(kube.controller_kubeconfig.read_text())
    cluster = kubeconfig["clusters"][0]["cluster"]
    (work / "ca.crt").write_bytes(kube.certificate.read_bytes())
    cluster["certificate-authority"] = "/work/ca.crt"
    (work / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    web, grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    repository = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {"name": "rules", "namespace": namespace},
        "spec": {"url": "/work/rules"},
    }
    api = f"/apis/hit.edu.cn/v1alpha1/namespaces/{namespace}"
    kube.request("POST", f"{api}/scriptrepositories", repository)
    controller = ["scriptops", "controller", "--cluster=kubernetes", "--kubeconfig=/work/kubeconfig",
                  "--data=/work/data", "--git-url=/work/*", f"--web={web}", f"--grpc={grpc}", "--mqtt="]  # fmt: skip
    logs = [tmp_path / name for name in ("controller.log", "executor.log")]
    with image.running(work, logs[0], *controller), image.running(work, logs[1], "executor", grpc):
        wait_until(
            lambda: _ready(kube, api) == {"thermostat": "True", "door-lamp": "True"},
            what="the Scripts are Ready",
            seconds=60,
        )
        assert _answers(f"http://{web}/readyz")


def _ready(kube: KubeServer, api: str) -> dict[str, Any]:
    items = kube.request("GET", f"{api}/scripts")["items"]
    return {
        it["metadata"]["name"]: condition["status"]
        for it in items
        for condition in it.get("status", {}).get("conditions", [])
        if condition["type"] == "Ready"
    }


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback server
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False
