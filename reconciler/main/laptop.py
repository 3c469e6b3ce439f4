"""An engine on this machine: an executor as a child process, spoken to as a controller does."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

import orjson

from reconciler.adapters.session_server import GrpcSessionServer
from reconciler.controllers.pauses import with_replies
from reconciler.core import convergence
from reconciler.core.objects import Json, JsonObject, mapping, sequence
from reconciler.core.runs import (
    Commit,
    Dispatch,
    ExecutorId,
    Outcome,
    Pause,
    RunId,
    RunKey,
    RunResult,
    ScriptRef,
)
from reconciler.errors import Stalled
from reconciler.ports.sessions import ExecutorInfo

# From the start of the child to its Connect: 0.5 s on an idle machine.
START_SECONDS: Final = 30.0
# That its connection is gone is noticed in milliseconds.
LEAVE_SECONDS: Final = 2.0
# Nothing that a run may do takes longer than its own limits; this is for an executor that hangs.
PATIENCE_SECONDS: Final = 60.0
# The namespace of what we run beside rules. Most rules are in it too: a worker serves one namespace
# for its life, and another one takes half a second to start.
TOOLS: Final = "default"
# An activation of what reads no world.
NOTHING: Final[JsonObject] = {
    "now": 0,
    "seed": 0,
    "cause": "Manual",
    "env": {},
    "read": {},
    "write": [],
}


@dataclass(frozen=True, slots=True)
class Job:
    """A run to do: which script, and its activation; without one the script is only loaded.

    `answer` is what a commit that it waits for is told; nothing is ever written.
    """

    ref: ScriptRef
    activation: bytes | None = None
    answer: Callable[[Commit], JsonObject] = convergence.assumed


@dataclass(slots=True)
class _Going:
    """A job under way, and what it was told so far."""

    key: RunKey
    job: Job
    replies: list[Json]


class Laptop:
    """Runs jobs in an executor that nobody else uses. Used by one event loop only.

    No run reaches the network: the executor is given no place that it may fetch from.
    """

    def __init__(self) -> None:
        self._artifacts: dict[str, bytes] = {}
        self._session: ExecutorId | None = None
        self._credit = 0
        self._results: dict[RunId, RunResult] = {}
        self._going: dict[RunId, _Going] = {}
        # Those that go on.
        self._again: list[_Going] = []
        self._serial = 0
        self._news = asyncio.Event()
        self._server: GrpcSessionServer

    def publish(self, content: bytes) -> str:
        """Keep an artifact for the executor to fetch; its digest."""
        digest = digest_of(content)
        self._artifacts[digest] = content
        return digest

    async def run(self, jobs: Sequence[Job]) -> list[RunResult]:
        """The results of `jobs`, in order; runs of one script that stand together go together.

        Raises `Stalled` when the executor ends meanwhile, or hangs.
        """
        keyed = [_Going(self._key(), job, _given(job)) for job in jobs]
        self._going = {going.key.run_id: going for going in keyed}
        waiting = list(keyed)
        wanted = set(self._going)
        longest = max(
            (job.ref.limits.wall_time_ms + job.ref.limits.wait_ms for job in jobs), default=0
        )
        while wanted - self._results.keys():
            self._news.clear()
            waiting += self._again
            self._again.clear()
            batch, waiting = waiting[: self._credit], waiting[self._credit :]
            if batch:
                self._send(batch)
            await self._something_new(PATIENCE_SECONDS + longest / 1000)
        return [self._told(going) for going in keyed]

    def _told(self, going: _Going) -> RunResult:
        result = self._results.pop(going.key.run_id)
        if going.replies and not result.replies:
            return replace(result, replies=orjson.dumps(going.replies))
        return result

    def _key(self) -> RunKey:
        self._serial += 1
        return RunKey(RunId(f"laptop-{self._serial}"), 1, 1)

    def _send(self, batch: Sequence[_Going]) -> None:
        dispatches: list[Dispatch] = []
        for ref, group in groupby(batch, key=lambda it: it.job.ref):
            jobs = [(it.key, _activation(it)) for it in group]
            runs = tuple((key, given) for key, given in jobs if given is not None)
            dispatches += [Dispatch(ref, runs)] if runs else []
            dispatches += (Dispatch(ref, (), load=key) for key, given in jobs if given is None)
        self._credit -= len(batch)
        if self._session is None or not self._server.send(self._session, dispatches):
            raise Stalled("the executor ended while it ran something", reason="ExecutorEnded")

    async def _something_new(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            raise Stalled(
                f"the executor did not answer in {seconds:.0f} s", reason="ExecutorHangs"
            ) from None
        if self._session is None:
            raise Stalled("the executor ended while it ran something", reason="ExecutorEnded")

    # What the session says.

    def connected(self, executor: ExecutorInfo) -> None:
        self._session = executor.id

    def credited(self, executor: ExecutorId, credit: int) -> None:  # noqa: ARG002 - there is one
        self._credit += credit
        self._news.set()

    def draining(self, executor: ExecutorId) -> None:
        """Only we end it."""

    def finished(self, executor: ExecutorId, results: Sequence[RunResult]) -> None:  # noqa: ARG002 - there is one
        self._results.update((result.key.run_id, result) for result in results)
        self._news.set()

    def paused(self, executor: ExecutorId, pauses: Sequence[Pause]) -> None:  # noqa: ARG002 - there is one
        for pause in pauses:
            going = self._going[pause.key.run_id]
            if pause.replies:
                going.replies = list(sequence(orjson.loads(pause.replies)))
            going.replies += map(going.job.answer, pause.commits)
            self._again.append(going)
        self._news.set()

    def disconnected(self, executor: ExecutorId, reason: str) -> None:  # noqa: ARG002 - there is one
        self._session = None
        self._news.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The executor is connected inside."""
        with tempfile.TemporaryDirectory(prefix="scriptops-") as folder:
            # A socket in a folder of our own: nobody else can answer for the executor.
            address = f"unix:{Path(folder) / 'controller'}"
            self._server = GrpcSessionServer(address, drain_seconds=0.0)
            await self._server.start(self, self._artifacts.get)
            try:
                child = await _start(address)
                try:
                    await self._greeted(child)
                    yield
                finally:
                    await _end(child)
                    await self._left()
            finally:
                await self._server.stop()

    async def _greeted(self, child: asyncio.subprocess.Process) -> None:
        ended = asyncio.create_task(child.wait())
        came = asyncio.create_task(self._news.wait())
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.wait({ended, came}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        finally:
            ended.cancel()
            came.cancel()
        if self._session is None:
            code = "" if child.returncode is None else f" (exit code {child.returncode})"
            raise Stalled(
                f"no executor could be started here{code}; what it said stands above, and "
                "scriptops doctor says what this machine lacks",
                reason="ExecutorAbsent",
            )

    async def _left(self) -> None:
        """The session is over. gRPC prints a traceback where the loop ends before its calls do."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                while self._session is not None:
                    self._news.clear()
                    await self._news.wait()


@asynccontextmanager
async def laptop() -> AsyncIterator[Laptop]:
    """An executor of this machine's own, up inside the block.

    Raises `Stalled` where none can be started.
    """
    instance = Laptop()
    async with instance.running():
        yield instance


async def _start(address: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "executor",
        address,
        "--name=laptop",
        f"--parent={os.getpid()}",
        "--log=plain",
        "--log-level=WARNING",
        "--no-spare",
        # Where the kernel lacks a layer of the sandbox the others hold; these are one's own rules.
        "--insecure-no-sandbox",
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )


async def _end(child: asyncio.subprocess.Process) -> None:
    """It owes nobody anything: it need not drain."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def _given(job: Job) -> list[Json]:
    """The replies that a job brings along."""
    if job.activation is None or b'"replies"' not in job.activation:
        return []
    return list(sequence(mapping(orjson.loads(job.activation)).get("replies")))


def _activation(going: _Going) -> bytes | None:
    given = going.job.activation
    if given is None or not going.replies:
        return given
    return with_replies(given, orjson.dumps(going.replies))


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def was_lost(result: RunResult) -> bool:
    """Whether a result says nothing of the script: the executor could not run it."""
    return result.outcome in {Outcome.UNAVAILABLE, Outcome.LOST}
