"""What the front doors see of a running controller, and the one thing they may do: trigger."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice

import orjson

from reconciler.controllers.dispatching import Dispatcher
from reconciler.controllers.explaining import Explainer
from reconciler.controllers.rolloutrequests import RolloutRequests
from reconciler.controllers.runnables import InFlight
from reconciler.controllers.triggering import Triggering
from reconciler.controllers.world import World
from reconciler.core.conditions import rfc3339
from reconciler.core.ledger import WhyNot
from reconciler.core.models import typed
from reconciler.core.objects import Json, JsonObject, ObjectKey
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.rollouts import Action
from reconciler.core.runs import Cause, Commit, RunId, RunRecord
from reconciler.core.scripts import ScriptRecord
from reconciler.core.twins import DeviceRecord
from reconciler.errors import Forbidden, ObjectNotFound, Waiting
from reconciler.ports.recordings import Recordings

# Finished runs that are remembered, about 1 KB each without logs.
REMEMBERED_RUNS = 10_000


# Console output that is remembered, of all runs together: characters, of one to four bytes.
REMEMBERED_OUTPUT = 32 * 1024 * 1024


# Requests that wait for a run to end: half of the connections that there may be.
WAITERS = 256


# In the place of an outcome, of a run that waits for its devices.
WAITING = "Waiting"


class RunLog:
    """The newest finished runs; of older ones not the output, when there is much of it."""

    def __init__(self, size: int = REMEMBERED_RUNS, output: int = REMEMBERED_OUTPUT) -> None:
        self._size = size
        self._output = output
        self._runs: OrderedDict[RunId, RunRecord] = OrderedDict()
        # Those with output, oldest first.
        self._with_output: deque[tuple[RunId, int]] = deque()
        self._held = 0
        # Who waits for which.
        self._waiters: dict[asyncio.Future[RunRecord], RunId] = {}

    def add(self, record: RunRecord) -> None:
        self._runs[record.run_id] = record
        for future, run_id in self._waiters.items():
            if run_id == record.run_id and not future.done():
                future.set_result(record)
        if len(self._runs) > self._size:
            self._runs.popitem(last=False)
        length = sum(len(line.text) for line in record.logs)
        if length:
            self._with_output.append((record.run_id, length))
            self._held += length
        while self._held > self._output or len(self._with_output) > self._size:
            run_id, length = self._with_output.popleft()
            self._held -= length
            if run_id in self._runs:
                self._runs[run_id] = replace(self._runs[run_id], logs=())

    def get(self, run_id: RunId) -> RunRecord | None:
        return self._runs.get(run_id)

    async def ended(self, run_id: RunId, *, seconds: float) -> RunRecord | None:
        """The run once it has finished; None when it has not in so long, or when too many wait."""
        record = self._runs.get(run_id)
        if record is not None:
            return record
        if len(self._waiters) >= WAITERS:
            return None
        future = asyncio.get_running_loop().create_future()
        self._waiters[future] = run_id
        try:
            async with asyncio.timeout(seconds):
                ended: RunRecord = await future
                return ended
        except TimeoutError:
            return None
        finally:
            del self._waiters[future]

    def newest(self, *, namespace: str | None, script: str | None) -> Sequence[RunRecord]:
        return [
            record
            for record in reversed(self._runs.values())
            if (namespace is None or record.script.namespace == namespace)
            and (script is None or record.script.name == script)
        ]


class ControllerOperations:
    """`reconciler.ports.operations.Operations`, from memory."""

    def __init__(
        self,
        world: World,
        triggering: Triggering,
        dispatcher: Dispatcher,
        runs: RunLog,
        *,
        queue_depth: Callable[[], int],
        not_ready: Callable[[], Sequence[str]],
        state_of: Callable[[str], bytes],
        rollouts: RolloutRequests,
        explainer: Explainer,
        recordings: Recordings | None = None,
    ) -> None:
        self._world = world
        self._triggering = triggering
        self._dispatcher = dispatcher
        self._runs = runs
        self._queue_depth = queue_depth
        self._not_ready = not_ready
        self._state_of = state_of
        self._rollouts = rollouts
        self._explainer = explainer
        self._recordings = recordings

    def scripts(self, namespace: str | None = None) -> Sequence[JsonObject]:
        states = {r.key: s for r in self._world.scripts if (s := self._state_of(r.uid))}
        return [
            {**document, "state": orjson.loads(states[key])} if key in states else document
            for key, document in _documents(self._world.scripts, namespace)
        ]

    def repositories(self, namespace: str | None = None) -> Sequence[JsonObject]:
        return [document for _, document in _documents(self._world.repositories, namespace)]

    def devices(self, namespace: str | None = None) -> Sequence[JsonObject]:
        keys = sorted(self._world.devices.keys())
        records = (self._world.device(k) for k in keys if namespace in {None, k.namespace})
        return [self._device(record) for record in records if record is not None]

    def executors(self) -> Sequence[JsonObject]:
        return [
            {
                "kind": "Executor",
                "metadata": {"name": executor.name},
                "id": executor.id,
                "identity": executor.identity,
                "scriptTypes": sorted(executor.script_types),
                "engines": dict(executor.engines),
            }
            for executor in sorted(self._dispatcher.executors, key=lambda it: (it.name, it.id))
        ]

    def runs(
        self, *, namespace: str | None = None, script: str | None = None, limit: int = 100
    ) -> Sequence[JsonObject]:
        newest = self._runs.newest(namespace=namespace, script=script)
        paused = (
            _paused(*it)
            for it in self._dispatcher.pauses
            if namespace in {None, it[0].run.script.namespace}
            and script in {None, it[0].run.script.name}
        )
        return list(islice(chain(paused, (_run(record) for record in newest)), limit))

    def run(self, run_id: RunId) -> JsonObject | None:
        record = self._runs.get(run_id)
        if record is not None:
            return _run(record)
        paused = (_paused(*it) for it in self._dispatcher.pauses if it[0].run.key.run_id == run_id)
        return next(paused, None)

    async def outcome(self, run_id: RunId, *, seconds: float) -> JsonObject | None:
        record = await self._runs.ended(run_id, seconds=seconds)
        return None if record is None else _run(record)

    async def recording(self, run_id: RunId) -> JsonObject | None:
        return None if self._recordings is None else await self._recordings.get(run_id)

    async def recordings(
        self, *, namespace: str | None = None, script: str | None = None, limit: int = 100
    ) -> Sequence[JsonObject]:
        if self._recordings is None:
            return ()
        return await self._recordings.newest(namespace=namespace, script=script, limit=limit)

    async def recorded_artifact(self, digest: str) -> bytes | None:
        return None if self._recordings is None else await self._recordings.artifact(digest)

    async def trigger(
        self, script: ObjectKey, *, cause: Cause, event: bytes = b"", key: str = ""
    ) -> RunId:
        record = self._world.scripts.get(script)
        if record is None:
            raise ObjectNotFound(f"there is no Script {script}")
        if record.spec is not None and record.spec.suspend:
            self._triggering.note(script, WhyNot.SUSPENDED, cause)
            raise Forbidden(f"Script {script} is suspended", reason="Suspended")
        if (
            cause is Cause.WEBHOOK
            and record.spec is not None
            and not record.spec.execute_policy.webhook
        ):
            raise Forbidden(
                f"Script {script} is not triggered over HTTP; set spec.executePolicy.webhook",
                reason="WebhookOff",
            )
        if self._triggering.index.get(script) is None:
            ready = next((c for c in record.status.conditions if c.type == "Ready"), None)
            self._triggering.note(script, WhyNot.NOT_READY, cause)
            why = f": {ready.message}" if ready is not None and ready.message else ""
            raise Waiting(f"Script {script} is not ready{why}", reason="NotReady")
        return await self._triggering.accept(script, cause, event, key)

    def explain(self, script: ObjectKey) -> JsonObject:
        last = next(iter(self._runs.newest(namespace=script.namespace, script=script.name)), None)
        return self._explainer.explain(script, last)

    async def roll_out(
        self, script: ObjectKey, action: Action, *, revision: int | None = None
    ) -> None:
        await self._rollouts.ask(script, action, revision=revision)

    def debug(self) -> JsonObject:
        index = self._triggering.index
        return {
            "store": {
                "scripts": [
                    _version(r.key, r.uid, r.resource_version) for r in self._world.scripts
                ],
                "repositories": [
                    _version(r.key, r.uid, r.resource_version) for r in self._world.repositories
                ],
                "models": [_version(r.key, r.uid, r.resource_version) for r in self._world.models],
                "devices": [
                    {
                        **_version(r.key, r.uid, r.resource_version),
                        "layout": r.layout.name,
                        "twins": {
                            t.name: {"reported": t.reported, "desired": t.desired} for t in r.twins
                        },
                    }
                    for key in tuple(self._world.devices.keys())
                    if (r := self._world.device(key)) is not None
                ],
            },
            "triggers": [
                {
                    "script": str(s.key),
                    "generation": s.generation,
                    "digest": s.digest,
                    "reads": sorted(s.reads),
                    "readChange": s.read_change,
                }
                for s in index.all()
            ],
            "queue": {"waiting": self._queue_depth(), "inFlight": self._dispatcher.in_flight},
            "executors": [
                {"id": e.id, "name": e.name, "engines": dict(e.engines)}
                for e in self._dispatcher.executors
            ],
        }

    def not_ready(self) -> Sequence[str]:
        return self._not_ready()

    def _device(self, record: DeviceRecord) -> JsonObject:
        model = self._world.model(record)
        types = model.properties if model is not None else {}
        properties: list[Json] = []
        for twin in record.twins:
            prop = types.get(twin.name)
            properties.append(
                {
                    "name": twin.name,
                    "reported": None if twin.reported is None else typed(twin.reported, prop),
                    "desired": None if twin.desired is None else typed(twin.desired, prop),
                    "type": None if prop is None or prop.type is None else prop.type.value,
                    "timestamp": twin.timestamp,
                }
            )
        return {
            "kind": "Device",
            "metadata": {"name": record.key.name, "namespace": record.key.namespace},
            "model": record.model,
            "properties": properties,
        }


def _documents(
    records: Iterable[ScriptRecord] | Iterable[RepositoryRecord], namespace: str | None
) -> Sequence[tuple[ObjectKey, JsonObject]]:
    found = [(r.key, r.document) for r in records if namespace in {None, r.key.namespace}]
    return sorted(found, key=lambda pair: pair[0])


def _version(key: ObjectKey, uid: str, resource_version: str) -> dict[str, Json]:
    return {"key": str(key), "uid": uid, "resourceVersion": resource_version}


def _paused(flight: InFlight, commits: Sequence[Commit], since: float) -> JsonObject:
    """A run that has not finished: it waits for what it has committed."""
    run, runnable, hide = flight.run, flight.runnable, flight.environment.text
    wanted = ", ".join(f"{it.alias} (qos {it.qos})" for it in commits) or "an executor"
    return {
        "id": run.key.run_id,
        "script": {"namespace": run.script.namespace, "name": run.script.name},
        "cause": run.cause.value,
        "depth": run.depth,
        "chain": run.chain,
        "outcome": WAITING,
        "message": f"it waits for {wanted} since {rfc3339(since)}",
        "revision": runnable.revision,
        "digest": runnable.ref.digest,
        "createdAt": rfc3339(run.created_at),
        "finishedAt": "",
        "durationMicroseconds": flight.duration_us,
        "changed": [hide(it) for it in flight.changed],
        "unchanged": [hide(it) for it in flight.unchanged],
        "refused": [hide(it) for it in flight.refused],
        "outranked": [hide(it) for it in flight.outranked],
        "logs": [],
    }


def _run(record: RunRecord) -> JsonObject:
    return {
        "id": record.run_id,
        "script": {"namespace": record.script.namespace, "name": record.script.name},
        "cause": record.cause.value,
        "depth": record.depth,
        "chain": record.chain,
        "outcome": record.outcome.value,
        "message": record.message,
        "revision": record.revision,
        "digest": record.digest,
        "createdAt": rfc3339(record.created_at),
        "finishedAt": rfc3339(record.finished_at),
        "durationMicroseconds": record.duration_us,
        "changed": list(record.changed),
        "unchanged": list(record.unchanged),
        "refused": list(record.refused),
        "outranked": list(record.outranked),
        "logs": [{"level": line.level, "text": line.text} for line in record.logs],
    }
