"""The tables of the API, the sandbox and the budgets say what the code has."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from executor import model, ops
from executor.supervisor import codec
from executor.worker import sandbox, seccomp
from reconciler.core.runs import DEFAULT_LIMITS
from tests.executor.packing import engine, run
from tests.executor.running import activation

DOCS = Path(__file__).parents[2] / "docs"
# What the page has in a row of its own, beside the global.
OF_GLOBALS = re.compile(r"`([A-Za-z.]+)(?:\.\{([^}]+)\})?`")


def rows(page: str) -> Iterator[list[str]]:
    """The cells of every row of every table."""
    for line in (DOCS / page).read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_layers_of_the_sandbox_are_those_that_a_worker_enters_in_that_order() -> None:
    told = [
        (name.strip("`"), is_required == "yes")
        for name, is_required, *rest in rows("sandbox.md")
        if name.startswith("`") and len(rest) == 2
    ]
    assert told == [(layer.name, layer.required) for layer in sandbox.LAYERS]
    assert f"| {seccomp.COUNT} system calls and no others" in (DOCS / "sandbox.md").read_text()


def test_the_budgets_have_the_defaults_that_are_told() -> None:
    limits = model.Limits()
    assert asdict(limits) == DEFAULT_LIMITS._asdict()
    told = {row[0]: row[1] for row in rows("sandbox.md")}
    assert {
        "time on the wall": f"{limits.wall_time_ms // 1000} s",
        "memory: heap, buffers, Wasm memory": f"{limits.heap_bytes // 2**20} MiB",
        "console output": f"{limits.output_bytes // 2**10} KiB are kept, of {ops.LOG_LINES:,} "
        "lines at most",
        "staged writes": str(limits.writes),
        "fetches": str(limits.fetches),
        "waiting for them": f"{limits.wait_ms // 1000} s",
        "state, as JSON": f"{limits.state_bytes // 2**10} KiB",
        "all that a run gives, as JSON": f"{codec.RESULT_BYTES // 2**20} MiB",
        "timers": f"{ops.TIMERS:,}, an hour of virtual time",
    }.items() <= told.items()
    assert (limits.cpu_time_ms, ops.TIME_MS) == (limits.wall_time_ms, 3_600_000)


def test_a_script_finds_what_the_api_page_says_is_there_and_not_what_it_says_is_absent() -> None:
    present: list[str] = []
    absent: list[str] = []
    for api, level, *_ in rows("reference/script-api.md"):
        if level in {"level", "refused", "", "virtual"} or "`" not in api:
            continue
        for name, members in OF_GLOBALS.findall(api):
            names = [f"{name}.{member}" for member in members.split(",")] if members else [name]
            (absent if level == "absent" else present).extend(names)
    # "streams" is a word there; these are what it stands for.
    absent += ["ReadableStream", "WritableStream", "TransformStream"]
    wrong = [f'(typeof {name} === "undefined" ? "{name}" : "")' for name in present]
    wrong += [f'(typeof {name} === "undefined" ? "" : "{name}")' for name in absent]
    script = f'function main() {{ console.log([{", ".join(wrong)}].join(" ").trim()); }}'

    async def scene() -> object:
        made = engine()
        made.open("rule", script.encode(), "page/1.js")
        return run(made, activation())

    assert min(len(present), len(absent)) > 20
    assert asyncio.run(scene()) == [[1, "", [[2, ""]], []]]
