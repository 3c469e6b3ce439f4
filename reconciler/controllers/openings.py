"""Repositories that are open: what this process holds of each while it reconciles it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from reconciler.api.scriptrepository import DriftPolicy, ScriptRepositorySpec
from reconciler.controllers import secrets, statustargets
from reconciler.controllers.revisions import Revisions
from reconciler.controllers.statuscommits import StatusTarget
from reconciler.controllers.verification import Verifier
from reconciler.core.grants import Granting
from reconciler.core.objects import ObjectKey, Reference
from reconciler.core.repositories import RepositoryRecord
from reconciler.errors import ScriptOpsError
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.ports.git import Git, Remote
from reconciler.ports.registry import ArtifactRef, Registry

log = logging.getLogger(__name__)

# A remote that does not answer is asked again after this, and then ever more rarely.
WATCH_RETRY = 5.0


@dataclass(slots=True)
class Opened:
    """What is known of one repository in this process."""

    uid: str
    spec: ScriptRepositorySpec
    remote: Remote
    target: StatusTarget | None
    notes: StatusTarget | None
    revisions: Revisions
    watch: asyncio.Task[None]
    # Objects to plan for: changed in git or by somebody, skipped before, or not written yet.
    wanted: set[Reference] = field(default_factory=set)
    # Whether all that carries our label is to be compared with git, not only what changed.
    is_whole: bool = False
    synced: bool = False
    # Whether others apply what is in it.
    is_left: bool = False
    # Whether it is to be read from the beginning.
    is_doubted: bool = False
    # What a revision is just being applied to, and the policies that this was last done with.
    applying: frozenset[Reference] = frozenset()
    policies: tuple[DriftPolicy, frozenset[str]] | None = None
    # Commits that the mirror holds for rollbacks.
    kept: frozenset[str] = frozenset()


class Openings:
    """Opens the source of a repository when it is first asked for, and again when its spec points
    elsewhere; `wake` is told when something happens to a local one.
    """

    def __init__(
        self,
        cluster: Cluster,
        git: Git,
        registry: Registry,
        grants: Granting,
        *,
        clock: Clock,
        cluster_name: str,
        replace_versions: bool,
        allow_repositories: bool,
        in_use: Callable[[ArtifactRef], bool],
        wake: Callable[[ObjectKey], None],
    ) -> None:
        self._cluster = cluster
        self._git = git
        self._registry = registry
        self._grants = grants
        self._clock = clock
        self._cluster_name = cluster_name
        self._replace_versions = replace_versions
        self._allow_repositories = allow_repositories
        self._in_use = in_use
        self._wake = wake
        self._opened: dict[ObjectKey, Opened] = {}

    def get(self, key: ObjectKey) -> Opened | None:
        return self._opened.get(key)

    def items(self) -> Iterable[tuple[ObjectKey, Opened]]:
        return self._opened.items()

    def doubt(self, key: ObjectKey) -> None:
        """Begin anew with the next `open`, as after a start."""
        state = self._opened.get(key)
        if state is not None:
            state.is_doubted = True

    async def open(self, record: RepositoryRecord, spec: ScriptRepositorySpec) -> Opened:
        """Raises what reading its Secrets raises, and `SourceInvalid` for an impossible address."""
        branch = statustargets.branch(spec, self._cluster_name)
        state = self._opened.get(record.key)
        remote = Remote(spec.url, await self._secrets(record.key.namespace, spec))
        options = await statustargets.options(self._cluster, record.key.namespace, spec)
        target = statustargets.target(remote, branch, spec, options) if branch else None
        notes = statustargets.notes(remote, spec, options)
        scope = self._grants.scope(
            record.key,
            spec,
            repositories=self._allow_repositories,
            cluster=self._cluster_name,
        )
        same = (record.uid, remote, _identity(spec), scope)
        is_same = state is not None and same == (
            state.uid,
            state.remote,
            _identity(state.spec),
            state.revisions.scope,
        )
        if state is not None and is_same and not state.is_doubted:
            state.spec, state.target, state.notes = spec, target, notes
            return state
        self.close(record.key)
        source = self._git.source(remote)
        revisions = Revisions(
            record.key,
            source,
            self._registry,
            branch=spec.ref,
            folder=PurePosixPath(spec.path or "."),
            scope=scope,
            replace_versions=self._replace_versions,
            in_use=self._in_use,
            verifier=Verifier(self._cluster, record.key.namespace, spec.verify, source)
            if spec.verify is not None
            else None,
        )
        watch = asyncio.create_task(self._watch(record.key, revisions))
        state = self._opened[record.key] = Opened(
            record.uid, spec, remote, target, notes, revisions, watch
        )
        return state

    async def _watch(self, key: ObjectKey, revisions: Revisions) -> None:
        while True:
            try:
                async for _ in revisions.changes():
                    self._wake(key)
            except ScriptOpsError as error:
                log.debug("watch of a local repository ended", extra={"error": str(error)})
            await self._clock.sleep(WATCH_RETRY)

    def close(self, key: ObjectKey) -> None:
        state = self._opened.pop(key, None)
        if state is not None:
            state.watch.cancel()
            state.revisions.close()

    async def _secrets(
        self, namespace: str, spec: ScriptRepositorySpec
    ) -> Mapping[str, str] | None:
        if spec.credentials is None:
            return None
        key = ObjectKey(namespace, spec.credentials.name)
        return await secrets.read(self._cluster, key, field="spec.credentials.name")

    async def stop(self) -> None:
        tasks = [state.watch for state in self._opened.values()]
        for key in tuple(self._opened):
            self.close(key)
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _identity(spec: ScriptRepositorySpec) -> tuple[object, ...]:
    """The part of a spec that cannot change under a repository that is being read."""
    namespaces = tuple(spec.namespaces)
    return (spec.url, spec.ref, spec.path, namespaces, spec.service_account_name, spec.verify)
