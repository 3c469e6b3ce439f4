"""The pool of workers: which namespace has a worker now, and which must wait.

Slots are few: so many workers run at a time. A namespace keeps its slot while nobody else wants
it; one that has none takes a free slot, else an idle one that was used longest ago, else it waits
for the end of a turn. A namespace that loses its slot keeps its worker all the same, with all that
is open in it, as long as there is memory: it goes on where it stopped. One worker is always started
ahead, unless none is to be kept, so that a namespace that comes anew waits for no spawn.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from executor.engines import ENGINES
from executor.model import Outcome, ScriptType
from executor.supervisor.ledger import Ledger
from executor.supervisor.process import Process, Unconfined, WorkerDied
from executor.supervisor.queue import Queue
from executor.supervisor.slot import Slot
from executor.worker import sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from executor.model import RunKey, RunResult, Work

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 1.0
"""How long a busy namespace keeps its slot while another waits; should that one's worker have been
ended for want of memory, a change costs 0.1 s of CPU."""

WATCH_SECONDS: Final = 0.25
"""Between two looks at a worker's memory; it can gain a few hundred MB in this time."""

MEMORY_BYTES: Final = 512 * 1024 * 1024
"""Memory of one worker that runs, all its isolates together; an idle one has 50 MB to itself. What
running workers do not use of it is for those that wait."""

SPAWN_RETRY_SECONDS: Final = 1.0
"""After a worker could not be started: the machine is short of something, haste does not help."""


