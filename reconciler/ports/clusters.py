"""Other clusters, reached with what an operator has bound to their names."""

from __future__ import annotations

from typing import Protocol

from reconciler.ports.cluster import Cluster


class Clusters(Protocol):
    async def open(self, kubeconfig: str, *, name: str) -> Cluster:
        """The cluster of a kubeconfig; `name` is how errors call it. To be closed by the caller.

        Nothing is sent yet, no program is run and no file read. Raises `Stalled` with reason
        KubeConfigInvalid or KubeConfigRefused; no message holds a credential.
        """
        ...
