"""`scriptops replay` and `recordings`: what ran once, run again here."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from reconciler.core import recordings
from reconciler.core.runs import LogLine, Outcome, Write
from tests.fakes.operations import FakeOperations
from tests.integration.command_line import CommandLine, Ended
from tests.integration.web_server import Door, listening
from tests.support.recordings import recording

SOURCE = b"""\
async function main(event) {
  const low = Number(Deno.env["low"]);
  const cold = Device.getDeviceStatus("thermometer", "temperature") < low;
  if (cold) console.log("cold", Deno.env["token"] === event?.token);
  Device.setDeviceStatus("heater", "power", cold);
  await Device.commitDevice("heater");
}
"""
DIGEST = "sha256:" + hashlib.sha256(SOURCE).hexdigest()
KEY = b"k" * 32


def recorded(run_id: str = "run-1", **parts: Any) -> dict[str, Any]:
    """The rule above as it answered at 18.5 degrees."""
    made = recording(
        run_id,
        digest=DIGEST,
        secrets=frozenset({"token"}),
        **{
            "activation": {"event": {"token": "hunter2-hunter2"}},
            "logs": (LogLine("info", "cold true"),),
            **parts,
        },
    )
    document: dict[str, Any] = orjson.loads(recordings.encoded(made, key=KEY))
    return document


@pytest.fixture
def door() -> Iterator[Door]:
    operations = FakeOperations(recording_documents=[recorded()], artifacts={DIGEST: SOURCE})
    with listening(operations) as it:
        yield it


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def at(door: Door) -> str:
    return f"http://{door.host}:{door.port}"


def replayed(command_line: CommandLine, door: Door, *arguments: str) -> Ended:
    return command_line("replay", "run-1", "--controller", at(door), *arguments)


ASKING = b"""\
async function main() {
  const answer = await fetch("https://a.example/?api_key=canary-key");
  const { access_token: token } = await answer.json();
  console.log(token, btoa(`me:${token}`));
}
"""


@pytest.mark.parametrize("arguments", [(), ("--script", "FILE")], ids=["again", "another script"])
def test_what_services_answered_is_given_again_though_its_secrets_were_not_kept(
    command_line: CommandLine, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    token, based = "canary-token", base64.b64encode(b"me:canary-token").decode()
    reply = {
        "n": 0,
        "ms": 3,
        "request": "GET https://a.example/?api_key=canary-key",
        "ok": True,
        "status": 200,
        "statusText": "OK",
        "url": "https://a.example/?api_key=canary-key",
        "redirected": False,
        "headers": [],
        "body": base64.b64encode(json.dumps({"access_token": token}).encode()).decode(),
    }
    digest = "sha256:" + hashlib.sha256(ASKING).hexdigest()
    made = recording(
        digest=digest,
        replies=orjson.dumps([reply]),
        logs=(LogLine("info", f"{token} {based}"),),
        writes=(),
    )
    document = orjson.loads(recordings.encoded(made, key=KEY))
    assert "canary" not in json.dumps(document)
    document["networkAllow"] = ["https://a.example"]
    other = tmp_path / "other.js"
    other.write_bytes(ASKING + b"// changed\n")
    given = [str(other) if it == "FILE" else it for it in arguments]
    operations = FakeOperations(recording_documents=[document], artifacts={digest: ASKING})
    with listening(operations) as door:
        ended = replayed(command_line, door, *given)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "the same: Succeeded, 1 line logged, 0 writes\n"


COMMITTING = b"""\
async function main() {
  Device.setDeviceStatus("heater", "power", true);
  console.log((await Device.commitDevice("heater", 2)).reached);
}
"""


@pytest.mark.parametrize("arguments", [(), ("--script", "FILE")], ids=["again", "another script"])
def test_what_became_of_a_commit_is_told_again(
    command_line: CommandLine, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    reply = {"n": 0, "op": "commit", "alias": "heater", "qos": 2, "ok": True, "reached": 1, "ms": 9}
    digest = "sha256:" + hashlib.sha256(COMMITTING).hexdigest()
    made = recording(
        digest=digest,
        replies=orjson.dumps([reply]),
        logs=(LogLine("info", "1"),),
        writes=(Write("heater", "power", True, 2, done=True),),
    )
    document = orjson.loads(recordings.encoded(made, key=KEY))
    other = tmp_path / "other.js"
    other.write_bytes(COMMITTING + b"// changed\n")
    given = [str(other) if it == "FILE" else it for it in arguments]
    operations = FakeOperations(recording_documents=[document], artifacts={digest: COMMITTING})
    with listening(operations) as door:
        ended = replayed(command_line, door, *given)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.endswith("the same: Succeeded, 1 line logged, 1 write\n")


def test_the_same_script_answers_the_same_secrets_being_stand_ins(
    command_line: CommandLine, door: Door
) -> None:
    ended = replayed(command_line, door)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == (
        "note: token came from Secrets and is replayed as a stand-in; --env gives the value\n"
        "the same: Succeeded, 1 line logged, 1 write\n"
    )


def test_another_script_is_shown_by_what_it_does_otherwise(
    command_line: CommandLine, door: Door, tmp_path: Path
) -> None:
    other = tmp_path / "other.js"
    other.write_bytes(SOURCE.replace(b"< low", b"< low - 5").replace(b'"cold"', b'"icy"'))
    ended = replayed(command_line, door, "--script", str(other))
    assert ended.code == 1
    assert ended.out == (
        "--- run run-1 main@sha1:1\n"
        f"+++ {other}\n"
        "@@ -1,3 +1,2 @@\n"
        " outcome Succeeded\n"
        "-log info: cold true\n"
        "-write heater.power = true\n"
        "+write heater.power = false\n"
    )


def test_the_environment_can_be_said_otherwise(command_line: CommandLine, door: Door) -> None:
    ended = replayed(command_line, door, "--env", "low=10", "--env", "token=x", "-o", "json")
    document = json.loads(ended.out)
    assert (ended.code, document["same"], document["replayed"]["logs"]) == (1, False, [])
    assert ended.err == ""


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@x", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Rules in a folder of a repository: the script as it ran, then a commit with another low."""
    top = tmp_path / "home"
    rules = top / "house/rules"
    (rules / "scripts/thermostat").mkdir(parents=True)
    (rules / "manifests").mkdir()
    (rules / "scripts/thermostat/1.0.0.js").write_bytes(SOURCE)
    for low in ("19", "5"):
        (rules / "manifests/thermostat.json").write_text(
            json.dumps(
                {
                    "apiVersion": "hit.edu.cn/v1alpha1",
                    "kind": "Script",
                    "metadata": {"name": "thermostat"},
                    "spec": {
                        "readSelector": {"matchNames": {"thermometer": "t", "heater": "h"}},
                        "writeSelector": {"matchNames": {"heater": "h"}},
                        "env": {"low": low},
                        "manifest": {"scriptType": "Js", "name": "thermostat", "version": "1.0.0"},
                    },
                }
            )
        )
        if low == "19":
            git(tmp_path, "init", "-q", "-b", "main", str(top))
        git(top, "add", ".")
        git(top, "commit", "-q", "-m", low)
    return rules


