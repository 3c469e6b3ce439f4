"""`python -m tests.bench [--only NAME]`: measure, print a table, write build/bench.json.

Each module `bench_<name>.py` has `run() -> list[dict]` with rows of name, value, unit, reference,
ratio, target and met. A row's reference is measured in the same run; `met` compares with `target`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "bench.json"
NAMES = sorted(
    path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")
)
VERSIONS = (
    "scriptops",
    "grpcio",
    "mini-racer",
    "orjson",
    "kubernetes",
    "pygit2",
    "uvloop",
    "wasmtime",
    "deno",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--only", choices=NAMES, action="append", help="run this one")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.only or NAMES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        module = importlib.import_module(f"tests.bench.bench_{name}")
        rows += [{"bench": name, **row} for row in module.run()]
        show(rows)
        write(rows)
    return 0 if all(row["met"] for row in rows) else 1


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("what", "value", "unit", "reference", "ratio", "target", "met")
    for row in rows:
        table.add_row(
            row["name"],
            *(_number(row[key]) for key in ("value",)),
            row["unit"],
            _number(row["reference"]),
            _number(row["ratio"]),
            str(row["target"]),
            "yes" if row["met"] else "NO",
        )
    Console(width=150).print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def write(rows: list[dict[str, Any]]) -> None:
    OUT.parent.mkdir(exist_ok=True)
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in VERSIONS},
    }
    OUT.write_text(json.dumps({"machine": machine, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
