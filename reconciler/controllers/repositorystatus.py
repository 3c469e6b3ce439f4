"""What is said of a ScriptRepository, and its one writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from reconciler.api.scriptrepository import Problem as ReportedProblem
from reconciler.api.scriptrepository import ScriptRepositoryStatus
from reconciler.controllers.applying import Applied
from reconciler.controllers.events import Events
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.statuses import status_patch
from reconciler.core import conditions, plan, repositories
from reconciler.core.conditions import Verdict
from reconciler.core.objects import SCRIPT_REPOSITORIES, STATUS_FIELD_MANAGER, Reference
from reconciler.core.problems import Problem
from reconciler.core.repositories import RepositoryRecord
from reconciler.errors import Conflict, ObjectNotFound, ScriptOpsError, Stalled, Waiting
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.ports.git import CommitId


class RepositoryStatuses:
    """Writes status only where it differs from what is there, and tells of transitions."""

    def __init__(self, cluster: Cluster, events: Events, *, clock: Clock, metrics: Metrics) -> None:
        self._cluster = cluster
        self._events = events
        self._clock = clock
        self._metrics = metrics
        # Ahead of the watch: what we wrote last, by UID.
        self._written: dict[str, ScriptRepositoryStatus] = {}
        self._commits: dict[str, CommitId] = {}

    def committed(self, uid: str, commit: CommitId) -> None:
        """The newest commit on its status ref; told with the next status, not by one of its own."""
        self._commits[uid] = commit

    def latest(self, record: RepositoryRecord) -> ScriptRepositoryStatus:
        """What the cluster has, as far as we wrote it or saw it."""
        return self._written.get(record.uid, record.status)

    async def report(
        self,
        record: RepositoryRecord,
        verdict: Verdict,
        applied: repositories.Applied | None,
    ) -> None:
        """With `applied` None, what was reached before stays as it is."""
        before = self.latest(record)
        status = repositories.status_of(
            replace(record, status=before),
            verdict,
            applied,
            status_commit=self._commits.get(record.uid, ""),
            now=self._clock.now(),
        )
        if status == before:
            return
        body = status.model_dump(mode="json", exclude_none=True)
        try:
            await self._cluster.json_patch(
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
        self._events.transition(
            SCRIPT_REPOSITORIES, record.key, record.uid, before.conditions, status.conditions
        )


def verdict_of(error: ScriptOpsError) -> Verdict:
    if isinstance(error, Stalled):
        return conditions.stalled(error.reason, str(error))
    if isinstance(error, Waiting):
        return conditions.reconciling(error.reason, str(error))
    return conditions.reconciling(error.reason, f"{error}; trying again")


def verdict(
    revision: str, problems: Sequence[Problem], failed: Sequence[ScriptOpsError]
) -> Verdict:
    if failed:
        return conditions.reconciling(
            failed[0].reason, f"{len(failed)} objects not applied yet: {failed[0]}"
        )
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return conditions.stalled(problems[0].reason, f"{problems[0]}{more}")
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
