"""Systems that several tests share; each test has a namespace and a repository of its own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.core.objects import SCRIPT_REPOSITORIES, ObjectKey
from tests.support import kubeedge
from tests.support.gitserver import Repository
from tests.support.kube import KubeServer
from tests.support.statuswatch import StatusWatch, watching
from tests.support.system import ROOT, System, executor, kubernetes, serving, settings


@dataclass
class Kubernetes:
    """An API server with our kinds, a controller and an executor at it, and all they wrote.

    The controller is the ServiceAccount that we ship.
    """

    kube: KubeServer
    system: System
    watch: StatusWatch


@contextlib.contextmanager
def running_on(
    kube: KubeServer, folder: Path, *, layout: kubeedge.Layout | None
) -> Iterator[Kubernetes]:
    kube.apply_crds(sorted((ROOT / "deploy" / "crds").glob("*.yaml")))
    kubeedge.remove_crds(kube)
    if layout is not None:
        layout.install(kube)
    with (
        watching(kube) as watch,
        serving(
            settings(folder / "data", **kubernetes(kube.controller_kubeconfig)),
            operator=kube.kubeconfig,
        ) as system,
        executor(system.grpc, folder / "executor.log"),
    ):
        yield Kubernetes(kube, system, watch)
    kubeedge.remove_crds(kube)


@pytest.fixture(scope="module")
def on_kubernetes(
    kube: KubeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubernetes]:
    """Without Devices, so that these tests run everywhere."""
    with running_on(kube, tmp_path_factory.mktemp("kubernetes"), layout=None) as running:
        yield running


@pytest.fixture
def team(kube: KubeServer) -> Iterator[str]:
    """A namespace of the API server; its repositories go at the end, and then its Scripts."""
    name = kube.namespace("team")
    yield name
    for plural in ("scriptrepositories", "scripts"):
        kube.request("DELETE", f"/apis/hit.edu.cn/v1alpha1/namespaces/{name}/{plural}")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A controller on an embedded cluster with one executor; versions are immutable."""
    folder = tmp_path_factory.mktemp("embedded")
    with (
        serving(settings(folder / "data")) as system,
        executor(system.grpc, folder / "executor.log"),
    ):
        yield system


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    return itertools.count(1)


@contextlib.contextmanager
def fresh_namespaces(embedded: System, numbers: Iterator[int]) -> Iterator[Callable[[], str]]:
    """Namespaces that nobody has used; at the end their repositories go, and are read no more."""
    used: list[str] = []

    def fresh() -> str:
        used.append(f"team-{next(numbers)}")
        return used[-1]

    yield fresh
    for namespace in used:
        for name in embedded.all(SCRIPT_REPOSITORIES, namespace):
            embedded.delete(SCRIPT_REPOSITORIES, ObjectKey(namespace, name))


@pytest.fixture
def fresh(embedded: System, numbers: Iterator[int]) -> Iterator[Callable[[], str]]:
    with fresh_namespaces(embedded, numbers) as namespaces:
        yield namespaces


@pytest.fixture
def namespace(fresh: Callable[[], str]) -> str:
    return fresh()


@pytest.fixture
def git(tmp_path: Path) -> Repository:
    """A bare repository without commits."""
    return Repository(tmp_path / "rules.git", "--bare")