class _Lane:
    """One namespace: its work and its workers."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.slots: set[Slot] = set()


class Supervisor:
    """Runs work in worker processes and hands the results to `deliver`, in batches.

    Every run that is submitted is answered once, unless `abandon` comes first. No order is
    promised between runs. Used by one event loop only.
    """

    def __init__(
        self,
        deliver: Callable[[Sequence[RunResult]], None],
        *,
        workers: int,
        memory_bytes: int = MEMORY_BYTES,
        wasm_fuel: int = 0,
        sandboxed: bool = True,
        spare: bool = True,
    ) -> None:
        self._deliver = deliver
        self._keeps_spare = spare
        self._sandboxed = sandboxed
        self._limit = workers
        self._memory_bytes = memory_bytes
        self._wasm_fuel = wasm_fuel
        self._ledger = Ledger()
        self._lanes: dict[str, _Lane] = {}
        self._slots: dict[Slot, asyncio.Task[None]] = {}
        self._retired: set[Slot] = set()
        # Workers of namespaces without a slot, the one that waits longest first.
        self._parked: OrderedDict[str, Process] = OrderedDict()
        # Namespaces with work and without a worker, the one that waits longest first.
        self._waiting: dict[str, None] = {}
        self._generation = 0
        self._spare: asyncio.Task[Process] | None = None
        self._spawns: set[asyncio.Task[Process]] = set()
        self._processes: set[Process] = set()
        self._watchdog: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> Mapping[str, object]:
        """Start the first worker and the watchdog; what the worker says of itself.

        Raises:
            Unconfined: a required layer of the sandbox is missing, and none may be (`sandboxed`).
            WorkerDied, OSError: no worker can be started here.
        """
        self._spare = self._spawn()
        process = await self._spare
        self._watchdog = asyncio.create_task(self._watch())
        return process.greeting

    def submit(self, work: Work, source: bytes) -> None:
        """Take on `work`, whose artifact is `source`."""
        script = work.script
        if script.type not in ENGINES:
            message = f"no engine for {_type_name(script.type)} in this executor"
            self._deliver(work.answered(Outcome.UNAVAILABLE, message))
            return
        lane = self._lanes.get(script.namespace)
        if lane is None:
            lane = self._lanes[script.namespace] = _Lane()
        lane.queue.put(work, source)
        self._place(script.namespace, lane)

    def abandon(self, keys: Collection[RunKey] | None = None) -> None:
        """Forget all work: what is queued is dropped, what runs is not answered.

        Of `keys` alone what is queued is dropped; what runs is answered all the same.
        """
        if keys is not None:
            for lane in self._lanes.values():
                lane.queue.drop(keys)
            return
        self._generation += 1
        self._waiting.clear()
        for lane in self._lanes.values():
            lane.queue.clear()

    async def close(self) -> None:
        """End every worker. What was not answered never will be."""
        self._closing = True
        tasks = [*self._slots.values(), self._watchdog]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task), return_exceptions=True)
        await asyncio.gather(*self._spawns, return_exceptions=True)
        for process in self._processes:
            process.kill(Outcome.UNAVAILABLE)
        await asyncio.gather(*(process.ended() for process in self._processes))

    # who gets a slot

    def _place(self, namespace: str, lane: _Lane) -> None:
        for slot in lane.slots:
            if slot.is_idle and slot not in self._retired:
                slot.wake()
                return
        free = self._limit - len(self._slots)
        # A second worker for one namespace must leave a slot for another namespace.
        if free > (1 if lane.slots else 0):
            self._open_slot(namespace, lane)
        elif not lane.slots and namespace not in self._waiting:
            self._waiting[namespace] = None
            idle = [slot for slot in self._slots if slot.is_idle and slot not in self._retired]
            if idle:
                self._retire(min(idle, key=lambda slot: slot.idle_since))

    def _open_slot(self, namespace: str, lane: _Lane) -> None:
        self._waiting.pop(namespace, None)
        slot = Slot(
            queue=lane.queue,
            ledger=self._ledger,
            process=lambda: self._worker(namespace, lane),
            park=lambda process: self._park(namespace, process),
            deliver=self._deliver_current,
            generation=lambda: self._generation,
            should_yield=self._should_yield,
            has_spare=self._has_spare,
            memory_bytes=self._memory_bytes,
        )
        lane.slots.add(slot)
        self._slots[slot] = asyncio.create_task(self._serve(namespace, lane, slot))

    async def _serve(self, namespace: str, lane: _Lane, slot: Slot) -> None:
        try:
            await slot.serve()
        finally:
            lane.slots.discard(slot)
            self._retired.discard(slot)
            del self._slots[slot]
            if not self._closing:
                self._hand_over(namespace, lane)

    def _hand_over(self, namespace: str, lane: _Lane) -> None:
        if self._waiting:
            heir = next(iter(self._waiting))
            self._open_slot(heir, self._lanes[heir])
        if lane.queue:
            self._place(namespace, lane)
        elif not lane.slots:
            del self._lanes[namespace]

    def _retire(self, slot: Slot) -> None:
        self._retired.add(slot)
        slot.wake()

    def _should_yield(self, slot: Slot) -> bool:
        if slot in self._retired:
            return True
        if not self._waiting:
            return False
        now = asyncio.get_running_loop().time()
        if slot.has_work and now - slot.started < TURN_SECONDS:
            return False
        # One turn ends per namespace that waits, not all turns for the first of them.
        if len(self._retired) >= len(self._waiting):
            return False
        self._retired.add(slot)
        return True

    # workers

    def _park(self, namespace: str, process: Process) -> bool:
        """Keep a worker that has nothing to do, for the next turn of its namespace."""
        if self._closing or namespace in self._parked:
            return False
        self._parked[namespace] = process
        return True

    def _make_room(self) -> None:
        """End waiting workers that there is no memory for."""
        used = sum([process.resident_bytes() for process in self._processes if process.is_alive])
        while self._parked and used > self._limit * self._memory_bytes:
            _, process = self._parked.popitem(last=False)
            used -= process.resident_bytes()
            process.kill(Outcome.UNAVAILABLE)

    async def _worker(self, namespace: str, lane: _Lane) -> Process:
        parked = self._parked.pop(namespace, None)
        if parked is not None and parked.is_alive:
            return parked
        failures = 0
        while True:
            task, self._spare = self._spare or self._spawn(), None
            try:
                # A slot that is cancelled here must not leave half a process behind.
                process = await asyncio.shield(task)
            except (WorkerDied, OSError) as error:
                log.warning("worker not started", extra={"reason": str(error)})
                failures += 1
                if failures == 1:
                    # The one started ahead may have died of something that is over.
                    continue
                self._refuse(lane, "no worker process could be started")
                await asyncio.sleep(SPAWN_RETRY_SECONDS)
                continue
            if self._keeps_spare and self._spare is None:
                self._spare = self._spawn()
            if process.is_alive:
                return process

    def _spawn(self) -> asyncio.Task[Process]:
        async def spawn() -> Process:
            process = await Process.spawn(self._memory_bytes, wasm_fuel=self._wasm_fuel)
            self._processes = {other for other in self._processes if other.is_alive} | {process}
            self._make_room()
            if self._sandboxed and (missing := sandbox.missing(process.report)):
                process.kill(Outcome.UNAVAILABLE)
                await process.ended()
                raise Unconfined(missing)
            return process

        task = asyncio.create_task(spawn())
        self._spawns.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[Process]) -> None:
        self._spawns.discard(task)
        if not task.cancelled():
            # Whoever takes the spare meets the error; nobody may.
            task.exception()
        for slot in self._slots:
            if slot.is_idle:
                slot.wake()

    def _has_spare(self) -> bool:
        """Whether work that may cost its worker can begin."""
        return not self._keeps_spare or (self._spare is not None and self._spare.done())

    def _refuse(self, lane: _Lane, message: str) -> None:
        while job := lane.queue.take(lambda _: 1):
            self._deliver(job.answered(Outcome.UNAVAILABLE, message))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for slot in self._slots:
                slot.watch_memory()
            self._make_room()

    def _deliver_current(self, generation: int, results: Sequence[RunResult]) -> None:
        if generation == self._generation:
            self._deliver(results)


def _type_name(number: int) -> str:
    return ScriptType(number).name.capitalize() if number in set(ScriptType) else f"type {number}"
