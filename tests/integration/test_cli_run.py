"""`scriptops run`: a rule tried out on this machine."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command_line import CommandLine

TEMPLATE = Path(__file__).resolve().parents[2] / "repo-template"
THERMOSTAT = str(TEMPLATE / "scripts/thermostat/1.0.0.js")
DOOR_LAMP = str(TEMPLATE / "scripts/door-lamp/1.0.0.js")


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def lines(out: str) -> list[str]:
    """Without how long it took."""
    return [line.partition(" in ")[0] for line in out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ("--device", "temperature=12"),
            ["info: 12 degrees: heater on", "heater.power = true", "Succeeded"],
            id="a property that one device has",
        ),
        pytest.param(
            ("-d", "thermometer.temperature=30", "-d", "heater.power=true"),
            ["info: 30 degrees: heater off", "heater.power = false", "Succeeded"],
            id="properties in full",
        ),
        pytest.param(
            ("-d", "thermometer=20", "-e", "low=21"),
            ["info: 20 degrees: heater on", "heater.power = true", "Succeeded"],
            id="a device with one property, and another threshold",
        ),
        pytest.param((), ["Succeeded"], id="nothing has been reported"),
    ],
)
def test_a_rule_runs_with_the_environment_of_its_manifest(
    command_line: CommandLine, arguments: tuple[str, ...], told: list[str]
) -> None:
    ended = command_line("run", THERMOSTAT, *arguments)
    assert (ended.code, lines(ended.out)) == (0, told)


def test_what_it_would_do_can_be_had_as_json(command_line: CommandLine) -> None:
    ended = command_line("run", DOOR_LAMP, "-d", "open=false", "-o", "json")
    document = json.loads(ended.out)
    assert document.pop("durationMicroseconds") > 0
    assert (ended.code, document) == (
        0,
        {
            "outcome": "Succeeded",
            "message": "",
            "logs": [{"level": "info", "text": "door closed: lamp off"}],
            "writes": [
                {"alias": "lamp", "property": "power", "value": False, "qos": 0, "force": False},
                {"alias": "lamp", "property": "brightness", "value": 0.0, "qos": 0, "force": False},
            ],
            "state": None,
            "refused": [],
        },
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param("temprature=1", 'no temprature; did you mean "temperature"?', id="misspelt"),
        pytest.param(
            "thermometer.temprature=1",
            'no thermometer.temprature; did you mean "thermometer.temperature"?',
            id="misspelt, of a device",
        ),
        pytest.param("temperature", "'temperature' is not NAME=VALUE", id="without a value"),
        pytest.param("temperature=[1]", "a number, true, false or text", id="a list"),
    ],
)
def test_a_device_that_cannot_be_meant_is_said(
    command_line: CommandLine, given: str, words: str
) -> None:
    ended = command_line("run", THERMOSTAT, "-d", given)
    assert ended.code == 2
    assert words in ended.err


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TEMPLATE, tmp_path / "rules"))


@pytest.mark.parametrize(
    ("instead", "why"),
    [
        pytest.param(
            '"pwer", heat',
            'living-room-heater has no property "pwer"; did you mean "power"?',
            id="name",
        ),
        pytest.param('"power", "warm"', "property power is BOOLEAN, not 'warm'", id="type"),
    ],
)
def test_a_write_that_the_device_model_does_not_allow_is_refused_as_the_controller_would(
    command_line: CommandLine, rules: Path, instead: str, why: str
) -> None:
    script = rules / "scripts/thermostat/1.0.0.js"
    script.write_text(script.read_text().replace('"power", heat', instead))
    ended = command_line("run", str(script), "-d", "temperature=12")
    assert (ended.code, lines(ended.out)[-2:]) == (1, [f"refused: {why}", "Succeeded"])


def test_a_version_that_no_manifest_names_yet_has_the_devices_of_the_one_that_is_deployed(
    command_line: CommandLine, rules: Path
) -> None:
    script = rules / "scripts/thermostat/1.0.0.js"
    ended = command_line(
        "run", str(script.rename(script.with_name("1.1.0.js"))), "-d", "temperature=12"
    )
    assert (ended.code, lines(ended.out)) == (
        0,
        ["info: 12 degrees: heater on", "heater.power = true", "Succeeded"],
    )
    assert ended.err == (
        "note: no manifest deploys thermostat/1.1.0.js; devices and environment are those of "
        "thermostat, which deploys 1.0.0\n"
    )


def test_typescript_is_told_to_be_built_first(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "main.ts").write_text("export function main(): void {}\n")
    ended = command_line("run", str(tmp_path / "main.ts"))
    assert ended.code == 2
    assert "main.ts is TypeScript, which is built before it runs; scriptops build" in ended.err


def test_a_request_is_not_sent_and_it_is_said_what_would_send_it(
    command_line: CommandLine, rules: Path
) -> None:
    manifest = rules / "manifests/rules/thermostat.yaml"
    manifest.write_text(f"{manifest.read_text()}  network: {{allow: [http://localhost:1]}}\n")
    script = rules / "scripts/thermostat/1.0.0.js"
    script.write_text('const main = () => fetch("http://localhost:1/filter");\n')
    ended = command_line("run", str(script))
    assert ended.code == 1
    assert ended.err == (
        "note: GET http://localhost:1/filter was not sent, there is no network here; a test answers "
        "it with given.fetch, and scriptops up sends it with --network-allow http://localhost:1\n"
    )


SCRIPT = """\
async function main(event) {
  console.log(JSON.stringify([event, new Date().toISOString(), Deno.env.k, State.get("n")]));
  console.log(Device.getDeviceStatus("temp", "temp"), Math.random() === Math.random());
  State.set("n", (State.get("n") ?? 0) + 1);
  Device.setDeviceStatus("fan", "on", true);
  await Device.commitDevice("fan", 1);
}
"""


def test_a_file_of_no_repository_takes_everything_from_options(
    command_line: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "try.js").write_text(SCRIPT)
    ended = command_line(
        *("run", str(tmp_path / "try.js"), "--device", "temp=21.5", "--env", "k=v"),
        *("--event", '{"a":1}', "--now", "2026-01-31T06:30:00Z", "--write", "fan"),
        *("--state", "n=4", "--seed", "1"),
    )
    assert (ended.code, lines(ended.out)) == (
        0,
        [
            'info: [{"a":1},"2026-01-31T06:30:00.000Z","v",4]',
            "info: 21.5 false",
            "fan.on = true qos 1",
            'state {"n":5}',
            "Succeeded",
        ],
    )


def test_a_run_that_fails_is_a_finding_with_the_authors_line(
    command_line: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "try.js").write_text("function main() {\n  nothing.at.all();\n}\n")
    ended = command_line("run", str(tmp_path / "try.js"))
    assert ended.code == 1
    assert "ReferenceError: nothing is not defined (try.js:2:3)" in ended.out


def test_a_dialogue_changes_the_world_and_keeps_the_state(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "try.js").write_text(SCRIPT)
    said = (
        "temp=1\n.env k=x\n.write fan\n.now 2026-01-31T06:30:00Z\n\n.event {\n.event 7\n\n.exit\n"
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    ended = command_line("run", str(tmp_path / "try.js"), "--interactive")
    assert (ended.code, lines(ended.out)) == (
        0,
        [
            'info: [null,"2026-01-31T06:30:00.000Z","x",null]',
            "info: 1 false",
            "fan.on = true qos 1",
            'state {"n":1}',
            "Succeeded",
            'info: [7,"2026-01-31T06:30:00.000Z","x",1]',
            "info: 1 false",
            "fan.on = true qos 1",
            'state {"n":2}',
            "Succeeded",
        ],
    )
    assert "error: the event is not JSON" in ended.err


def test_ctrl_c_ends_a_dialogue_that_waits_for_a_line(tmp_path: Path) -> None:
    script = tmp_path / "try.js"
    script.write_text("function main() {}\n")
    keyboard, terminal = os.openpty()
    command = [sys.executable, "-m", "reconciler", "run", str(script), "--interactive"]
    dialogue = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    try:
        os.write(keyboard, b"\n")
        shown = b""
        while b"> " not in shown.partition(b"Succeeded")[2]:
            shown += os.read(keyboard, 4096)
        dialogue.send_signal(signal.SIGINT)
        assert dialogue.wait(30) == 0
    finally:
        dialogue.kill()
        dialogue.wait()
        os.close(keyboard)
