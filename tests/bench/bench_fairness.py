"""One Script that is called a hundred times as often as the others, beside the others alone.

All Scripts are of one namespace, promise AtLeastOnce, and compute for about 5 ms in each run, so
that nothing is joined and the flood by itself is as much as one core can do. The others are called
by webhook at random times and waited for: measured is the time until the answer that the run has
succeeded. Both are measured in turn in one system, `scriptops up` as a user starts it.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.children import running
from tests.bench.cluster import git, process, row
from tests.support.kube import free_port, wait_until

if TYPE_CHECKING:
    from tests.bench.children import Child

NAMESPACE = "bench"
OTHERS = [f"other-{number}" for number in range(10)]
RATE = 2.0
TIMES = 100
SECONDS = 15
ROUNDS = 3
PATIENCE = 120

# The engine compiles it in the first runs; what a run takes then is told with the result.
RULE = """\
function main() {
  let sum = 0;
  for (let i = 0; i < 2500000; i++) sum = (sum * 31 + i) | 0;
  if (sum === 1) throw new Error("never");
}
"""
SCRIPT = """\
apiVersion: hit.edu.cn/v1alpha1
kind: Script
metadata: {name: %s}
spec:
  manifest: {scriptType: Js, name: work, version: 1.0.0}
  executePolicy: {webhook: true, qos: AtLeastOnce}
"""


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="scriptops-bench-") as temporary:
        folder = Path(temporary)
        rules = folder / "rules"
        git(folder, "init", "--quiet", "--initial-branch=main", str(rules))
        (rules / "scripts" / "work").mkdir(parents=True)
        (rules / "scripts" / "work" / "1.0.0.js").write_text(RULE)
        (rules / "manifests").mkdir()
        scripts = "---\n".join(SCRIPT % name for name in [*OTHERS, "flood"])
        (rules / "manifests" / "scripts.yaml").write_text(scripts)
        git(rules, "add", "--all")
        git(rules, "commit", "--quiet", "-m", "rules")
        web = free_port()
        arguments = (
            *("reconciler", "up", str(rules), "--data", str(folder / "data"), "--mqtt", ""),
            *("--namespace", NAMESPACE, "--log-level", "warning", "--web", f"127.0.0.1:{web}"),
            *("--grpc", f"127.0.0.1:{free_port()}"),
        )
        load = [sys.executable, "-m", "tests.bench.hookload", str(web), NAMESPACE]
        with process(*arguments, log=folder / "log"), running(load, None) as child:
            for name in [*OTHERS, "flood"]:
                wait_until(lambda: _is_ready(web, name), what=f"{name} runs", seconds=PATIENCE)  # noqa: B023 - called at once
            return _measured(child)


def _is_ready(web: int, name: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", web, timeout=15)
    path = f"/api/v1alpha1/webhook?namespace={NAMESPACE}&name={name}&wait=10"
    try:
        connection.request("POST", path, "{}", {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _measured(load: Child) -> list[dict[str, Any]]:
    flood = RATE * TIMES
    took: dict[float, list[float]] = {0.0: [], flood: []}
    load.ask(names=OTHERS, rate=RATE, seconds=3, flood=flood)
    for _ in range(ROUNDS):
        # What the flood has left is run before the others are measured alone.
        load.ask(names=["flood"], rate=RATE, seconds=1, flood=0.0)
        for pace in took:
            done = load.ask(names=OTHERS, rate=RATE, seconds=SECONDS, flood=pace)
            took[pace] += done["took"]
    p50 = {pace: statistics.median(times) * 1_000 for pace, times in took.items()}
    p99 = {pace: statistics.quantiles(times, n=100)[98] * 1_000 for pace, times in took.items()}
    what = f"beside a Script that is called {TIMES} times as often"
    return [
        row(f"call to outcome {what}, p50", p50[flood], "ms", reference=p50[0.0], target=2),
        row(f"call to outcome {what}, p99", p99[flood], "ms", reference=p99[0.0], target=2),
    ]
