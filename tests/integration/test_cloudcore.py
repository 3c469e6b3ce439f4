"""Cloudcore, played: what it overwrites, and when it is deaf."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from reconciler.adapters.cloudcore import CloudCore
from reconciler.adapters.kube import connect
from reconciler.core.kubeedge import RELEASES, Release
from reconciler.core.objects import ObjectKey
from reconciler.core.twins import Layout
from reconciler.errors import ObjectNotFound
from reconciler.ports.cluster import Cluster
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import FakeCluster
from tests.support.kinds import DEVICE_V1ALPHA2_CRD
from tests.support.kube import KubeServer
from tests.support.kubeedge import remove_crds
from tests.support.system import PATIENCE

REPORT = {"speed": {"reported": {"value": "7", "metadata": {"timestamp": "1"}}}}
GOOD = Release(layout=Layout.V1ALPHA2)


class Desk:
    def __init__(self, release: Release, cluster: Cluster, namespace: str = "default") -> None:
        self.clock = FakeClock()
        self.cluster = cluster
        self.counts = Counter[str]()
        self.key = ObjectKey(namespace, "fan")
        self.resource = release.layout.resource
        self.heard = asyncio.Event()
        self.cloud = CloudCore(cluster, release, self.clock, count=self._hear)

    def _hear(self, what: str) -> None:
        self.counts[what] += 1
        self.heard.set()

    async def add(self) -> None:
        """A device whose speed is desired to be `old`, wherever that stands."""
        twin = {"desired": {"value": "old"}}
        device = {
            "apiVersion": self.resource.api_version,
            "kind": "Device",
            "metadata": {"name": self.key.name, "namespace": self.key.namespace},
            "spec": {"properties": [{"name": "speed", **twin}]},
            "status": {"twins": [{"propertyName": "speed", **twin}]},
        }
        made = await self.cluster.create(self.resource, device, field_manager="somebody")
        self.cloud.observe(made)

    async def desire(self, value: str) -> None:
        """Unseen by the cloud."""
        patch = {"status": {"twins": [{"propertyName": "speed", "desired": {"value": value}}]}}
        await self.cluster.merge_patch(self.resource, self.key, patch, field_manager="somebody")

    async def report(self) -> None:
        """Returns when something has become of it."""
        self.heard.clear()
        self.cloud.report_twins(self.resource, self.key, REPORT)
        async with asyncio.timeout(PATIENCE):
            await self.heard.wait()

    async def twin(self) -> Any:
        live: Any = await self.cluster.get(self.resource, self.key)
        return live["status"]["twins"][0]


@pytest.mark.parametrize(
    ("release", "desired"),
    [
        pytest.param(replace(GOOD, overwrites_desired=True), "old", id="the defect"),
        pytest.param(GOOD, "new", id="without it"),
    ],
)
def test_what_was_desired_meanwhile_is_overwritten_or_not(
    kube: KubeServer, release: Release, desired: str
) -> None:
    remove_crds(kube)
    kube.apply_crds([DEVICE_V1ALPHA2_CRD])
    namespace = kube.namespace("cloudcore", granted=False)

    async def story() -> None:
        desk = Desk(release, await connect(kubeconfig=str(kube.kubeconfig)), namespace)
        await desk.add()
        await desk.desire("new")
        await desk.report()
        assert await desk.twin() == {
            "propertyName": "speed",
            "desired": {"value": desired},
            **REPORT["speed"],
        }
        await desk.cluster.close()

    asyncio.run(story())
    remove_crds(kube)


def test_a_device_that_is_set_up_again_reports_nothing_meanwhile() -> None:
    async def story() -> None:
        desk = Desk(replace(RELEASES["1.20"], loses_first_report=False), FakeCluster(FakeClock()))
        await desk.add()
        for seconds in (0.0, 0.1, 0.2):
            await desk.clock.advance(seconds)
            await desk.report()
        assert desk.counts == {"written": 2, "lost": 1}

    asyncio.run(story())


def test_a_device_that_is_gone_is_told_of() -> None:
    async def story() -> None:
        desk = Desk(RELEASES["1.22"], FakeCluster(FakeClock()))
        await desk.add()
        desk.cloud.forget(desk.key)
        with pytest.raises(ObjectNotFound, match="Device default/fan is not there"):
            await desk.report()

    asyncio.run(story())
