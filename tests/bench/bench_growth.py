"""What a run costs as Scripts and devices become many, beside a small system.

Measured is the run path of a controller, from a change that the watch brings to the PATCH of the
desired value and the counted outcome, over the embedded cluster in memory and an executor that
answers at once: whatever there is of each kind is held, and `RUNS` runs of Scripts at random are
done, `AT_ONCE` under way. Each size is a process of its own, in turn; its best round counts.
What an executor's side costs as Scripts become many is `bench tenants`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import subprocess
import sys
import time
from typing import Any, Final

from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from reconciler.core.runs import Write
from reconciler.core.scripts import decode_script
from reconciler.core.store import Entry, identity_of
from reconciler.core.twins import decode_device
from reconciler.main.serving import COLLECTED_AFTER
from tests.bench.children import start
from tests.bench.cluster import row
from tests.controllers.runpath import Rig, device, ok, reported, runnable, subscription

# How many Scripts and devices there are.
SMALL: Final = (10, 100)
LARGE: Final = (10_000, 100_000)
RUNS = 4_000
WARM_UP = 1_000
AT_ONCE = 10
ROUNDS = 2


class House:
    """Scripts that each read a sensor and write a fan of theirs, among devices that none reads."""

    def __init__(self, scripts: int, devices: int) -> None:
        self._rig = Rig()
        self._scripts = scripts
        self._devices = devices
        self._chance = random.Random(7)
        self._value = 0

    async def fill(self) -> None:
        rig = self._rig
        for number in range(self._devices):
            kind = "sensor" if number < self._scripts else "other"
            await self._device(device(f"{kind}-{number}", "sensor", temperature=None))
        for number in range(self._scripts):
            await self._device(device(f"fan-{number}", "fan", speed=None))
            key = ObjectKey("default", f"rule-{number}")
            selectors: dict[str, Any] = {
                "readSelector": {"matchNames": {"sensor": f"sensor-{number}"}},
                "writeSelector": {"matchNames": {"fan": f"fan-{number}"}},
            }
            made = await rig.script(key, **selectors)
            identity = identity_of(made)
            record = decode_script(made)
            rig.world.scripts.put(key, Entry(identity.uid, identity.resource_version, record))
            rig.dispatcher.put(key, runnable(key, identity.uid, **selectors))
            reads = frozenset({f"sensor-{number}"})
            wanted = subscription(key, identity.uid, reads=reads, run_on_deploy=False)
            rig.triggering.subscribe(wanted)

    async def _device(self, document: Any) -> None:
        made = await self._rig.create(DEVICES_V1BETA1, document)
        identity = identity_of(made)
        entry = Entry(identity.uid, identity.resource_version, decode_device(made))
        self._rig.world.devices.put(identity.key, entry)

    async def runs(self, count: int) -> float:
        """Seconds of processor time for so many."""
        rig = self._rig
        executor = rig.sessions.connect(credit=count)
        began = time.process_time()
        for _ in range(count // AT_ONCE):
            chosen = self._chance.sample(range(self._scripts), AT_ONCE)
            for number in chosen:
                await self._report(number)
            await asyncio.sleep(0)
            sent = rig.sessions.sent.pop(executor)
            keys = [key for dispatch in sent for key, _ in dispatch.runs]
            assert len(keys) == len(chosen)
            self._value += 1
            results = [ok(key, Write("fan", "speed", f"{self._value}", 0)) for key in keys]
            rig.sessions.answer(executor, *results)
            await rig.dispatcher.drained()
        return time.process_time() - began

    async def _report(self, number: int) -> None:
        """As the watch brings it: the change of a sensor, and the one of its fan before."""
        world, key = self._rig.world, ObjectKey("default", f"sensor-{number}")
        live = await self._rig.cluster.real.get(DEVICES_V1BETA1, key)
        self._rig.cluster.real.report_twins(
            DEVICES_V1BETA1, key, {"temperature": reported(f"{self._value}")}
        )
        for changed in (key, ObjectKey("default", f"fan-{number}")):
            live = await self._rig.cluster.real.get(DEVICES_V1BETA1, changed)
            identity = identity_of(live)
            entry = Entry(identity.uid, identity.resource_version, decode_device(live))
            for delta in world.devices.put(changed, entry):
                self._rig._device_changed(delta)


async def _measure(scripts: int, devices: int) -> float:
    house = House(scripts, devices)
    await house._rig.sessions.start(house._rig.dispatcher, house._rig.registry.read)
    await house.fill()
    gc.freeze()
    await house.runs(WARM_UP)
    return min([await house.runs(RUNS) / RUNS for _ in range(ROUNDS)])


def run() -> list[dict[str, Any]]:
    cost = {size: min(_child(*size) for _ in range(ROUNDS)) for size in (SMALL, LARGE)}
    return [
        row(
            f"a run with {LARGE[0]:,} Scripts and {LARGE[1]:,} devices",
            cost[LARGE] * 1e6,
            "us",
            reference=cost[SMALL] * 1e6,
            target=1.5,
        )
    ]


def _child(scripts: int, devices: int) -> float:
    arguments = [sys.executable, "-m", "tests.bench.bench_growth", str(scripts), str(devices)]
    with start(arguments, None, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        return float(json.loads(process.stdout.readline()))


if __name__ == "__main__":
    gc.set_threshold(*COLLECTED_AFTER)
    print(json.dumps(asyncio.run(_measure(int(sys.argv[1]), int(sys.argv[2])))))
