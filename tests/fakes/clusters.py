"""Other clusters in memory, by what stands in place of their kubeconfigs."""

from __future__ import annotations

import copy

from reconciler.errors import Stalled
from reconciler.ports.cluster import Cluster
from tests.fakes.cluster import FakeCluster


class FakeClusters:
    """`known` is filled by tests."""

    def __init__(self) -> None:
        self.known: dict[str, FakeCluster] = {}
        self.opened: list[str] = []
        self.closed = 0

    async def open(self, kubeconfig: str, *, name: str) -> Cluster:
        self.opened.append(kubeconfig)
        if kubeconfig not in self.known:
            raise Stalled(f"{name} is no kubeconfig", reason="KubeConfigInvalid")
        opened = copy.copy(self.known[kubeconfig])
        opened.close = self._closed  # type: ignore[method-assign]  # others have it open still
        return opened

    async def _closed(self) -> None:
        self.closed += 1
