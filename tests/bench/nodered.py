"""Node-RED, headless, with one flow: mqtt in, one function, mqtt out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.bench.children import start

if TYPE_CHECKING:
    from collections.abc import Iterator

# The newest for Node.js 18 to 22, which is what Debian has.
VERSION: Final = "4.1.15"
CACHE: Final = Path.home() / ".cache" / "scriptops" / f"node-red-{VERSION}"
INSTALL_SECONDS: Final = 600
_PROGRAM: Final = Path("node_modules", "node-red", "red.js")
_SETTINGS: Final = """\
module.exports = {
  httpAdminRoot: false, httpNodeRoot: false, uiHost: "127.0.0.1", uiPort: %d,
  telemetry: {enabled: false},
  logging: {console: {level: "warn", metrics: false, audit: false}},
};
"""


def installed() -> Path:
    """Its program; installed by npm into the cache where it is not there yet."""
    program = CACHE / _PROGRAM
    if not program.exists():
        # Beside its place first: one that was broken off is not taken for whole.
        partial = CACHE.with_name(f"{CACHE.name}.{os.getpid()}")
        partial.mkdir(parents=True)
        options = ("--no-audit", "--no-fund", "--omit=dev", "--ignore-scripts")
        subprocess.run(
            ["npm", "install", *options, "--prefix", str(partial), f"node-red@{VERSION}"],
            check=True,
            capture_output=True,
            timeout=INSTALL_SECONDS,
        )
        try:
            partial.rename(CACHE)
        except OSError:  # somebody else was faster
            shutil.rmtree(partial)
    return program


def flow(port: int, *, reads: str, function: str) -> list[dict[str, Any]]:
    """What its editor would make: messages come parsed, the function says where they go."""
    broker = {
        "id": "broker",
        "type": "mqtt-broker",
        "broker": "127.0.0.1",
        "port": str(port),
        "clientid": "node-red",
        "autoConnect": True,
        "protocolVersion": "5",
        "keepalive": "60",
        "cleansession": True,
    }
    first = {
        "id": "in",
        "type": "mqtt in",
        "z": "flow",
        "topic": reads,
        "qos": "0",
        "datatype": "json",
        "broker": "broker",
        "inputs": 0,
        "wires": [["rule"]],
    }
    rule = {
        "id": "rule",
        "type": "function",
        "z": "flow",
        "func": function,
        "outputs": 1,
        "libs": [],
        "wires": [["out"]],
    }
    last = {
        "id": "out",
        "type": "mqtt out",
        "z": "flow",
        "topic": "",
        "qos": "0",
        "retain": "false",
        "broker": "broker",
        "wires": [],
    }
    return [{"id": "flow", "type": "tab", "label": "rule"}, broker, first, rule, last]


@contextmanager
def running(folder: Path, nodes: list[dict[str, Any]], web: int) -> Iterator[int]:
    """Its process id; it ends with the block."""
    program = installed()
    folder.mkdir()
    (folder / "settings.js").write_text(_SETTINGS % web)
    (folder / "flows.json").write_text(json.dumps(nodes))
    with (folder / "log").open("wb") as log:
        process = start(
            [
                "node",
                str(program),
                "--userDir",
                str(folder),
                "--settings",
                str(folder / "settings.js"),
                str(folder / "flows.json"),
            ],
            None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    with process:
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
