"""One controller, put together: which adapter serves which port, and who tells whom."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry

from reconciler import web
from reconciler.adapters import cosign, kube
from reconciler.adapters.age import Age
from reconciler.adapters.git import LIBGIT2_VERSION, Allowed, GitMirrors
from reconciler.adapters.outbound import HttpOutbound
from reconciler.adapters.recordings import SqliteRecordings
from reconciler.adapters.registers import HttpRegisters
from reconciler.adapters.registry import DiskRegistry
from reconciler.adapters.session_server import GrpcSessionServer
from reconciler.adapters.session_tls import TlsFiles
from reconciler.adapters.tokens import TokenFile
from reconciler.controllers.access import KeptAccess
from reconciler.controllers.artifacts import Artifacts
from reconciler.controllers.auditing import Auditing
from reconciler.controllers.commanding import ObjectCommands
from reconciler.controllers.commitstatuses import CommitStatuses
from reconciler.controllers.committing import Commits
from reconciler.controllers.deliveries import Deliveries
from reconciler.controllers.dispatching import Dispatcher
from reconciler.controllers.effects import DesiredWriter
from reconciler.controllers.environments import Environments
from reconciler.controllers.events import Events
from reconciler.controllers.explaining import Explainer
from reconciler.controllers.finishing import Finisher
from reconciler.controllers.hooks import PushHooks
from reconciler.controllers.keeping import Keeping
from reconciler.controllers.leading import Leading
from reconciler.controllers.memory import Memory
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.mqtttriggers import MqttTriggers
from reconciler.controllers.notifying import Notifications
from reconciler.controllers.operations import ControllerOperations, RunLog
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.repositories import Repositories
from reconciler.controllers.rolloutrequests import RolloutRequests
from reconciler.controllers.schedules import Schedules
from reconciler.controllers.scripts import Scripts
from reconciler.controllers.secrets import Secrets
from reconciler.controllers.statuscommits import StatusCommits
from reconciler.controllers.statuses import ScriptStatuses
from reconciler.controllers.statusnotes import StatusNotes
from reconciler.controllers.triggering import Triggering
from reconciler.controllers.world import World
from reconciler.core import chains, plan
from reconciler.core.models import ModelRecord
from reconciler.core.objects import (
    ObjectKey,
    Resource,
)
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.runqueue import RunQueue
from reconciler.core.runs import Cause
from reconciler.core.scripts import ScriptRecord
from reconciler.core.store import Delta
from reconciler.core.twins import (
    DeviceRecord,
    DeviceStatusRecord,
)
from reconciler.errors import ScriptOpsError, Stalled
from reconciler.main import brokers, replicas
from reconciler.main.backing import Backing, on_disk
from reconciler.main.copying import ClusterCopy, Listeners
from reconciler.main.granting import HeldGrants
from reconciler.main.groups import failing_together
from reconciler.main.simulation import Driving
from reconciler.ports.access import Access
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.settings import Address, ClusterKind, LogFormat, Settings

log = logging.getLogger(__name__)
FLUSH_SECONDS = 0.5
RECORD_SECONDS = 1.0
# Those in this process that read what others send; what executors run on they tell themselves.
LIBRARIES = {"libgit2": LIBGIT2_VERSION, "OpenSSL": ssl.OPENSSL_VERSION.split()[1]}


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

    def __init__(
        self, settings: Settings, cluster: Cluster, clock: Clock, backing: Backing | None = None
    ) -> None:
        """Without a `backing` of others, what has to outlive it is on its disk."""
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
        self.leadership = replicas.leadership(settings, cluster, clock, self.metrics)
        self.peers = replicas.peers(settings)
        self.meanwhile = replicas.meanwhile(settings, self.leadership, clock)
        for kind, store in (
            ("Script", self.world.scripts),
            ("ScriptRepository", self.world.repositories),
            ("Device", self.world.devices),
            ("DeviceModel", self.world.models),
        ):
            self.metrics.store_objects.labels(kind).set_function(store.__len__)
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        is_operators = settings.cluster is ClusterKind.EMBEDDED
        urls = Allowed(urls=settings.git_urls, local=is_operators)
        self.git = GitMirrors(settings.data / "git", clock=clock, allowed=urls)
        self.registry = DiskRegistry(settings.data / "registry")
        self.backing = backing or on_disk(settings, clock)
        self.evaluations, self.states = self.backing.evaluations, self.backing.states
        self.journal = self.backing.journal
        self.memory = Memory(self.states)
        self.recordings = (
            SqliteRecordings(settings.data, self.registry.read, keep=settings.recordings)
            if settings.recordings
            else None
        )
        self._registers = HttpRegisters(
            settings.registers,
            config=settings.register_config,
            keys=[cosign.load(path) for path in settings.register_keys],
        )
        tls = settings.tls
        self._sessions = GrpcSessionServer(
            str(settings.grpc),
            tls=None if tls is None else TlsFiles(tls.cert, tls.key, tls.client_ca),
            insecure=settings.insecure_listen,
        )
        self._queue = RunQueue()
        # To look one up takes longer than to count with it.
        self._messages_of = cache(self.metrics.mqtt_messages_total.labels)
        self.broker = brokers.broker(settings, clock, count=self._count_messages)
        self._wire()
        self.auditing = Auditing()
        if settings.audit or settings.log_format is LogFormat.JSON:
            # Logs as text are for whoever looks on, who has better to read unless he asks for it.
            self.finisher.listeners.append(self.auditing.ran)
            self.commits.listeners.append(self.auditing.pushed)

    def _wire(self) -> None:
        clock, metrics, world, cluster = self.clock, self.metrics, self.world, self.cluster
        self.grants = grants = HeldGrants(self.settings)
        self.environments = Environments(
            world, cluster, Age(self.settings.age_identity), grants, clock=clock
        )
        self.dispatcher = Dispatcher(
            world,
            self._queue,
            self._sessions,
            self.memory,
            self.environments,
            clock=clock,
            metrics=metrics,
            leadership=self.leadership,
        )
        self.deliveries = Deliveries(
            self.journal,
            self._queue,
            self.leadership,
            clock=clock,
            metrics=metrics,
            wake=self.dispatcher.wake,
        )
        self.triggering = Triggering(
            world,
            self._queue,
            self.evaluations,
            self.deliveries,
            clock=clock,
            metrics=metrics,
            leadership=self.leadership,
            wake=self.dispatcher.wake,
            limits=chains.Limits(self.settings.chain_depth, self.settings.chain_runs),
        )
        self.schedules = Schedules(self.triggering, clock=clock, metrics=metrics)
        self.triggering.on_due = self.schedules.changed
        precedence = Precedence()
        leadership = self.leadership
        self.events = Events(
            cluster, precedence, clock=clock, metrics=metrics, leadership=leadership
        )
        self.statuses = ScriptStatuses(
            cluster, precedence, clock=clock, metrics=metrics, leadership=leadership
        )
        self.commits = StatusCommits(self.git, precedence, clock=clock, metrics=metrics)
        self.artifacts = Artifacts(
            world,
            self.registry,
            self._registers,
            is_synced=self._is_read,
            look=lambda key: self.repositories.loop.add(key),  # noqa: PLW0108 - made further down
        )
        self.keeping = Keeping(world, self.registry)
        self.scripts = Scripts(
            world,
            self.artifacts,
            self.triggering,
            self.dispatcher,
            self.statuses,
            self.events,
            self.memory,
            self.environments,
            precedence,
            clock=clock,
            metrics=metrics,
            leadership=self.leadership,
            grants=grants,
        )
        self.triggering.on_loop = self.scripts.looped
        self.environments.wake = self.dispatcher.wake
        self.environments.doubt = self.scripts.loop.add
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
            grants=grants,
            leadership=leadership,
            owning=self.settings.cluster is ClusterKind.KUBERNETES,
            clusters=kube.RemoteClusters(),
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
        self.status_notes = StatusNotes(
            self.git,
            self.repositories.notes,
            self.events,
            precedence,
            clock=clock,
            metrics=metrics,
            cluster_name=self.settings.cluster_name,
        )
        self.repositories.progress.append(self.status_notes.progressed)
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
        self.writer = DesiredWriter(
            world, cluster, grants=grants, clock=clock, metrics=metrics, leadership=leadership
        )
        self.committing = Commits(world, self.writer, self.events, clock=clock, metrics=metrics)
        self.dispatcher.pauses.perform = self.committing.perform
        self.runs = RunLog()
        self.finisher = Finisher(
            self.writer, self.scripts, self.runs, clock, metrics, self.memory, self.deliveries
        )
        self.finisher.recordings = self.recordings
        self.finisher.listeners.append(self.scripts.rollouts.ran)
        self.dispatcher.shadows.on_compared = self.scripts.rollouts.compared
        self.scripts.rollouts.keep = self.keeping.keep
        self.scripts.rollouts.release = self.keeping.release
        self.operations = ControllerOperations(
            world,
            self.triggering,
            self.dispatcher,
            self.runs,
            queue_depth=lambda: len(self._queue),
            not_ready=self._not_ready,
            state_of=lambda uid: self.environments.hidden(uid, self.memory.of(uid)),
            rollouts=RolloutRequests(world, cluster),
            explainer=Explainer(world, self.triggering, self.dispatcher, self._queue, clock),
            recordings=self.recordings,
        )
        self.mqtt_triggers = self._mqtt_triggers()
        self._introduce()

    def _introduce(self) -> None:
        """Tell those of each other that could not be made one after the other."""
        self.dispatcher.triggering = self.triggering
        self.dispatcher.on_finished = self.finisher.finish
        self.dispatcher.on_loaded = self.scripts.loaded
        self.dispatcher.on_executors = self.scripts.executors_changed
        self.scripts.on_status = self.repositories.status_changed
        self.scripts.on_gone = self.repositories.script_gone
        self.commits.on_failure = self.repositories.status_not_pushed
        self._keep_promises()

    def _keep_promises(self) -> None:
        self.dispatcher.deliveries = self.deliveries
        self.committing.may_act = self.deliveries.note_act
        self.writer.is_undone = self.deliveries.is_undone
        self.finisher.listeners.append(self.deliveries.ended)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serving inside; what fails for good in any part ends the block with its error."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.leadership.stop)
            stack.push_async_callback(self._let_go)
            if not isinstance(self.leadership, Leading):
                await self.deliveries.lead()
            await self._listen(stack)
            group = await stack.enter_async_context(failing_together())
            await self.copy.begin(group)
            present = {record.uid for record in self.world.scripts}
            self.triggering.keep_only(present)
            self.memory.keep_only(present)
            self.keeping.sweep()
            self._synced = True
            for loop in (
                self.scripts.loop.run,
                self.schedules.loop.run,
                self.deliveries.loop.run,
                self.statuses.loop.run,
                self.repositories.loop.run,
                self.commit_statuses.loop.run,
                self.notifications.loop.run,
                self.status_notes.loop.run,
                self.repositories.drift.loop.run,
                self.repositories.drift.statuses_loop.run,
                self.events.run,
                self.dispatcher.sweep,
                self._flush,
                self._record,
            ):
                group(loop())
            group(self.grants.follow(self.clock, self._grants_changed))
            if self.broker is not None:
                group(self.broker.run())
            self._share()
            yield

    def _share(self) -> None:
        """Lead what others do not, where there are others."""
        leading = self.leadership
        if isinstance(leading, Leading) and self.meanwhile is not None:
            hand_over = replicas.HandOver(
                leading=leading,
                world=self.world,
                scripts=self.scripts,
                repositories=self.repositories,
                commit_statuses=self.commit_statuses,
                status_notes=self.status_notes,
                mqtt_triggers=self.mqtt_triggers,
                meanwhile=self.meanwhile,
            )
            self.triggering.before = self.meanwhile.missed
            for shard in range(self.settings.shards):
                # What this process finds on its disk is of a time before.
                hand_over.lost(shard)
            leading.on_gained, leading.on_lost = hand_over.gained, hand_over.lost
            leading.prepare = self._take_over
        leading.start(replicas.address(self.settings, self.addresses.web))

    async def _take_over(self, shard: int, epoch: int) -> None:
        await self.deliveries.lead(shard, at_least=epoch)
        self.deliveries.keep_only({record.uid for record in self.world.scripts})
        mine = {
            record.uid
            for record in self.world.scripts
            if self.leadership.shard(record.key.namespace) == shard
        }
        self.triggering.take_up(await self.backing.refresh(mine))

    async def _listen(self, stack: AsyncExitStack) -> None:
        app = web.app(
            self.operations,
            self.registry,
            push_hooks=self.hooks,
            commands=self.commands,
            metrics=self._registry_of_metrics,
            access=KeptAccess(self._access(), clock=self.clock),
            libraries=LIBRARIES,
            # Whoever reaches a loopback address is a user of this machine, who could as well read
            # our memory or our kubeconfig.
            local_users=self.settings.web.is_loopback,
            public_registry=self.settings.public_registry,
            insecure=self.settings.insecure_listen,
            dev=self.settings.dev,
            peers=self.peers,
            elsewhere=self.leadership.elsewhere,
        )
        files = self.settings.web_tls
        tls = None if files is None else web.Tls(files.cert, files.key)
        port, stop = await web.serve(app, *self.settings.web, tls=tls)
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

    def _access(self) -> Access:
        if isinstance(self.cluster, kube.KubeCluster):
            return self.cluster.access(audience=self.settings.audience)
        return TokenFile(self.settings.data, clock=self.clock)

    def _mqtt_triggers(self) -> MqttTriggers | None:
        if self.broker is None:
            return None
        return MqttTriggers(
            self.broker,
            is_ready=lambda script: self.triggering.index.get(script) is not None,
            clock=self.clock,
            metrics=self.metrics,
            trigger=lambda script, event: self.operations.trigger(
                script, cause=Cause.MQTT, event=event
            ),
            grants=self.grants,
        )

    def _grants_changed(self) -> None:
        self.repositories.grants_changed()
        for record in self.world.scripts:
            self.scripts.loop.add(record.key)
        if self.mqtt_triggers is not None:
            self.mqtt_triggers.grants_changed(self.world.scripts)

    @property
    def driving(self) -> Driving | None:
        """What drives the devices of an embedded cluster that are not simulated."""
        if self.broker is None:
            return None
        return Driving(
            broker=self.broker, namespace=self.settings.namespace, count=self._count_messages
        )

    def _count_messages(self, result: str) -> None:
        self._messages_of(result).inc()

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
            if self.mqtt_triggers is not None and self.leadership.leads(delta.key.namespace):
                self.mqtt_triggers.changed(delta)

    def _devices_changed(self, deltas: Sequence[Delta[DeviceRecord]]) -> None:
        for delta in deltas:
            self.repositories.drift.device_changed(delta)
            self.committing.changed(delta.key)
            if delta.new is not None:
                self.writer.caught_up(delta.new)
                self._reported(delta.key)
            elif self.meanwhile is not None:
                self.meanwhile.gone(delta.key)

    def _reported(self, device: ObjectKey) -> None:
        # What is reported may come before what our own write has made of the Device.
        record = self.writer.current(device)
        if record is not None:
            if self.meanwhile is not None:
                self.meanwhile.changed(record)
            self.triggering.device_changed(record)

    def _models_changed(self, deltas: Sequence[Delta[ModelRecord]]) -> None:
        for delta in deltas:
            self.repositories.drift.model_changed(delta)

    def _device_statuses_changed(self, deltas: Sequence[Delta[DeviceStatusRecord]]) -> None:
        for delta in deltas:
            self.committing.changed(delta.key)
            self._reported(delta.key)

    async def _flush(self) -> None:
        while True:
            await self.clock.sleep(FLUSH_SECONDS)
            self.auditing.flush()
            await self._write_behind()

    async def _write_behind(self) -> None:
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
        try:
            await self.deliveries.flush()
        except ScriptOpsError as error:
            # Runs that have succeeded are found again by a restart meanwhile, and run again.
            log.warning("journal not written", extra={"error": str(error)})

    async def _record(self) -> None:
        while self.recordings is not None:
            await self.clock.sleep(RECORD_SECONDS)
            try:
                await self.recordings.flush()
            except ScriptOpsError as error:
                log.warning("recordings not written", extra={"error": str(error)})

    def _is_read(self, repository: ObjectKey) -> bool:
        return self.repositories.is_synced(repository)

    def _not_ready(self) -> Sequence[str]:
        return () if self._synced else ("the cluster has not been listed yet",)

    async def _let_go(self) -> None:
        await self._sessions.stop()
        await self.dispatcher.drained()
        await self.scripts.settle()
        self.auditing.flush()
        await self.environments.stop()
        await self.statuses.flush()
        await self.status_notes.stop()
        await self.repositories.stop()
        await self.commits.stop()
        await self._write_behind()
        self.evaluations.close()
        self.states.close()
        await self.journal.close()
        if self.recordings is not None:
            self.recordings.close()
        self.git.close()
        self.registry.close()
        await self._registers.close()
        await self.outbound.close()
        if self.peers is not None:
            await self.peers.close()
