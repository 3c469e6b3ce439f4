"""Status back to git: one writer per (URL, ref), in batches, on a ref that nothing reads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import PurePosixPath

import yaml

from reconciler.api.meta import API_VERSION
from reconciler.api.script import ScriptStatus
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.precedence import Precedence
from reconciler.core.objects import ObjectKey
from reconciler.core.statusfiles import key_of, status_path
from reconciler.errors import PushRefused, ScriptOpsError
from reconciler.ports.clock import Clock
from reconciler.ports.git import (
    DEFAULT_STATUS_OPTIONS,
    CommitId,
    Git,
    Remote,
    StatusOptions,
    StatusRef,
)

log = logging.getLogger(__name__)

# What changes together is committed together: a push costs a process and a round trip.
BATCH_SECONDS = 0.1
# Between two pushes: while many Scripts change, pushes take at most a tenth of a core.
REST_SECONDS = 0.4
# Files in one commit; a first sync of 10,000 Scripts is then some 20 commits, none of them large.
BATCH_FILES = 500
# Scripts of one commit are of one revision, or of a few while a revision is applied.
TRAILERS = 10
# Files written between two turns of the event loop: hundreds take a tenth of a second, in which no
# device change would be seen.
FILES_AT_ONCE = 2
# libyaml's writes the same, ten times as fast.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
FIRST_RETRY = 1.0
LAST_RETRY = 300.0


@dataclass(frozen=True, slots=True)
class StatusTarget:
    """Where the status of a repository's Scripts is committed, and how patient a push is."""

    remote: Remote
    ref: str
    timeout: timedelta
    results_interval: timedelta
    options: StatusOptions = DEFAULT_STATUS_OPTIONS


@dataclass(slots=True)
class _Writer:
    ref: StatusRef
    target: StatusTarget
    # None removes. What could not be pushed stays, a newer status replaces it.
    pending: dict[ObjectKey, ScriptStatus | None] = field(default_factory=dict)
    # Results only: wait here until their time comes.
    results: dict[ObjectKey, ScriptStatus] = field(default_factory=dict)
    results_due: float = float("inf")
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    notify: set[Callable[[CommitId], None]] = field(default_factory=set)
    # Whether what an earlier process left behind has been looked for.
    is_swept: bool = False


# Of kept versions: they are in the branch that is deployed, as they were.
_SPECS = {"rollout": {"versions": {"__all__": {"spec"}}}}


def document(key: ObjectKey, status: ScriptStatus) -> bytes:
    """A status file: the object as `kubectl get -o yaml` would show it, without its spec."""
    content = {
        "apiVersion": API_VERSION,
        "kind": "Script",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "status": status.model_dump(mode="json", exclude_none=True, exclude=_SPECS),
    }
    text: str = yaml.dump(content, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=100)
    return text.encode()


async def _files(
    batch: Mapping[ObjectKey, ScriptStatus | None],
) -> dict[PurePosixPath, bytes | None]:
    files: dict[PurePosixPath, bytes | None] = {}
    for number, (key, status) in enumerate(batch.items()):
        files[status_path(key)] = None if status is None else document(key, status)
        if number % FILES_AT_ONCE == 0:
            await asyncio.sleep(0)
    return files


def _trailers(batch: Mapping[ObjectKey, ScriptStatus | None]) -> str:
    """Which commits of the rules the statuses speak of."""
    revisions = {status.revision for status in batch.values() if status is not None}
    commits = sorted({revision.rpartition(":")[2] for revision in revisions} - {""})
    lines = [f"Source-Commit: {commit}" for commit in commits[:TRAILERS]]
    return "\n\n" + "\n".join(lines) if lines else ""


def _is_unknown(_key: ObjectKey) -> bool:
    """Nothing is removed unless somebody knows that it is gone."""
    return True


def _nobody_asks(_target: StatusTarget, _error: Exception) -> None:
    """It is in the log."""


