"""Controllers that share the work: who leads what, and what is handed over with it."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.adapters import kube
from reconciler.adapters.peers import HttpPeers
from reconciler.controllers.commitstatuses import CommitStatuses
from reconciler.controllers.deliveries import Deliveries
from reconciler.controllers.leading import Leadership, Leading
from reconciler.controllers.meanwhile import Meanwhile
from reconciler.controllers.metrics import Metrics
from reconciler.controllers.mqtttriggers import MqttTriggers
from reconciler.controllers.repositories import Repositories
from reconciler.controllers.scripts import Scripts
from reconciler.controllers.statusnotes import StatusNotes
from reconciler.controllers.triggering import Triggering
from reconciler.controllers.world import World
from reconciler.core.leases import Timing
from reconciler.core.repositories import RepositoryRecord
from reconciler.core.scripts import ScriptRecord
from reconciler.core.store import Delta
from reconciler.errors import Stalled
from reconciler.main.backing import Backing
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.settings import Address, Settings

# What an address is when it stands for all of the machine's.
_ANYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not listened on


def leadership(settings: Settings, cluster: Cluster, clock: Clock, metrics: Metrics) -> Leadership:
    """Raises `Stalled` where there is nothing to share the work by."""
    if settings.leases is None:
        return Leadership()
    if not isinstance(cluster, kube.KubeCluster):
        raise Stalled(
            "an embedded cluster has one controller; --leases takes --cluster kubernetes",
            reason="SettingsInvalid",
        )
    return Leading(
        cluster.leases(namespace=settings.leases),
        me=f"{socket.gethostname()}_{secrets.token_hex(4)}",
        shards=settings.shards,
        clock=clock,
        metrics=metrics,
        timing=Timing.of(settings.lease_seconds),
    )


def peers(settings: Settings) -> HttpPeers | None:
    """The other replicas, where there may be some."""
    if settings.leases is None:
        return None
    return HttpPeers(settings.web_tls.cert if settings.web_tls is not None else None)


def address(settings: Settings, web: Address) -> str:
    """Where other replicas reach the web address that was bound."""
    if settings.advertise is not None:
        return settings.advertise.rstrip("/")
    host = socket.gethostname() if web.host in _ANYWHERE else web.host
    scheme = "http" if settings.web_tls is None else "https"
    return f"{scheme}://{Address(host, web.port)}"


def meanwhile(settings: Settings, leadership: Leadership, clock: Clock) -> Meanwhile | None:
    """What is to be remembered of devices, where another may lead after us or before."""
    if settings.leases is None:
        return None
    # From the last renewal that was seen to the end of the lease, and what may be added to both.
    return Meanwhile(clock, shard_of=leadership.shard, seconds=3 * settings.lease_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """What begins and ends with the leadership of a shard: all that writes, and all that runs."""

    leading: Leading
    world: World
    scripts: Scripts
    repositories: Repositories
    commit_statuses: CommitStatuses
    status_notes: StatusNotes
    mqtt_triggers: MqttTriggers | None
    meanwhile: Meanwhile
    triggering: Triggering
    deliveries: Deliveries
    backing: Backing

    def begin(self, shards: int) -> None:
        """Lead none of so many, and be told by `leading` from now of those that are to be led."""
        self.triggering.before = self.meanwhile.missed
        for shard in range(shards):
            # What this process finds on its disk is of a time before.
            self.lost(shard)
        self.leading.on_gained, self.leading.on_lost = self.gained, self.lost
        self.leading.prepare = self.prepare

    async def prepare(self, shard: int, epoch: int) -> None:
        """Take over what others have kept of its runs, before any more begin."""
        await self.deliveries.lead(shard, at_least=epoch)
        self.deliveries.keep_only({record.uid for record in self.world.scripts})
        mine = {record.uid for record in self._scripts(shard)}
        self.triggering.take_up(await self.backing.refresh(mine))

    def gained(self, shard: int) -> None:
        self.meanwhile.begin(shard, since=self.leading.unled_since(shard))
        for repository in self._repositories(shard):
            self.repositories.gained(repository.key)
        for script in self._scripts(shard):
            self.scripts.gained(script)
            if self.mqtt_triggers is not None:
                self.mqtt_triggers.changed(Delta(script.key, None, script))

    def lost(self, shard: int) -> None:
        self.meanwhile.end(shard)
        for script in self._scripts(shard):
            self.scripts.lost(script)
            if self.mqtt_triggers is not None:
                self.mqtt_triggers.changed(Delta(script.key, script, None))
        for repository in self._repositories(shard):
            self.repositories.lost(repository.key)
            self.commit_statuses.let_go(repository)
            self.status_notes.let_go(repository)

    def _scripts(self, shard: int) -> Iterable[ScriptRecord]:
        return [it for it in self.world.scripts if self.leading.shard(it.key.namespace) == shard]

    def _repositories(self, shard: int) -> Iterable[RepositoryRecord]:
        held = self.world.repositories
        return [it for it in held if self.leading.shard(it.key.namespace) == shard]
