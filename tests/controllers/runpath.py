"""The run path of a controller, put together as `main` does, over fakes and a clock that stands still.

The copy of the cluster moves when a test calls `sync`, so that a test decides when a watch catches
up.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from reconciler.api.script import ScriptSpec, ScriptStatus
from reconciler.controllers.artifacts import Artifacts
from reconciler.controllers.committing import Commits
from reconciler.controllers.deliveries import Deliveries
from reconciler.controllers.dispatching import Dispatcher
from reconciler.controllers.effects import DesiredWriter
from reconciler.controllers.environments import Environments
from reconciler.controllers.events import Events
from reconciler.controllers.explaining import Explainer
from reconciler.controllers.finishing import Finisher
from reconciler.controllers.leading import Leadership
from reconciler.controllers.memory import Memory
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.operations import ControllerOperations, RunLog
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.rolloutrequests import RolloutRequests
from reconciler.controllers.runnables import InFlight, Runnable, limits_of
from reconciler.controllers.schedules import Schedules
from reconciler.controllers.scripts import Scripts
from reconciler.controllers.statuses import ScriptStatuses
from reconciler.controllers.triggering import Triggering
from reconciler.controllers.world import World
from reconciler.core import chains
from reconciler.core.grants import NO_GRANTS, Granting
from reconciler.core.models import decode_model
from reconciler.core.objects import (
    ANNOTATION_DIGEST,
    DEVICE_MODELS_V1BETA1,
    DEVICES_V1BETA1,
    LABEL_REPOSITORY_UID,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    JsonObject,
    ObjectKey,
    Resource,
    mapping,
    text,
)
from reconciler.core.repositories import decode_repository
from reconciler.core.runqueue import RunQueue
from reconciler.core.runs import (
    Cause,
    ExecutorId,
    Outcome,
    Run,
    RunId,
    RunKey,
    RunResult,
    ScriptRef,
    Write,
)
from reconciler.core.scripts import ScriptRecord, decode_script
from reconciler.core.store import Delta, Entry, Store, identity_of
from reconciler.core.triggers import Subscription
from reconciler.core.twins import decode_device
from reconciler.ports.journal import Journal
from reconciler.ports.registry import ArtifactRef
from tests.fakes.ciphers import FakeCiphers
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import FakeCluster
from tests.fakes.evaluations import FakeEvaluations
from tests.fakes.journal import FakeJournal
from tests.fakes.registers import FakeRegisters
from tests.fakes.registry import FakeRegistry
from tests.fakes.scriptstates import FakeScriptStates
from tests.fakes.sessions import FakeSessionServer

T = TypeVar("T")

SCRIPT = ObjectKey("default", "thermostat")
DHT11 = ObjectKey("default", "dht11")
SWITCH = ObjectKey("default", "switch")
REPOSITORY = ObjectKey("default", "rules")
CODE = b"export function main() {}"
DIGEST = "sha256:" + hashlib.sha256(CODE).hexdigest()


def spec(**parts: Any) -> dict[str, Any]:
    """A spec that reads the sensor and writes the switch; `parts` replace its own."""
    return {
        "readSelector": {"matchNames": {"sensor": "dht11"}},
        "writeSelector": {"matchNames": {"fan": "switch"}},
        "manifest": {"scriptType": "Js", "name": "thermostat", "version": "1.0.0"},
        "executePolicy": {"readChange": True},
        **parts,
    }


def applied_by(repository: str) -> JsonObject:
    """The marks that an apply for the repository with this UID leaves."""
    return {
        "labels": {LABEL_REPOSITORY_UID: repository},
        "annotations": {ANNOTATION_DIGEST: "sha256:manifest"},
    }


def reported(value: str, stamp: str = "1700000000000") -> JsonObject:
    """A twin as the cloud merges it in."""
    return {"reported": {"value": value, "metadata": {"timestamp": stamp} if stamp else {}}}


def device(name: str, model: str, **desired: str | None) -> JsonObject:
    return {
        "apiVersion": DEVICES_V1BETA1.api_version,
        "kind": "Device",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "deviceModelRef": {"name": model},
            "properties": [
                {"name": n, **({} if v is None else {"desired": {"value": v}})}
                for n, v in desired.items()
            ],
        },
    }


def model(name: str, **properties: Mapping[str, str]) -> JsonObject:
    return {
        "apiVersion": DEVICE_MODELS_V1BETA1.api_version,
        "kind": "DeviceModel",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"properties": [{"name": n, **p} for n, p in properties.items()]},
    }


SENSOR_MODEL = model("sensor", temperature={"type": "FLOAT", "accessMode": "ReadOnly"})
SWITCH_MODEL = model(
    "switch",
    state={"type": "STRING", "accessMode": "ReadWrite"},
    speed={"type": "INT", "minimum": "0", "maximum": "10", "accessMode": "ReadWrite"},
    serial={"type": "STRING", "accessMode": "ReadOnly"},
)


class Rig:
    """Everything between the copy of the cluster and the executors."""

    def __init__(
        self,
        *,
        before: Rig | None = None,
        journal: Journal | None = None,
        limits: chains.Limits = chains.DEFAULT_LIMITS,
        grants: Granting = NO_GRANTS,
    ) -> None:
        """`before` is the controller that ran before a restart."""
        self.clock: FakeClock = before.clock if before else FakeClock()
        self.cluster: FakeCluster = before.cluster if before else FakeCluster(self.clock)
        self.evaluations: FakeEvaluations = before.evaluations if before else FakeEvaluations()
        self.states: FakeScriptStates = before.states if before else FakeScriptStates()
        self.memory = Memory(self.states)
        self.leadership = Leadership()
        self.registry: FakeRegistry = before.registry if before else FakeRegistry()
        self.registers: FakeRegisters = before.registers if before else FakeRegisters()
        self.world = World()
        self.queue = RunQueue()
        self.sessions = FakeSessionServer()
        self.metrics_registry = CollectorRegistry()
        self.metrics = Metrics(self.metrics_registry)
        self.ciphers = FakeCiphers()
        self.synced: set[ObjectKey] = {REPOSITORY}
        self.runs = RunLog()
        self.statuses_told: list[tuple[ScriptStatus, bool]] = []
        self.environments = Environments(
            self.world, self.cluster, self.ciphers, NO_GRANTS, clock=self.clock
        )
        self.dispatcher = Dispatcher(
            self.world,
            self.queue,
            self.sessions,
            self.memory,
            self.environments,
            clock=self.clock,
            metrics=self.metrics,
            leadership=self.leadership,
        )
        self.journal: FakeJournal = FakeJournal(
            before.journal if before else None, clock=self.clock
        )
        self.deliveries = Deliveries(
            journal or self.journal,
            self.queue,
            self.leadership,
            clock=self.clock,
            metrics=self.metrics,
            wake=self.dispatcher.wake,
        )
        self.triggering = Triggering(
            self.world,
            self.queue,
            self.evaluations,
            self.deliveries,
            clock=self.clock,
            metrics=self.metrics,
            wake=self.dispatcher.wake,
            leadership=self.leadership,
            limits=limits,
        )
        self.schedules = Schedules(self.triggering, clock=self.clock, metrics=self.metrics)
        self.triggering.on_due = self.schedules.changed
        self.precedence = Precedence()
        self.events = Events(self.cluster, self.precedence, clock=self.clock, metrics=self.metrics)
        self.statuses = ScriptStatuses(
            self.cluster, self.precedence, clock=self.clock, metrics=self.metrics
        )
        self.artifacts = Artifacts(
            self.world, self.registry, self.registers, is_synced=self.synced.__contains__
        )
        self.scripts = Scripts(
            self.world,
            self.artifacts,
            self.triggering,
            self.dispatcher,
            self.statuses,
            self.events,
            self.memory,
            self.environments,
            self.precedence,
            clock=self.clock,
            metrics=self.metrics,
            grants=grants,
        )
        self.triggering.on_loop = self.scripts.looped
        self.environments.wake = self.dispatcher.wake
        self.environments.doubt = self.scripts.loop.add
        self.scripts.on_status = self._tell
        self.scripts.on_gone = lambda _: None
        self.writer = DesiredWriter(
            self.world, self.cluster, clock=self.clock, metrics=self.metrics
        )
        self.committing = Commits(
            self.world, self.writer, self.events, clock=self.clock, metrics=self.metrics
        )
        self.dispatcher.pauses.perform = self.committing.perform
        self.committing.may_act = self.deliveries.note_act
        self.dispatcher.deliveries = self.deliveries
        self.writer.is_undone = self.deliveries.is_undone
        self.finisher = Finisher(
            self.writer,
            self.scripts,
            self.runs,
            self.clock,
            self.metrics,
            self.memory,
            self.deliveries,
        )
        self.operations = ControllerOperations(
            self.world,
            self.triggering,
            self.dispatcher,
            self.runs,
            queue_depth=lambda: len(self.queue),
            not_ready=tuple,
            state_of=lambda uid: self.environments.hidden(uid, self.memory.of(uid)),
            rollouts=RolloutRequests(self.world, self.cluster),
            explainer=Explainer(
                self.world, self.triggering, self.dispatcher, self.queue, self.clock
            ),
        )
        self.finisher.listeners.append(self.scripts.rollouts.ran)
        self.finisher.listeners.append(self.deliveries.ended)
        self.dispatcher.shadows.on_compared = self.scripts.rollouts.compared
        self.scripts.rollouts.keep = self._keep
        self.scripts.rollouts.release = lambda _, digest: self.registry.discard(digest)
        self.dispatcher.triggering = self.triggering
        self.dispatcher.on_finished = self.finisher.finish
        self.dispatcher.on_loaded = self.scripts.loaded
        self.dispatcher.on_executors = self.scripts.executors_changed

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.deliveries.lead()
        await self.sessions.start(self.dispatcher, self.registry.read)
        tasks = [
            asyncio.ensure_future(loop)
            for loop in (
                self.scripts.loop.run(),
                self.schedules.loop.run(),
                self.deliveries.loop.run(),
                self.statuses.loop.run(),
                self.events.run(),
                self.dispatcher.sweep(),
            )
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended

    def _keep(self, digest: str) -> None:
        content = self.registry.read(digest)
        if content is not None:
            self.registry.store(content)

    def _tell(self, record: ScriptRecord, status: ScriptStatus, transition: bool, /) -> None:  # noqa: FBT001 - as `on_status` is called
        self.statuses_told.append((status, transition))

    # The cluster.

    async def create(self, resource: Resource, obj: JsonObject) -> JsonObject:
        return await self.cluster.real.create(resource, obj, field_manager="test")

    async def devices(self) -> None:
        await self.create(DEVICE_MODELS_V1BETA1, SENSOR_MODEL)
        await self.create(DEVICE_MODELS_V1BETA1, SWITCH_MODEL)
        await self.create(DEVICES_V1BETA1, device("dht11", "sensor", temperature=None))
        await self.create(DEVICES_V1BETA1, device("switch", "switch", state="off", speed=None))

    async def repository(self) -> str:
        """A repository that has published the artifact; its UID."""
        made = await self.create(
            SCRIPT_REPOSITORIES,
            {
                "apiVersion": SCRIPT_REPOSITORIES.api_version,
                "kind": "ScriptRepository",
                "metadata": {"name": REPOSITORY.name, "namespace": REPOSITORY.namespace},
                "spec": {"url": "https://git.example/rules.git"},
            },
        )
        self.publish(CODE)
        return text(mapping(made["metadata"])["uid"])

    def publish(self, code: bytes, version: str = "1.0.0", *, replace: bool = False) -> ArtifactRef:
        ref = ArtifactRef(*REPOSITORY, "thermostat", version, "js")
        self.registry.publish(ref, code, replace=replace)
        return ref

    async def script(
        self, key: ObjectKey = SCRIPT, *, repository: str = "", **parts: Any
    ) -> JsonObject:
        marks = applied_by(repository) if repository else {}
        return await self.create(
            SCRIPTS,
            {
                "apiVersion": SCRIPTS.api_version,
                "kind": "Script",
                "metadata": {"name": key.name, "namespace": key.namespace, **marks},
                "spec": spec(**parts),
            },
        )

    async def change_spec(self, key: ObjectKey = SCRIPT, **parts: Any) -> None:
        await self.cluster.real.merge_patch(SCRIPTS, key, {"spec": parts}, field_manager="test")

    async def delete(self, resource: Resource, key: ObjectKey) -> None:
        live = await self.cluster.real.get(resource, key)
        uid = text(mapping(live["metadata"])["uid"])
        await self.cluster.real.delete(resource, key, uid=uid)

    async def report(
        self, value: str, *, name: str = "temperature", key: ObjectKey = DHT11
    ) -> None:
        """The device reports a value, and the watch brings it."""
        stamp = str(int(self.clock.now() * 1000))
        self.cluster.real.report_twins(DEVICES_V1BETA1, key, {name: reported(value, stamp)})
        await self.sync()

    async def desired(self, name: str, key: ObjectKey = SWITCH) -> str | None:
        record = decode_device(await self.cluster.real.get(DEVICES_V1BETA1, key))
        twin = record.twin(name)
        return twin.desired if twin else None

    async def status(self, key: ObjectKey = SCRIPT) -> ScriptStatus:
        return decode_script(await self.cluster.real.get(SCRIPTS, key)).status

    # The watch.

    async def sync(self) -> None:
        """The copy catches up with the cluster, and everybody comes to rest."""
        await self._follow(
            SCRIPT_REPOSITORIES, self.world.repositories, decode_repository, lambda _: None
        )
        await self._follow(DEVICE_MODELS_V1BETA1, self.world.models, decode_model, lambda _: None)
        await self._follow(SCRIPTS, self.world.scripts, decode_script, self.scripts.changed)
        await self._follow(DEVICES_V1BETA1, self.world.devices, decode_device, self._device_changed)
        await self.clock.settle()

    async def _follow(
        self,
        resource: Resource,
        store: Store[T],
        decode: Callable[[JsonObject], T],
        changed: Callable[[Delta[T]], None],
    ) -> None:
        page = await self.cluster.real.list_page(resource, limit=0)
        entries = {}
        for obj in page.items:
            key, uid, version = identity_of(obj)
            held = store.entry(key)
            same = held is not None and (held.uid, held.resource_version) == (uid, version)
            entries[key] = held if held and same else Entry(uid, version, decode(obj))
        for delta in store.replace(entries):
            changed(delta)

    def _device_changed(self, delta: Delta[Any]) -> None:
        self.committing.changed(delta.key)
        if delta.new is not None:
            self.writer.caught_up(delta.new)
        record = self.writer.current(delta.key)
        if delta.new is not None and record is not None:
            self.triggering.device_changed(record)

    # Measures.

    @property
    def status_patches(self) -> int:
        return sum(c.resource == SCRIPTS and "patch" in c.method for c in self.cluster.calls)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics_registry.get_sample_value(f"scriptops_{name}", labels) or 0.0


def runnable(key: ObjectKey = SCRIPT, uid: str = "u1", **parts: Any) -> Runnable:
    it = ScriptSpec.model_validate(spec(**parts))
    return Runnable(
        ref=ScriptRef(
            key=key,
            digest=DIGEST,
            script_type=it.manifest.script_type.value,
            file="thermostat/1.0.0.js",
            limits=limits_of(it),
        ),
        uid=uid,
        spec=it,
        revision="main@sha1:1",
    )


def subscription(
    key: ObjectKey = SCRIPT,
    uid: str = "u1",
    *,
    generation: int = 1,
    digest: str = DIGEST,
    reads: frozenset[str] = frozenset({"dht11"}),
    read_change: bool = True,
    run_on_deploy: bool = True,
) -> Subscription:
    return Subscription(
        key=key,
        uid=uid,
        generation=generation,
        digest=digest,
        reads=reads,
        read_change=read_change,
        run_on_deploy=run_on_deploy,
    )


def ok(
    key: RunKey, *writes: Write, outcome: Outcome = Outcome.SUCCEEDED, **parts: Any
) -> RunResult:
    return RunResult(key=key, outcome=outcome, writes=writes, **parts)


def run(
    run_id: str = "run-1", *, uid: str = "u1", cause: Cause = Cause.READ_CHANGE, event: bytes = b""
) -> Run:
    return Run(
        key=RunKey(RunId(run_id), 1, 1),
        script=SCRIPT,
        uid=uid,
        cause=cause,
        created_at=0.0,
        event=event,
    )


def flight(run_id: str = "run-1", **parts: Any) -> InFlight:
    """A run of the script that is in flight somewhere."""
    return InFlight(
        run=run(run_id), runnable=runnable(**parts), executor=ExecutorId("e"), deadline=0.0
    )


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; one that hangs fails."""

    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())
