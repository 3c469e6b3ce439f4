"""A Script as the cluster has it, and the status that follows from what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import orjson
from pydantic import ValidationError

from reconciler.api.meta import (
    LOOPING,
    PROGRESSING,
    READY,
    RUNS_SUCCEEDING,
    Condition,
    ConditionStatus,
)
from reconciler.api.rollout import RolloutStatus
from reconciler.api.script import RunStatus, ScriptSpec, ScriptStatus
from reconciler.core import conditions, quarantine
from reconciler.core.conditions import Verdict
from reconciler.core.objects import (
    ANNOTATION_DIGEST,
    ANNOTATION_REVISION,
    ANNOTATION_ROLLOUT,
    LABEL_REPOSITORY_UID,
    JsonObject,
    ObjectKey,
    key_of,
    mapping,
    text,
)
from reconciler.core.runs import STATUS_CODES, Outcome
from reconciler.errors import ObjectInvalid

# Specs kept decoded: those of a large cluster, at some 10 kB each.
SPECS: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptRecord:
    """Exactly one of `spec` and `problem` is set. `document` is without managedFields."""

    key: ObjectKey
    uid: str
    resource_version: str
    generation: int
    repository_uid: str
    revision: str
    deleting: bool
    spec: ScriptSpec | None
    problem: str
    status: ScriptStatus
    document: JsonObject
    # What a person asked of its rollout; handled when the status names it.
    rollout_request: str = ""
    # Whether it carries the marks of an apply, beside the label that says by whom.
    is_applied: bool = False


def decode_script(obj: JsonObject) -> ScriptRecord:
    """Raises `ObjectInvalid` only for what has no identity; a bad spec is a `problem`."""
    metadata = mapping(obj.get("metadata"))
    uid = text(metadata.get("uid"))
    key = key_of(obj)
    if not uid or not key.name:
        raise ObjectInvalid("a Script without name or uid")
    generation = metadata.get("generation")
    spec, problem = _spec(orjson.dumps(obj.get("spec")))
    try:
        status = ScriptStatus.model_validate(obj.get("status") or {})
    except ValidationError:
        # Written by somebody else: to be overwritten, never to be trusted.
        status = ScriptStatus()
    labels = mapping(metadata.get("labels"))
    annotations = mapping(metadata.get("annotations"))
    return ScriptRecord(
        key=key,
        uid=uid,
        resource_version=text(metadata.get("resourceVersion")),
        generation=generation if isinstance(generation, int) else 0,
        repository_uid=text(labels.get(LABEL_REPOSITORY_UID)),
        revision=text(annotations.get(ANNOTATION_REVISION)),
        deleting="deletionTimestamp" in metadata,
        spec=spec,
        problem=problem,
        status=status,
        document=without_managed_fields(obj),
        rollout_request=text(annotations.get(ANNOTATION_ROLLOUT)),
        is_applied=LABEL_REPOSITORY_UID in labels
        and (ANNOTATION_DIGEST in annotations or quarantine.is_marked(obj)),
    )


@lru_cache(maxsize=SPECS)
def _spec(content: bytes) -> tuple[ScriptSpec | None, str]:
    """A spec, or what is wrong with it. A watch brings it again with every change of status."""
    try:
        return ScriptSpec.model_validate(orjson.loads(content)), ""
    except ValidationError as error:
        return None, first_problem(error)


def without_managed_fields(obj: JsonObject) -> JsonObject:
    metadata = mapping(obj.get("metadata"))
    if "managedFields" not in metadata:
        return obj
    return {**obj, "metadata": {k: v for k, v in metadata.items() if k != "managedFields"}}


def first_problem(error: ValidationError) -> str:
    """The first of pydantic's complaints as "spec.manifest.name: ..."."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in ("spec", *first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {first['msg']}{more}"


def ready_digest(record: ScriptRecord) -> str:
    """The digest with which this very spec was Ready, or the empty text.

    Only then does `status.digest` belong to this spec: while a new one is not Ready it still names
    what ran before.
    """
    status = record.status
    is_ready = status.observed_generation == record.generation and any(
        c.type == READY and c.status == "True" for c in status.conditions
    )
    return status.digest if is_ready else ""


