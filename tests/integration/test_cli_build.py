"""`scriptops build`: TypeScript and npm packages become scripts, checked against the devices."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reconciler.adapters import template
from tests.executor.packing import engine, run
from tests.executor.running import activation
from tests.integration.command_line import CommandLine

RULE = """\
import { isCold } from "./limits.ts";

export async function main(event: { fail?: boolean } | null): Promise<void> {
  const temperature = Device.getDeviceStatus("thermometer", "temperature");
  if (temperature === undefined) return;
  if (event?.fail) throw new RangeError("as wanted");
  Device.setDeviceStatus("heater", "power", isCold(temperature));
  await Device.commitDevice("heater");
}
"""
LIMITS = """\
interface Limits { readonly low: number }
enum Unit { Celsius }
const limits: Limits = { low: Number(Deno.env.low) };
export const isCold = (temperature: number, _unit = Unit.Celsius): boolean => temperature < limits.low;
"""
SCRIPT = "scripts/thermostat/1.0.0.js"


@pytest.fixture
def scriptops(capsys):
    return CommandLine(capsys)


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "rules"
    shutil.copytree(template.folder(), root)
    write(root, "src/thermostat/main.ts", RULE)
    write(root, "src/thermostat/limits.ts", LIMITS)
    write(root, SCRIPT, "// Built by scriptops build from an earlier source.\n")
    return root


def write(root: Path, path: str, content: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def runs(root: Path, path: str, *activations: bytes) -> list:
    async def scene() -> list:
        made = engine()
        made.open("rule", (root / path).read_bytes(), path.removeprefix("scripts/"))
        return run(made, *activations)

    return asyncio.run(scene())


def given(**changes: object) -> bytes:
    facts = {
        "env": {"low": "19"},
        "read": {"thermometer": {"temperature": 18.5}, "heater": {}},
        "write": ["heater"],
    }
    return activation(**facts | changes)


def test_a_rule_in_typescript_becomes_a_script_that_runs(scriptops, repository):
    written = (
        "src/scriptops.d.ts  written\n"
        "src/thermostat/device.d.ts  written\n"
        f"{SCRIPT}  written from src/thermostat/main.ts\n"
    )
    assert scriptops("build", str(repository)) == (0, "", written)
    assert runs(repository, SCRIPT, given(), given(event={"fail": True})) == [
        [1, "", [], [["heater", "power", True, 0, False]]],
        [2, "RangeError: as wanted (src/thermostat/main.ts:6:26)", [], []],
    ]
    assert scriptops("validate", str(repository)).code == 0


def test_the_devices_are_typed_by_their_models(scriptops, repository):
    scriptops("build", str(repository))
    assert (repository / "src/thermostat/device.d.ts").read_text() == (
        "// Written by `scriptops build` from the manifests of this repository: do not edit.\n"
        "\n"
        "interface ReadableDevices {\n"
        '  readonly "heater": { "power": boolean; };\n'
        '  readonly "thermometer": { "temperature": number; };\n'
        "}\n"
        "\n"
        "interface WritableDevices {\n"
        '  readonly "heater": { "power": boolean; };\n'
        "}\n"
        "\n"
        "interface Environment {\n"
        '  readonly "high": string;\n'
        '  readonly "low": string;\n'
        "}\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        pytest.param(
            '"thermometer", "temperature"',
            '"thermometer", "temprature"',
            "src/thermostat/main.ts:4:61  TS2345  Argument of type '\"temprature\"' is not assignable "
            "to parameter of type '\"temperature\"'.\n",
            id="a misspelt property",
        ),
        pytest.param(
            '"heater", "power", is',
            '"heter", "power", is',
            "src/thermostat/main.ts:7:26  TS2345  Argument of type '\"heter\"' is not assignable to "
            "parameter of type '\"heater\"'.\n",
            id="a misspelt name",
        ),
        pytest.param(
            "isCold(temperature)",
            "temperature",
            "src/thermostat/main.ts:7:45  TS2345  Argument of type 'number' is not assignable to "
            "parameter of type 'boolean'.\n",
            id="a value of another type",
        ),
        pytest.param(
            "./limits.ts",
            "./limit.ts",
            'src/thermostat/main.ts  NotBundled  Could not resolve "./limit.ts" from '
            '"src/thermostat/main.ts"\n',
            id="a file that is not there",
        ),
        pytest.param(
            "return;",
            "retur n;",
            "src/thermostat/main.ts:5:40  NotBundled  SyntaxError: Expected ';', '}' or <eof>\n",
            id="a syntax error",
        ),
        pytest.param(
            "export async",
            "await null;\nexport async",
            "src/thermostat/main.ts  NotBundled  await is not available outside of functions; await "
            "inside main()\n",
            id="a top-level await",
        ),
        pytest.param(
            'import { isCold } from "./limits.ts";',
            'import { isCold } from "tiny";',
            'src/thermostat/main.ts  NotBundled  "tiny" is not installed; npm install tiny, or '
            "correct the name\n",
            id="a package that is not installed",
        ),
        pytest.param(
            'import { isCold } from "./limits.ts";',
            'import { isCold } from "node:fs";',
            'src/thermostat/main.ts  NotBundled  "node:fs" is a part of Node or Deno, which rules do '
            "not have; use the Web APIs\n",
            id="a module of Node",
        ),
        pytest.param(
            "export async function main",
            "async function main",
            "src/thermostat/main.ts  NotBundled  exports no function main; write "
            "`export function main(event) { ... }`\n",
            id="no main",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_nothing_is_built(
    scriptops, repository, old, new, told
):
    write(repository, "src/thermostat/main.ts", RULE.replace(old, new, 1))
    before = (repository / SCRIPT).read_bytes()
    code, out, _ = scriptops("build", str(repository))
    assert (code, out[: len(told)]) == (1, told)
    assert (repository / SCRIPT).read_bytes() == before


def test_what_a_module_further_down_imports_in_vain_is_told_with_that_module(scriptops, repository):
    write(repository, "src/thermostat/limits.ts", f'export * from "node:fs";\n{LIMITS}')
    code, out, _ = scriptops("build", str(repository))
    assert code == 1
    assert out == (
        'src/thermostat/limits.ts  NotBundled  "node:fs" is a part of Node or Deno, which rules do '
        "not have; use the Web APIs\n"
    )


def test_check_writes_nothing_and_says_what_is_not_current(scriptops, repository):
    before = (repository / SCRIPT).read_bytes()
    stale = (
        "src/scriptops.d.ts  is not current: scriptops build\n"
        "src/thermostat/device.d.ts  is not current: scriptops build\n"
        f"{SCRIPT}  is not current: scriptops build\n"
    )
    assert scriptops("build", str(repository), "--check") == (1, stale, "")
    assert (repository / SCRIPT).read_bytes() == before
    scriptops("build", str(repository))
    assert scriptops("build", str(repository), "--check") == (
        0,
        "",
        "1 built, everything is current\n",
    )
    write(repository, "src/thermostat/limits.ts", LIMITS.replace("<", "<="))
    assert scriptops("build", str(repository), "--check").out == (
        f"{SCRIPT}  is not current: scriptops build\n"
    )


def test_the_same_sources_give_the_same_bytes_wherever_they_lie(scriptops, repository, tmp_path):
    scriptops("build", str(repository))
    shutil.copytree(repository, tmp_path / "elsewhere" / "rules")
    code, _, err = scriptops("build", str(tmp_path / "elsewhere" / "rules"))
    assert (code, err) == (0, "1 built, everything is current\n")


def test_packages_from_npm_are_bundled_and_what_is_not_used_of_them_is_not(scriptops, repository):
    write(repository, "package.json", '{"dependencies": {"modern": "1.0.0", "older": "1.0.0"}}')
    write(
        repository,
        "node_modules/modern/package.json",
        '{"name": "modern", "version": "1.0.0", "type": "module", "exports": "./index.js"}',
    )
    write(
        repository,
        "node_modules/modern/index.js",
        "export const used = () => 'modern';\nexport const unused = () => 'never called';\n",
    )
    write(
        repository,
        "node_modules/older/package.json",
        '{"name": "older", "version": "1.0.0", "main": "lib/main.js"}',
    )
    write(
        repository, "node_modules/older/lib/main.js", "module.exports = { old: require('./old') };"
    )
    write(repository, "node_modules/older/lib/old.js", "module.exports = () => 'older';")
    source = """
        import { used } from "modern";
        import older from "older";
        export default () => { console.log(used(), older.old()); };
    """
    write(repository, "src/notice/main.js", source)
    write(repository, "src/notice/package.json", '{"version": "2.0.0"}')
    code, out, _ = scriptops("build", str(repository / "src/notice"))
    assert (code, out) == (0, "")
    assert runs(repository, "scripts/notice/2.0.0.js", activation()) == [
        [1, "", [[2, "modern older"]], []]
    ]
    assert "never called" not in (repository / "scripts/notice/2.0.0.js").read_text()


def test_one_rule_that_is_wrong_does_not_keep_the_others_from_being_built(scriptops, repository):
    write(repository, "src/broken/main.ts", "export const main: number = 'text';")
    write(repository, "src/broken/package.json", '{"version": "1.0.0"}')
    code, out, err = scriptops("build", str(repository), "-o", "json")
    assert (code, err) == (1, "")
    assert json.loads(out) == {
        "root": str(repository),
        "built": [{"source": "src/thermostat/main.ts", "script": SCRIPT}],
        "stale": [
            "src/scriptops.d.ts",
            "src/broken/device.d.ts",
            "src/thermostat/device.d.ts",
            SCRIPT,
        ],
        "problems": [
            {
                "path": "src/broken/main.ts",
                "line": 1,
                "column": 14,
                "reason": "TS2322",
                "message": "Type 'string' is not assignable to type 'number'.",
            }
        ],
    }
    assert not (repository / "scripts/broken").exists()


def test_a_script_that_somebody_wrote_by_hand_is_not_overwritten(scriptops, repository):
    write(repository, SCRIPT, "function main() {}\n")
    code, out, _ = scriptops("build", str(repository))
    assert code == 1
    assert out == (
        "src/thermostat/main.ts  NotBuiltHere  scripts/thermostat/1.0.0.js was written by hand; raise "
        "the version in src/thermostat/package.json, or delete that file to take its place\n"
    )
    assert (repository / SCRIPT).read_text() == "function main() {}\n"


def test_a_rule_whose_version_nobody_names_is_told_how_to_name_it(scriptops, repository):
    write(repository, "src/nameless/main.ts", "export function main(): void {}")
    assert scriptops("build", str(repository / "src/nameless")).out == (
        "src/nameless/main.ts  VersionUnknown  which version this is cannot be told (no Script names "
        'one); write {"version": "1.0.0"} into src/nameless/package.json\n'
    )


def test_without_deno_one_sentence_names_the_extra(scriptops, repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert scriptops("build", str(repository)) == (
        2,
        "",
        "error: building rules needs Deno, which is not installed; pip install 'scriptops[build]'\n",
    )


def test_a_repository_without_sources_is_told_where_they_go(scriptops, tmp_path):
    untyped = shutil.ignore_patterns("device.d.ts")
    shutil.copytree(template.folder(), tmp_path / "rules", ignore=untyped)
    code, out, err = scriptops("build", str(tmp_path / "rules"))
    assert (code, out, err.endswith("has no sources; write a rule to src/<name>/main.ts\n")) == (
        2,
        "",
        True,
    )


def test_the_types_of_scripts_written_as_they_run_are_kept_current(scriptops, tmp_path):
    root = tmp_path / "rules"
    shutil.copytree(template.folder(), root)
    assert scriptops("build", "--check", str(root)).code == 0
    write(root, "scripts/thermostat/device.d.ts", "")
    (root / "scripts/scriptops.d.ts").unlink()
    code, out, _ = scriptops("build", "--check", str(root))
    assert (code, out.splitlines()) == (
        1,
        [
            "scripts/scriptops.d.ts  is not current: scriptops build",
            "scripts/thermostat/device.d.ts  is not current: scriptops build",
        ],
    )
    assert scriptops("build", str(root)).code == 0
    shipped = template.folder() / "scripts"
    for path in ("thermostat/device.d.ts", "scriptops.d.ts"):
        assert (root / "scripts" / path).read_text() == (shipped / path).read_text()


def test_watching_goes_on_when_there_is_nothing_to_build_for_a_while(tmp_path):
    entry = tmp_path / "src/thermostat/main.js"
    write(tmp_path, "src/thermostat/main.js", "export function main() {}")
    write(tmp_path, "src/thermostat/package.json", '{"version": "1.0.0"}')
    (tmp_path / "manifests").mkdir()
    command = [sys.executable, "-m", "reconciler", "build", str(tmp_path), "--watch"]
    watching = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        told = iter(watching.stderr.readline, "")
        assert any(line.startswith("watching ") for line in told)
        # The watch begins a moment later: a change is repeated until it has been seen.
        seen = threading.Event()

        def change_until_seen():
            while not seen.wait(0.2):
                entry.unlink(missing_ok=True)
                (tmp_path / "src/other").write_text("")
                (tmp_path / "src/other").unlink()

        changing = threading.Thread(target=change_until_seen)
        changing.start()
        assert any(line.startswith("error: there is no rule to build") for line in told)
        seen.set()
        changing.join()
        entry.write_text("export function main() { console.log(1); }")
        assert any("written from src/thermostat/main.js" in line for line in told)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
    finally:
        watching.kill()
        watching.communicate()