class StatusCommits:
    """Commits transitions at once, results and counters at the repository's `resultsInterval`.

    Nothing is lost while a push fails: it is kept, newest content per Script, and tried again with
    backoff. A ref that a hook or a protected branch refuses is tried ever more rarely, and said.
    """

    def __init__(self, git: Git, precedence: Precedence, *, clock: Clock, metrics: Metrics) -> None:
        self._git = git
        self._precedence = precedence
        self._clock = clock
        self._metrics = metrics
        self._writers: dict[tuple[str, str], _Writer] = {}
        # Told of each commit that was pushed: the ref, and its id.
        self.listeners: list[Callable[[str, CommitId], None]] = []
        # Asked of a file that nobody wishes for: whether there is such a Script.
        self.is_live: Callable[[ObjectKey], bool] = _is_unknown
        # Told of each push that failed: where to, and why.
        self.on_failure: Callable[[StatusTarget, Exception], None] = _nobody_asks

    def put(
        self,
        target: StatusTarget,
        key: ObjectKey,
        status: ScriptStatus | None,
        *,
        transition: bool,
        notify: Callable[[CommitId], None] | None = None,
    ) -> None:
        """`status` None removes the file. Raises `SourceInvalid` for an impossible target."""
        writer = self._writer(target)
        if notify is not None:
            writer.notify.add(notify)
        if status is None or transition:
            writer.pending[key] = status
            writer.results.pop(key, None)
        elif key in writer.pending:
            writer.pending[key] = status
        else:
            if not writer.results:
                interval = target.results_interval.total_seconds()
                writer.results_due = self._clock.monotonic() + interval
            writer.results[key] = status
        writer.wake.set()

    def let_go(self, target: StatusTarget, is_ours: Callable[[ObjectKey], bool]) -> None:
        """Another replica writes there: of what waits only the Scripts that are ours stay."""
        writer = self._writers.get((target.remote.url, target.ref))
        if writer is not None:
            writer.pending = {k: s for k, s in writer.pending.items() if is_ours(k)}
            writer.results = {k: s for k, s in writer.results.items() if is_ours(k)}

    async def stop(self) -> None:
        """End the writers and push what waits, all of it; a push that fails is not tried again."""
        await asyncio.gather(*(self._stop(writer) for writer in self._writers.values()))

    async def _stop(self, writer: _Writer) -> None:
        if writer.task is not None:
            writer.task.cancel()
            await asyncio.wait((writer.task,))
        writer.results_due = self._clock.monotonic()
        self._take_results(writer)
        try:
            while writer.pending:
                await self._push(writer)
        except ScriptOpsError as error:
            self._failed(writer, error)
        writer.ref.close()

    def _writer(self, target: StatusTarget) -> _Writer:
        place = (target.remote.url, target.ref)
        writer = self._writers.get(place)
        if writer is None:
            writer = _Writer(self._open(target), target)
            self._writers[place] = writer
            writer.task = asyncio.create_task(self._run(writer))
        elif (writer.target.remote, writer.target.options) != (target.remote, target.options):
            # Other credentials for the same place.
            writer.ref.close()
            writer.ref = self._open(target)
        writer.target = target
        return writer

    def _open(self, target: StatusTarget) -> StatusRef:
        return self._git.status_ref(target.remote, target.ref, target.options)

    async def _run(self, writer: _Writer) -> None:
        retry = FIRST_RETRY
        while True:
            await self._wait(writer)
            await self._clock.sleep(BATCH_SECONDS)
            await self._precedence.told()
            try:
                await self._push(writer)
                retry = FIRST_RETRY
                await self._clock.sleep(REST_SECONDS)
            except Exception as error:  # noqa: BLE001 - one writer must not end the others
                self._failed(writer, error)
                self.on_failure(writer.target, error)
                await self._clock.sleep(retry)
                retry = min(retry * 2, LAST_RETRY)

    def _failed(self, writer: _Writer, error: Exception) -> None:
        label = "refused" if isinstance(error, PushRefused) else "error"
        self._metrics.status_commits_total.labels(label).inc()
        log.warning(
            "status not pushed, kept",
            extra={
                "ref": writer.target.ref,
                "reason": getattr(error, "reason", "InternalError"),
                "error": str(error),
                "files": len(writer.pending),
            },
            exc_info=None if isinstance(error, ScriptOpsError) else error,
        )

    async def _wait(self, writer: _Writer) -> None:
        """Until there is something to push now."""
        while True:
            self._take_results(writer)
            if writer.pending:
                return
            writer.wake.clear()
            left = writer.results_due - self._clock.monotonic()
            sleeper = asyncio.ensure_future(
                self._clock.sleep(left) if writer.results else asyncio.Event().wait()
            )
            waker = asyncio.ensure_future(writer.wake.wait())
            try:
                await asyncio.wait((sleeper, waker), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeper.cancel()
                waker.cancel()

    def _take_results(self, writer: _Writer) -> None:
        """Results whose time has come go with the next push."""
        if writer.results_due <= self._clock.monotonic():
            writer.pending.update(writer.results)
            writer.results = {}

    async def _sweep(self, writer: _Writer) -> None:
        """Have removed what an earlier process left when it ended before it could remove it."""
        for path in await writer.ref.paths(timeout=writer.target.timeout):
            key = key_of(path)
            if key is None or key in writer.results or self.is_live(key):
                continue
            writer.pending.setdefault(key, None)
        writer.is_swept = True

    async def _push(self, writer: _Writer) -> None:
        if not writer.is_swept:
            await self._sweep(writer)
        batch = dict(islice(writer.pending.items(), BATCH_FILES))
        names = ", ".join(key.name for key in list(batch)[:3])
        more = f" and {len(batch) - 3} more" if len(batch) > 3 else ""
        commit = await writer.ref.push(
            await _files(batch),
            message=f"Status of {names}{more} [skip ci]{_trailers(batch)}",
            timeout=writer.target.timeout,
        )
        for key, status in batch.items():
            # What became newer while it was pushed goes with the next one.
            if key in writer.pending and writer.pending[key] is status:
                del writer.pending[key]
        self._metrics.status_commits_total.labels("pushed" if commit else "unchanged").inc()
        if commit is not None:
            for notify in writer.notify:
                notify(commit)
            for listener in self.listeners:
                listener(writer.target.ref, commit)
