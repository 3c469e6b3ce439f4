"""Plans carried out: live objects gathered, steps performed, failures kept apart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import assert_never

from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.slowstart import SlowStart
from reconciler.controllers.world import World
from reconciler.core import ordering, plan, pruning
from reconciler.core.changeset import ChangeSet
from reconciler.core.objects import (
    FIELD_MANAGER,
    JsonObject,
    ObjectKey,
    Reference,
    Resource,
    reference_of,
)
from reconciler.errors import (
    Conflict,
    ObjectExists,
    ObjectNotFound,
    ScriptOpsError,
    Stalled,
    Transient,
)
from reconciler.ports.cluster import Cluster

log = logging.getLogger(__name__)

# Requests under way at once: enough to keep a small API server busy, a fraction of the 32 that the
# adapter allows all of us.
PARALLEL = 16
# Devices are read one by one up to here, and as one list beyond: a page of 500 costs about as much
# as 50 single reads.
SINGLE_READS = 50
# Somebody else writes the same object at the same moment: read, plan, write again.
TRIES = 4


def _none(_kind: str) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done, what the plan left alone and why, and what could not be done."""

    changes: ChangeSet
    skips: tuple[plan.Skip, ...]
    failures: Mapping[Reference, ScriptOpsError]
    # What would go beyond the limits, and stays.
    pending: pruning.Pending | None = None
    # Suspended now, to be deleted later.
    quarantined: tuple[plan.Quarantine, ...] = ()

    @property
    def due(self) -> float | None:
        """When the first quarantine ends."""
        begun = [step.due for step in self.quarantined]
        return min((*begun, *(skip.due for skip in self.skips if skip.due)), default=None)


