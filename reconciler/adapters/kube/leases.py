"""The `Leases` port over objects of `coordination.k8s.io/v1`."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

from reconciler.adapters.kube.transport import Transport
from reconciler.core.leases import Lease
from reconciler.core.objects import Json, JsonObject, mapping, text
from reconciler.errors import Conflict, ObjectExists, ObjectNotFound

ANNOTATION_ADDRESS = "scriptops.hit.edu.cn/web"


class KubeLeases:
    """Lease objects of one namespace, as any other candidate of client-go's kind reads them.

    The times in them are for people: no candidate compares them with its own clock.
    """

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self._namespace = namespace
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases"

    async def read(self, name: str) -> Lease | None:
        try:
            return _lease(await self._transport.call("GET", self._of(name)))
        except ObjectNotFound:
            return None

    async def write(self, name: str, lease: Lease) -> Lease:
        document = _document(name, self._namespace, lease)
        try:
            if lease.version:
                answer = await self._transport.call("PUT", self._of(name), body=document)
            else:
                answer = await self._transport.call("POST", self._path, body=document)
        except (ObjectExists, ObjectNotFound) as error:
            raise Conflict(str(error)) from error
        return _lease(answer)

    def _of(self, name: str) -> str:
        return f"{self._path}/{quote(name, safe='')}"


def _document(name: str, namespace: str, lease: Lease) -> JsonObject:
    metadata: dict[str, Json] = {"name": name, "namespace": namespace}
    if lease.address:
        metadata["annotations"] = {ANNOTATION_ADDRESS: lease.address}
    if lease.version:
        metadata["resourceVersion"] = lease.version
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": lease.holder,
            "leaseDurationSeconds": lease.seconds,
            "leaseTransitions": lease.begun,
            "renewTime": now,
        },
    }


def _lease(document: JsonObject) -> Lease:
    """What is not as we write it reads as if it was not there: others may write here too."""
    metadata, spec = mapping(document.get("metadata")), mapping(document.get("spec"))
    seconds, begun = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return Lease(
        holder=text(spec.get("holderIdentity")),
        address=text(mapping(metadata.get("annotations")).get(ANNOTATION_ADDRESS)),
        seconds=seconds if isinstance(seconds, int) else 1,
        begun=begun if isinstance(begun, int) else 0,
        version=text(metadata.get("resourceVersion")),
    )
