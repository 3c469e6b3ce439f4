"""Status back to git as notes: on each commit of the rules one line that says what became of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from reconciler.controllers.events import Events
from reconciler.controllers.loop import KeyLoop
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.outcome import Result
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.progress import Progress
from reconciler.controllers.statuscommits import StatusTarget
from reconciler.core import notes
from reconciler.core.objects import SCRIPT_REPOSITORIES, ObjectKey
from reconciler.core.repositories import RepositoryRecord
from reconciler.errors import ScriptOpsError
from reconciler.ports.clock import Clock
from reconciler.ports.git import CommitId, Git

# Commits that follow each other closely, and what is said of them, go with one push.
SETTLE = 0.2
# Lines that wait while a push fails; the oldest make place.
MOST_WAITING = 1_000
WORKERS = 4


@dataclass(slots=True)
class _Notes:
    """Of one repository: what waits, and what was said last."""

    uid: str
    waiting: dict[CommitId, str] = field(default_factory=dict)
    last: tuple[CommitId, str] | None = None


class StatusNotes:
    """Notes what has been settled: that a commit is applied, or why it cannot be.

    While a push fails the newest `most_waiting` lines are kept; it is tried again with backoff, or
    with the next commit where a person has to act. A restart notes the newest commit again, which
    is no change. Not promised: a line on commits that were passed over because a newer one had
    come.
    """

    def __init__(
        self,
        git: Git,
        target: Callable[[ObjectKey], StatusTarget | None],
        events: Events,
        precedence: Precedence,
        *,
        clock: Clock,
        metrics: Metrics,
        cluster_name: str,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """`target` says where the notes of a repository are, None for nowhere."""
        self._git = git
        self._target = target
        self._events = events
        self._precedence = precedence
        self._cluster_name = cluster_name
        self._most_waiting = most_waiting
        self._metrics = metrics
        self._notes: dict[ObjectKey, _Notes] = {}
        self.loop: KeyLoop[ObjectKey] = KeyLoop(
            "StatusNotes", self._reconcile, clock=clock, metrics=metrics, workers=WORKERS
        )

    def progressed(self, progress: Progress) -> None:
        record, verdict = progress.record, progress.verdict
        if record.spec is None or record.spec.status_notes is None:
            self._notes.pop(record.key, None)
            return
        if verdict is None or verdict.status == "Unknown":
            return
        known = self._notes.get(record.key)
        if known is None or known.uid != record.uid:
            known = self._notes[record.key] = _Notes(record.uid)
        commit = CommitId(progress.commit)
        line = notes.summary(verdict, progress.counts, progress.problems)
        if known.last == (commit, line):
            return
        known.last = (commit, line)
        known.waiting[commit] = line
        while len(known.waiting) > self._most_waiting:
            del known.waiting[next(iter(known.waiting))]
            self._metrics.dropped_total.labels("note").inc()
        self.loop.add_after(record.key, SETTLE)

    def let_go(self, record: RepositoryRecord) -> None:
        """Another replica notes what becomes of commits."""
        self._notes.pop(record.key, None)

    async def stop(self) -> None:
        """Push what waits; a push that fails is not tried again."""
        for key in tuple(self._notes):
            with suppress(ScriptOpsError):
                await self._push(key)

    async def _reconcile(self, key: ObjectKey) -> Result:
        await self._precedence.told()
        await self._push(key)
        return Result()

    async def _push(self, key: ObjectKey) -> None:
        known, target = self._notes.get(key), self._target(key)
        if target is None:
            # The repository is gone.
            self._notes.pop(key, None)
        if known is None or target is None or not known.waiting:
            return
        batch = dict(known.waiting)
        commits = ", ".join(commit[:10] for commit in islice(batch, 3))
        more = f" and {len(batch) - 3} more" if len(batch) > 3 else ""
        try:
            ref = self._git.notes_ref(target.remote, target.ref, target.options)
            try:
                await ref.put(
                    batch,
                    owner=notes.owner(self._cluster_name, key),
                    message=f"Status of {commits}{more} [skip ci]",
                    timeout=target.timeout,
                )
            finally:
                ref.close()
        except ScriptOpsError as error:
            message = f"notes are kept and pushed later: {error}"
            self._events.warning(SCRIPT_REPOSITORIES, key, known.uid, error.reason, message)
            raise
        for commit, line in batch.items():
            # What became newer while it was pushed goes with the next one.
            if known.waiting.get(commit) == line:
                del known.waiting[commit]
