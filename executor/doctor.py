"""`executor doctor`: what the sandbox of a worker is on this machine, and what is wanting."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from executor.model import Outcome
from executor.supervisor.pool import MEMORY_BYTES
from executor.supervisor.process import Process, WorkerDied
from executor.worker import sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


async def examine() -> Mapping[str, object]:
    """Start a worker as the supervisor does, and end it; the report of its layers.

    Raises:
        WorkerDied, OSError: no worker can be started here.
    """
    process = await Process.spawn(MEMORY_BYTES)
    process.kill(Outcome.UNAVAILABLE)
    await process.ended()
    return process.report


def table(report: Mapping[str, object]) -> Table:
    shown = Table(box=None, pad_edge=False)
    for column in ("LAYER", "REQUIRED", "STATE", "WHAT IT HOLDS, OR WANTS"):
        shown.add_column(column, overflow="fold")
    for layer in sandbox.LAYERS:
        holds, detail = sandbox.told(report, layer)
        style = "green" if holds else "red" if layer.required else "yellow"
        about = f"{layer.holds} ({detail})" if holds else f"{detail}; it needs: {layer.fix}"
        shown.add_row(
            layer.name,
            "yes" if layer.required else "no",
            Text("on" if holds else "missing", style=style),
            Text(about),
        )
    return shown


def main(argv: Sequence[str]) -> int:
    """Print the layers; 0 when scripts may be run here."""
    parser = argparse.ArgumentParser(
        prog="executor doctor", description="Say which layers of the sandbox this machine has."
    )
    parser.add_argument("--output", "-o", choices=("table", "json"), default="table")
    options = parser.parse_args(argv)
    try:
        report = asyncio.run(examine())
    except (WorkerDied, OSError) as error:
        Console(stderr=True).print(f"no worker can be started here: {error}", markup=False)
        return 1
    missing = sandbox.missing(report)
    if options.output == "json":
        layers = [
            {
                "layer": layer.name,
                "required": layer.required,
                "holds": holds,
                "detail": detail,
                "fix": "" if holds else layer.fix,
            }
            for layer in sandbox.LAYERS
            for holds, detail in [sandbox.told(report, layer)]
        ]
        sys.stdout.write(orjson.dumps(layers, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        console = Console()
        console.print(table(report))
        verdict = (
            f"An executor refuses to run scripts here, {sandbox.summary(report)}."
            if missing
            else "Scripts can be run here."
        )
        console.print(f"\n{verdict}", style="red" if missing else "green")
    return 1 if missing else 0
