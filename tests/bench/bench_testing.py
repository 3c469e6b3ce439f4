"""Tests of rules and recordings of runs: what an author waits for, what an operator pays.

The thousand cases are a repository of ten rules on disk; measured is the whole verb, from the start
of `scriptops test` to its exit, interpreter, executor and all. Its reference is the same verb with
a single case, which is what starting costs.

Recording is measured as the controller does it: `put` in the event loop for every run, and a
flush that takes what a second may write. Its reference is the way of such a run through the
executor, which recording comes on top of.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.adapters.recordings import FLUSH_ROWS, SqliteRecordings
from tests.executor.running import Pool, activation
from tests.support.recordings import recording

if TYPE_CHECKING:
    from reconciler.core.recordings import Recording

RULES = 10
CASES = 100
ATTEMPTS = 3
# An author goes on looking at the screen for two seconds.
TARGET_SECONDS = 2.0

RULE = """\
async function main() {
  const temperature = Device.getDeviceStatus("thermometer", "temperature");
  if (temperature === undefined) return;
  const heat = temperature < Number(Deno.env["low"]);
  console.log(`${temperature} degrees: heater ${heat ? "on" : "off"}`);
  Device.setDeviceStatus("heater", "power", heat);
  await Device.commitDevice("heater");
}
"""
MANIFEST = """\
apiVersion: hit.edu.cn/v1alpha1
kind: Script
metadata: {name: rule-%d}
spec:
  readSelector: {matchNames: {thermometer: thermometer-%d}}
  writeSelector: {matchNames: {heater: heater-%d}}
  env: {low: "19"}
  manifest: {scriptType: Js, name: rule-%d, version: 1.0.0}
"""

RUNS = 2_000
# Of a core, for the runs that are written at most in a second; the rest only pass through memory.
TARGET_SHARE = 0.05
TARGET_PUT_US = 5.0


def run() -> list[dict[str, Any]]:
    return [_thousand_cases(), *asyncio.run(_recording())]


def _thousand_cases() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write(root)
        whole = min(_seconds(root, RULES * CASES) for _ in range(ATTEMPTS))
        single = min(
            _seconds(root, 1, "-k", "rule-0/1.0.0.test.yaml case 7 ") for _ in range(ATTEMPTS)
        )
    return {
        "name": "1,000 test cases",
        "value": round(whole, 2),
        "unit": "s",
        "reference": round(single, 2),
        "ratio": round(whole / single, 2),
        "target": f"<= {TARGET_SECONDS:g}",
        "met": whole <= TARGET_SECONDS,
    }


def _write(root: Path) -> None:
    for number in range(RULES):
        files = {
            f"scripts/rule-{number}/1.0.0.js": RULE,
            f"manifests/rule-{number}.yaml": MANIFEST % ((number,) * 4),
            f"scripts/rule-{number}/1.0.0.test.yaml": _tests(number),
        }
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")


def _tests(rule: int) -> str:
    lines = ["cases:"]
    for case in range(CASES):
        # Written alike by Python and by a script.
        degrees = f"{10 + rule + case // 10}.{case % 10}5"
        heat = float(degrees) < 19
        lines += [
            f"  - name: case {case} at {degrees} degrees",
            f"    given: {{devices: {{thermometer: {{temperature: {degrees}}}}}}}",
            "    then:",
            f"      writes: {{heater: {{power: {json.dumps(heat)}}}}}",
            f'      logs: ["{degrees} degrees: heater {"on" if heat else "off"}"]',
        ]
    return "\n".join(lines) + "\n"


def _seconds(root: Path, count: int, *arguments: str) -> float:
    command = [sys.executable, "-m", "reconciler", "test", str(root), "-o", "json", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    seconds = time.perf_counter() - started
    report = json.loads(done.stdout)
    assert (report["passed"], report["failed"]) == (count, 0)
    return seconds


async def _recording() -> list[dict[str, Any]]:
    runs = [recording(f"run-{number}", script=f"script-{number % 200}") for number in range(RUNS)]
    with tempfile.TemporaryDirectory() as folder:
        put, written = await _costs(Path(folder), runs)
    share = written * FLUSH_ROWS
    alone = await _run_seconds()
    return [
        {
            "name": "recording a run: added in the event loop",
            "value": round(put * 1e6, 2),
            "unit": "us",
            "reference": round(alone * 1e6, 1),
            "ratio": round(put / alone, 3),
            "target": f"<= {TARGET_PUT_US:g}",
            "met": put * 1e6 <= TARGET_PUT_US,
        },
        {
            "name": f"recording at its most, {FLUSH_ROWS} runs written a second: share of a core",
            "value": round(share, 3),
            "unit": "cores",
            "reference": None,
            "ratio": None,
            "target": f"<= {TARGET_SHARE:g}",
            "met": share <= TARGET_SHARE,
        },
    ]


async def _costs(folder: Path, runs: list[Recording]) -> tuple[float, float]:
    """Seconds of a `put`, and of CPU for a run that is written, in this process's threads."""
    store = SqliteRecordings(folder, {}.get)
    put = written = float("inf")
    for _ in range(ATTEMPTS):
        started = time.perf_counter()
        for it in runs:
            store.put(it)
        put = min(put, (time.perf_counter() - started) / len(runs))
        used = time.process_time()
        for _ in range(RUNS // FLUSH_ROWS + 1):
            await store.flush()
        written = min(written, (time.process_time() - used) / len(runs))
    store.close()
    return put, written


async def _run_seconds() -> float:
    """What a run takes in supervisor and worker when many of one script go together."""
    pool = Pool(workers=1)
    await pool.supervisor.start()
    try:
        facts = {
            "env": {"low": "19"},
            "read": {"thermometer": {"temperature": 18.5}},
            "write": ["heater"],
        }
        runs = [activation(run=f"r{number}", **facts) for number in range(RUNS)]
        best = float("inf")
        for _ in range(ATTEMPTS):
            started = time.perf_counter()
            results = await pool.run(RULE.encode(), *runs)
            best = min(best, (time.perf_counter() - started) / RUNS)
            assert {result.outcome.name for result in results} == {"SUCCEEDED"}
    finally:
        await pool.supervisor.close()
    return best
