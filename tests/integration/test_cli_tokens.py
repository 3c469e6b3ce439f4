"""`scriptops tokens` and `certs`, and a controller without Kubernetes that asks for them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.command_line import CommandLine
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import System, executor, serving, settings

RULES = {"manifests/one.yaml": documents(script("one")), "scripts/quiet/1.0.0.js": QUIET}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def system(data: Path) -> Iterator[System]:
    """One that other machines reach, as `scriptops controller` is by default."""
    with serving(settings(data, web="0.0.0.0:0")) as it:
        yield it


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def test_tokens_are_made_used_and_taken_back(
    system: System, data: Path, tmp_path: Path, git: Repository, command_line: CommandLine
) -> None:
    at = f"--controller=http://127.0.0.1:{system.controller.addresses.web.port}"
    here = f"--data={data}"
    rules = system.repository("default", git.path)
    system.synced(rules, git.commit(RULES))

    refused = command_line("get", "scripts", at)
    assert (refused.code, "give --token" in refused.err) == (2, True)

    made = command_line("tokens", "create", "ci", "--scope=read", "--scope=trigger", here)
    token = made.out.strip()
    assert re.fullmatch(r"scriptops_[-_A-Za-z0-9]{43}", token)
    file = tmp_path / "token"
    file.write_text(made.out)
    shown = command_line("get", "scripts", at, f"--token=@{file}")
    assert (shown.code, "one" in shown.out) == (0, True)
    with executor(system.grpc, tmp_path / "log"):
        wait_until(
            lambda: command_line("trigger", "one", "--wait", at, f"--token={token}").code == 0,
            what="the run is good",
        )
        blind = command_line("tokens", "create", "hook", "--scope=trigger", here).out.strip()
        unseen = command_line("trigger", "one", "--wait", at, f"--token={blind}")
    assert (unseen.code, unseen.out) == (2, "")
    assert re.fullmatch(
        r"error: run [0-9a-f]{32} is queued, but token:hook may not get scripts/runs default/one\n",
        unseen.err,
    )
    refused = command_line("suspend", "script", "one", at, f"--token={token}")
    assert (refused.code, "token:ci may not patch scripts default/one" in refused.err) == (2, True)

    listed = command_line("tokens", "list", here, "-o", "json")
    item = next(it for it in json.loads(listed.out)["items"] if it["name"] == "ci")
    assert (item["name"], item["scopes"], item["namespaces"], item["expiresAt"]) == (
        *("ci", ["read", "trigger"], []),
        None,
    )
    assert token not in listed.out
    revoked = command_line("tokens", "revoke", "ci", here)
    assert (revoked.code, revoked.out) == (0, f"token ci ({item['id']}) is revoked\n")
    wait_until(
        lambda: command_line("get", "scripts", at, f"--token={token}").code == 2,
        what="the token is refused",
        every=0.5,
    )
    assert command_line("tokens", "revoke", "ci", here).code == 2


def test_a_token_for_one_namespace_sees_that_one_alone(
    system: System, data: Path, command_line: CommandLine
) -> None:
    at = f"--controller=http://127.0.0.1:{system.controller.addresses.web.port}"
    made = command_line("tokens", "create", "team", "-n", "lab", "--lifetime=1h", f"--data={data}")
    given = (at, f"--token={made.out.strip()}")
    assert command_line("get", "scripts", "-n", "lab", *given).code == 0
    assert command_line("get", "scripts", *given).code == 2
    assert command_line("get", "scripts", "-A", *given).code == 2
    listed = command_line("tokens", "list", f"--data={data}")
    assert listed.out.splitlines()[1].split()[2:4] == ["read", "lab"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("create", "a b"), id="a name with a space"),
        pytest.param(("create", "a", "--scope=all"), id="no scope"),
        pytest.param(("create", "a", "--lifetime=1y"), id="no lifetime"),
        pytest.param(("create", "a", "-n", "A"), id="no namespace"),
    ],
)
def test_what_makes_no_sense_makes_no_token(
    data: Path, command_line: CommandLine, arguments: tuple[str, ...]
) -> None:
    assert command_line("tokens", *arguments, f"--data={data}").code == 2
    assert not (data / "tokens.json").exists()


def test_a_token_is_not_sent_in_the_clear_to_other_machines(command_line: CommandLine) -> None:
    sent = command_line("get", "scripts", "--controller=http://192.0.2.1", "--token=t")
    assert (sent.code, "for everybody to read" in sent.err) == (2, True)


def test_a_file_of_a_token_that_is_not_there_is_said(command_line: CommandLine) -> None:
    asked = command_line("get", "scripts", "--token=@/nowhere/token")
    assert (asked.code, "/nowhere/token cannot be read" in asked.err) == (2, True)


def test_certificates_are_made_in_three_steps(tmp_path: Path, command_line: CommandLine) -> None:
    folder = tmp_path / "certs"
    assert command_line("certs", "executor", str(folder), "attic").code == 2
    assert command_line("certs", "init", str(folder)).code == 0
    controller = command_line("certs", "controller", str(folder), "--host", "rules.example.com")
    attic = command_line("certs", "executor", str(folder), "attic", "--days", "30")
    assert controller.out == (
        f"scriptops controller --tls-cert {folder}/controller.crt --tls-key "
        f"{folder}/controller.key --client-ca {folder}/ca.crt\n"
    )
    assert attic.out == (
        f"scriptops executor HOST:PORT --tls-ca {folder}/ca.crt --tls-cert {folder}/attic.crt "
        f"--tls-key {folder}/attic.key\n"
    )
    assert command_line("certs", "init", str(folder)).code == 2
    assert command_line("certs", "controller", str(folder)).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(("--tls-cert",), "go together", id="a certificate alone"),
        pytest.param(("--tls-cert", "--tls-key"), "go together", id="without who signs executors"),
        pytest.param(("--web-tls-key",), "go together", id="a key alone"),
    ],
)
def test_files_of_tls_that_go_together_are_asked_for_together(
    tmp_path: Path, command_line: CommandLine, options: tuple[str, ...], words: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    given = [part for option in options for part in (option, str(file))]
    asked = command_line("controller", f"--data={tmp_path}", *given)
    assert (asked.code, words in asked.err) == (2, True)
