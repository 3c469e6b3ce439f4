"""From one MQTT message to another through a rule, beside Node-RED, at one broker, in turn.

`DEVICES` sensors send KubeEdge's twin updates at quality of service 0. A rule reads the temperature
and sets the speed of the sensor's fan to a number made of it; the delta of the fan goes out. Ours is
`scriptops up` as a user starts it, with one Script for each sensor, all of one artifact; Node-RED
has one flow with one function node, which makes the same payload of the same payload. It keeps
nothing of devices and sends no `twin/update/result`: it is not burdened with what it would not do.

Throughput is by the clock, with `WINDOW` messages under way and one of each device at most, so that
nothing can be joined and each message has an answer of its own; broker and load have the same
cores. Processor time is that of all our processes, and of Node-RED's, in the same rounds. Latencies
are by the clock at `RATE` messages a second, over all rounds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench import nodered
from tests.bench.children import cpu_seconds, running
from tests.bench.cluster import git, process, row
from tests.bench.mqttload import NAMESPACE, OFFSET, ROOTS
from tests.support.kube import free_port
from tests.support.mosquitto import mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.bench.children import Child

DEVICES = 1_000
WINDOW = 500
ROUNDS = 5
MESSAGES = 20_000
RATE = 200
PACED = 1_000
# A thousand Scripts are applied, loaded and run for the first time.
PATIENCE = 240

RULE = f"""\
async function main() {{
  const value = Device.getDeviceStatus("sensor", "temperature");
  if (value === undefined) return;
  Device.setDeviceStatus("fan", "speed", String(value + {OFFSET}));
  await Device.commitDevice("fan");
}}
"""
FUNCTION = f"""\
const value = Number(msg.payload.twin.temperature.actual.value);
const speed = String(value + {OFFSET}), now = Date.now();
msg.topic = msg.topic.replace("/sensor-", "/fan-") + "/delta";
msg.payload = {{
  event_id: "",
  timestamp: now,
  twin: {{speed: {{
    expected: {{value: speed, metadata: {{timestamp: now}}}}, metadata: {{type: "string"}},
  }}}},
  delta: {{speed}},
}};
return msg;
"""
SCRIPT = """\
apiVersion: hit.edu.cn/v1alpha1
kind: Script
metadata: {name: rule-%d}
spec:
  readSelector: {matchNames: {sensor: sensor-%d}}
  writeSelector: {matchNames: {fan: fan-%d}}
  manifest: {scriptType: Js, name: rule, version: 1.0.0}
  executePolicy: {readChange: true, qos: AtMostOnce}
"""
DEVICE = """\
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: %s-%d}
spec:
  deviceModelRef: {name: %s}
  protocol: {protocolName: bench}
  properties: [{name: %s}]
"""
MODEL = """\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: %s}
spec:
  properties: [{name: %s, type: %s, accessMode: %s}]
"""


def _repository(folder: Path, devices: int) -> None:
    git(folder.parent, "init", "--quiet", "--initial-branch=main", str(folder))
    (folder / "scripts" / "rule").mkdir(parents=True)
    (folder / "scripts" / "rule" / "1.0.0.js").write_text(RULE)
    manifests = folder / "manifests"
    manifests.mkdir()
    models = (
        MODEL % ("sensor", "temperature", "INT", "ReadOnly"),
        MODEL % ("fan", "speed", "STRING", "ReadWrite"),
    )
    (manifests / "models.yaml").write_text("---\n".join(models))
    for start in range(0, devices, 100):
        numbers = range(start, min(start + 100, devices))
        scripts = (SCRIPT % (number, number, number) for number in numbers)
        (manifests / f"scripts-{start}.yaml").write_text("---\n".join(scripts))
        found = (
            DEVICE % (kind, number, kind, name)
            for number in numbers
            for kind, name in (("sensor", "temperature"), ("fan", "speed"))
        )
        (manifests / f"devices-{start}.yaml").write_text("---\n".join(found))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "rules")


@contextmanager
def _up(folder: Path, broker: int, devices: int) -> Iterator[int]:
    """`scriptops up`; its process id, whose descendants are the executor and its workers."""
    folder.mkdir()
    _repository(folder / "rules", devices)
    arguments = (
        *("reconciler", "up", str(folder / "rules"), "--data", str(folder / "data")),
        *("--namespace", NAMESPACE, "--mqtt", f"127.0.0.1:{broker}", "--log-level", "warning"),
        *("--grpc", f"127.0.0.1:{free_port()}", "--web", f"127.0.0.1:{free_port()}"),
    )
    with process(*arguments, log=folder / "log") as child:
        yield child.pid


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="scriptops-bench-") as temporary:
        folder = Path(temporary)
        with mosquitto(folder / "broker") as broker:
            nodes = nodered.flow(
                broker.port,
                reads=f"{ROOTS['theirs']}/{NAMESPACE}/+/twin/update",
                function=FUNCTION,
            )
            load = [sys.executable, "-m", "tests.bench.mqttload", str(broker.port), str(DEVICES)]
            with (
                _up(folder / "ours", broker.port, DEVICES) as ours,
                nodered.running(folder / "theirs", nodes, free_port()) as theirs,
                running(load, None) as child,
            ):
                return _measured(child, {"ours": ours, "theirs": theirs})


def _measured(load: Child, pids: Mapping[str, int]) -> list[dict[str, Any]]:
    rates: dict[str, list[float]] = {side: [] for side in pids}
    costs: dict[str, list[float]] = {side: [] for side in pids}
    took: dict[str, list[float]] = {side: [] for side in pids}
    for side in pids:
        load.ask(do="prime", side=side, seconds=PATIENCE)
        load.ask(do="closed", side=side, count=MESSAGES, window=WINDOW)
    for _ in range(ROUNDS):
        for side, pid in pids.items():
            before = cpu_seconds(pid)
            done = load.ask(do="closed", side=side, count=MESSAGES, window=WINDOW)
            assert done["answered"] == MESSAGES
            rates[side].append(MESSAGES / done["seconds"])
            costs[side].append((cpu_seconds(pid) - before) / MESSAGES)
        for side in pids:
            done = load.ask(do="paced", side=side, count=PACED, rate=RATE)
            assert done["answered"] == PACED
            took[side] += done["took"]
    p50 = {side: statistics.median(times) * 1_000 for side, times in took.items()}
    p99 = {side: statistics.quantiles(times, n=100)[98] * 1_000 for side, times in took.items()}
    rate = {side: statistics.median(found) for side, found in rates.items()}
    cost = {side: statistics.median(found) * 1e6 for side, found in costs.items()}
    what = f"{DEVICES:,} devices"
    return [
        row(
            f"MQTT in, rule, MQTT out, {what}",
            rate["ours"],
            "messages/s",
            reference=rate["theirs"],
            target=0.7,
            less=False,
        ),
        row(
            f"MQTT in, rule, MQTT out, {what}: processor time of each",
            cost["ours"],
            "us",
            reference=cost["theirs"],
            target=3,
        ),
        row(
            f"MQTT in, rule, MQTT out, {RATE} a second: p50",
            p50["ours"],
            "ms",
            reference=p50["theirs"],
            target=2,
        ),
        row(
            f"MQTT in, rule, MQTT out, {RATE} a second: p99",
            p99["ours"],
            "ms",
            reference=p99["theirs"],
            target=2,
        ),
    ]
