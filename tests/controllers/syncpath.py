"""The sync path of a controller over fakes: repositories in memory, a cluster that fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import Any

from prometheus_client import CollectorRegistry

from reconciler.controllers.events import Events
from reconciler.controllers.leading import ALONE, Leadership
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.precedence import Precedence
from reconciler.controllers.progress import Synced
from reconciler.controllers.repositories import Repositories
from reconciler.controllers.revisions import Revisions
from reconciler.controllers.statuscommits import StatusCommits
from reconciler.controllers.world import World
from reconciler.core.admission import Scope
from reconciler.core.grants import NO_GRANTS, Granting
from reconciler.core.models import decode_model
from reconciler.core.objects import (
    DEVICE_MODELS_V1BETA1,
    DEVICES_V1BETA1,
    SCRIPT_REPOSITORIES,
    SCRIPTS,
    ObjectKey,
    Resource,
    mapping,
)
from reconciler.core.repositories import decode_repository
from reconciler.core.scripts import decode_script
from reconciler.core.store import Entry, Store, identity_of
from reconciler.core.twins import decode_device
from reconciler.ports.git import Remote
from reconciler.ports.registry import ArtifactRef
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import FakeCluster
from tests.fakes.clusters import FakeClusters
from tests.fakes.git import FakeGit
from tests.fakes.registry import FakeRegistry

TEAM = "team"
URL = "https://git.example/rules.git"
RULES = ObjectKey(TEAM, "rules")
SERVED = frozenset({SCRIPTS, SCRIPT_REPOSITORIES, DEVICES_V1BETA1, DEVICE_MODELS_V1BETA1})


class Desk:
    """One repository, and a controller whose copy of the cluster moves when a test says `see`."""

    def __init__(
        self,
        *,
        before: Desk | None = None,
        grants: Granting = NO_GRANTS,
        leadership: Leadership = ALONE,
    ) -> None:
        """`before` is the controller that ran before a restart."""
        self.clock: FakeClock = before.clock if before else FakeClock()
        self.cluster: FakeCluster = before.cluster if before else FakeCluster(self.clock)
        self.git: FakeGit = before.git if before else FakeGit()
        self.remote = self.git.add(URL, is_local=False)
        self.registry: FakeRegistry = before.registry if before else FakeRegistry()
        self.world = World()
        self.in_use: set[ArtifactRef] = set()
        self.published: list[Collection[ArtifactRef]] = []
        self.synced: list[ObjectKey] = []
        self.told: list[Synced] = []
        self.clusters = FakeClusters()
        metrics = Metrics(CollectorRegistry())
        precedence = Precedence()
        commits = StatusCommits(self.git, precedence, clock=self.clock, metrics=metrics)
        self.repositories = Repositories(
            self.world,
            self.cluster,
            self.git,
            self.registry,
            commits,
            Events(self.cluster, precedence, clock=self.clock, metrics=metrics),
            precedence,
            clock=self.clock,
            metrics=metrics,
            cluster_name="here",
            replace_versions=False,
            grants=grants,
            leadership=leadership,
            clusters=self.clusters,
            served=lambda: SERVED,
            in_use=self.in_use.__contains__,
            published=self.published.append,
            synced=self.synced.append,
        )
        self.repositories.listeners.append(self.told.append)

    def revisions(self, folder: str = ".", *, replace_versions: bool = False) -> Revisions:
        """A reader of the repository, alone."""
        return Revisions(
            RULES,
            self.git.source(Remote(URL)),
            self.registry,
            branch="main",
            folder=PurePosixPath(folder),
            scope=Scope(namespace=TEAM),
            replace_versions=replace_versions,
            in_use=self.in_use.__contains__,
        )

    @asynccontextmanager
    async def open(self, **spec: Any) -> AsyncIterator[None]:
        """Reconcile one ScriptRepository inside."""
        await self._operator(spec)
        drift = self.repositories.drift
        loops = [self.repositories.loop, drift.loop, drift.statuses_loop]
        loop = asyncio.gather(*(it.run() for it in loops))
        try:
            await self.see()
            yield
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await self.repositories.stop()

    async def open_again(self, **spec: Any) -> None:
        """The operator says something else of it."""
        await self._operator(spec)
        await self.see()
        await self.look()

    async def _operator(self, spec: Mapping[str, Any]) -> None:
        document: dict[str, Any] = {
            "apiVersion": "hit.edu.cn/v1alpha1",
            "kind": "ScriptRepository",
            "metadata": {"name": RULES.name, "namespace": TEAM},
            "spec": {"url": URL, "interval": "60s", "statusRef": "", **spec},
        }
        await self.cluster.real.apply(SCRIPT_REPOSITORIES, document, field_manager="operator")

    async def see(self) -> None:
        """Let the copy catch up with the cluster, and tell as a watch would."""
        for delta in await self._fill(
            SCRIPT_REPOSITORIES, self.world.repositories, decode_repository
        ):
            self.repositories.changed(delta)
        for delta in await self._fill(SCRIPTS, self.world.scripts, decode_script):
            self.repositories.drift.script_changed(delta)
        for delta in await self._fill(DEVICES_V1BETA1, self.world.devices, decode_device):
            self.repositories.drift.device_changed(delta)
        for delta in await self._fill(DEVICE_MODELS_V1BETA1, self.world.models, decode_model):
            self.repositories.drift.model_changed(delta)
        await self.clock.settle()

    async def look(self) -> None:
        """An interval later, with what came of it."""
        await self.clock.advance(60.0)
        await self.see()

    async def _fill(self, resource: Resource, store: Store[Any], decode: Any) -> Any:
        page = await self.cluster.real.list_page(resource, limit=0)
        entries = {}
        for obj in page.items:
            key, uid, version = identity_of(obj)
            held = store.entry(key)
            same = held is not None and (held.uid, held.resource_version) == (uid, version)
            entries[key] = held if held and same else Entry(uid, version, decode(obj))
        return store.replace(entries)

    async def live(self, resource: Resource = SCRIPTS) -> dict[str, Mapping[str, Any]]:
        """What the cluster has, by name."""
        page = await self.cluster.real.list_page(resource, limit=0)
        return {str(mapping(o["metadata"])["name"]): o for o in page.items}

    async def status(self) -> Mapping[str, Any]:
        live = await self.cluster.real.get(SCRIPT_REPOSITORIES, RULES)
        return mapping(live.get("status"))

    async def verdict(self) -> tuple[str, str]:
        """Status and reason of Ready."""
        ready = (await self.status())["conditions"][0]
        return ready["status"], ready["reason"]
