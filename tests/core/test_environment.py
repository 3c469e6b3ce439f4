"""What is told of a run does not hold what it was told in confidence."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from reconciler.core.environment import HIDDEN, NOTHING, Environment
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause, LogLine, Outcome, RunId, RunRecord

CANARY = 'canary "7/ü'
ENVIRONMENT = Environment({"token": CANARY, "pin": "123"})


def record(text: str) -> RunRecord:
    return RunRecord(
        run_id=RunId("r"),
        script=ObjectKey("team", "a"),
        cause=Cause.WEBHOOK,
        outcome=Outcome.FAILED,
        message=text,
        revision="",
        digest="",
        created_at=0.0,
        finished_at=0.0,
        duration_us=1,
        changed=(f"lamp/code={text}",),
        unchanged=(f"lamp/code={text}",),
        refused=(f"lamp/code={text}",),
        logs=(LogLine("info", text), LogLine("error", "fine")),
    )


def test_every_text_of_a_run_is_hidden() -> None:
    assert ENVIRONMENT.record(record(f"token {CANARY}!")) == record(f"token {HIDDEN}!")


@pytest.mark.parametrize(
    "carried",
    [
        pytest.param(json.dumps(CANARY), id="as JSON"),
        pytest.param(quote(CANARY, safe=""), id="in a URL"),
        pytest.param(CANARY.encode().hex(), id="in hexadecimal"),
        pytest.param(base64.b64encode(CANARY.encode()).decode(), id="in Base64"),
        pytest.param(
            base64.b64encode(f"user:{CANARY}".encode()).decode(), id="as basic authorization has it"
        ),
    ],
)
def test_it_is_hidden_in_what_carries_it(carried: str) -> None:
    assert HIDDEN in ENVIRONMENT.text(f"<{carried}>")
    assert carried not in ENVIRONMENT.text(f"<{carried}>")


def test_each_line_of_a_key_is_hidden() -> None:
    environment = Environment({"key": "-----BEGIN\nfirst-line\n  second-line\n-----END"})
    assert environment.text("at second-line of it") == f"at {HIDDEN} of it"


def test_what_is_too_short_to_be_told_from_other_text_is_left() -> None:
    assert ENVIRONMENT.text("123 of 1234") == "123 of 1234"


def test_values_of_another_version_are_hidden_too() -> None:
    both = ENVIRONMENT.hiding(Environment({"token": "other-canary"}))
    assert both.text(f"{CANARY} other-canary") == f"{HIDDEN} {HIDDEN}"
    assert both.values == ENVIRONMENT.values


def test_a_state_is_shown_without_them() -> None:
    content = json.dumps({"kept": CANARY, "n": 1, CANARY: [CANARY]}).encode()
    assert json.loads(ENVIRONMENT.document(content)) == {"kept": HIDDEN, "n": 1, HIDDEN: [HIDDEN]}


def test_nobody_prints_them_by_mistake() -> None:
    assert CANARY not in repr(ENVIRONMENT.hiding(Environment({"a": CANARY})))


def test_a_run_without_secrets_is_left_as_it_is() -> None:
    it = record("text")
    assert NOTHING.record(it) is it
