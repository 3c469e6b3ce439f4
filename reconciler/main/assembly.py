"""One controller, put together: which adapter serves which port, and who tells whom."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from reconciler import web
from reconciler.adapters import kube
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.adapters.evaluations import SqliteEvaluations
from reconciler.adapters.git import GitMirrors
from reconciler.adapters.outbound import HttpOutbound
from reconciler.adapters.recordings import SqliteRecordings
from reconciler.adapters.registers import HttpRegisters
from reconciler.adapters.registry import DiskRegistry
from reconciler.adapters.scriptstates import SqliteScriptStates
from reconciler.adapters.session_server import GrpcSessionServer
from reconciler.controllers.artifacts import Artifacts
from reconciler.controllers.commanding import ObjectCommands
from reconciler.controllers.commitstatuses import CommitStatuses
from reconciler.controllers.dispatching import Dispatcher
from reconciler.controllers.effects import DesiredWriter
from reconciler.controllers.events import Events
from reconciler.controllers.finishing import Finisher
from reconciler.controllers.hooks import PushHooks
from reconciler.controllers.memory import Memory
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.notifying import Notifications
from reconciler.controllers.operations import ControllerOperations, RunLog
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.repositories import Repositories
from reconciler.controllers.rolloutrequests import RolloutRequests
from reconciler.controllers.scripts import Scripts
from reconciler.controllers.secrets import Secrets
from reconciler.controllers.statuscommits import StatusCommits
from reconciler.controllers.statuses import ScriptStatuses
from reconciler.controllers.triggering import Triggering
from reconciler.controllers.world import World
from reconciler.core import plan
from reconciler.core.models import ModelRecord
from reconciler.core.objects import (
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    JsonObject,
    ObjectKey,
    Resource,
)
from reconciler.core.repositories import RepositoryRecord, decode_repository
from reconciler.core.runqueue import RunQueue
from reconciler.core.scripts import ScriptRecord, decode_script
from reconciler.core.store import Delta
from reconciler.core.twins import (
    DeviceRecord,
    DeviceStatusRecord,
)
from reconciler.errors import ObjectInvalid, ScriptOpsError, Stalled
from reconciler.main import logs, secretfiles
from reconciler.main.copying import ClusterCopy, Listeners
from reconciler.main.simulation import simulated
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.settings import Address, ClusterKind, Settings

log = logging.getLogger(__name__)
FLUSH_SECONDS = 0.5
RECORD_SECONDS = 1.0
MQTT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where it listens, ports as they were bound."""

    web: Address
    grpc: Address


