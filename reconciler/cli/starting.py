"""`init` and `version`: before anything runs."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from reconciler.adapters import template
from reconciler.cli import options, terminal

# Engines are asked in a process of their own: this one runs no engine and opens no repository.
_PROBE: Final = """
import json, ssl
from importlib.metadata import version
import py_mini_racer, pygit2
print(json.dumps({
    "V8": py_mini_racer.MiniRacer().v8_version,
    "wasmtime": version("wasmtime"),
    "libgit2": pygit2.LIBGIT2_VERSION,
    "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
}))
"""
_PROBE_SECONDS: Final = 20


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.")],
) -> None:
    """Make a repository of rules to start from: two rules, their devices, a first commit."""
    target = folder.absolute()
    template.create(target)
    terminal.line(f"made {target}: two rules and their devices, committed on main")
    terminal.line(f"next: scriptops up {folder}")


def version(
    *,
    output: options.Output = options.TextOutput.TEXT,
) -> None:
    """Show the versions of scriptops and of what in it meets the code and bytes of others."""
    show_version(output)


def show_version(output: options.TextOutput) -> None:
    versions = {
        "scriptops": metadata.version("scriptops"),
        "Python": platform.python_version(),
        **_engines(),
    }
    if output is options.TextOutput.JSON:
        terminal.as_json(versions)
        return
    for name, number in versions.items():
        terminal.line(f"{name} {number}")


def _engines() -> dict[str, str]:
    """What an executor and a controller of this installation would run on."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            check=True,
            timeout=_PROBE_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return dict.fromkeys(("V8", "wasmtime", "libgit2", "OpenSSL"), "unavailable")
    answer: dict[str, str] = orjson.loads(done.stdout)
    return answer
