"""A system that is killed again and again, and outsiders who remember what they asked it for.

What took effect is written down by the cluster's own database, in the transaction of the effect: no
kill falls between the two.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.api.script import Qos
from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from tests.chaos.fate import OF_ALL, Fate, Point
from tests.chaos.history import History, Start, Verdict, faults
from tests.support.gitserver import Repository
from tests.support.kube import free_port, wait_until
from tests.support.rulebook import device, documents, script
from tests.support.statusfiles import status_files
from tests.support.system import ROOT, alive

TEAM = "team"
# Each Script writes the device that bears its name.
QOS = {"most": Qos.AT_MOST_ONCE, "least": Qos.AT_LEAST_ONCE, "only": Qos.ONLY_ONCE}
# Those that promise to be run, and so are on disk before they wait.
KEPT = {name for name, qos in QOS.items() if qos is not Qos.AT_MOST_ONCE}
# Who comes by points that not all come by.
PASSING = {Point.KEPT: KEPT, Point.ACCEPTED: {"only"}}
MARK = b"""\
async function main(number) {
  if (typeof number !== "number") return;
  Device.setDeviceStatus("mark", "number", number);
  await Device.commitDevice("mark");
}
"""
MODEL = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "DeviceModel",
    "metadata": {"name": "mark"},
    "spec": {
        "protocol": "simulated",
        "properties": [{"name": "number", "type": "INT", "accessMode": "ReadWrite"}],
    },
}
# The newest number of a device, each time that a commit changed anything of it.
WITNESS = """
CREATE TABLE witness (number INTEGER PRIMARY KEY, name TEXT, document BLOB);
CREATE TRIGGER witness_effects AFTER INSERT ON object WHEN new.kind = 'devices.devices.kubeedge.io'
BEGIN INSERT INTO witness (name, document) VALUES (new.name, new.document); END;
"""
# Operations that are asked for until a kill at the latest; each comes by its point at most once.
MOST = 60
# Numbers set apart for a round; more than are asked for while a process comes up.
ROUND = 100_000
# How many of one Script come by a point before it is deadly.
NTH = 8
PATIENCE = 60.0
# Looks between two requests that show that a Script runs; a second or so.
FENCE_AGAIN = 30


def fates(count: int, chance: random.Random, *, points: Collection[Point]) -> list[Fate]:
    """Every point with every promise that passes it, again and again, each time in another order."""
    pairs = [(point, name) for point in points for name in QOS if name in PASSING.get(point, QOS)]
    found: list[Fate] = []
    while len(found) < count:
        chance.shuffle(pairs)
        found += [
            Fate(point, name, 0, 1 if point in OF_ALL else chance.randint(1, NTH))
            for point, name in pairs
        ]
    return found[:count]


def rules() -> dict[str, bytes]:
    scripts = [
        script(
            name,
            artifact="mark",
            writes={"mark": name},
            policy={"webhook": True, "qos": qos.value, "runOnDeploy": False},
        )
        for name, qos in QOS.items()
    ]
    devices = [MODEL, *(device(name, "mark", "number") for name in QOS)]
    return {
        "manifests/devices.yaml": documents(*devices),
        "manifests/scripts.yaml": documents(*scripts),
        "scripts/mark/1.0.0.js": MARK,
    }


@dataclass
class Asked:
    """By operation, as it was answered."""

    accepted: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    unanswered: set[int] = field(default_factory=set)


class Arena:
    """One data folder, one repository, and whoever lives on them now."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.chance = random.Random(seed)
        self.git = Repository(folder / "rules.git", "--bare")
        self.git.commit(rules())
        self.web, self.grpc = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.asked = {name: Asked() for name in QOS}
        self._next = self._first = 1
        self._door = http.client.HTTPConnection(self.web, timeout=PATIENCE)
        self._executor: subprocess.Popen[bytes] | None = None
        self._life = 0
        self._read = 0
        self._effects: dict[str, list[int]] = {name: [] for name in QOS}
        asyncio.run(self._prepare())
        with (folder / "controller.log").open("ab") as log:
            self._lives = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.doomed", str(os.getpid())],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    async def _prepare(self) -> None:
        cluster = await EmbeddedCluster.open(self._cluster, clock=SystemClock())
        try:
            document = {
                "apiVersion": "hit.edu.cn/v1alpha1",
                "kind": "ScriptRepository",
                "metadata": {"name": "rules", "namespace": TEAM},
                "spec": {"url": str(self.git.path), "interval": "1h", "resultsInterval": "2s"},
            }
            await cluster.create(SCRIPT_REPOSITORIES, document, field_manager="an operator")
        finally:
            await cluster.close()
        with closing(sqlite3.connect(self._cluster / "cluster.db")) as database:
            database.executescript(WITNESS)

    @property
    def _cluster(self) -> Path:
        return self.folder / "data" / "cluster"

    # Lives.

    def begin(self, fate: Fate | None = None) -> None:
        """A controller, which is doomed unless there is no fate."""
        order = {
            "data": str(self.folder / "data"),
            "web": self.web,
            "grpc": self.grpc,
            "fate": fate.dumps() if fate is not None else "",
        }
        assert self._lives.stdin is not None
        self._lives.stdin.write(json.dumps(order) + "\n")
        self._lives.stdin.flush()
        self._life = self._said()
        self._door.close()

    def _said(self) -> int:
        assert self._lives.stdout is not None
        line = self._lives.stdout.readline()
        assert line, "the controllers' parent has ended"
        return int(line)

    @property
    def is_alive(self) -> bool:
        return alive(self._life)

    def stop(self) -> int:
        """Ask the controller to end; how it has ended."""
        os.kill(self._life, signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """How the controller has ended, once it has."""
        wait_until(lambda: not self.is_alive, what="the controller has ended", every=0.005)
        return self._said()

    def begin_executor(self, fate: Fate | None = None) -> None:
        arguments = [str(self.folder / "starts"), self.grpc, str(os.getpid())]
        with (self.folder / "executor.log").open("ab") as log:
            self._executor = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.chaos.doomed_executor", *arguments),
                    fate.dumps() if fate is not None else "",
                ],
                cwd=ROOT,
                stderr=log,
            )

    @property
    def executor(self) -> subprocess.Popen[bytes]:
        assert self._executor is not None
        return self._executor

    def close(self) -> None:
        """Whatever happened, nothing of it lives on."""
        self._door.close()
        if self._executor is not None and self._executor.poll() is None:
            self._executor.kill()
            self._executor.wait()
        # Its controller goes with it.
        self._lives.kill()
        self._lives.communicate()

    # Operations.

    def ask(self, name: str) -> bool:
        """One operation of a Script; whether it was accepted."""
        number, self._next = self._next, self._next + 1
        asked = self.asked[name]
        try:
            if self._door.sock is None:
                self._door.connect()
        except OSError:
            asked.refused.add(number)
            return False
        try:
            path = f"/api/v1alpha1/webhook?namespace={TEAM}&name={name}"
            self._door.request("POST", path, str(number), {"Content-Type": "application/json"})
            with self._door.getresponse() as answer:
                answer.read()
                code = answer.status
        except (OSError, http.client.HTTPException):
            self._door.close()
            asked.unanswered.add(number)
            return False
        if code == http.HTTPStatus.ACCEPTED:
            asked.accepted.add(number)
            return True
        assert code < 500 or code == http.HTTPStatus.SERVICE_UNAVAILABLE, code
        asked.refused.add(number)
        return False

    def doom(self, fate: Fate) -> Fate:
        """That of the operations of the next round, and of none before."""
        self._first = self._next + ROUND
        return replace(fate, first=self._first)

    def round(self, fate: Fate, is_over: Callable[[], bool]) -> None:
        """Have all happen that was promised before; then ask until fate has taken its victim."""
        self.settled()
        found = self.faults()
        assert not found, f"{self.history(found)} before {fate}"
        assert not is_over(), f"too early: {fate}"
        assert self._next <= self._first
        self._next = self._first
        others = list(QOS)
        for _ in range(MOST):
            if is_over():
                return
            self.ask(fate.script if self.chance.random() < 0.5 else self.chance.choice(others))
        wait_until(is_over, what=f"{fate} has come", seconds=PATIENCE, every=0.005)

    def ask_some(self) -> None:
        """A burst of operations; how they fare is for later."""
        for _ in range(self.chance.randint(1, MOST)):
            self.ask(self.chance.choice(list(QOS)))

    def settled(self) -> None:
        """Every Script runs, and all that was promised has happened."""
        fences: dict[str, list[int]] = {name: [] for name in QOS}
        looks = itertools.count()

        def is_done() -> bool:
            is_time = next(looks) % FENCE_AGAIN == 0
            effects = {name: set(numbers) for name, numbers in self.effects().items()}
            open_ = [name for name, asked in fences.items() if effects[name].isdisjoint(asked)]
            for name in open_:
                # One that promises little is lost with an executor that is about to be missed.
                if (not fences[name] or is_time) and self.ask(name):
                    fences[name].append(self._next - 1)
            return not open_ and all(self.asked[name].accepted <= effects[name] for name in KEPT)

        try:
            wait_until(is_done, what="all has happened", seconds=PATIENCE, every=0.02)
        except AssertionError as error:
            effects = self.effects()
            left = {n: sorted(self.asked[n].accepted - set(effects[n])) for n in KEPT}
            raise AssertionError(f"{error}; not in the world: {left}, fences {fences}") from None

    # What outsiders know.

    def effects(self) -> dict[str, list[int]]:
        with closing(sqlite3.connect(self._cluster / "cluster.db", timeout=PATIENCE)) as database:
            rows = database.execute(
                "SELECT number, name, document FROM witness WHERE number > ? ORDER BY number",
                (self._read,),
            ).fetchall()
        for row, name, document in rows:
            self._read = row
            (twin,) = json.loads(document)["spec"]["properties"]
            number = int(twin.get("desired", {}).get("value", 0))
            # A commit that left the number alone is no effect.
            if number and number != (self._effects[name] or [0])[-1]:
                self._effects[name].append(number)
        return self._effects

    def starts(self) -> dict[str, list[Start]]:
        found: dict[str, list[Start]] = {name: [] for name in QOS}
        for line in (self.folder / "starts").read_text().splitlines():
            name, number, *key = json.loads(line)
            if number is not None:
                found[name].append(Start(number, *key))
        return found

    def unfinished(self) -> dict[str, set[int]]:
        """By Script, what was begun and has no effect."""
        effects = self.effects()
        begun = {name: {it.operation for it in starts} for name, starts in self.starts().items()}
        left = {name: begun[name] - set(effects[name]) for name in QOS}
        return {name: numbers for name, numbers in left.items() if numbers}

    def faults(self) -> dict[str, list[Verdict]]:
        """By Script, what was promised and is not so."""
        # In this order: what has just taken effect has been begun before.
        effects = {name: tuple(numbers) for name, numbers in self.effects().items()}
        starts = self.starts()
        found = {
            name: faults(
                History(
                    accepted=asked.accepted,
                    refused=asked.refused,
                    unanswered=asked.unanswered,
                    starts=starts[name],
                    effects=effects[name],
                ),
                QOS[name],
            )
            for name, asked in self.asked.items()
        }
        return {name: verdicts for name, verdicts in found.items() if verdicts}

    def history(self, found: Mapping[str, Sequence[Verdict]]) -> list[str]:
        """All that is known of operations that have a fault."""
        return [
            f"{operation} of {name} is {fault}: "
            f"{[k for k in ('accepted', 'refused', 'unanswered') if operation in getattr(self.asked[name], k)]}, "
            f"started {[start for start in self.starts()[name] if start.operation == operation]}, "
            f"effects {self.effects()[name].count(operation)}"
            for name, verdicts in found.items()
            for fault, operation in verdicts
        ]

    def is_told(self) -> bool:
        """Whether the status ref is whole, and says what the cluster says."""

        async def live() -> dict[ObjectKey, Any]:
            cluster = await EmbeddedCluster.open(self._cluster, clock=SystemClock())
            try:
                page = await cluster.list_page(SCRIPTS, namespace=TEAM)
                found: Sequence[Any] = page.items
                return {ObjectKey(TEAM, o["metadata"]["name"]): o["status"] for o in found}
            finally:
                await cluster.close()

        return status_files(self.git) == asyncio.run(live())
