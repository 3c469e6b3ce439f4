"""Power cuts: the controller is killed in the middle of things and started again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import ObjectKey
from tests.support.gitserver import Repository
from tests.support.kube import KubeServer, wait_until
from tests.support.rulebook import QUIET, documents, script
from tests.support.statusfiles import status_files
from tests.support.statuswatch import watching
from tests.support.system import ROOT, ControllerProcess, executor, is_ready

pytestmark = pytest.mark.kube
MANY = 300
GROUP = "/apis/hit.edu.cn/v1alpha1"


@pytest.fixture
def controller(kube: KubeServer, tmp_path: Path) -> Iterator[ControllerProcess]:
    kube.apply_crds(sorted((ROOT / "deploy" / "crds").glob("*.yaml")))
    process = ControllerProcess(
        tmp_path,
        "--cluster=kubernetes",
        f"--kubeconfig={kube.controller_kubeconfig}",
        "--git-url=*",
    )
    yield process
    if process.code is None:
        process.stop()


def live(kube: KubeServer, team: str) -> dict[str, Any]:
    items = kube.request("GET", f"{GROUP}/namespaces/{team}/scripts")["items"]
    return {o["metadata"]["name"]: o for o in items}


def many(version: str) -> bytes:
    return documents(*(script(f"s{n:03}", env={"version": version}) for n in range(MANY)))


def create_repository(kube: KubeServer, team: str, url: Path) -> None:
    document = {
        "apiVersion": "hit.edu.cn/v1alpha1",
        "kind": "ScriptRepository",
        "metadata": {"name": "rules", "namespace": team},
        "spec": {"url": str(url), "resultsInterval": "1s"},
    }
    kube.request("POST", f"{GROUP}/namespaces/{team}/scriptrepositories", document)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(lambda o, v: o["spec"]["env"]["version"] == v, id="while specs are applied"),
        pytest.param(
            lambda o, v: o["spec"]["env"]["version"] == v and is_ready(o),
            id="while statuses are written and pushed",
        ),
    ],
)
def test_a_controller_killed_while_it_works_ends_with_what_git_says_and_a_whole_status_ref(
    kube: KubeServer,
    controller: ControllerProcess,
    team: str,
    tmp_path: Path,
    git: Repository,
    count: Callable[[Any, str], bool],
) -> None:
    """Each time at a random moment of the work; the next start meets what was left."""
    chance = random.Random(team)
    create_repository(kube, team, git.path)
    git.commit({"scripts/quiet/1.0.0.js": QUIET})
    partial = 0
    with watching(kube) as watch:
        for version in map(str, range(3)):
            git.commit({"manifests/many.yaml": many(version)})
            controller.start()
            with executor(controller.serving()["grpc"], tmp_path / f"executor-{version}.log"):
                enough = chance.randrange(1, MANY * 3 // 4)

                def done(v: str = version) -> int:
                    return len({o["metadata"]["name"] for o in watch.of(team) if count(o, v)})

                wait_until(lambda: done() >= enough, what=f"{enough} done", every=0.001)  # noqa: B023 - called at once
                controller.kill()
            partial += sum(count(o, version) for o in live(kube, team).values()) < MANY
            status_files(git)
    assert partial, "no kill was in the middle of anything"
    controller.start()
    with executor(controller.serving()["grpc"], tmp_path / "executor.log"):

        def equals_git() -> bool:
            found = live(kube, team)
            return len(found) == MANY and all(
                o["spec"]["env"] == {"version": "2"} and is_ready(o) for o in found.values()
            )

        wait_until(equals_git, what="the cluster equals git", seconds=60, every=0.2)

        def is_told() -> bool:
            statuses = {ObjectKey(team, n): o["status"] for n, o in live(kube, team).items()}
            return status_files(git) == statuses

        wait_until(is_told, what="the status ref equals the cluster", seconds=60, every=0.5)
