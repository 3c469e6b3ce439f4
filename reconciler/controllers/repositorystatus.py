"""What is said of a ScriptRepository, and its one writer."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath

from reconciler.api.meta import DRIFTED
from reconciler.api.scriptrepository import (
    AppliedRevision,
    Counts,
    RevisionOutcome,
    Rollback,
    RollbackStatus,
    ScriptRepositoryStatus,
)
from reconciler.api.scriptrepository import Problem as ReportedProblem
from reconciler.controllers.applying import Applied
from reconciler.controllers.events import Events
from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.statuses import status_patch
from reconciler.core import conditions, plan, repositories
from reconciler.core.conditions import Verdict
from reconciler.core.drift import Drifted, Fight
from reconciler.core.objects import (
    SCRIPT_REPOSITORIES,
    STATUS_FIELD_MANAGER,
    Reference,
    mapping,
    text,
)
from reconciler.core.problems import Problem
from reconciler.core.repositories import ConditionWords, RepositoryRecord
from reconciler.core.store import is_older
from reconciler.errors import Conflict, ObjectNotFound, ScriptOpsError, Stalled, Waiting
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.ports.git import CommitId

log = logging.getLogger(__name__)

SUSPENDED = "Suspended"
# After what is just being written.
LOOK_AGAIN = 0.1


class RepositoryStatuses:
    """Writes status only where it differs from what is there, and tells of transitions."""

    def __init__(
        self,
        cluster: Cluster,
        events: Events,
        *,
        clock: Clock,
        metrics: Metrics,
        leadership: Leadership = ALONE,
    ) -> None:
        self._cluster = cluster
        self._leadership = leadership
        self._events = events
        self._clock = clock
        self._metrics = metrics
        # Ahead of the watch: what we wrote last, by UID, and the version of the object after it.
        self._written: dict[str, ScriptRepositoryStatus] = {}
        self._versions: dict[str, str] = {}
        # Against who else writes them.
        self._fights: defaultdict[str, Fight] = defaultdict(Fight)
        self._commits: dict[str, CommitId] = {}
        self._committed: dict[str, Callable[[CommitId], None]] = {}
        self._drifted: dict[str, Sequence[Drifted]] = {}
        # What was said last, for which generation of the spec.
        self._verified: dict[str, tuple[int, ConditionWords]] = {}
        # A status is written whole, by one of those who have something to say at a time.
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def committed(self, uid: str) -> Callable[[CommitId], None]:
        """Who is to be told of commits on its status ref: for each repository one and the same.

        The newest is told with the next status, not by one of its own.
        """
        return self._committed.setdefault(uid, partial(self._commits.__setitem__, uid))

    def forget(self, uid: str) -> None:
        """What is said of it is in the cluster, and others may say more."""
        for known in (
            self._written,
            self._versions,
            self._fights,
            self._commits,
            self._drifted,
            self._verified,
        ):
            known.pop(uid, None)

    def latest(self, record: RepositoryRecord) -> ScriptRepositoryStatus:
        """What the cluster has, as far as we wrote it or saw it."""
        return self._written.get(record.uid, record.status)

    def pause(self, record: RepositoryRecord) -> float | None:
        """When to `restore` what somebody else has written over our status, in seconds; None: it is
        ours, as far as that can be told.
        """
        uid, version = record.uid, self._versions.get(record.uid)
        if self._turns[uid].locked():
            return LOOK_AGAIN
        if version is None or not is_older(version, record.resource_version):
            return None
        is_ours = record.status == self._written[uid]
        return None if is_ours else self._fights[uid].wait(self._clock.monotonic())

    async def restore(self, record: RepositoryRecord) -> float | None:
        """What was said last is said again if it was written over; else when to come again."""
        pause = self.pause(record)
        if pause == 0:
            uid = record.uid
            fight = self._fights[uid] = self._fights[uid].corrected(self._clock.monotonic())
            extra = {"key": str(record.key), "times": fight.corrections}
            log.warning("status put back", extra=extra)
            async with self._turns[uid]:
                await self._put(record, self.latest(record))
        return pause or None

    async def report(
        self,
        record: RepositoryRecord,
        verdict: Verdict,
        applied: repositories.Applied | None,
    ) -> None:
        """With `applied` None, what was reached before stays as it is."""
        async with self._turns[record.uid]:
            record = replace(record, status=self.latest(record))
            status = repositories.status_of(
                record,
                verdict,
                applied,
                status_commit=self._commits.get(record.uid, ""),
                now=self._clock.now(),
                others=self._others(record),
            )
            if record.requested_at and not is_suspended(verdict):
                at = record.requested_at
                status = status.model_copy(update={"last_handled_reconcile_at": at})
            await self._write(record, status)

    async def drifted(self, record: RepositoryRecord, drifted: Sequence[Drifted]) -> None:
        """Only what is said of drift changes, now and with every later status."""
        self._drifted[record.uid] = drifted
        async with self._turns[record.uid]:
            before = self.latest(record)
            kept = [c for c in before.conditions if c.type != DRIFTED]
            verdict = conditions.verdict_of(kept)
            if verdict is None:
                # Its first reconcile will say it.
                return
            told = conditions.conditions(
                verdict,
                previous=before.conditions,
                generation=before.observed_generation,
                now=self._clock.now(),
                others=self._others(replace(record, status=before)),
            )
            await self._write(record, before.model_copy(update={"conditions": told}))

    def verified(self, record: RepositoryRecord, told: ConditionWords) -> None:
        """What is said of signatures, from the next status on."""
        self._verified[record.uid] = record.generation, told

    def _others(self, record: RepositoryRecord) -> Mapping[str, ConditionWords]:
        generation, told = self._verified.get(record.uid, (-1, None))
        told = told if generation == record.generation else None
        return {
            **repositories.drift_condition(self._drifted.get(record.uid, ())),
            **repositories.verified_condition(record, told),
        }

    async def _write(self, record: RepositoryRecord, status: ScriptRepositoryStatus) -> None:
        before = self.latest(record)
        if status != before:
            await self._put(record, status)

    async def _put(self, record: RepositoryRecord, status: ScriptRepositoryStatus) -> None:
        before = self.latest(record)
        body = status.model_dump(mode="json", exclude_none=True)
        try:
            async with self._leadership.writing(record.key.namespace):
                answer = await self._cluster.json_patch(
                    SCRIPT_REPOSITORIES,
                    record.key,
                    status_patch(record.uid, body),
                    field_manager=STATUS_FIELD_MANAGER,
                    status=True,
                )
        except (ObjectNotFound, Conflict):
            # Deleted, or another by that name: the watch brings what there is.
            return
        self._metrics.status_patches_total.labels("ScriptRepository").inc()
        self._written[record.uid] = status
        self._versions[record.uid] = text(mapping(answer.get("metadata")).get("resourceVersion"))
        self._events.transition(
            SCRIPT_REPOSITORIES, record.key, record.uid, before.conditions, status.conditions
        )


def is_suspended(verdict: Verdict) -> bool:
    return verdict.reason == SUSPENDED


def verdict_of(error: ScriptOpsError) -> Verdict:
    if isinstance(error, Stalled):
        return conditions.stalled(error.reason, str(error))
    if isinstance(error, Waiting):
        return conditions.reconciling(error.reason, str(error))
    return conditions.reconciling(error.reason, f"{error}; trying again")


def rollback(spec: Rollback | None, files: int) -> RollbackStatus | None:
    if spec is None:
        return None
    return RollbackStatus(revision=spec.revision, quarantined=spec.quarantined, files=files)


def entry(
    status: repositories.Applied, applied: Applied | None, *, now: float, milliseconds: int
) -> AppliedRevision:
    """What history says of a reconcile."""
    outcome = RevisionOutcome.IN_PART if status.problems else RevisionOutcome.APPLIED
    if applied is not None and applied.failures:
        outcome = RevisionOutcome.FAILED
    counts = applied.changes.counts() if applied is not None else Counts()
    held = status.rollback
    return AppliedRevision(
        revision=status.revision,
        digest=status.digest,
        rolled_back_to=held.revision if held is not None and held.files else "",
        applied_at=conditions.rfc3339(now),
        outcome=outcome,
        milliseconds=milliseconds,
        created=counts.created,
        configured=counts.configured,
        pruned=counts.pruned,
        problem_count=len(status.problems),
    )


def verdict(
    revision: str,
    problems: Sequence[Problem],
    failed: Sequence[ScriptOpsError],
    rollback: RollbackStatus | None = None,
    *,
    is_left: bool = False,
) -> Verdict:
    """`is_left`: others apply what is in the revision."""
    if failed:
        return conditions.reconciling(
            failed[0].reason, f"{len(failed)} objects not applied yet: {failed[0]}"
        )
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return conditions.stalled(problems[0].reason, f"{problems[0]}{more}")
    if is_left:
        return conditions.ready("Published", f"published {revision}; others apply it")
    if rollback is not None and rollback.files:
        files = "file is" if rollback.files == 1 else "files are"
        message = (
            f"applied {revision}, of which {rollback.files} {files} held as in "
            f"{rollback.revision[:10]} until changed in the branch"
        )
        return conditions.ready("RolledBack", message)
    return conditions.ready("Applied", f"applied {revision}")


def problems_of(
    applied: Applied | None, desired: Mapping[Reference, plan.Desired]
) -> list[Problem]:
    """What the cluster would not take, as problems of the files that asked for it."""
    if applied is None:
        return []
    found = [
        (skip.reference, skip.reason.value, skip.message)
        for skip in applied.skips
        if skip.is_problem
    ]
    found += [
        (ref, error.reason, str(error))
        for ref, error in applied.failures.items()
        if isinstance(error, Stalled)
    ]
    problems: list[Problem] = []
    for ref, reason, message in found:
        wanted = desired.get(ref)
        problems.append(
            Problem(
                path=getattr(wanted, "path", PurePosixPath(".")),
                line=getattr(wanted, "line", 0),
                pointer="",
                reason=reason,
                message=message,
                reference=ref,
            )
        )
    return problems


def reported(problem: Problem, folder: str) -> ReportedProblem:
    """With the path as it is in the repository, wherever in it the deployed folder is."""
    return ReportedProblem(
        path=str(PurePosixPath(folder, problem.path)),
        line=problem.line,
        pointer=problem.pointer,
        reason=problem.reason,
        message=problem.message,
    )