class Controller:
    """Everything that runs in a controller process, on one event loop.

    `run` serves until it is cancelled, and then lets go in order: no more runs, results in flight
    taken, what is pending written and pushed.
    """

    def __init__(self, settings: Settings, cluster: Cluster, clock: Clock) -> None:
        self.settings = settings
        self.cluster = cluster
        self.clock = clock
        self.addresses: Addresses
        self.world = World()
        self.copy = ClusterCopy(
            cluster,
            self.world,
            clock,
            Listeners(
                repositories=self._repositories_changed,
                scripts=self._scripts_changed,
                devices=self._devices_changed,
                models=self._models_changed,
                device_statuses=self._device_statuses_changed,
            ),
        )
        self._synced = False
        self._registry_of_metrics = CollectorRegistry()
        self.metrics = Metrics(self._registry_of_metrics)
        for kind, store in (
            ("Script", self.world.scripts),
            ("ScriptRepository", self.world.repositories),
            ("Device", self.world.devices),
            ("DeviceModel", self.world.models),
        ):
            self.metrics.store_objects.labels(kind).set_function(store.__len__)
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.git = GitMirrors(settings.data / "git", clock=clock)
        self.registry = DiskRegistry(settings.data / "registry")
        self.evaluations = SqliteEvaluations(settings.data / "evaluations.db")
        self.states = SqliteScriptStates(settings.data / "states.db")
        self.memory = Memory(self.states)
        self.recordings = (
            SqliteRecordings(settings.data, self.registry.read, keep=settings.recordings)
            if settings.recordings
            else None
        )
        self._registers = HttpRegisters(settings.registers)
        self._sessions = GrpcSessionServer(str(settings.grpc), insecure=settings.insecure_listen)
        self._queue = RunQueue()
        self._wire()

    def _wire(self) -> None:
        clock, metrics, world, cluster = self.clock, self.metrics, self.world, self.cluster
        self.dispatcher = Dispatcher(
            world, self._queue, self._sessions, self.memory, clock=clock, metrics=metrics
        )
        self.triggering = Triggering(
            world,
            self._queue,
            self.evaluations,
            clock=clock,
            metrics=metrics,
            wake=self.dispatcher.wake,
        )
        precedence = Precedence()
        self.events = Events(cluster, precedence, clock=clock)
        self.statuses = ScriptStatuses(cluster, precedence, clock=clock, metrics=metrics)
        self.commits = StatusCommits(self.git, precedence, clock=clock, metrics=metrics)
        self.artifacts = Artifacts(
            world,
            self.registry,
            self._registers,
            is_synced=self._is_read,
        )
        self.scripts = Scripts(
            world,
            self.artifacts,
            self.triggering,
            self.dispatcher,
            self.statuses,
            self.events,
            self.memory,
            clock=clock,
            metrics=metrics,
        )
        self.repositories = Repositories(
            world,
            cluster,
            self.git,
            self.registry,
            self.commits,
            self.events,
            precedence,
            clock=clock,
            metrics=metrics,
            cluster_name=self.settings.cluster_name,
            replace_versions=self.settings.dev,
            served=self._served,
            in_use=lambda ref: bool(self.artifacts.users(ref)),
            published=self.scripts.published,
            synced=self.scripts.repository_synced,
        )
        self.secrets = Secrets(cluster, clock=clock)
        self.outbound = HttpOutbound()
        self.commit_statuses = CommitStatuses(
            world,
            self.outbound,
            self.secrets,
            self.events,
            clock=clock,
            metrics=metrics,
            cluster_name=self.settings.cluster_name,
            latest=lambda record: self.statuses.latest(record.key, record.uid, record.status),
            passed=self.repositories.branches.passed,
        )
        self.repositories.progress.append(self.commit_statuses.progressed)
        self.scripts.listeners.append(self.commit_statuses.script_status)
        self.notifications = Notifications(
            world,
            self.outbound,
            self.secrets,
            self.events,
            clock=clock,
            metrics=metrics,
            cluster_name=self.settings.cluster_name,
        )
        self.events.listeners.append(self.notifications.transition)
        self.hooks = PushHooks(
            world, self.secrets, self.repositories.branches.pushed, clock=clock, metrics=metrics
        )
        self.commands = ObjectCommands(world, cluster, self.repositories.claim, clock=clock)
        self.writer = DesiredWriter(world, cluster, metrics=metrics)
        self.runs = RunLog()
        self.finisher = Finisher(self.writer, self.scripts, self.runs, clock, metrics, self.memory)
        self.finisher.recordings = self.recordings
        self.finisher.listeners.append(self.scripts.rollouts.ran)
        self.dispatcher.shadows.on_compared = self.scripts.rollouts.compared
        self.scripts.rollouts.keep = self._keep
        self.scripts.rollouts.release = self._release
        self.operations = ControllerOperations(
            world,
            self.triggering,
            self.dispatcher,
            self.runs,
            queue_depth=lambda: len(self._queue),
            not_ready=self._not_ready,
            state_of=self.memory.of,
            rollouts=RolloutRequests(world, cluster),
            recordings=self.recordings,
        )
        self.dispatcher.triggering = self.triggering
        self.dispatcher.on_finished = self.finisher.finish
        self.dispatcher.on_loaded = self.scripts.loaded
        self.dispatcher.on_executors = self.scripts.executors_changed
        self.scripts.on_status = self.repositories.status_changed
        self.scripts.on_gone = self.repositories.script_gone
        self.commits.on_failure = self.repositories.status_not_pushed

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serving inside; what fails for good in any part ends the block with its error."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._let_go)
            await self._listen(stack)
            group = await stack.enter_async_context(_failing_together())
            await self.copy.begin(group)
            present = {record.uid for record in self.world.scripts}
            self.triggering.keep_only(present)
            self.memory.keep_only(present)
            self._synced = True
            for loop in (
                self.scripts.loop.run,
                self.statuses.loop.run,
                self.repositories.loop.run,
                self.commit_statuses.loop.run,
                self.notifications.loop.run,
                self.repositories.drift.loop.run,
                self.repositories.drift.statuses_loop.run,
                self.events.run,
                self.dispatcher.sweep,
                self._flush,
                self._record,
            ):
                group(loop())
            yield

    async def _listen(self, stack: AsyncExitStack) -> None:
        app = web.app(
            self.operations,
            self.registry,
            push_hooks=self.hooks,
            commands=self.commands,
            metrics=self._registry_of_metrics,
            insecure=self.settings.insecure_listen,
            dev=self.settings.dev,
        )
        port, stop = await web.serve(app, self.settings.web.host, self.settings.web.port)
        stack.push_async_callback(stop)
        grpc_address = self.settings.grpc
        try:
            grpc_port = await self._sessions.start(self.dispatcher, self.registry.read)
        except OSError as error:
            raise Stalled(
                f"cannot listen on {grpc_address}; choose another --grpc address",
                reason="AddressUnavailable",
            ) from error
        self.addresses = Addresses(
            Address(self.settings.web.host, port), Address(grpc_address.host, grpc_port)
        )
        await self._look_for_broker()

    async def _look_for_broker(self) -> None:
        """Say once whether there is a broker; nothing here needs one yet."""
        address = self.settings.mqtt
        if address is None:
            return
        try:
            async with asyncio.timeout(MQTT_SECONDS):
                _, writer = await asyncio.open_connection(*address)
        except (OSError, TimeoutError):
            log.info("no MQTT broker, going on without", extra={"mqtt": str(address)})
            return
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    # What is heard of the cluster.

    def _served(self) -> frozenset[Resource]:
        served = self.copy.served
        on_kubernetes = self.settings.cluster is ClusterKind.KUBERNETES
        return plan.writable(served) if on_kubernetes else served

    def _repositories_changed(self, deltas: Sequence[Delta[RepositoryRecord]]) -> None:
        for delta in deltas:
            self.repositories.changed(delta)

    def _scripts_changed(self, deltas: Sequence[Delta[ScriptRecord]]) -> None:
        for delta in deltas:
            self.scripts.changed(delta)
            self.commit_statuses.script_changed(delta)
            self.repositories.drift.script_changed(delta)

    def _devices_changed(self, deltas: Sequence[Delta[DeviceRecord]]) -> None:
        for delta in deltas:
            self.repositories.drift.device_changed(delta)
            if delta.new is not None:
                self.writer.caught_up(delta.new)
                record = self.world.device(delta.key)
                if record is not None:
                    self.triggering.device_changed(record)

    def _models_changed(self, deltas: Sequence[Delta[ModelRecord]]) -> None:
        for delta in deltas:
            self.repositories.drift.model_changed(delta)

    def _device_statuses_changed(self, deltas: Sequence[Delta[DeviceStatusRecord]]) -> None:
        for delta in deltas:
            record = self.world.device(delta.key)
            if record is not None:
                self.triggering.device_changed(record)

    async def _flush(self) -> None:
        while True:
            await self.clock.sleep(FLUSH_SECONDS)
            try:
                await self.evaluations.flush()
            except ScriptOpsError as error:
                # Kept in memory, and tried again: a restart meanwhile runs some Scripts once more.
                log.warning("evaluations not written", extra={"error": str(error)})
            try:
                await self.states.flush()
            except ScriptOpsError as error:
                # What Scripts that are gone had remembered is removed later.
                log.warning("states not written", extra={"error": str(error)})

    async def _record(self) -> None:
        while self.recordings is not None:
            await self.clock.sleep(RECORD_SECONDS)
            try:
                await self.recordings.flush()
            except ScriptOpsError as error:
                log.warning("recordings not written", extra={"error": str(error)})

    def _keep(self, digest: str) -> None:
        """A rollout may return to these bytes after their file has left the repository."""
        content = self.registry.read(digest)
        if content is None:
            return
        try:
            self.registry.store(content)
        except ScriptOpsError as error:
            log.warning("version not kept", extra={"digest": digest, "error": str(error)})

    def _release(self, script: ObjectKey, digest: str) -> None:
        """Unless another Script runs these bytes, or may return to them."""
        for record in self.world.scripts:
            if record.key == script:
                continue
            rollout = record.status.rollout
            kept = {it.digest for it in rollout.versions} if rollout is not None else set()
            if digest == record.status.digest or digest in kept:
                return
        try:
            self.registry.discard(digest)
        except ScriptOpsError as error:
            log.warning("version not removed", extra={"digest": digest, "error": str(error)})

    def _is_read(self, repository: ObjectKey) -> bool:
        return self.repositories.is_synced(repository)

    def _not_ready(self) -> Sequence[str]:
        return () if self._synced else ("the cluster has not been listed yet",)

    async def _let_go(self) -> None:
        await self._sessions.stop()
        await self.dispatcher.drained()
        await self.statuses.flush()
        await self.repositories.stop()
        await self.commits.stop()
        self.evaluations.close()
        self.states.close()
        if self.recordings is not None:
            self.recordings.close()
        self.git.close()
        self.registry.close()
        await self._registers.close()
        await self.outbound.close()