class Applier:
    """Brings the cluster to what a repository says, for the references it is given.

    Every write is made with the rights of the repository's ServiceAccount, where it has one. What
    is read to plan for it is read with our own.

    One object that fails never stops the others, but for Scripts of later waves and those that
    depend on it. Steps of one kind run side by side, few at first, kinds, and waves of Scripts, in
    the order of the plan.
    """

    def __init__(
        self,
        world: World,
        cluster: Cluster,
        precedence: Precedence,
        leadership: Leadership = ALONE,
    ) -> None:
        self._world = world
        self._cluster = cluster
        self._precedence = precedence
        self._leadership = leadership
        self._acting: dict[ObjectKey, Cluster] = {}

    async def apply(
        self,
        changed: Collection[Reference],
        *,
        repository: plan.Repository,
        desired: Mapping[Reference, plan.Desired],
        inventory: Iterable[Reference],
        held: Collection[Reference],
        prune_safe: bool,
        owned: Callable[[str], int] = _none,
    ) -> Applied:
        """Raises what reading the live state raises; a failing write is in the result.

        `owned` says how many objects of a kind the repository has.
        """
        self._acting_for(repository)
        inventory = tuple(inventory)
        absent = (ref for ref in inventory if ref not in desired)
        unread = (ref for ref in held if ref.kind == "Script")
        live = await self._live({*changed, *absent, *unread}, repository, desired)
        made = plan.make(
            changed,
            repository=repository,
            desired=desired,
            live=live,
            inventory=inventory,
            held=held,
            prune_safe=prune_safe,
        )
        made, pending = pruning.limited(made, repository.prune, owned)
        start = SlowStart(PARALLEL)
        failures: dict[Reference, ScriptOpsError] = {}
        missing = ordering.Missing()

        async def attempt(step: plan.Step) -> None:
            try:
                async with start.place():
                    _require(step, missing, failures.values())
                    await self.perform(step, repository, desired)
            except ScriptOpsError as error:
                failures[step.reference] = error

        with self._precedence.applying():
            for _, steps in groupby(made.steps, _side_by_side):
                group = tuple(steps)
                await asyncio.gather(*(attempt(step) for step in group))
                for step in group:
                    if isinstance(step, plan.Apply) and step.reference in failures:
                        missing.add(step.reference.key, step.rank.wave)
        return Applied(
            changes=made.change_set().without(failures),
            skips=tuple(step for step in made.steps if isinstance(step, plan.Skip)),
            failures=failures,
            pending=pending,
            quarantined=tuple(
                step
                for step in made.steps
                if isinstance(step, plan.Quarantine) and step.reference not in failures
            ),
        )

    async def put_back(
        self,
        step: plan.Step,
        repository: plan.Repository,
        desired: Mapping[Reference, plan.Desired],
    ) -> None:
        """`perform`, before what is said of anything."""
        with self._precedence.applying():
            await self.perform(step, repository, desired)

    async def perform(
        self,
        step: plan.Step,
        repository: plan.Repository,
        desired: Mapping[Reference, plan.Desired],
    ) -> None:
        """One step, planned again when it met another state. Raises what the write raises."""
        for attempt in range(TRIES):
            try:
                async with self._leadership.writing(repository.key.namespace):
                    await self._write(step, self._acting_for(repository))
            except (Conflict, ObjectExists, ObjectNotFound):
                if attempt + 1 == TRIES or not isinstance(step, plan.Create | plan.Patch):
                    raise
                again = plan.make(
                    (step.reference,),
                    repository=repository,
                    desired=desired,
                    live={step.reference: await self._read(step.reference, step.resource)},
                )
                if not again.steps:
                    return
                step = again.steps[0]
            else:
                return

    def _acting_for(self, repository: plan.Repository) -> Cluster:
        """Raises `Stalled` where nobody can act for it."""
        account = repository.account
        if account is None:
            return self._cluster
        if account not in self._acting:
            self._acting[account] = self._cluster.acting_as(account)
        return self._acting[account]

    async def _write(self, step: plan.Step, cluster: Cluster) -> None:
        match step:
            case plan.Apply() | plan.Quarantine():
                # Git is what says how a Script should be: whoever else set a field gives way.
                await cluster.apply(
                    step.resource, step.document, field_manager=FIELD_MANAGER, force=True
                )
            case plan.Create():
                await cluster.create(step.resource, step.document, field_manager=FIELD_MANAGER)
            case plan.Patch():
                await cluster.json_patch(
                    step.resource, step.reference.key, step.ops, field_manager=FIELD_MANAGER
                )
            case plan.Prune():
                await cluster.delete(step.resource, step.reference.key, uid=step.uid)
            case plan.Skip():
                pass
            case _:
                assert_never(step)

    # The live side.

    async def _live(
        self,
        references: Collection[Reference],
        repository: plan.Repository,
        desired: Mapping[Reference, plan.Desired],
    ) -> Mapping[Reference, JsonObject | None]:
        live: dict[Reference, JsonObject | None] = {}
        devices: dict[Resource, list[Reference]] = {}
        for ref in references:
            match ref.kind:
                case "Script":
                    script = self._world.scripts.get(ref.key)
                    live[ref] = script.document if script else None
                case "ScriptRepository":
                    source = self._world.repositories.get(ref.key)
                    live[ref] = source.document if source else None
                case _:
                    resource = _resource(ref, desired.get(ref), repository.served)
                    if resource is not None:
                        devices.setdefault(resource, []).append(ref)
        for resource, wanted in devices.items():
            live.update(await self._read_many(resource, wanted))
        return live

    async def _read_many(
        self, resource: Resource, references: Sequence[Reference]
    ) -> Mapping[Reference, JsonObject | None]:
        if len(references) <= SINGLE_READS:
            objects = await asyncio.gather(*(self._read(ref, resource) for ref in references))
            return dict(zip(references, objects, strict=True))
        wanted = set(references)
        live: dict[Reference, JsonObject | None] = {}
        token: str | None = None
        while True:
            page = await self._cluster.list_page(resource, continue_token=token)
            for obj in page.items:
                # Items of a list come without their kind from some servers.
                ref = reference_of({**obj, "kind": resource.kind})
                if ref in wanted:
                    live[ref] = {**obj, "kind": resource.kind, "apiVersion": resource.api_version}
            token = page.continue_token
            if token is None:
                return live

    async def _read(self, ref: Reference, resource: Resource) -> JsonObject | None:
        try:
            return await self._cluster.get(resource, ref.key)
        except ObjectNotFound:
            return None


def _side_by_side(step: plan.Step) -> tuple[object, ...]:
    """Steps that follow each other and have this in common may run at once."""
    return type(step), step.reference.kind, step.rank if isinstance(step, plan.Apply) else None


def _require(step: plan.Step, missing: ordering.Missing, errors: Iterable[ScriptOpsError]) -> None:
    """Raises when something that has to go first could not be written."""
    if not missing or not isinstance(step, plan.Apply) or step.reference.kind != "Script":
        return
    hindrance = missing.hindrance(step.reference.key, step.document)
    if hindrance is not None:
        # To be tried again exactly when what it waits for is.
        kind = Stalled if all(isinstance(error, Stalled) for error in errors) else Transient
        raise kind(hindrance.message, reason=hindrance.reason)


def _resource(
    ref: Reference, wanted: plan.Desired | None, served: Collection[Resource]
) -> Resource | None:
    """Where to read a Device or model: as its manifest says, else as the cluster serves it."""
    api_version = wanted.document.get("apiVersion") if wanted is not None else None
    for resource in sorted(served, key=str, reverse=True):
        if resource.kind == ref.kind and api_version in {None, resource.api_version}:
            return resource
    return None
