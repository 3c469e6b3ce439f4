"""What a run asked for becomes desired state of devices, after it is checked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from reconciler.api.meta import duration
from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.runnables import InFlight
from reconciler.controllers.world import World
from reconciler.core import desired, origins, twins
from reconciler.core.conditions import rfc3339
from reconciler.core.grants import NO_GRANTS, Granting
from reconciler.core.models import Refused
from reconciler.core.objects import FIELD_MANAGER, ObjectKey
from reconciler.core.origins import Origin
from reconciler.core.runs import RunId, Write
from reconciler.core.store import is_older
from reconciler.core.twins import DeviceRecord
from reconciler.errors import Conflict, ObjectNotFound, ScriptOpsError
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster

log = logging.getLogger(__name__)

# How long a Script of a priority holds what it has set, where it does not say. Seconds.
LEASE = 60.0
# Somebody else writes the same device at the same moment: read, decide, write again.
TRIES = 4


@dataclass(frozen=True, slots=True)
class Accepted:
    """Values by property, what was desired before, and the version of the Device that has them."""

    values: Mapping[str, str]
    before: Mapping[str, str | None]
    version: str


@dataclass(slots=True)
class Effects:
    """What came of the staged writes of one run, each as "<device>/<property>=<value>".

    Where no device is granted its place is taken by the alias that the script used.
    """

    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    # What a Script of a higher priority holds, and a sentence for each.
    outranked: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    # The first refusal or failure, as a sentence.
    message: str = ""
    # Whether the platform failed, rather than the script asked for too much.
    failed: bool = False
    # Where the values of each device stand that are desired now, changed or not.
    accepted: dict[ObjectKey, Accepted] = field(default_factory=dict, compare=False)

    def outrank(self, what: str, holder: Origin) -> None:
        self.outranked.append(what)
        self.warnings.append(
            f"{what} is not written: Script {holder.script} (priority {holder.priority}) holds the "
            f"property until {rfc3339(holder.until)}"
        )

    def refuse(self, what: str, why: str) -> None:
        self.refused.append(what)
        self.message = self.message or f"{what}: {why}"


class DesiredWriter:
    """Writes desired values: the only writer of `desired`, never of `reported`.

    Each write is checked against the grants and the DeviceModel first; a refused one does not stop
    the others. The writes of a run to one device are one PATCH. A value that is desired already is
    not written. Where a ServiceAccount acts for the repository of a Script, it writes for its runs
    as well, and what it may not do is refused.
    """

    def __init__(
        self,
        world: World,
        cluster: Cluster,
        *,
        grants: Granting = NO_GRANTS,
        clock: Clock,
        metrics: Metrics,
        leadership: Leadership = ALONE,
    ) -> None:
        # Whether a run may be performed again; `main` knows who says.
        self.is_undone: Callable[[RunId], bool] = origins.no_run
        self._world = world
        self._cluster = cluster
        self._grants = grants
        self._clock = clock
        self._leadership = leadership
        self._metrics = metrics
        self._acting: dict[ObjectKey, Cluster] = {}
        # Devices as our own PATCH left them, until the watch has caught up with it.
        self._ahead: dict[ObjectKey, DeviceRecord] = {}
        # One PATCH of a device after the other: each relies on what the one before has left.
        self._turns: WeakValueDictionary[ObjectKey, asyncio.Lock] = WeakValueDictionary()

    def caught_up(self, device: DeviceRecord) -> None:
        """The watch brought a device; forget what we knew ahead of it."""
        ahead = self._ahead.get(device.key)
        if ahead is not None and not _is_ahead(ahead, device):
            del self._ahead[device.key]

    async def perform(self, flight: InFlight, asked: Iterable[Write]) -> Effects:
        """Never raises for what one write met; that is in the result."""
        effects = Effects()
        by_device: dict[ObjectKey, dict[str, str]] = {}
        forced: set[tuple[ObjectKey, str]] = set()
        for write in asked:
            what = f"{write.property}={_shown(write.value)}"
            name = flight.runnable.spec.write_selector.match_names.get(write.alias)
            if name is None:
                effects.refuse(
                    f"{write.alias}/{what}",
                    "the writeSelector of the Script does not name this device",
                )
                continue
            key = ObjectKey(flight.run.script.namespace, name)
            record = self.current(key)
            if record is None:
                effects.refuse(f"{name}/{what}", f"there is no Device {key}")
                continue
            text = desired.check(self._world.model(record), write.property, write.value)
            if isinstance(text, Refused):
                effects.refuse(f"{name}/{what}", text.message)
                continue
            by_device.setdefault(key, {})[write.property] = text
            if write.force:
                forced.add((key, write.property))
        if len(by_device) == 1:
            [(key, writes)] = by_device.items()
            await self._write(key, writes, forced, flight, effects)
        elif by_device:
            await asyncio.gather(
                *(self._write(k, w, forced, flight, effects) for k, w in by_device.items())
            )
        for label, count in (
            ("written", len(effects.changed)),
            ("unchanged", len(effects.unchanged)),
            ("refused", len(effects.refused)),
            ("outranked", len(effects.outranked)),
        ):
            if count:
                self._metrics.desired_writes_total.labels(label).inc(count)
        return effects

    def current(self, key: ObjectKey) -> DeviceRecord | None:
        """The device as the watch brought it, or as our own PATCH left it since then."""
        live = self._world.device(key)
        ahead = self._ahead.get(key)
        if live is None or ahead is None or not _is_ahead(ahead, live):
            return live
        status = self._world.device_statuses.get(key)
        return ahead if status is None else twins.view(ahead, status)

    def _learned(self, key: ObjectKey, answer: DeviceRecord) -> None:
        """The watch, or the answer to a later PATCH, may have been faster than this answer."""
        current = self.current(key)
        if current is not None and _is_ahead(answer, current):
            self._ahead[key] = answer

    async def _write(
        self,
        key: ObjectKey,
        writes: Mapping[str, str],
        forced: set[tuple[ObjectKey, str]],
        flight: InFlight,
        effects: Effects,
    ) -> None:
        async with self._turns.setdefault(key, asyncio.Lock()):
            await self._patch(key, writes, forced, flight, effects)

    def _acting_for(self, flight: InFlight) -> Cluster:
        """With whose rights its writes are made: those of its repository's account, if any."""
        record = self._world.scripts.get(flight.run.script)
        owner = self._world.owner_of(record) if record is not None else None
        if owner is None or owner.spec is None:
            return self._cluster
        account = self._grants.account(owner.key, owner.spec)
        if account is None:
            return self._cluster
        if account not in self._acting:
            self._acting[account] = self._cluster.acting_as(account)
        return self._acting[account]

    async def drive_again(
        self,
        key: ObjectKey,
        flight: InFlight,
        left: Callable[[DeviceRecord], Mapping[str, str]],
    ) -> None:
        """Write values once more which the run has made desired, so that the Device has a version
        that its edge has not seen. `left` says which, of the Device as it is when its turn comes.
        """
        async with self._turns.setdefault(key, asyncio.Lock()):
            record = self.current(key)
            values = left(record) if record is not None else {}
            if record is None or not values:
                return
            patch = desired.patch(
                record, values, by=self._origin(flight), undone=self.is_undone, forced=values
            )
            if not patch.ops:
                # It is somebody else's by now.
                return
            try:
                async with self._leadership.writing(key.namespace):
                    answer = await self._acting_for(flight).json_patch(
                        patch.resource, key, patch.ops, field_manager=FIELD_MANAGER
                    )
                self._learned(key, twins.decode_device(answer))
            except (Conflict, ObjectNotFound):
                # Somebody was faster; who waits for the values looks again.
                return
            except ScriptOpsError as error:
                log.warning("desired not repeated", extra={"key": str(key), "why": error.reason})

    def _origin(self, flight: InFlight) -> Origin:
        run, policy, now = flight.run, flight.runnable.spec.execute_policy, self._clock.now()
        lease = duration(policy.lease).total_seconds() if policy.lease else LEASE
        return Origin(
            run_id=run.key.run_id,
            script=run.script.name,
            at=now,
            depth=run.depth,
            chain=run.chain,
            priority=policy.priority,
            until=now + lease if policy.priority else 0.0,
            is_last=flight.is_accepted and self.is_undone(run.key.run_id),
        )

    async def _patch(
        self,
        key: ObjectKey,
        writes: Mapping[str, str],
        forced: set[tuple[ObjectKey, str]],
        flight: InFlight,
        effects: Effects,
    ) -> None:
        record = self.current(key)
        if record is None:
            # It went between the check and here.
            _refuse_all(effects, key, writes, f"there is no Device {key}")
            return
        try:
            for attempt in range(TRIES):
                before = {
                    name: None if (it := record.twin(name)) is None else it.desired
                    for name in writes
                }
                version = record.resource_version
                patch = desired.patch(
                    record,
                    writes,
                    by=self._origin(flight),
                    undone=self.is_undone,
                    forced=frozenset(p for k, p in forced if k == key),
                )
                try:
                    if patch.ops:
                        async with self._leadership.writing(key.namespace):
                            answer = await self._acting_for(flight).json_patch(
                                patch.resource, key, patch.ops, field_manager=FIELD_MANAGER
                            )
                        written = twins.decode_device(answer)
                        version = written.resource_version
                        self._learned(key, written)
                except Conflict:
                    if attempt + 1 == TRIES:
                        raise
                    record = twins.decode_device(await self._cluster.get(patch.resource, key))
                    continue
                effects.changed += [f"{key.name}/{p}={writes[p]}" for p in patch.changed]
                effects.unchanged += [f"{key.name}/{p}={writes[p]}" for p in patch.unchanged]
                for name, holder in patch.outranked.items():
                    effects.outrank(f"{key.name}/{name}={writes[name]}", holder)
                effects.accepted[key] = Accepted(dict(writes), before, version)
                return
        except ObjectNotFound:
            _refuse_all(effects, key, writes, f"there is no Device {key}")
        except ScriptOpsError as error:
            effects.failed = True
            _refuse_all(effects, key, writes, str(error))
            log.warning("desired not written", extra={"key": str(key), "reason": error.reason})


def _refuse_all(effects: Effects, key: ObjectKey, writes: Mapping[str, str], why: str) -> None:
    for name, value in writes.items():
        effects.refuse(f"{key.name}/{name}={value}", why)


def _is_ahead(record: DeviceRecord, live: DeviceRecord) -> bool:
    """Whether `record` is surely newer than what the watch brought."""
    return record.uid == live.uid and is_older(live.resource_version, record.resource_version)


def _shown(value: object) -> str:
    return (str(value).lower() if isinstance(value, bool) else str(value))[:64]
