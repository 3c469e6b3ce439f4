"""A ScriptRepository handed out to clusters, and what each of them says of it."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import timedelta

from reconciler.api.clusters import ClusterBinding, ClusterStatus, KubeConfigSecretRef
from reconciler.api.meta import READY, duration
from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.controllers.outcome import Result
from reconciler.controllers.repositorystatus import RepositoryStatuses
from reconciler.controllers.secrets import read_labelled
from reconciler.core import conditions, repositories
from reconciler.core.conditions import Verdict
from reconciler.core.objects import (
    FIELD_MANAGER,
    LABEL_FLEET,
    SCRIPT_REPOSITORIES,
    JsonObject,
    ObjectKey,
    mapping,
    text,
)
from reconciler.core.repositories import RepositoryRecord, decode_repository
from reconciler.errors import (
    ClusterUnavailable,
    ObjectNotFound,
    ScriptOpsError,
    Stalled,
)
from reconciler.ports.cluster import Cluster
from reconciler.ports.clusters import Clusters

log = logging.getLogger(__name__)

# All that is said to one cluster: a read, a write, a read. One that is slower is down for now.
CLUSTER_SECONDS = 20.0
# How soon clusters that are not ready are looked at again, if the interval is longer.
RETRY = timedelta(seconds=10)
UNKNOWN = "Unknown"
# What others say is taken as it is, up to what it can be: a ref and a commit; one word.
LONGEST_REVISION = 512
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,127}")


class Fleet:
    """Puts a ScriptRepository into each of its clusters, side by side, and gathers their words.

    What is handed out is its spec without the bindings: what is deployed there, and with which
    rights, is for the controller there. From a cluster that is bound no more it is taken away, as
    long as the Secret is there that it was reached with. One cluster that is down, or refuses,
    holds up no other.
    """

    def __init__(
        self, cluster: Cluster, clusters: Clusters, statuses: RepositoryStatuses, *, name: str
    ) -> None:
        self._cluster = cluster
        self._clusters = clusters
        self._statuses = statuses
        self._name = name

    async def reconcile(self, record: RepositoryRecord, spec: ScriptRepositorySpec) -> Result:
        found, left = await asyncio.gather(
            asyncio.gather(*(self._visit(record, binding) for binding in spec.clusters)),
            self.take_away(record, spec),
        )
        revisions = {it.revision for it in found}
        told = repositories.Applied(
            revision=revisions.pop() if len(revisions) == 1 else "", clusters=[*found, *left]
        )
        verdict, is_good = _verdict([*found, *left])
        await self._statuses.report(record, verdict, told)
        interval = duration(spec.interval)
        return Result(interval if is_good else min(interval, RETRY))

    async def take_away(
        self, record: RepositoryRecord, spec: ScriptRepositorySpec
    ) -> list[ClusterStatus]:
        """Take it away from clusters that are bound no more; those from which that failed."""
        bound = {binding.name for binding in spec.clusters}
        known = self._statuses.latest(record).clusters
        gone = [it for it in known if it.name not in bound and it.secret_ref]
        left = await asyncio.gather(*(self._taken_away(record, it) for it in gone))
        return [it for it in left if it is not None]

    async def _taken_away(
        self, record: RepositoryRecord, cluster: ClusterStatus
    ) -> ClusterStatus | None:
        assert cluster.secret_ref is not None  # noqa: S101 - who calls has seen to that
        try:
            async with asyncio.timeout(CLUSTER_SECONDS):
                there = await self._open(record.key.namespace, cluster.secret_ref)
                try:
                    await _delete_ours(there, record.key, self._name)
                finally:
                    await there.close()
        except TimeoutError:
            error: ScriptOpsError = ClusterUnavailable(f"no answer within {CLUSTER_SECONDS:.0f} s")
        except ScriptOpsError as other:
            if other.reason == "CredentialsNotFound":
                # So a person says that this cluster is no concern any more.
                return None
            error = other
        else:
            log.info(
                "taken away from a cluster", extra={"key": str(record.key), "cluster": cluster.name}
            )
            return None
        message = (
            f"bound no more, and not taken away: {error}; to leave it as it is there, delete the "
            f"Secret {cluster.secret_ref.name}"
        )
        return cluster.model_copy(
            update={
                "ready": "False" if isinstance(error, Stalled) else UNKNOWN,
                "reason": error.reason,
                "message": conditions.shortened(message),
            }
        )

    async def _visit(self, record: RepositoryRecord, binding: ClusterBinding) -> ClusterStatus:
        try:
            async with asyncio.timeout(CLUSTER_SECONDS):
                return await self._handed_out(record, binding)
        except TimeoutError:
            message = f"no answer within {CLUSTER_SECONDS:.0f} s"
            return _down(record, binding, ClusterUnavailable(message))
        except ScriptOpsError as error:
            return _down(record, binding, error)

    async def _handed_out(self, record: RepositoryRecord, binding: ClusterBinding) -> ClusterStatus:
        there = await self._open(record.key.namespace, binding.kube_config.secret_ref)
        try:
            await self._require_ours(there, record.key)
            live = await there.apply(
                SCRIPT_REPOSITORIES,
                self._document(record),
                field_manager=FIELD_MANAGER,
                force=True,
            )
        except ObjectNotFound as error:
            raise Stalled(
                f"there is no namespace {record.key.namespace}, or no ScriptRepositories, in it; "
                "create them there",
                reason="NotFound",
            ) from error
        finally:
            await there.close()
        return _as_told(binding, live)

    async def _open(self, namespace: str, ref: KubeConfigSecretRef) -> Cluster:
        key = ObjectKey(namespace, ref.name)
        try:
            secret = await read_labelled(self._cluster, key)
        except ObjectNotFound:
            raise Stalled(
                f"there is no Secret {key}; create it", reason="CredentialsNotFound"
            ) from None
        kubeconfig = secret.text(ref.key)
        if kubeconfig is None:
            raise Stalled(f"Secret {key} has no key {ref.key}", reason="CredentialsNotFound")
        return await self._clusters.open(kubeconfig, name=f"the kubeconfig in Secret {key}")

    async def _require_ours(self, there: Cluster, key: ObjectKey) -> None:
        try:
            live = await there.get(SCRIPT_REPOSITORIES, key)
        except ObjectNotFound:
            return
        labels = mapping(mapping(live.get("metadata")).get("labels"))
        if labels.get(LABEL_FLEET) != self._name:
            raise Stalled(
                f"ScriptRepository {key} is there already and not from here; delete it, or label "
                f"it {LABEL_FLEET}={self._name}",
                reason="OwnedByAnother",
            )

    def _document(self, record: RepositoryRecord) -> JsonObject:
        spec = mapping(record.document.get("spec"))
        return {
            "apiVersion": SCRIPT_REPOSITORIES.api_version,
            "kind": SCRIPT_REPOSITORIES.kind,
            "metadata": {
                "name": record.key.name,
                "namespace": record.key.namespace,
                "labels": {LABEL_FLEET: self._name},
            },
            "spec": {field: value for field, value in spec.items() if field != "clusters"},
        }


async def _delete_ours(there: Cluster, key: ObjectKey, fleet: str) -> None:
    """What was handed out from here, and no other of that name."""
    try:
        live = await there.get(SCRIPT_REPOSITORIES, key)
    except ObjectNotFound:
        return
    metadata = mapping(live.get("metadata"))
    if mapping(metadata.get("labels")).get(LABEL_FLEET) == fleet:
        await there.delete(SCRIPT_REPOSITORIES, key, uid=text(metadata.get("uid")))


def _as_told(binding: ClusterBinding, live: JsonObject) -> ClusterStatus:
    """What the controller there says of this very spec."""
    there = decode_repository(live)
    ready = next((c for c in there.status.conditions if c.type == READY), None)
    if ready is None or there.status.observed_generation != there.generation:
        return ClusterStatus(
            name=binding.name,
            secret_ref=binding.kube_config.secret_ref,
            ready=UNKNOWN,
            reason="Progressing",
            message="the controller there has not looked at it yet",
            revision=there.status.revision[:LONGEST_REVISION],
        )
    return ClusterStatus(
        name=binding.name,
        secret_ref=binding.kube_config.secret_ref,
        ready=ready.status,
        reason=ready.reason if _REASON.fullmatch(ready.reason) else UNKNOWN,
        message=conditions.shortened(ready.message),
        revision=there.status.revision[:LONGEST_REVISION],
    )


def _down(
    record: RepositoryRecord, binding: ClusterBinding, error: ScriptOpsError
) -> ClusterStatus:
    """What was heard of it last stays: it may run on, unheard."""
    before = next((it for it in record.status.clusters if it.name == binding.name), None)
    return ClusterStatus(
        name=binding.name,
        secret_ref=before.secret_ref if before is not None else None,
        ready="False" if isinstance(error, Stalled) else UNKNOWN,
        reason=error.reason,
        message=conditions.shortened(str(error)),
        revision=before.revision if before is not None else "",
    )


def _verdict(found: list[ClusterStatus]) -> tuple[Verdict, bool]:
    """The worst of them, by name; whether all is good."""
    for ready, say in (("False", conditions.stalled), (UNKNOWN, conditions.reconciling)):
        worst = [it for it in found if it.ready == ready]
        if worst:
            more = f" (and {len(worst) - 1} more)" if len(worst) > 1 else ""
            return say(worst[0].reason, f"{worst[0].name}: {worst[0].message}{more}"), False
    many = "cluster is" if len(found) == 1 else "clusters are"
    return conditions.ready("HandedOut", f"{len(found)} {many} ready"), True
