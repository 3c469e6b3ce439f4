"""A controller as a process: its cluster opened, its devices beside it, until it is ended."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconciler.adapters import kube
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, JsonObject, Resource
from reconciler.core.pacing import Rate
from reconciler.core.repositories import decode_repository
from reconciler.core.scripts import decode_script
from reconciler.errors import ObjectInvalid
from reconciler.main import logs, secretfiles
from reconciler.main.assembly import Controller
from reconciler.main.backing import shared
from reconciler.main.simulation import Driving, simulated
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.settings import ClusterKind, Settings

log = logging.getLogger(__name__)

# Nearly all that a controller holds are records without cycles, which live for long: the usual
# (700, 10, 10) would look through all of them again and again while they come.
COLLECTED_AFTER = (10_000, 10, 50)


def validate(resource: Resource, document: JsonObject) -> None:
    """What an API server's schema does for us, for the embedded cluster."""
    if resource == SCRIPTS:
        problem = decode_script({**document, "metadata": _identified(document)}).problem
    elif resource == SCRIPT_REPOSITORIES:
        problem = decode_repository({**document, "metadata": _identified(document)}).problem
    else:
        return
    if problem:
        raise ObjectInvalid(problem)


def _identified(document: JsonObject) -> JsonObject:
    metadata = document.get("metadata")
    return {"uid": "new", **(metadata if isinstance(metadata, dict) else {})}


@asynccontextmanager
async def open_cluster(settings: Settings, clock: Clock) -> AsyncIterator[Cluster]:
    cluster: Cluster
    if settings.cluster is ClusterKind.KUBERNETES:
        kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
        cluster = await kube.connect(
            kubeconfig=kubeconfig,
            context=settings.context,
            rate=Rate(settings.kube_api_qps, settings.kube_api_burst),
        )
    else:
        cluster = await EmbeddedCluster.open(
            settings.data / "cluster", clock=clock, validate=validate
        )
    try:
        if settings.secrets is not None and isinstance(cluster, EmbeddedCluster):
            await secretfiles.keep(cluster, settings.secrets, settings.namespace)
        yield cluster
    finally:
        await cluster.close()


@asynccontextmanager
async def _devices(cluster: Cluster, clock: Clock, driving: Driving | None) -> AsyncIterator[None]:
    """Where there is no KubeEdge, devices are simulated or behind a broker."""
    if isinstance(cluster, EmbeddedCluster):
        async with simulated(cluster, clock, driving):
            yield
    else:
        yield


async def controller(settings: Settings) -> None:
    """Serve until cancelled. Raises `Stalled` for what a person must mend first."""
    logs.configure(settings)
    gc.set_threshold(*COLLECTED_AFTER)
    clock = SystemClock()
    async with shared(settings, clock) as backing, open_cluster(settings, clock) as cluster:
        instance = Controller(settings, cluster, clock, backing)
        async with instance.running(), _devices(cluster, clock, instance.driving):
            gc.freeze()
            log.info(
                "serving",
                extra={
                    "web": str(instance.addresses.web),
                    "grpc": str(instance.addresses.grpc),
                    "cluster": settings.cluster.value,
                },
            )
            await asyncio.Event().wait()