def test_any_commit_can_be_asked_what_it_would_have_done(
    command_line: CommandLine, door: Door, repository: Path
) -> None:
    before = git(repository, "rev-parse", "HEAD~1")
    here = ("--repository", str(repository))
    for revision in ("HEAD~1", f"main@sha1:{before}"):
        assert replayed(command_line, door, "--revision", revision, *here).code == 0
    ended = replayed(command_line, door, "--revision", "HEAD", *here)
    assert ended.code == 1
    assert "-write heater.power = true\n+write heater.power = false\n" in ended.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("--revision", "nowhere"), "nowhere", id="a commit that is not there"),
        pytest.param(("--revision", "--all"), "is no commit", id="an option"),
        pytest.param(("--script", "absent.js"), "absent.js cannot be read", id="no such file"),
        pytest.param(("--script", "a", "--revision", "b"), "exclude each other", id="both"),
        pytest.param(("--env", "x"), "'x' is not NAME=VALUE", id="no value"),
    ],
)
def test_what_cannot_be_replayed_is_an_error_in_words(
    command_line: CommandLine, door: Door, repository: Path, arguments: tuple[str, ...], words: str
) -> None:
    ended = replayed(command_line, door, *arguments, "--repository", str(repository))
    assert ended.code == 2
    assert words in ended.err


