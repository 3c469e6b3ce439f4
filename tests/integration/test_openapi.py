"""The OpenAPI document is the HTTP door: no path more, none less, and answers as it says."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from typing import Any

import pygit2
import pytest
import schemathesis
from falcon.inspect import inspect_routes
from hypothesis import HealthCheck, settings
from prometheus_client import CollectorRegistry
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from reconciler import web
from reconciler.core.objects import ObjectKey
from reconciler.web.gate import Gate
from reconciler.web.openapi import document
from tests.fakes.access import FakeAccess
from tests.fakes.commands import FakeCommands
from tests.fakes.hooks import FakeHooks
from tests.fakes.operations import FakeOperations
from tests.fakes.registry import FakeRegistry
from tests.support import system
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE
from tests.support.system import System, executor, serving

NAMESPACE = "house"
# Of each operation: some hundred requests for the document, in a few seconds.
EXAMPLES = 12
# Parameters that hit something are tried as often as any others.
KNOWN = {
    "namespace": NAMESPACE,
    "name": "relay",
    "script": "relay",
    "repository": "rules",
    "file": "1.0.0.js",
    # Stands for the id that the run has got.
    "run_id": "the-run",
}


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    app = web.app(
        FakeOperations(),
        FakeRegistry(),
        push_hooks=FakeHooks(),
        commands=FakeCommands(),
        metrics=CollectorRegistry(),
        access=FakeAccess(),
    )
    assert isinstance(app, Gate)

    routed = {
        (route.path, method.method.lower())
        for route in inspect_routes(app._inner)  # type: ignore[arg-type]  # what it stands before
        for method in route.methods
        if not method.internal
    }

    told = {(path, method) for path, item in document()["paths"].items() for method in item}
    assert routed == told


def test_what_is_referred_to_is_there() -> None:
    told = document()
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(told)))
    assert references - told["components"]["schemas"].keys() == set()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, str]]:
    """A controller with a repository, a Script that has run, and the id of its run."""
    folder = tmp_path_factory.mktemp("openapi")
    git = Repository(folder / "rules.git", "--bare")
    commit = git.commit(HOUSE)
    with (
        serving(system.settings(folder / "data")) as running,
        executor(running.grpc, folder / "executor.log"),
    ):
        running.synced(running.repository(NAMESPACE, git.path), commit)
        running.ready(ObjectKey(NAMESPACE, "relay"))
        asked = running.ask(f"/api/v1alpha1/scripts/{NAMESPACE}/relay/trigger", method="POST")
        wait_until(lambda: running.runs(NAMESPACE, "relay"), what="the rule has run")
        yield running, asked["runId"]


def test_versions_of_what_meets_the_bytes_and_code_of_others_are_told(
    house: tuple[System, str],
) -> None:
    running, _ = house
    libraries = running.ask("/api/v1alpha1/version")["libraries"]
    assert libraries == {
        "libgit2": pygit2.LIBGIT2_VERSION,
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
    }
    [connected] = running.ask("/api/v1alpha1/executors")["items"]
    assert {"v8", "wasmtime"} <= {name.lower() for name in connected["engines"]}


def _described() -> Any:
    """The document, with what there is among the values of its parameters."""
    described = document()
    for item in described["paths"].values():
        for operation in item.values():
            for parameter in operation["parameters"]:
                known = KNOWN.get(parameter["name"])
                if known is not None:
                    there_is = {"type": "string", "const": known}
                    parameter["schema"] = {"anyOf": [there_is, parameter["schema"]]}
    return described


schema = schemathesis.openapi.from_dict(_described())


def test_the_document_is_served_to_everybody(house: tuple[System, str]) -> None:
    assert house[0].ask("/api/v1alpha1/openapi.json") == document()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_documented_and_never_a_bug(
    case: schemathesis.Case, house: tuple[System, str]
) -> None:
    running, run_id = house
    if case.path_parameters.get("run_id") == KNOWN["run_id"]:
        case.path_parameters["run_id"] = run_id
    response = case.call(base_url=running.web)
    # 503 is an answer (come again); 500 is a bug.
    assert response.status_code != 500, response.text
    case.validate_response(
        response,
        checks=[status_code_conformance, content_type_conformance, response_schema_conformance],
    )
