"""Records of who leads: one suite over a fake and over Lease objects of an API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from reconciler.adapters import kube as kubernetes
from reconciler.core.leases import Lease
from reconciler.errors import ClusterUnavailable, Conflict, Forbidden
from reconciler.ports.leases import Leases
from tests.fakes.leases import FakeLeases
from tests.support.kube import KubeServer

T = TypeVar("T")
Opener = Callable[[], AbstractAsyncContextManager[Leases]]
NAME = "scriptops-shard-0"


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


@pytest.fixture(params=["fake", pytest.param("kubernetes", marks=pytest.mark.kube)])
def store(request: pytest.FixtureRequest) -> Opener:
    if request.param == "fake":

        @asynccontextmanager
        async def fake() -> AsyncIterator[Leases]:
            yield FakeLeases()

        return fake
    kube: KubeServer = request.getfixturevalue("kube")
    namespace = kube.namespace("leases", granted=False)

    @asynccontextmanager
    async def real() -> AsyncIterator[Leases]:
        cluster = await kubernetes.connect(kubeconfig=str(kube.kubeconfig))
        try:
            yield cluster.leases(namespace=namespace)
        finally:
            await cluster.close()

    return real


def test_what_is_written_is_read(store: Opener) -> None:
    async def scenario() -> None:
        async with store() as leases:
            assert await leases.read(NAME) is None
            first = Lease(holder="a", address="http://10.0.0.1:8000", seconds=3, begun=1)
            written = await leases.write(NAME, first)
            assert written == replace(first, version=written.version)
            assert written.version
            assert await leases.read(NAME) == written
            assert await leases.read("scriptops-shard-1") is None
            freed = await leases.write(NAME, replace(written, holder="", address="", seconds=1))
            assert await leases.read(NAME) == Lease(seconds=1, begun=1, version=freed.version)
            assert freed.version != written.version

    run(scenario())


def test_a_renewal_is_another_version(store: Opener) -> None:
    async def scenario() -> None:
        async with store() as leases:
            written = await leases.write(NAME, Lease(holder="a", begun=1))
            again = await leases.write(NAME, written)
            assert again == replace(written, version=again.version)
            assert again.version != written.version

    run(scenario())


def test_who_has_not_seen_the_newest_is_refused(store: Opener) -> None:
    async def scenario() -> None:
        async with store() as leases:
            written = await leases.write(NAME, Lease(holder="a", begun=1))
            with pytest.raises(Conflict):
                await leases.write(NAME, Lease(holder="b", begun=1))
            taken = await leases.write(NAME, replace(written, holder="b", begun=2))
            with pytest.raises(Conflict):
                await leases.write(NAME, written)
            assert await leases.read(NAME) == taken

    run(scenario())


def test_of_many_who_want_it_one_gets_it(store: Opener) -> None:
    async def scenario() -> None:
        async with store() as leases:
            wishes = [Lease(holder=f"replica-{n}", begun=1) for n in range(8)]
            answers = await asyncio.gather(
                *(leases.write(NAME, wish) for wish in wishes), return_exceptions=True
            )
            [taken] = [it for it in answers if isinstance(it, Lease)]
            assert await leases.read(NAME) == taken
            assert sum(isinstance(it, Conflict) for it in answers) == 7

    run(scenario())


def test_a_store_that_is_away_is_said_to_be() -> None:
    async def scenario() -> None:
        leases = FakeLeases()
        leases.away = True
        with pytest.raises(ClusterUnavailable):
            await leases.read(NAME)
        with pytest.raises(ClusterUnavailable):
            await leases.write(NAME, Lease())

    run(scenario())


@pytest.mark.kube
def test_where_it_may_not_it_is_told(kube: KubeServer) -> None:
    async def scenario() -> None:
        path = kube.write_kubeconfig(kube.folder / "powerless", token=kube.powerless_token)
        cluster = await kubernetes.connect(kubeconfig=str(path))
        try:
            with pytest.raises(Forbidden):
                await cluster.leases(namespace="default").read(NAME)
        finally:
            await cluster.close()

    run(scenario())
