"""Looking at a cluster without changing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reconciler.adapters import kube
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.embedded import EmbeddedCluster
from reconciler.api.scriptrepository import ApplyPolicy, DriftPolicy, PrunePolicy
from reconciler.core import ownership, pruning
from reconciler.core import plan as planning
from reconciler.core.manifests import ManifestSet
from reconciler.core.objects import (
    LABEL_REPOSITORY_UID,
    SCRIPT_REPOSITORIES,
    JsonObject,
    ObjectKey,
    Reference,
    Resource,
    key_of,
    mapping,
    text,
)
from reconciler.core.repositories import decode_repository
from reconciler.errors import ObjectNotFound
from reconciler.ports.cluster import Cluster
from reconciler.settings import ClusterKind, Settings


async def plan(settings: Settings, name: str, manifests: ManifestSet) -> planning.Plan:
    """What a controller would do if `manifests` were the next revision of repository `name`.

    A repository that the cluster does not have yet is planned for as a new one, which owns nothing
    and prunes nothing. Raises what the cluster raises.
    """
    cluster: Cluster
    if settings.cluster is ClusterKind.KUBERNETES:
        kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
        cluster = await kube.connect(kubeconfig=kubeconfig, context=settings.context)
    else:
        cluster = await EmbeddedCluster.open(
            settings.data / "cluster", clock=SystemClock(), read_only=True
        )
    try:
        return await _plan(settings, cluster, name, manifests)
    finally:
        await cluster.close()


async def _plan(
    settings: Settings, cluster: Cluster, name: str, manifests: ManifestSet
) -> planning.Plan:
    served = await cluster.resources()
    if settings.cluster is ClusterKind.KUBERNETES:
        served = planning.writable(served)
    key = ObjectKey(settings.namespace, name)
    uid, prune, drift = "", PrunePolicy(), DriftPolicy()
    owns: frozenset[str] = frozenset()
    try:
        record = decode_repository(await cluster.get(SCRIPT_REPOSITORIES, key))
        uid = record.uid
        if record.spec is not None:
            prune, drift = record.spec.prune, record.spec.drift
            if settings.cluster is ClusterKind.KUBERNETES:
                owns = ownership.kinds(prune, record.spec.deletion_policy)
            if record.spec.apply is ApplyPolicy.NONE:
                return planning.Plan((), ())
    except ObjectNotFound:
        pass
    live: dict[Reference, JsonObject | None] = {}
    for resource in sorted(served, key=str):
        for obj in await _all(cluster, resource):
            live[Reference(resource.kind, *key_of(obj))] = obj
    inventory = [ref for ref, obj in live.items() if uid and _owner(obj) == uid]
    made = planning.make(
        manifests.desired,
        repository=planning.Repository(
            key=key,
            uid=uid,
            revision="",
            served=served,
            prune=prune,
            drift=drift,
            now=SystemClock().now(),
            owns=owns,
            alive=await _repositories(cluster),
        ),
        desired=manifests.desired,
        live=live,
        inventory=inventory,
        held=manifests.held,
        prune_safe=manifests.prune_safe,
    )
    owned = Counter(ref.kind for ref in inventory)
    return pruning.limited(made, prune, owned.__getitem__)[0]


async def _repositories(cluster: Cluster) -> frozenset[str]:
    found = await _all(cluster, SCRIPT_REPOSITORIES)
    return frozenset(text(mapping(obj.get("metadata")).get("uid")) for obj in found)


async def _all(cluster: Cluster, resource: Resource) -> Sequence[JsonObject]:
    objects: list[JsonObject] = []
    token: str | None = None
    while True:
        page = await cluster.list_page(resource, continue_token=token)
        objects += [
            {
                **obj,
                "kind": resource.kind,
                "apiVersion": obj.get("apiVersion", resource.api_version),
            }
            for obj in page.items
        ]
        token = page.continue_token
        if token is None:
            return objects


def _owner(obj: JsonObject | None) -> str:
    metadata = mapping(obj.get("metadata")) if obj else {}
    return text(mapping(metadata.get("labels")).get(LABEL_REPOSITORY_UID))
