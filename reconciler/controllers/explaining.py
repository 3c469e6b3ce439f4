"""Why a Script did or did not run: all that decides on it, put side by side."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.api.script import ScriptStatus
from reconciler.controllers.dispatching import Dispatcher
from reconciler.controllers.triggering import Triggering
from reconciler.controllers.world import World
from reconciler.core import origins
from reconciler.core.conditions import rfc3339
from reconciler.core.objects import Json, JsonObject, ObjectKey
from reconciler.core.runqueue import RunQueue
from reconciler.core.runs import RunRecord
from reconciler.core.scripts import ScriptRecord
from reconciler.core.triggers import Subscription
from reconciler.errors import ObjectNotFound
from reconciler.ports.clock import Clock


@dataclass(frozen=True, slots=True)
class Explainer:
    """Answers from memory. What is counted is counted since this controller began."""

    world: World
    triggering: Triggering
    dispatcher: Dispatcher
    queue: RunQueue
    clock: Clock

    def explain(self, script: ObjectKey, last: RunRecord | None) -> JsonObject:
        """As `ports.operations.Operations.explain` has it. Raises `ObjectNotFound`."""
        record = self.world.scripts.get(script)
        if record is None:
            raise ObjectNotFound(f"there is no Script {script}")
        subscription = self.triggering.index.get(script)
        return {
            "kind": "Explanation",
            "script": {"namespace": script.namespace, "name": script.name},
            "canRun": subscription is not None,
            "why": "" if subscription is not None else _hindrance(record),
            "triggers": self._triggers(record, subscription),
            "writes": self._writes(record),
            "waiting": [
                {
                    "cause": run.cause.value,
                    "since": rfc3339(run.created_at),
                    "devices": sorted(run.devices),
                }
                for run in self.queue.waiting(script)
            ],
            "inFlight": self.dispatcher.in_flight_of(script),
            "paused": [
                {
                    "id": flight.run.key.run_id,
                    "since": rfc3339(since),
                    "devices": [f"{it.alias} (qos {it.qos})" for it in commits],
                }
                for flight, commits, since in self.dispatcher.pauses
                if flight.run.script == script
            ],
            "executors": len(self.dispatcher.executors),
            "last": _last(last, record.status),
            "notRun": [
                {
                    "reason": why.value,
                    "cause": cause.value,
                    "count": entry.count,
                    "lastAt": rfc3339(entry.last_at),
                    "detail": entry.detail,
                    "message": why.meaning,
                }
                for (why, cause), entry in sorted(self.triggering.ledger.of(script).items())
            ],
        }

    def _triggers(self, record: ScriptRecord, subscription: Subscription | None) -> list[Json]:
        policy = record.spec.execute_policy if record.spec is not None else None
        if record.spec is None or policy is None:
            return []
        found: list[Json] = []
        if policy.read_change:
            names = sorted(set(record.spec.read_selector.match_names.values()))
            found.append(
                {"kind": "ReadChange", "devices": [self._device(record, name) for name in names]}
            )
        if policy.cron:
            found.append(
                {"kind": "Cron", "expression": policy.cron, "next": self._next(subscription)}
            )
        if policy.mqtt is not None:
            found.append({"kind": "Mqtt", "topics": list(policy.mqtt.topics)})
        if policy.webhook:
            found.append({"kind": "Webhook"})
        if policy.run_on_deploy:
            found.append({"kind": "Deployed"})
        return [*found, {"kind": "Manual"}]

    def _device(self, record: ScriptRecord, name: str) -> Json:
        device = self.world.device(ObjectKey(record.key.namespace, name))
        if device is None:
            return {"name": name, "problem": f"there is no Device {name}"}
        evaluated = self.triggering.evaluated(record.uid).get(name, {})
        return {
            "name": name,
            "problem": ""
            if any(twin.reported is not None for twin in device.twins)
            else "it has reported nothing yet",
            "properties": [
                {
                    "name": twin.name,
                    "reported": twin.reported,
                    "evaluated": evaluated.get(twin.name),
                }
                for twin in device.twins
            ],
        }

    def _writes(self, record: ScriptRecord) -> list[Json]:
        """What is desired of the properties that a run of any Script has set."""
        if record.spec is None:
            return []
        now = self.clock.now()
        found: list[Json] = []
        for name in sorted(set(record.spec.write_selector.match_names.values())):
            device = self.world.device(ObjectKey(record.key.namespace, name))
            if device is None:
                continue
            for twin in device.twins:
                origin = origins.of(device.origins, twin.name, twin.desired)
                if origin is not None:
                    found.append(
                        {
                            "device": name,
                            "property": twin.name,
                            "desired": twin.desired,
                            "by": origin.script,
                            "run": origin.run_id,
                            "priority": origin.priority,
                            "at": rfc3339(origin.at),
                            "heldUntil": rfc3339(origin.until) if origin.until > now else "",
                        }
                    )
        return found

    def _next(self, subscription: Subscription | None) -> str:
        if subscription is None or subscription.schedule is None:
            return ""
        now = self.clock.now()
        return rfc3339(subscription.schedule.look(since=now, now=now).again_at)


def _last(remembered: RunRecord | None, status: ScriptStatus) -> Json:
    """The last run; after a restart what the status has of it."""
    if remembered is not None:
        return {
            "id": remembered.run_id,
            "cause": remembered.cause.value,
            "outcome": remembered.outcome.value,
            "finishedAt": rfc3339(remembered.finished_at),
            "message": remembered.message,
        }
    told = status.last_run
    if told is None or not told.id:
        return None
    return {
        "id": told.id,
        "cause": told.cause,
        "outcome": told.outcome,
        "finishedAt": told.finished_at,
        "message": status.message,
    }


def _hindrance(record: ScriptRecord) -> str:
    if record.spec is not None and record.spec.suspend:
        return "it is suspended"
    ready = next((c for c in record.status.conditions if c.type == "Ready"), None)
    if ready is None:
        return "it has not been looked at yet"
    return f"{ready.reason}: {ready.message}" if ready.message else ready.reason
