"""Versions of a Script: what tells them apart, which are kept, and where a status keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import orjson
from pydantic import ValidationError

from reconciler.api.meta import duration
from reconciler.api.rollout import KeptVersion, RolloutStatus, RolloutType, ShareBy, Stage
from reconciler.api.script import ScriptSpec
from reconciler.core.rollouts import Policy, State, Step

# Fields that say how and when a Script is deployed, not what runs then.
BESIDE: Final = frozenset(
    {"rollout", "revision_history_limit", "paused", "suspend", "depends_on", "wave"}
)
# As many hexadecimal digits as a ReplicaSet's name has of its template.
HASH_DIGITS: Final = 10
# Every write of the status carries them, so fewer than a Deployment keeps.
HISTORY: Final = 2
# Specs of former versions, as JSON: an object holds 1.5 MB at most.
HISTORY_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What runs: a spec with the artifact it meant when it was deployed.

    `generation` is that of the object whose spec it was; `revision` counts what was deployed.
    """

    version: str
    digest: str
    ext: str
    spec: ScriptSpec
    generation: int
    source: str
    revision: int = 0
    deployed_at: float = 0.0


def hash_of(spec: ScriptSpec, digest: str) -> str:
    """Equal for what runs alike. Fields at their default do not count, so that a field which a
    later release adds makes no version new.
    """
    return sha256(
        digest.encode() + orjson.dumps(_told(spec), option=orjson.OPT_SORT_KEYS)
    ).hexdigest()[:HASH_DIGITS]


def is_managed(spec: ScriptSpec) -> bool:
    """Whether the Script asks for more than that its newest version runs."""
    return (
        spec.rollout.type is not RolloutType.ALL_AT_ONCE
        or spec.revision_history_limit is not None
        or spec.paused
    )


def policy_of(spec: ScriptSpec) -> Policy:
    """A suspended Script's rollout is held: nothing runs that could speak for it."""
    rollout, budget = spec.rollout, spec.rollout.error_budget
    steps: tuple[Step, ...] = ()
    if rollout.canary is not None:
        steps = tuple(_step(it, it.percent) for it in rollout.canary.steps)
    elif rollout.type is RolloutType.SHADOW:
        steps = (_step(rollout.shadow or Stage(), 0),)
    return Policy(
        steps=steps,
        is_shadow=rollout.type is RolloutType.SHADOW,
        by_devices=rollout.canary is not None and rollout.canary.by is ShareBy.DEVICES,
        failed_percent=budget.failed_percent,
        min_runs=budget.min_runs,
        crashes=budget.crashes,
        differences=budget.differences,
        deadline=_seconds(rollout.progress_deadline, Policy().deadline),
        paused=spec.paused or spec.suspend,
    )


def deployed(
    versions: Sequence[Version], version: Version, *, limit: int | None, now: float
) -> tuple[Version, ...]:
    """The kept versions, newest first, when `version` begins to run for all.

    One that had run before comes first again, under a revision of its own. Of former ones no more
    stay than `limit`, and than fit; the newest is always there.
    """
    revision = max((it.revision for it in versions), default=0) + 1
    former = [it for it in versions if it.version != version.version]
    kept = [replace(version, revision=revision, deployed_at=now)]
    size = 0
    for it in former[: HISTORY if limit is None else limit]:
        size += len(orjson.dumps(_told(it.spec)))
        if size > HISTORY_BYTES:
            break
        kept.append(it)
    return tuple(kept)


def state_of(status: RolloutStatus) -> State:
    return State(
        stable=status.stable,
        candidate=status.candidate,
        wanted=status.wanted,
        halted=status.halted,
        reason=status.reason,
        message=status.message if status.halted else "",
        step=status.current_step,
        began=_at(status.started_at),
        since=_at(status.step_started_at),
        held=status.held,
        runs=status.runs,
        failed=status.failed,
        crashed=status.crashed,
        differing=status.differing,
        step_runs=status.step_runs,
    )


def versions_of(status: RolloutStatus) -> tuple[Version, ...]:
    """The kept versions; one whose spec this release does not take is left out."""
    found: list[Version] = []
    for kept in status.versions:
        try:
            spec = ScriptSpec.model_validate(kept.spec)
        except ValidationError:
            continue
        found.append(
            Version(
                version=kept.version,
                digest=kept.digest,
                ext=kept.ext,
                spec=spec,
                generation=kept.generation,
                source=kept.source,
                revision=kept.revision,
                deployed_at=_at(kept.deployed_at),
            )
        )
    return tuple(found)


def kept(version: Version) -> KeptVersion:
    return KeptVersion(
        revision=version.revision,
        version=version.version,
        generation=version.generation,
        digest=version.digest,
        ext=version.ext,
        source=version.source,
        deployed_at=timestamp(version.deployed_at),
        spec=dict(_told(version.spec)),
    )


def timestamp(seconds: float) -> str:
    """RFC 3339 with milliseconds: steps may be shorter than a second."""
    if not seconds:
        return ""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _at(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0


def _told(spec: ScriptSpec) -> Mapping[str, object]:
    told: Mapping[str, object] = spec.model_dump(
        mode="json", exclude_none=True, exclude_defaults=True, exclude=set(BESIDE)
    )
    return told


def _step(stage: Stage, percent: int) -> Step:
    pause = None if stage.pause is None else duration(stage.pause).total_seconds()
    return Step(percent, pause, stage.runs)


def _seconds(text: str | None, default: float) -> float:
    return default if text is None else duration(text).total_seconds()
