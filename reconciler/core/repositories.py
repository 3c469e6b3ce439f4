"""A ScriptRepository as the cluster has it, and the status that follows from a reconcile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ValidationError

from reconciler.api.clusters import ClusterStatus
from reconciler.api.meta import DRIFTED, SOURCE_VERIFIED, ConditionStatus
from reconciler.api.scriptrepository import (
    AppliedRevision,
    Counts,
    PendingPrune,
    Problem,
    RollbackStatus,
    ScriptRepositorySpec,
    ScriptRepositoryStatus,
)
from reconciler.core import conditions
from reconciler.core.conditions import Verdict
from reconciler.core.drift import Drifted
from reconciler.core.objects import (
    ANNOTATION_REQUESTED_AT,
    JsonObject,
    ObjectKey,
    key_of,
    mapping,
    text,
)
from reconciler.core.scripts import first_problem, without_managed_fields
from reconciler.errors import ObjectInvalid

# Status, reason and message.
ConditionWords: TypeAlias = tuple[ConditionStatus, str, str]

# Problems shown in the status; a status is read by people and carried in every watch event.
SHOWN_PROBLEMS = 100
# Objects that a condition names.
SHOWN_DRIFTED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryRecord:
    """Exactly one of `spec` and `problem` is set."""

    key: ObjectKey
    uid: str
    resource_version: str
    generation: int
    deleting: bool
    spec: ScriptRepositorySpec | None
    problem: str
    status: ScriptRepositoryStatus
    document: JsonObject
    # Asks for a reconcile with every new value.
    requested_at: str = ""


def decode_repository(obj: JsonObject) -> RepositoryRecord:
    """Raises `ObjectInvalid` only for what has no identity; a bad spec is a `problem`."""
    metadata = mapping(obj.get("metadata"))
    uid = text(metadata.get("uid"))
    key = key_of(obj)
    if not uid or not key.name:
        raise ObjectInvalid("a ScriptRepository without name or uid")
    spec: ScriptRepositorySpec | None = None
    problem = ""
    try:
        spec = ScriptRepositorySpec.model_validate(obj.get("spec"))
    except ValidationError as error:
        problem = first_problem(error)
    try:
        status = ScriptRepositoryStatus.model_validate(obj.get("status") or {})
    except ValidationError:
        status = ScriptRepositoryStatus()
    generation = metadata.get("generation")
    return RepositoryRecord(
        key=key,
        uid=uid,
        resource_version=text(metadata.get("resourceVersion")),
        generation=generation if isinstance(generation, int) else 0,
        deleting="deletionTimestamp" in metadata,
        spec=spec,
        problem=problem,
        status=status,
        document=without_managed_fields(obj),
        requested_at=text(mapping(metadata.get("annotations")).get(ANNOTATION_REQUESTED_AT)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a reconcile reached. `revision` is the last one of which all that could be is live."""

    revision: str = ""
    digest: str = ""
    counts: Counts | None = None
    problems: Sequence[Problem] = ()
    pending_prune: PendingPrune | None = None
    history: Sequence[AppliedRevision] = ()
    rollback: RollbackStatus | None = None
    clusters: Sequence[ClusterStatus] = ()


def status_of(
    record: RepositoryRecord,
    verdict: Verdict,
    applied: Applied | None,
    *,
    status_commit: str,
    now: float,
    others: Mapping[str, ConditionWords] | None = None,
) -> ScriptRepositoryStatus:
    """With `applied` None, what was reached before stays as it is."""
    live = record.status
    return ScriptRepositoryStatus(
        observed_generation=record.generation,
        conditions=conditions.conditions(
            verdict,
            previous=live.conditions,
            generation=record.generation,
            now=now,
            others=others,
        ),
        revision=applied.revision if applied else live.revision,
        digest=applied.digest if applied else live.digest,
        counts=applied.counts if applied else live.counts,
        problems=list(applied.problems[:SHOWN_PROBLEMS]) if applied else live.problems,
        problem_count=len(applied.problems) if applied else live.problem_count,
        status_commit=status_commit or live.status_commit,
        pending_prune=applied.pending_prune if applied else live.pending_prune,
        history=list(applied.history) if applied else live.history,
        rollback=applied.rollback if applied else live.rollback,
        clusters=list(applied.clusters) if applied else live.clusters,
        last_handled_reconcile_at=live.last_handled_reconcile_at,
    )


def verified_condition(
    record: RepositoryRecord, told: ConditionWords | None
) -> Mapping[str, ConditionWords]:
    """What to say of signatures: nothing where none are asked for.

    Before anything is `told` of this spec, what was said of it before a restart.
    """
    if record.spec is None or record.spec.verify is None:
        return {}
    for before in record.status.conditions:
        if before.type == SOURCE_VERIFIED and before.observed_generation == record.generation:
            told = told or (before.status, before.reason, before.message)
    return {SOURCE_VERIFIED: told} if told else {}


def drift_condition(drifted: Sequence[Drifted]) -> Mapping[str, ConditionWords]:
    """What to say of live objects that are not as git has them; nothing while there are none."""
    if not drifted:
        return {}
    contended = [it for it in drifted if it.contended]
    shown = [*contended, *(it for it in drifted if not it.contended)][:SHOWN_DRIFTED]
    more = len(drifted) - len(shown)
    names = "; ".join(map(str, shown)) + (f"; and {more} more" if more else "")
    if contended:
        reason, what = "Contended", "put back again and again, and now ever more rarely"
    else:
        reason, what = "DriftDetected", "left so, as spec.drift.mode says"
    return {DRIFTED: ("True", reason, f"{len(drifted)} not as git says, {what}: {names}")}
