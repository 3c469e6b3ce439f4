"""Ciphertext in manifests: told from what is none, before anybody has a key."""

from __future__ import annotations

import json

import pytest

from reconciler.api import armor
from tests.core.manifests import loaded, script
from tests.fakes.ciphers import encrypted

CANARY = "hunter2-canary"
CIPHERTEXT = encrypted(CANARY * 10)
LINES = CIPHERTEXT.splitlines()


def joined(*lines: str) -> str:
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(CIPHERTEXT, "", id="as it was made"),
        pytest.param(joined(*LINES), "", id="without a line end"),
        pytest.param(CIPHERTEXT.replace("\n", "\r\n"), "", id="with the line ends of Windows"),
        pytest.param(CANARY, "this is not encrypted", id="the secret itself"),
        pytest.param("", "this is not encrypted", id="nothing"),
        pytest.param(joined(*LINES[:-1]), "the ciphertext is cut off", id="without its last line"),
        pytest.param(
            joined(LINES[0], LINES[1], LINES[-1]), "the ciphertext is cut off", id="a line missing"
        ),
        pytest.param(joined(LINES[0], LINES[-1]), "a line of the ciphertext", id="empty"),
        pytest.param(
            joined(LINES[0], LINES[1][:-1], *LINES[2:]), "a line of", id="a character missing"
        ),
        pytest.param(
            joined(LINES[0], "!" * 64, *LINES[2:]), "the ciphertext is not Base64", id="no Base64"
        ),
        pytest.param(
            joined("-----BEGIN AGE FILE-----", *LINES[1:]),
            "the first line",
            id="another first line",
        ),
        pytest.param(
            joined(LINES[0], "A" * 64, *LINES[2:]), "this is ciphertext of something", id="not age"
        ),
    ],
)
def test_what_cannot_be_decrypted_is_said_without_quoting_it(text: str, problem: str) -> None:
    found = armor.problem(text)
    assert found.startswith(problem) if problem else found == ""
    assert CANARY not in found


def with_env_from(source: str) -> list[tuple[str, str, str]]:
    problems = loaded(a=f"{script('one')}  envFrom: {source}\n").problems
    return [(p.reason, p.pointer, p.message) for p in problems]


@pytest.mark.parametrize(
    ("source", "pointer"),
    [
        pytest.param(
            f"{{token: {{age: {CANARY}}}}}", "/spec/envFrom/token/age", id="as ciphertext"
        ),
        pytest.param("{token: {age: 424242}}", "/spec/envFrom/token/age", id="as a number"),
        pytest.param(f"{{token: {CANARY}}}", "/spec/envFrom/token", id="without saying what it is"),
        pytest.param(f"{{token: [{CANARY}]}}", "/spec/envFrom/token", id="in a list"),
        pytest.param(f"[{CANARY}]", "/spec/envFrom", id="in a list of its own"),
        pytest.param(
            f'{{token: {{secretKeyRef: {{name: api, key: "{CANARY} "}}}}}}',
            "/spec/envFrom/token/secretKeyRef/key",
            id="as the key",
        ),
        pytest.param(
            f'{{token: {{secretKeyRef: {{name: "{CANARY}!", key: a}}}}}}',
            "/spec/envFrom/token/secretKeyRef/name",
            id="as the name",
        ),
    ],
)
def test_a_secret_that_was_written_in_plain_is_found_and_not_shown(
    source: str, pointer: str
) -> None:
    [(reason, where, message)] = with_env_from(source)
    assert (reason, where) == ("InvalidField", pointer)
    assert CANARY not in message
    assert "424242" not in message


def test_one_source_for_a_value_and_one_place_for_a_name() -> None:
    both = json.dumps({"secretKeyRef": {"name": "a", "key": "b"}, "age": CIPHERTEXT})
    [(_, where, message)] = with_env_from(f"{{token: {both}}}")
    assert (where, message) == ("/spec/envFrom/token", "token: write one of secretKeyRef and age")
    [(_, where, message)] = with_env_from("{token: {}}")
    assert message == "token: write one of secretKeyRef and age"
    problems = loaded(
        a=f"{script('one')}  env: {{token: a}}\n  envFrom: {{token: {{secretKeyRef: {{name: a, key: b}}}}}}\n"
    ).problems
    assert [p.message for p in problems] == ["spec: token is in env and in envFrom; keep one"]


def test_ciphertext_in_env_is_noted_since_nobody_decrypts_it_there() -> None:
    text = f"{script('one')}  env: {{token: {json.dumps(CIPHERTEXT)}}}\n"
    [problem] = loaded(a=text).problems
    assert (problem.reason, problem.severity, problem.pointer) == (
        *("NotDecrypted", "note", "/spec/env/token"),
    )


def test_a_script_with_secrets_is_deployed_with_its_ciphertext_as_it_is() -> None:
    source = {"age": CIPHERTEXT}
    desired = loaded(a=f"{script('one')}  envFrom: {json.dumps({'token': source})}\n").desired
    [found] = desired.values()
    assert found.document["spec"]["envFrom"] == {"token": source}
