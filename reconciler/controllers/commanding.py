"""Wishes of people, as writes to the objects they are about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from reconciler.api.scriptrepository import Rollback
from reconciler.controllers.claims import Claim
from reconciler.controllers.world import World
from reconciler.core import history, quarantine
from reconciler.core.objects import (
    ANNOTATION_REQUESTED_AT,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    JsonObject,
    ObjectKey,
    Reference,
    mapping,
)
from reconciler.core.repositories import RepositoryRecord
from reconciler.errors import ObjectNotFound, Stalled
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster

# Not the manager that applies manifests: what a person sets stays when a manifest is applied.
OPERATOR = "scriptops-operator"


class ObjectCommands:
    """`reconciler.ports.commands.Commands`."""

    def __init__(
        self,
        world: World,
        cluster: Cluster,
        claim: Callable[[Reference], Claim | None],
        *,
        clock: Clock,
    ) -> None:
        self._world = world
        self._cluster = cluster
        self._claim = claim
        self._clock = clock

    async def reconcile(self, repository: ObjectKey) -> str:
        record = self._repository(repository)
        if record.spec is not None and record.spec.suspend:
            raise Stalled(
                f"repository {repository} is suspended; resume it with: scriptops resume "
                f"repository {repository.name} -n {repository.namespace}",
                reason="Suspended",
            )
        at = datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="microseconds")
        patch = {"metadata": {"annotations": {ANNOTATION_REQUESTED_AT: at}}}
        await self._patch(Reference("ScriptRepository", *repository), patch)
        return at

    async def suspend(self, reference: Reference, *, suspend: bool) -> bool:
        if reference.kind == "ScriptRepository":
            spec = self._repository(reference.key).spec
            is_suspended = spec is not None and spec.suspend
        else:
            record = self._world.scripts.get(reference.key)
            if record is None:
                raise ObjectNotFound(f"there is no Script {reference.key}")
            is_suspended = record.spec is not None and record.spec.suspend
            if quarantine.since(record.document) is not None and not suspend:
                raise Stalled(
                    f"{reference} left its repository and is in quarantine; bring its manifest "
                    "back",
                    reason="Quarantined",
                )
            self._check_manifest(reference, suspend=suspend)
        if is_suspended == suspend:
            return False
        await self._patch(reference, {"spec": {"suspend": True if suspend else None}})
        return True

    def _check_manifest(self, reference: Reference, *, suspend: bool) -> None:
        claim = self._claim(reference)
        if claim is None or claim.is_suspended:
            return
        said = mapping(claim.desired[reference].document.get("spec")).get("suspend")
        if said is not None and said is not suspend:
            raise Stalled(
                f"the manifest of {reference} says suspend: {str(said).lower()}, and what git says "
                "is put back; change it there",
                reason="OwnedByGit",
            )

    async def rollback(self, repository: ObjectKey, wish: str) -> Rollback:
        record = self._repository(repository)
        current = record.spec.rollback if record.spec is not None else None
        wanted = history.target(record.status.history, wish, current)
        patch: JsonObject = {"spec": {"rollback": wanted.model_dump(mode="json")}}
        await self._patch(Reference("ScriptRepository", *repository), patch)
        return wanted

    async def unroll(self, repository: ObjectKey) -> bool:
        record = self._repository(repository)
        if record.spec is not None and record.spec.rollback is None:
            return False
        await self._patch(Reference("ScriptRepository", *repository), {"spec": {"rollback": None}})
        return True

    async def approve(self, repository: ObjectKey, plan: str) -> None:
        pending = self._repository(repository).status.pending_prune
        if pending is None:
            raise Stalled(f"no plan of {repository} waits for approval", reason="NoSuchPlan")
        if pending.plan != plan:
            raise Stalled(
                f"no plan {plan} of {repository} waits for approval; {pending.plan} does, of "
                f"{pending.count} objects: {', '.join(pending.objects[:10])}",
                reason="NoSuchPlan",
            )
        patch = {"spec": {"prune": {"approve": plan}}}
        await self._patch(Reference("ScriptRepository", *repository), patch)

    def _repository(self, key: ObjectKey) -> RepositoryRecord:
        record = self._world.repositories.get(key)
        if record is None:
            raise ObjectNotFound(f"there is no ScriptRepository {key}")
        return record

    async def _patch(self, reference: Reference, patch: JsonObject) -> None:
        resource = SCRIPTS if reference.kind == "Script" else SCRIPT_REPOSITORIES
        await self._cluster.merge_patch(resource, reference.key, patch, field_manager=OPERATOR)
