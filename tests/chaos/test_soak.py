"""Much work for long: what the processes hold stays as it was.

`SOAK_SECONDS` says for how long; without it, it is four rounds.
"""

from __future__ import annotations

import asyncio
import os
import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.objects import SCRIPT_REPOSITORIES
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.mosquitto import Client, mosquitto
from tests.support.rulebook import QUIET, RELAY, device, documents, model, relay, script
from tests.support.system import ControllerProcess, Process, ask, descendants, executor, is_ready

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
TEAM = "team"
# What is remembered of finished runs is full after the first round.
RUNS = 10_500
# Published at a time, half of what may wait.
BURST = 500
REQUESTS = 50
# The first rounds fill what is bounded; the pages of allocators settle with them.
WARM = 2
# In all, however long: of 20,000 runs in the shortest variant 400 bytes each.
GROWTH = 8 * 1024 * 1024
# Connections of the moment, and threads of pools that are not yet full.
SLACK = 4
COUNT = b"function main(number) { State.set('last', number); }\n"


class Held(NamedTuple):
    """By some processes together."""

    memory: int
    descriptors: int
    threads: int


def held(*processes: int) -> Held:
    found = [Held(0, 0, 0)]
    for member in processes:
        status = Path(f"/proc/{member}/status").read_text()
        numbers = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE))
        descriptors = len(list(Path(f"/proc/{member}/fd").iterdir()))
        found.append(Held(int(numbers["VmRSS"]) * 1024, descriptors, int(numbers["Threads"])))
    return Held(*(sum(column) for column in zip(*found, strict=True)))


def rules(number: int) -> dict[str, bytes]:
    """Another revision each time, of one of them."""
    devices = [
        model("sensor", "open"),
        model("lamp", "power=rw"),
        device("door", "sensor", "open"),
        device("lamp", "lamp", "power"),
    ]
    durable = {"webhook": True, "qos": "AtLeastOnce", "runOnDeploy": False}
    heard = {"mqtt": {"topics": ["numbers"], "qos": 1}, "runOnDeploy": False}
    scripts = [
        relay(),
        script("heard", executePolicy=heard),
        script("kept", artifact="count", executePolicy=durable, env={"revision": str(number)}),
    ]
    return {
        "manifests/devices.yaml": documents(*devices),
        "manifests/scripts.yaml": documents(*scripts),
        "scripts/relay/1.0.0.js": RELAY,
        "scripts/count/1.0.0.js": COUNT,
        "scripts/quiet/1.0.0.js": QUIET,
    }


class Soak:
    """A controller with an executor, a broker, and rules that are asked for without end."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.git = Repository(folder / "rules.git", "--bare")
        self.git.commit(rules(0))
        asyncio.run(self._deploy())
        broker = stack.enter_context(mosquitto(folder / "broker"))
        self.controller = ControllerProcess(folder, f"--mqtt=127.0.0.1:{broker.port}")
        self.controller.start()
        stack.callback(self.controller.stop)
        self.web = self.controller.web
        self.executor = stack.enter_context(self.one_executor("first"))
        self.publisher = stack.enter_context(Client(broker.port))
        self._round = 0
        wait_until(lambda: self.ready() == {"relay", "heard", "kept"}, what="all are ready")

    def one_executor(self, name: str) -> contextmanager[Process]:  # type: ignore[type-arg]
        grpc = self.controller.serving()["grpc"]
        return executor(grpc, self.folder / f"{name}.log", name=name)  # type: ignore[return-value]

    async def _deploy(self) -> None:
        cluster = await EmbeddedCluster.open(self.folder / "data/cluster", clock=SystemClock())
        try:
            document = {
                "apiVersion": "hit.edu.cn/v1alpha1",
                "kind": "ScriptRepository",
                "metadata": {"name": "rules", "namespace": TEAM},
                "spec": {"url": str(self.git.path), "resultsInterval": "1s"},
            }
            await cluster.create(SCRIPT_REPOSITORIES, document, field_manager="an operator")
        finally:
            await cluster.close()

    def ready(self) -> set[str]:
        items = ask(f"{self.web}/api/v1alpha1/scripts")["items"]
        return {it["metadata"]["name"] for it in items if is_ready(it)}

    def runs(self) -> int:
        with urllib.request.urlopen(f"{self.web}/metrics", timeout=30) as answer:  # noqa: S310 - our own loopback server
            text = answer.read().decode()
        found = re.findall(r"^scriptops_runs_total\{.*\} (\S+)$", text, re.MULTILINE)
        return round(sum(map(float, found)))

    def round(self) -> None:
        """Messages, requests, reports of a device, a revision, and an executor that comes and goes."""
        self._round += 1
        with self.one_executor("second"):
            before = self.runs()
            for burst in range(RUNS // BURST):
                for number in range(BURST):
                    self.publisher.send("numbers", str(number).encode())
                enough = before + (burst + 1) * BURST
                wait_until(lambda n=enough: self.runs() >= n, what="they were run", every=0.02)
            for number in range(REQUESTS):
                hook = f"{self.web}/api/v1alpha1/webhook?namespace={TEAM}&name=kept"
                ask(hook, method="POST", body=number)
            for is_open in (True, False) * 20:
                self.publisher.publish(
                    f"$hw/events/device/{TEAM}/door/twin/update",
                    f'{{"event_id":"","timestamp":0,"twin":{{"open":{{"actual":{{"value":'
                    f'"{str(is_open).lower()}"}},"metadata":{{"type":"boolean"}}}}}}}}',
                )
            wait_until(lambda: self.runs() >= before + RUNS + REQUESTS, what="all were run")
        self.git.commit(rules(self._round))
        head = self.git.tip("main")
        wait_until(lambda: self.revision().endswith(str(head)), what="the revision is applied")

    def revision(self) -> str:
        items = ask(f"{self.web}/api/v1alpha1/scripts")["items"]
        kept = next(it for it in items if it["metadata"]["name"] == "kept")
        return str(kept.get("status", {}).get("revision", ""))

    def held(self) -> tuple[Held, Held]:
        # Of the controller only git is a child, for as long as it fetches or pushes.
        executors = (self.executor.pid, *descendants(self.executor.pid))
        return held(self.controller.pid), held(*executors)


@pytest.fixture
def soak(tmp_path: Path) -> Iterator[Soak]:
    with ExitStack() as stack:
        yield Soak(tmp_path, stack)


def test_memory_descriptors_and_threads_are_flat(soak: Soak) -> None:
    ends = monotonic() + SECONDS
    for _ in range(WARM):
        soak.round()
    before = soak.held()
    rounds = 0
    while rounds < 2 or monotonic() < ends:
        soak.round()
        rounds += 1
    for name, was, now in zip(("controller", "executor"), before, soak.held(), strict=True):
        told = f"{name} after {rounds} rounds: {was} became {now}"
        print(told)
        assert now.memory <= was.memory + GROWTH, told
        assert now.descriptors <= was.descriptors + SLACK, told
        assert now.threads <= was.threads + SLACK, told
