"""Recorded runs over HTTP: to this machine only, whole, and with the bytes that ran."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.fakes.operations import FakeOperations
from tests.integration.test_web_limits import needs_neighbour, neighbour
from tests.integration.web_server import Door, listening

SOURCE = b"function main() {}"
DIGEST = "sha256:1"


def document(run_id: str, *, script: str = "thermostat", digest: str = DIGEST) -> dict[str, object]:
    return {"id": run_id, "script": {"namespace": "default", "name": script}, "digest": digest}


KNOWN = [document("r3"), document("r2", script="lamp"), document("r1", digest="sha256:gone")]


def operations() -> FakeOperations:
    return FakeOperations(recording_documents=list(KNOWN), artifacts={DIGEST: SOURCE})


@pytest.fixture
def door() -> Iterator[Door]:
    with listening(operations()) as it:
        yield it


def test_the_recording_of_a_run_is_served(door: Door) -> None:
    answer = door.ask("/api/v1alpha1/runs/r3/recording")
    assert (answer.status, answer.json) == (200, KNOWN[0])


def test_so_are_the_bytes_that_it_ran(door: Door) -> None:
    answer = door.ask("/api/v1alpha1/runs/r3/artifact")
    assert (answer.status, answer.body, answer.headers["etag"]) == (200, SOURCE, f'"{DIGEST}"')


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param("", ["r3", "r2", "r1"], id="all, newest first"),
        pytest.param("?script=lamp", ["r2"], id="of a script"),
        pytest.param("?namespace=other", [], id="of another namespace"),
        pytest.param("?limit=1", ["r3"], id="no more than asked for"),
    ],
)
def test_recordings_are_listed(door: Door, query: str, found: list[str]) -> None:
    answer = door.ask(f"/api/v1alpha1/recordings{query}")
    assert [item["id"] for item in json.loads(answer.body)["items"]] == found


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        pytest.param("/runs/r9/recording", "NotFound", id="a run that is not recorded"),
        pytest.param("/runs/r9/artifact", "NotFound", id="its bytes"),
        pytest.param("/runs/r1/artifact", "ArtifactNotFound", id="bytes that are gone"),
    ],
)
def test_what_is_not_kept_is_not_found(door: Door, path: str, reason: str) -> None:
    answer = door.ask(f"/api/v1alpha1{path}")
    assert (answer.status, answer.json["reason"]) == (404, reason)


@needs_neighbour
@pytest.mark.parametrize("path", ["/runs/r3/recording", "/runs/r3/artifact", "/recordings"])
def test_other_machines_are_refused_unless_the_operator_says_otherwise(path: str) -> None:
    for insecure, status in ((False, 401), (True, 200)):
        with listening(operations(), host="0.0.0.0", ask_at=neighbour(), insecure=insecure) as it:
            assert it.ask(f"/api/v1alpha1{path}").status == status
