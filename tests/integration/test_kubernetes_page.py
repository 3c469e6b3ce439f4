"""docs/kubernetes.md followed to the letter: from an empty API server to a rule that has run.

There are no nodes, so the two programs are started here as their pods would start them: with the
arguments of the Deployments, the files of the Secrets and a token of the ServiceAccount. Nor is
there a DNS of a cluster, so the controller's certificate is for this machine's address besides.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.test_deploy import older
from tests.support.gitserver import Repository
from tests.support.kube import SYSTEM, KubeServer, binaries, free_port, wait_until
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import ROOT, Process

pytestmark = pytest.mark.kube
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments"
HOST = "--host scriptops-controller"
EXAMPLE = "https://git.example.org/team/rules.git"
MOUNTED = "/etc/scriptops/tls"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[KubeServer]:
    """An API server on which nobody has been."""
    server = KubeServer(tmp_path / "server", binaries())
    try:
        server.start()
        yield server
    finally:
        server.stop()


def commands(heading: str) -> list[str]:
    """The code blocks of a section."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", section, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks]


class Reader:
    """Somebody with a shell and the administrator's kubeconfig, in a clone of this repository."""

    def __init__(self, kube: KubeServer, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "KUBECONFIG": str(kube.kubeconfig),
        }
        folder.mkdir()
        (folder / "deploy").symlink_to(ROOT / "deploy")

    def types(self, text: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def base(self) -> str:
        """`kubectl apply -k deploy/base`, with the kinds in versions that this server knows."""
        made = map(older, yaml.safe_load_all(self.types("kubectl kustomize deploy/base")))
        (self._folder / "base.yaml").write_text(yaml.safe_dump_all(made))
        return "kubectl apply -f base.yaml"


def pod(kube: KubeServer, folder: Path, name: str) -> list[str]:
    """The program and arguments of a Deployment's container, with its Secret in `folder`."""
    spec = kube.request("GET", f"{DEPLOYMENTS}/{name}")["spec"]["template"]["spec"]
    (secret,) = [v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v]
    data: Any = kube.request("GET", f"/api/v1/namespaces/{SYSTEM}/secrets/{secret}")["data"]
    folder.mkdir()
    for key, value in data.items():
        (folder / key).write_bytes(base64.b64decode(value))
        (folder / key).chmod(0o440)
    (container,) = spec["containers"]
    command = container.get("command", ["reconciler"])
    return [*command, *(it.replace(MOUNTED, str(folder)) for it in container["args"])]


@contextlib.contextmanager
def running(process: Process) -> Iterator[None]:
    process.start()
    try:
        yield
    finally:
        process.stop()


def test_a_stranger_comes_from_an_empty_cluster_to_a_running_rule(
    empty: KubeServer, tmp_path: Path, git: Repository
) -> None:
    git.commit({"manifests/one.yaml": documents(script("one")), "scripts/quiet/1.0.0.js": QUIET})
    reader = Reader(empty, tmp_path / "clone")
    *install, deploy = commands("From an empty cluster to a running rule")
    text = "".join(install)
    assert "kubectl apply -k deploy/base\n" in text
    assert HOST in text
    text = text.replace("kubectl apply -k deploy/base\n", f"{reader.base()}\n")
    reader.types(text.replace(HOST, f"{HOST} --host 127.0.0.1"))

    empty.sign_in()
    grpc, web = free_port(), free_port()
    controller = Process(
        [
            *pod(empty, tmp_path / "controller-tls", "scriptops-controller"),
            f"--kubeconfig={empty.controller_kubeconfig}",
            f"--data={tmp_path / 'data'}",
            f"--git-url={git.path}",
            f"--web=127.0.0.1:{web}",
            f"--grpc=127.0.0.1:{grpc}",
        ],
        tmp_path / "controller.log",
    )
    program, address, *options = pod(empty, tmp_path / "executor-tls", "scriptops-executor")
    assert address == "scriptops-controller:8001"
    options = [f"--health=127.0.0.1:{free_port()}" if "--health" in it else it for it in options]
    executor = Process([program, f"127.0.0.1:{grpc}", *options], tmp_path / "executor.log")
    with running(controller):
        controller.says('"message":"serving"')
        with running(executor):
            told = reader.types(deploy.replace(EXAMPLE, str(git.path)))
            (one,) = (line.split() for line in told.splitlines() if line.startswith("one "))
            assert one[:2] == ["one", "True"]
            path = "/apis/hit.edu.cn/v1alpha1/namespaces/greenhouse/scripts/one"
            wait_until(
                lambda: empty.request("GET", path)["status"].get("runs") == 1,
                what="the rule has run",
            )
    denied = [it for it in empty.asked("greenhouse", SYSTEM) if not it.allowed]
    assert denied == []