def test_a_run_that_is_not_recorded_is_an_error(command_line: CommandLine, door: Door) -> None:
    ended = command_line("replay", "run-9", "--controller", at(door))
    assert (ended.code, ended.err) == (
        2,
        "error: run run-9 is not recorded, or no longer kept\n",
    )


def test_recordings_are_listed(command_line: CommandLine, door: Door) -> None:
    ended = command_line("recordings", "list", "thermostat", "--controller", at(door))
    assert [line.split()[:5] for line in ended.out.splitlines()] == [
        ["RUN", "SCRIPT", "CAUSE", "OUTCOME", "DIGEST"],
        ["run-1", "thermostat", "ReadChange", "Succeeded", DIGEST[7:17]],
    ]


def test_an_exported_recording_can_be_replayed_without_a_controller(
    command_line: CommandLine, door: Door, repository: Path, tmp_path: Path
) -> None:
    file = str(tmp_path / "recordings" / "run.json")
    command_line("recordings", "export", "--run", "run-1", "-o", file, "--controller", at(door))
    nobody = ("--controller", "http://127.0.0.1:1", "--repository", str(repository))
    assert command_line("replay", file, *nobody).code == 0
    (repository / "scripts/thermostat/1.0.0.js").write_text("function main() {}")
    ended = command_line("replay", file, *nobody)
    assert ended.code == 2
    assert "the script that ran is not at hand" in ended.err


def test_exported_tests_pass_hold_no_secret_and_name_each_kind_of_run_once(
    command_line: CommandLine, door: Door, repository: Path
) -> None:
    warm = {"read": {"thermometer": {"temperature": 20}}, "event": None}
    no = (Write("heater", "power", False),)
    door.operations.recording_documents[:] = [
        recorded("lost", outcome=Outcome.LOST, logs=(), writes=(), message="gone"),
        recorded("warm-again", activation={**warm, "now": 1}, logs=(), writes=no),
        recorded("warm", activation=warm, logs=(), writes=no),
        recorded("cold"),
    ]
    file = repository / "scripts/thermostat/1.0.0.test.yaml"
    ended = command_line("recordings", "export", "-o", str(file), "--controller", at(door))
    assert (ended.code, ended.err) == (0, "")
    assert "hunter2" not in file.read_text()
    ended = command_line("test", str(repository), "-o", "json")
    assert [(c["name"], c["status"]) for c in json.loads(ended.out)["cases"]] == [
        ("writes heater.power (cold)", "passed"),
        ("writes heater.power (warm)", "passed"),
    ]


def test_an_export_reads_back_whatever_strings_it_holds(
    command_line: CommandLine, door: Door, repository: Path
) -> None:
    env = {
        "low": "19",
        "a": "on",
        "b": "014",
        "c": "1e3",
        "d": "null",
        "e": "a: b #c",
        "f": "ü\n\t'\"\\",
    }
    door.operations.recording_documents[:] = [
        recorded(
            activation={
                "env": env,
                "event": {"~": ["<<", "&a", "*b", "!c", "", "=", "2026-01-01"]},
            },
            logs=(LogLine("info", "cold false"),),
        )
    ]
    ended = command_line("recordings", "export", "--controller", at(door))
    file = repository / "scripts/thermostat/1.0.0.test.yaml"
    file.write_text(ended.out.replace("cold false", "cold true"))
    ended = command_line("test", str(repository), "-o", "json")
    (case,) = json.loads(ended.out)["cases"]
    # The token of the environment is not there, nor is one in the event: both are undefined.
    assert (case["status"], case["mismatches"]) == ("passed", [])
