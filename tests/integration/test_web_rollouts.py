"""Rollouts over HTTP: what is asked, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.core.objects import ObjectKey
from reconciler.core.rollouts import Action
from reconciler.errors import ObjectNotFound, Stalled
from tests.fakes.operations import FakeOperations
from tests.integration.web_server import Door, listening

PATH = "/api/v1alpha1/scripts/default/thermostat/rollout"
THERMOSTAT = ObjectKey("default", "thermostat")
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def door() -> Iterator[Door]:
    with listening(FakeOperations()) as it:
        yield it


def test_each_action_is_handed_on(door: Door) -> None:
    for body in (
        b'{"action":"promote"}',
        b'{"action":"promote-full"}',
        b'{"action":"abort"}',
        b'{"action":"undo"}',
        b'{"action":"undo","revision":3}',
    ):
        assert door.ask(PATH, method="POST", body=body, headers=JSON).status == 202
    assert door.operations.rolled_out == [
        (THERMOSTAT, Action.PROMOTE, None),
        (THERMOSTAT, Action.PROMOTE_FULL, None),
        (THERMOSTAT, Action.ABORT, None),
        (THERMOSTAT, Action.UNDO, None),
        (THERMOSTAT, Action.UNDO, 3),
    ]


@pytest.mark.parametrize(
    ("body", "headers", "refusal"),
    [
        pytest.param(b"", JSON, (400, "NotJson"), id="nothing"),
        pytest.param(b"{}", {}, (415, "NotJson"), id="not said to be JSON"),
        pytest.param(b"[]", JSON, (400, "UnknownAction"), id="no object"),
        pytest.param(b'{"action":["abort"]}', JSON, (400, "UnknownAction"), id="a list"),
        pytest.param(b'{"action":"restart"}', JSON, (400, "UnknownAction"), id="another word"),
        pytest.param(
            b'{"action":"undo","revision":true}', JSON, (400, "RevisionInvalid"), id="no number"
        ),
        pytest.param(
            b'{"action":"abort","revision":1}', JSON, (400, "RevisionInvalid"), id="not for abort"
        ),
        pytest.param(
            b'{"action":"abort"}',
            {**JSON, "Origin": "https://evil.example"},
            (403, "CrossSite"),
            id="from a page of another site",
        ),
    ],
)
def test_what_is_not_understood_or_allowed_is_refused(
    door: Door, body: bytes, headers: dict[str, str], refusal: tuple[int, str]
) -> None:
    assert door.ask(PATH, method="POST", body=body, headers=headers).refusal == refusal
    assert door.operations.rolled_out == []


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        pytest.param(ObjectNotFound("there is no Script"), (404, "NotFound"), id="no such Script"),
        pytest.param(
            Stalled("nothing is under way", reason="NothingToAbort"),
            (409, "NothingToAbort"),
            id="nothing to abort",
        ),
    ],
)
def test_what_cannot_be_done_says_why(
    door: Door, error: Exception, refusal: tuple[int, str]
) -> None:
    door.operations.refusals[THERMOSTAT] = error
    body = b'{"action":"abort"}'
    assert door.ask(PATH, method="POST", body=body, headers=JSON).refusal == refusal
