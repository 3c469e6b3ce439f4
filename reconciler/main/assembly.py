"""One controller, put together: which adapter serves which port, and who tells whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache

from prometheus_client import CollectorRegistry

from reconciler import web
from reconciler.adapters import cosign, kube
from reconciler.adapters.age import Age
from reconciler.adapters.git import Allowed, GitMirrors
from reconciler.adapters.recordings import SqliteRecordings
from reconciler.adapters.registers import HttpRegisters
from reconciler.adapters.registry import DiskRegistry
from reconciler.controllers.artifacts import Artifacts
from reconciler.controllers.auditing import Auditing
from reconciler.controllers.commanding import ObjectCommands
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
from reconciler.controllers.operations import ControllerOperations, RunLog
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.repositories import Repositories
from reconciler.controllers.rolloutrequests import RolloutRequests
from reconciler.controllers.schedules import Schedules
from reconciler.controllers.scripts import Scripts
from reconciler.controllers.secrets import Secrets
from reconciler.controllers.statuscommits import StatusCommits
from reconciler.controllers.statuses import ScriptStatuses
from reconciler.controllers.triggering import Triggering
from reconciler.controllers.world import World
from reconciler.core import chains, plan
from reconciler.core.objects import ObjectKey, Resource
from reconciler.core.runqueue import RunQueue
from reconciler.core.runs import Cause
from reconciler.main import brokers, flushing, listening, replicas
from reconciler.main.backing import Backing, on_disk
from reconciler.main.copying import ClusterCopy
from reconciler.main.granting import HeldGrants
from reconciler.main.groups import failing_together
from reconciler.main.hearing import Hearing
from reconciler.main.simulation import Driving
from reconciler.main.telling import Telling
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.settings import ClusterKind, LogFormat, Settings


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
        self.addresses: listening.Addresses
        self.world = World()
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
        self._sessions = listening.sessions(settings)
        self._queue = RunQueue()
        # To look one up takes longer than to count with it.
        self._messages_of = cache(self.metrics.mqtt_messages_total.labels)
        self.broker = brokers.broker(settings, clock, count=self._count_messages)
        self._wire()
        self.hearing = self._hearing()
        self.copy = ClusterCopy(cluster, self.world, clock, self.hearing.listeners)
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
        self.telling = Telling(
            world,
            self.git,
            self.secrets,
            self.repositories,
            self.scripts,
            self.statuses,
            self.events,
            precedence,
            clock=clock,
            metrics=metrics,
            cluster_name=self.settings.cluster_name,
        )
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
            self.addresses = await listening.listen(
                stack, self.settings, self._app(), self._sessions, self.dispatcher, self.registry
            )
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
                self.telling.commit_statuses.loop.run,
                self.telling.notifications.loop.run,
                self.telling.status_notes.loop.run,
                self.repositories.drift.loop.run,
                self.repositories.drift.statuses_loop.run,
                self.events.run,
                self.dispatcher.sweep,
            ):
                group(loop())
            group(flushing.flush(self.clock, self.auditing, self.backing, self.deliveries))
            group(flushing.record(self.clock, self.recordings))
            group(self.grants.follow(self.clock, self.hearing.grants_changed))
            if self.broker is not None:
                group(self.broker.run())
            self._share()
            yield

    def _share(self) -> None:
        """Lead what others do not, where there are others."""
        leading = self.leadership
        if isinstance(leading, Leading) and self.meanwhile is not None:
            replicas.HandOver(
                leading=leading,
                world=self.world,
                scripts=self.scripts,
                repositories=self.repositories,
                commit_statuses=self.telling.commit_statuses,
                status_notes=self.telling.status_notes,
                mqtt_triggers=self.mqtt_triggers,
                meanwhile=self.meanwhile,
                triggering=self.triggering,
                deliveries=self.deliveries,
                backing=self.backing,
            ).begin(self.settings.shards)
        leading.start(replicas.address(self.settings, self.addresses.web))

    def _app(self) -> web.Asgi:
        return web.app(
            self.operations,
            self.registry,
            push_hooks=self.hooks,
            commands=self.commands,
            metrics=self._registry_of_metrics,
            access=listening.access(self.settings, self.cluster, self.clock),
            libraries=listening.LIBRARIES,
            # Whoever reaches a loopback address is a user of this machine, who could as well read
            # our memory or our kubeconfig.
            local_users=self.settings.web.is_loopback,
            public_registry=self.settings.public_registry,
            insecure=self.settings.insecure_listen,
            dev=self.settings.dev,
            peers=self.peers,
            elsewhere=self.leadership.elsewhere,
        )

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

    def _served(self) -> frozenset[Resource]:
        served = self.copy.served
        on_kubernetes = self.settings.cluster is ClusterKind.KUBERNETES
        return plan.writable(served) if on_kubernetes else served

    def _hearing(self) -> Hearing:
        return Hearing(
            world=self.world,
            leadership=self.leadership,
            repositories=self.repositories,
            scripts=self.scripts,
            commit_statuses=self.telling.commit_statuses,
            committing=self.committing,
            writer=self.writer,
            triggering=self.triggering,
            mqtt_triggers=self.mqtt_triggers,
            meanwhile=self.meanwhile,
        )

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
        await self.telling.status_notes.stop()
        await self.repositories.stop()
        await self.commits.stop()
        await flushing.write_behind(self.backing, self.deliveries)
        self.evaluations.close()
        self.states.close()
        await self.journal.close()
        if self.recordings is not None:
            self.recordings.close()
        self.git.close()
        self.registry.close()
        await self._registers.close()
        await self.telling.outbound.close()
        if self.peers is not None:
            await self.peers.close()
