"""Systems that several tests share; each test has a namespace and a repository of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gitserver import Repository
from tests.support.system import System, executor, serving, settings


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
def fresh() -> Callable[[], str]:
    """Namespaces that nobody has used."""
    numbers = itertools.count(1)
    return lambda: f"team-{next(numbers)}"


@pytest.fixture
def namespace(fresh: Callable[[], str]) -> str:
    return fresh()


@pytest.fixture
def git(tmp_path: Path) -> Repository:
    """A bare repository without commits."""
    return Repository(tmp_path / "rules.git", "--bare")
