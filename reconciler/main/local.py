"""A whole system on one machine: embedded cluster, controller, executor, simulated devices."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.adapters.simulator import Simulator
from reconciler.api.meta import API_VERSION
from reconciler.api.script import ScriptStatus
from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.controllers.progress import Synced
from reconciler.core.objects import (
    FIELD_MANAGER,
    SCRIPT_REPOSITORIES,
    ObjectKey,
)
from reconciler.core.runs import Cause, Outcome, RunRecord
from reconciler.main import logs, secretfiles
from reconciler.main.assembly import Controller
from reconciler.main.serving import COLLECTED_AFTER, validate
from reconciler.main.simulation import simulated
from reconciler.ports.clock import Clock
from reconciler.ports.narration import Narration
from reconciler.settings import Settings

log = logging.getLogger(__name__)

# An executor that ends by itself is started again, not more often than this.
RESTART_SECONDS = 1.0
# Runs that are told of; who looks on sees no more than that.
TOLD_A_SECOND = 50
# Longer than an executor takes to drain.
STOP_SECONDS = 10.0


@dataclass(slots=True)
class Local:
    """A running system, and the hands to play with it."""

    controller: Controller
    simulator: Simulator


@asynccontextmanager
async def running(
    settings: Settings, name: str, spec: ScriptRepositorySpec
) -> AsyncIterator[Local]:
    """Everything up inside the block, with one ScriptRepository called `name`."""
    clock = SystemClock()
    cluster = await EmbeddedCluster.open(settings.data / "cluster", clock=clock, validate=validate)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cluster.close)
        if settings.secrets is not None:
            await secretfiles.keep(cluster, settings.secrets, settings.namespace)
        controller = Controller(settings, cluster, clock)
        await stack.enter_async_context(controller.running())
        simulator = await stack.enter_async_context(simulated(cluster, clock, controller.driving))
        await stack.enter_async_context(_executor(controller, clock))
        await cluster.apply(
            SCRIPT_REPOSITORIES,
            {
                "apiVersion": API_VERSION,
                "kind": "ScriptRepository",
                "metadata": {"name": name, "namespace": settings.namespace},
                "spec": spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
            },
            field_manager=FIELD_MANAGER,
            force=True,
        )
        yield Local(controller, simulator)


@asynccontextmanager
async def _executor(controller: Controller, clock: Clock) -> AsyncIterator[None]:
    """An executor as a child process, started again when it ends."""
    task = asyncio.create_task(_keep_executor(controller, clock))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _keep_executor(controller: Controller, clock: Clock) -> None:
    port = controller.addresses.grpc.port
    level = "WARNING" if controller.settings.log_level.value != "debug" else "DEBUG"
    while True:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "executor",
            f"127.0.0.1:{port}",
            "--name=local",
            # On a laptop whose kernel lacks a layer of the sandbox, rules run without that one;
            # the executor says so. Its user could run them without any.
            "--insecure-no-sandbox",
            f"--parent={os.getpid()}",
            "--log=plain",
            *(f"--network-allow={place}" for place in controller.settings.network),
            f"--log-level={level}",
            stdin=asyncio.subprocess.DEVNULL,
            # Ctrl-C is for us: we say when the executor stops, after the controller is done.
            start_new_session=True,
        )
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            await _end(child)
            raise
        log.warning("the executor ended, starting another", extra={"exit_code": code})
        await clock.sleep(RESTART_SECONDS)


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


class RunsTold:
    """Runs are told of one by one as long as a person could read it, and beyond that counted."""

    def __init__(self, narrator: Narration) -> None:
        self._narrator = narrator
        self._told = self._more = 0
        self._second: asyncio.TimerHandle | None = None

    def ran(self, record: RunRecord) -> None:
        has_failed = record.outcome is not Outcome.SUCCEEDED
        if not (record.changed or has_failed or record.cause in ASKED):
            return
        if self._second is None:
            self._second = asyncio.get_running_loop().call_later(1, self._next)
        if self._told < TOLD_A_SECOND:
            self._told += 1
            self._narrator.step("run", run_words(record), has_failed=has_failed)
        else:
            self._more += 1

    def _next(self) -> None:
        more, self._told, self._more, self._second = self._more, 0, 0, None
        if more:
            self._narrator.step("run", f"and {more:,} more in this second")


def tell(controller: Controller, narrator: Narration) -> None:
    """Narrate revisions, Scripts that cannot run, runs and status commits as they happen."""
    told: dict[ObjectKey, str] = {}

    def revision(synced: Synced) -> None:
        took = synced.seconds * 1000
        narrator.step("synced", f"{short(synced.revision)}: {synced}", took_ms=took)
        for problem in synced.problems:
            narrator.note(str(problem))

    runs = RunsTold(narrator)

    def script(key: ObjectKey, status: ScriptStatus) -> None:
        ready = next((c for c in status.conditions if c.type == "Ready"), None)
        words = ready.message if ready is not None and ready.status == "False" else ""
        if words and told.get(key) != words:
            narrator.note(f"{key.name} cannot run: {words}")
        told[key] = words

    controller.repositories.listeners.append(revision)
    controller.scripts.listeners.append(script)
    controller.finisher.listeners.append(runs.ran)
    controller.commits.listeners.append(
        lambda ref, commit: narrator.step("status", f"commit {commit[:10]} on {ref}")
    )


# Runs that somebody waits for are told of also when they changed nothing.
ASKED = frozenset({Cause.WEBHOOK, Cause.MANUAL, Cause.DEPLOYED})


def run_words(record: RunRecord) -> str:
    """`thermostat (ReadChange) Succeeded: heater/power=true`."""
    message = record.message.removeprefix(f"{record.outcome.value}: ")
    did = ", ".join(record.changed) or message or "nothing to change"
    return f"{record.script.name} ({record.cause.value}) {record.outcome.value}: {did}"


def short(revision: str) -> str:
    """`main@sha1:1a2b3c4d5e`: enough of a commit to find it."""
    branch, _, commit = revision.partition("@sha1:")
    return f"{branch}@sha1:{commit[:10]}"


async def up(
    settings: Settings, name: str, spec: ScriptRepositorySpec, narrator: Narration
) -> None:
    """Deploy one repository on this machine, until cancelled."""
    logs.configure(settings)
    gc.set_threshold(*COLLECTED_AFTER)
    async with running(settings, name, spec) as local:
        gc.freeze()
        controller = local.controller
        tell(controller, narrator)
        web = f"http://{controller.addresses.web}"
        narrator.ready(
            places={
                "Repository": f"{spec.url} ({spec.ref})",
                "Page": f"{web}/",
                "Data": str(settings.data),
            },
            hints=(
                "commit to deploy; what happens is told here",
                f"scriptops get scripts --controller {web}",
                f"scriptops get devices --controller {web}",
            ),
        )
        await asyncio.Event().wait()