@asynccontextmanager
async def _failing_together() -> AsyncIterator[Callable[[Awaitable[None]], None]]:
    """Tasks that run until the block ends; the first that fails ends the block with its error."""
    block = asyncio.current_task()
    tasks: set[asyncio.Task[None]] = set()
    failures: list[BaseException] = []

    def done(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            failures.append(error)
            if block is not None:
                block.cancel()

    def start(work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(done)

    try:
        yield start
    except asyncio.CancelledError:
        if failures:
            raise failures[0] from None
        raise
    finally:
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def validate(resource: Resource, document: JsonObject) -> None:
    """What an API server's schema does for us, for the embedded cluster."""
    if resource == SCRIPTS:
        problem = decode_script({**document, "metadata": _identified(document)}).problem
    elif resource == SCRIPT_REPOSITORIES:
        problem = decode_repository({**document, "metadata": _identified(document)}).problem
    else:
        return
    if problem:
        raise ObjectInvalid(problem)


def _identified(document: JsonObject) -> JsonObject:
    metadata = document.get("metadata")
    return {"uid": "new", **(metadata if isinstance(metadata, dict) else {})}


@asynccontextmanager
async def open_cluster(settings: Settings, clock: Clock) -> AsyncIterator[Cluster]:
    cluster: Cluster
    if settings.cluster is ClusterKind.KUBERNETES:
        kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
        cluster = await kube.connect(kubeconfig=kubeconfig, context=settings.context)
    else:
        cluster = await EmbeddedCluster.open(
            settings.data / "cluster", clock=clock, validate=validate
        )
    try:
        if settings.secrets is not None and isinstance(cluster, EmbeddedCluster):
            await secretfiles.keep(cluster, settings.secrets, settings.namespace)
        yield cluster
    finally:
        await cluster.close()


@asynccontextmanager
async def _devices(cluster: Cluster, clock: Clock) -> AsyncIterator[None]:
    """Where there is no KubeEdge, simulated devices are the ones there are."""
    if isinstance(cluster, EmbeddedCluster):
        async with simulated(cluster, clock):
            yield
    else:
        yield


async def controller(settings: Settings) -> None:
    """Serve until cancelled. Raises `Stalled` for what a person must mend first."""
    logs.configure(settings)
    clock = SystemClock()
    async with open_cluster(settings, clock) as cluster:
        instance = Controller(settings, cluster, clock)
        async with instance.running(), _devices(cluster, clock):
            log.info(
                "serving",
                extra={
                    "web": str(instance.addresses.web),
                    "grpc": str(instance.addresses.grpc),
                    "cluster": settings.cluster.value,
                },
            )
            await asyncio.Event().wait()
