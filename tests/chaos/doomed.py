"""Controllers that are killed at a named point: one process that forks a controller per line.

Reads lines of JSON, `{"data", "web", "grpc", "fate"}`; answers each with the process id of the
controller, and once more with how it ended. What costs most of a start, the imports, is done once.
The controllers are whole and are ours: only their ports are wrapped, by composition.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import orjson
import uvloop

from executor.worker.sandbox import leave_no_orphan
from reconciler.adapters.clock import SystemClock
from reconciler.core.deliveries import Delivery
from reconciler.core.objects import SCRIPTS, JsonObject, ObjectKey, Resource
from reconciler.core.runs import Dispatch, ExecutorId, RunId, RunResult
from reconciler.main import logs
from reconciler.main.assembly import Controller
from reconciler.main.serving import open_cluster
from reconciler.ports.git import DEFAULT_STATUS_OPTIONS, CommitId, Remote, StatusOptions, StatusRef
from reconciler.ports.sessions import ExecutorInfo, SessionHandler
from reconciler.settings import Settings
from tests.chaos.fate import Fate, Point, Reaper

# Pauses between tries and between statuses are as much shorter, or every round would wait for them.
HASTE = 8.0


class HastyClock(SystemClock):
    """Waits pass faster; the time of day does not."""

    def monotonic(self) -> float:
        return super().monotonic() * HASTE

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / HASTE)


class Journal:
    """Of the port: all that is not here is as it is."""

    def __init__(self, inner: Any, reaper: Reaper) -> None:
        self._inner, self._reaper = inner, reaper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def keep(self, delivery: Delivery) -> None:
        await self._inner.keep(delivery)
        run = delivery.run
        self._reaper.passes(Point.KEPT, run.script.name, _number(run.event))

    async def accept(self, delivery: Delivery) -> Delivery:
        accepted: Delivery = await self._inner.accept(delivery)
        run = delivery.run
        self._reaper.passes(Point.ACCEPTED, run.script.name, _number(run.event))
        return accepted


class Sessions:
    """Stands between the server and the dispatcher, in both directions."""

    def __init__(self, inner: Any, reaper: Reaper) -> None:
        self._inner, self._reaper = inner, reaper
        self._operations: dict[RunId, tuple[str, int | None]] = {}
        self._handler: SessionHandler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def start(self, handler: SessionHandler, *more: Any, **options: Any) -> Any:
        self._handler = handler
        return await self._inner.start(self, *more, **options)

    def send(self, executor: ExecutorId, dispatches: Sequence[Dispatch]) -> bool:
        sent = []
        for dispatch in dispatches:
            for key, activation in dispatch.runs:
                it = (dispatch.script.key.name, _number(_event(activation)))
                self._operations[key.run_id] = it
                self._reaper.passes(Point.CLAIMED, *it)
                sent.append(it)
        answer: bool = self._inner.send(executor, dispatches)
        for it in sent:
            self._reaper.passes(Point.SENT, *it)
        return answer

    # What the server tells.

    def connected(self, executor: ExecutorInfo) -> None:
        self._handler.connected(executor)

    def credited(self, executor: ExecutorId, credit: int) -> None:
        self._handler.credited(executor, credit)

    def draining(self, executor: ExecutorId) -> None:
        self._handler.draining(executor)

    def disconnected(self, executor: ExecutorId, reason: str) -> None:
        self._handler.disconnected(executor, reason)

    def finished(self, executor: ExecutorId, results: Sequence[RunResult]) -> None:
        for result in results:
            known = self._operations.get(result.key.run_id)
            if known is not None:
                self._reaper.passes(Point.ANSWERED, *known)
        self._handler.finished(executor, results)


class Cluster:
    def __init__(self, inner: Any, reaper: Reaper) -> None:
        self._inner, self._reaper = inner, reaper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def json_patch(
        self, resource: Resource, key: ObjectKey, patch: Sequence[JsonObject], **options: Any
    ) -> JsonObject:
        operation = _desired(patch) if resource.plural == "devices" else None
        self._reaper.passes(Point.PATCHING, key.name, operation)
        answer: JsonObject = await self._inner.json_patch(resource, key, patch, **options)
        self._reaper.passes(Point.PATCHED, key.name, operation)
        if resource == SCRIPTS and options.get("status"):
            self._reaper.all_pass(Point.TOLD)
        return answer


class Pushes:
    def __init__(self, inner: StatusRef, reaper: Reaper) -> None:
        self._inner, self._reaper = inner, reaper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def push(
        self, files: Mapping[PurePosixPath, bytes | None], *, message: str, timeout: timedelta
    ) -> CommitId | None:
        commit = await self._inner.push(files, message=message, timeout=timeout)
        self._reaper.all_pass(Point.PUSHED)
        return commit


class Git:
    def __init__(self, inner: Any, reaper: Reaper) -> None:
        self._inner, self._reaper = inner, reaper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def status_ref(
        self, remote: Remote, ref: str, options: StatusOptions = DEFAULT_STATUS_OPTIONS
    ) -> Pushes:
        return Pushes(self._inner.status_ref(remote, ref, options), self._reaper)


class Doomed(Controller):
    """A controller among whose ports death stands."""

    def __init__(self, settings: Settings, cluster: Any, clock: Any, reaper: Reaper) -> None:
        self._reaper = reaper
        super().__init__(settings, Cluster(cluster, reaper), clock)  # type: ignore[arg-type]

    def _wire(self) -> None:
        wrapped: Any = self
        wrapped.journal = Journal(self.journal, self._reaper)
        wrapped._sessions = Sessions(self._sessions, self._reaper)
        wrapped.git = Git(self.git, self._reaper)
        super()._wire()


def _event(activation: bytes) -> bytes:
    return orjson.dumps(orjson.loads(activation)["event"])


def _number(event: bytes) -> int | None:
    """The operation that an event asks for; None for one that is nobody's request."""
    found = orjson.loads(event) if event else None
    return found if isinstance(found, int) else None


def _desired(patch: Sequence[JsonObject]) -> int | None:
    """What a patch of a device wants its mark to be."""
    for op in patch:
        value = op.get("value")
        if op["op"] == "add" and "/desired" in str(op["path"]):
            found = value["value"] if isinstance(value, dict) else value
            return int(str(found))
    return None


async def live(order: Mapping[str, Any]) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    reaper = Reaper(Fate.loads(order["fate"]) if order["fate"] else None)
    settings = Settings(
        data=Path(order["data"]), web=order["web"], grpc=order["grpc"], mqtt=None, recordings=0
    )
    logs.configure(settings)
    clock = HastyClock()
    async with (
        open_cluster(settings, clock) as cluster,
        Doomed(settings, cluster, clock, reaper).running(),
    ):
        await told.wait()


def main() -> None:
    leave_no_orphan(int(sys.argv[1]))
    me = os.getpid()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            leave_no_orphan(me)
            uvloop.run(live(json.loads(line)))
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