def loaded_digests(record: ScriptRecord) -> frozenset[str]:
    """Artifacts of which the status says that an executor has loaded them."""
    rollout = record.status.rollout
    tried = (rollout.stable_digest, rollout.candidate_digest) if rollout is not None else ()
    return frozenset((ready_digest(record), *tried)) - {""}


def named_digests(record: ScriptRecord) -> frozenset[str]:
    """Artifacts that it runs, asks for, or may return to."""
    asked = record.spec.manifest.digest if record.spec is not None else None
    rollout = record.status.rollout
    kept = {version.digest for version in rollout.versions} if rollout is not None else set()
    found = {record.status.digest, asked or "", *loaded_digests(record), *kept}
    return frozenset(found) - {""}


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """What the newest finished run left to say."""

    run_id: str
    cause: str
    outcome: Outcome
    message: str
    finished_at: float
    duration_us: int
    changed: int
    unchanged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What runs have added since the controller knows this Script."""

    last: LastRun | None = None
    runs: int = 0
    failures: int = 0


def status_of(
    record: ScriptRecord,
    verdict: Verdict,
    digest: str,
    facts: RunFacts,
    *,
    live: ScriptStatus,
    now: float,
    rollout: RolloutStatus | None = None,
    progressing: tuple[ConditionStatus, str, str] | None = None,
    looping: str = "",
) -> ScriptStatus:
    """The whole status. It equals `live` exactly when there is nothing to write.

    `progressing` is the condition of a `rollout`; `looping` says how it was found to be part of a
    circle, which is told until its spec is another one.
    """
    last = facts.last
    others: dict[str, tuple[ConditionStatus, str, str]] = {
        c.type: (c.status, c.reason, c.message)
        for c in live.conditions
        if c.type == RUNS_SUCCEEDING or is_told_to_loop(c, record.generation)
    }
    if looping:
        others.setdefault(LOOPING, ("True", "Loop", looping))
    if last is not None:
        good = last.outcome is Outcome.SUCCEEDED
        others[RUNS_SUCCEEDING] = ("True" if good else "False", last.outcome.value, last.message)
    if progressing is not None:
        others[PROGRESSING] = progressing
    return ScriptStatus(
        observed_generation=record.generation,
        conditions=conditions.conditions(
            verdict,
            previous=live.conditions,
            generation=record.generation,
            now=now,
            others=others,
        ),
        revision=record.revision,
        digest=digest,
        status=STATUS_CODES[last.outcome] if last else live.status,
        message=conditions.shortened(last.message) if last else live.message,
        last_run=_run_status(last) if last else live.last_run,
        runs=facts.runs,
        failures=facts.failures,
        rollout=rollout,
    )


def is_told_to_loop(condition: Condition, generation: int) -> bool:
    """Whether it is said of this very spec that it is part of a circle."""
    return condition.type == LOOPING and condition.observed_generation == generation


def is_transition(old: ScriptStatus, new: ScriptStatus) -> bool:
    """Whether more changed than the last run and counters: what is reported at once."""
    return (
        [(c.type, c.status, c.reason) for c in old.conditions]
        != [(c.type, c.status, c.reason) for c in new.conditions]
        or old.observed_generation != new.observed_generation
        or (old.revision, old.digest, old.status) != (new.revision, new.digest, new.status)
        or _course(old.rollout) != _course(new.rollout)
    )


def _course(rollout: RolloutStatus | None) -> tuple[object, ...]:
    """Where a rollout is, without its counts."""
    if rollout is None:
        return ()
    return (
        rollout.phase,
        rollout.stable,
        rollout.candidate,
        rollout.wanted,
        rollout.halted,
        rollout.current_step,
        rollout.held,
        rollout.last_handled_request,
    )


def _run_status(last: LastRun) -> RunStatus:
    return RunStatus(
        id=last.run_id,
        cause=last.cause,
        outcome=last.outcome.value,
        finished_at=conditions.rfc3339(last.finished_at),
        duration_microseconds=last.duration_us,
        writes=last.changed,
        unchanged=last.unchanged,
    )
