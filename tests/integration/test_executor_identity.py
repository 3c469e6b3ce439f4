"""Executors of other machines: known by their certificates, seen by users, watched by probes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from scriptops.controller.v1 import controller_pb2 as pb
from scriptops.controller.v1 import controller_pb2_grpc as pb_grpc

from reconciler.adapters.certificates import Authority
from reconciler.core.objects import ObjectKey
from reconciler.settings import ListenTls
from tests.contract.sessionharness import Executor, until
from tests.integration.command_line import CommandLine
from tests.support.gitserver import Repository
from tests.support.kube import free_port, wait_until
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import PATIENCE, System, executor, serving, settings

DAY = timedelta(days=1)
SERVICE = "scriptops.controller.v1.ControllerService"
RULES = {"manifests/one.yaml": documents(script("one")), "scripts/quiet/1.0.0.js": QUIET}


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    authority = Authority(folder)
    now = datetime.now(UTC)
    authority.init("test", now=now)
    authority.controller(["127.0.0.1"], now=now, lifetime=DAY)
    for name in ("attic", "cellar"):
        authority.executor(name, now=now, lifetime=DAY)
    return folder


@pytest.fixture
def system(certs: Path, tmp_path: Path) -> Iterator[System]:
    files = ListenTls(
        cert=certs / "controller.crt", key=certs / "controller.key", client_ca=certs / "ca.crt"
    )
    with serving(settings(tmp_path / "data", tls=files)) as it:
        yield it


def flags(certs: Path, name: str) -> tuple[str, ...]:
    return (
        f"--tls-ca={certs / 'ca.crt'}",
        f"--tls-cert={certs / name}.crt",
        f"--tls-key={certs / name}.key",
    )


def names(system: System) -> list[tuple[str, str]]:
    items = system.ask("/api/v1alpha1/executors")["items"]
    return [(item["metadata"]["name"], item["identity"]) for item in items]


def test_an_executor_with_a_certificate_runs_rules_and_is_seen_by_name(
    system: System,
    certs: Path,
    tmp_path: Path,
    git: Repository,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with executor(system.grpc, tmp_path / "log", *flags(certs, "attic"), name="says-so"):
        rules = system.repository("default", git.path)
        system.synced(rules, git.commit(RULES))
        system.ready(ObjectKey("default", "one"))
        assert names(system) == [("says-so", "attic")]
        shown = CommandLine(capsys)("get", "executors", "--controller", system.web)
        assert [line.split() for line in shown.out.splitlines()] == [
            ["NAME", "IDENTITY", "TYPES"],
            ["says-so", "attic", "Js,", "Wasm"],
        ]


def test_a_renewed_certificate_is_used_by_the_next_session(
    system: System, certs: Path, tmp_path: Path
) -> None:
    with executor(system.grpc, tmp_path / "log", *flags(certs, "attic")) as process:
        wait_until(lambda: names(system) == [("test", "attic")], what="attic is there")
        for kind in ("key", "crt"):
            (certs / f"cellar.{kind}").replace(certs / f"attic.{kind}")
        # A session that ends for any reason is the occasion.
        port = system.controller.addresses.grpc.port
        system.do(system.controller._sessions.stop())
        system.controller._sessions._address = f"127.0.0.1:{port}"
        system.do(
            system.controller._sessions.start(
                system.controller.dispatcher, system.controller.registry.read
            )
        )
        wait_until(lambda: names(system) == [("test", "cellar")], what="cellar is there")
        process.says("certificate renewed")


@pytest.mark.parametrize(
    "names",
    [
        pytest.param((), id="none, and nothing of TLS"),
        pytest.param(("attic",), id="one that another authority signed"),
    ],
)
def test_an_executor_that_shows_no_certificate_of_ours_is_told_what_may_be_missing(
    system: System, certs: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    strange = Authority(tmp_path / "strange")
    now = datetime.now(UTC)
    strange.init("strange", now=now)
    strange.executor("attic", now=now, lifetime=DAY)
    ours = f"--tls-ca={certs / 'ca.crt'}"
    options = [it for name in names for it in (ours, *flags(tmp_path / "strange", name)[1:])]
    with executor(system.grpc, tmp_path / "log", *options) as process:
        process.says("does the controller want a certificate that its --client-ca signed?")


def test_an_executor_whose_certificate_cannot_be_read_says_so_and_ends(
    system: System, certs: Path, tmp_path: Path
) -> None:
    (certs / "attic.key").unlink()
    with executor(system.grpc, tmp_path / "log", *flags(certs, "attic")) as process:
        assert process.wait() == 1
        assert "attic.key" in process.output


@contextlib.asynccontextmanager
async def speaking(system: System, certs: Path, name: str) -> AsyncIterator[Executor]:
    credentials = grpc.ssl_channel_credentials(
        (certs / "ca.crt").read_bytes(),
        (certs / f"{name}.key").read_bytes(),
        (certs / f"{name}.crt").read_bytes(),
    )
    async with grpc.aio.secure_channel(system.grpc, credentials) as channel:
        call = pb_grpc.ControllerServiceStub(channel).Run()
        try:
            yield Executor(call)
        finally:
            call.cancel()


def test_the_result_of_another_executor_is_not_taken(
    system: System, certs: Path, git: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """One that knows all there is to know of a run in flight, its attempt and its epoch."""

    def stale() -> float:
        return system.controller.metrics.stale_results_total._value.get()

    async def play() -> None:
        async with (
            asyncio.timeout(PATIENCE),
            speaking(system, certs, "attic") as attic,
            speaking(system, certs, "cellar") as cellar,
        ):
            await attic.connect(credit=10)
            load = (await attic.read()).runs.scripts[0].script.load
            await cellar.connect()
            await attic.answer(
                pb.UpdateScriptStatus(key=load, load=True, outcome=pb.OUTCOME_SUCCEEDED)
            )
            run = (await attic.read()).runs.scripts[0].runs[0].key
            forged = pb.UpdateScriptStatus(key=run, outcome=pb.OUTCOME_FAILED, message="forged")
            await cellar.answer(forged)
            await until(lambda: stale() == 1)
            assert system.runs("default", "one") == []
            await attic.answer(pb.UpdateScriptStatus(key=run, outcome=pb.OUTCOME_SUCCEEDED))
            await until(lambda: system.runs("default", "one"))

    rules = system.repository("default", git.path)
    system.synced(rules, git.commit(RULES))
    asyncio.run(play())
    assert [run["outcome"] for run in system.runs("default", "one")] == ["Succeeded"]
    told = [it for it in caplog.records if it.message == "result of a run of another executor"]
    assert [it.__dict__["identity"] for it in told] == ["cellar"]


# Probes.


async def probed(channel: grpc.aio.Channel, service: str) -> int:
    ask = health_pb2_grpc.HealthStub(channel).Check
    return int((await ask(health_pb2.HealthCheckRequest(service=service), timeout=5)).status)


async def services(channel: grpc.aio.Channel) -> list[str]:
    ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for answer in ask(iter([request])):
        return [service.name for service in answer.list_services_response.service]
    return []


def test_a_probe_sees_an_executor_live_and_its_session_come_and_go(
    certs: Path, tmp_path: Path
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    SERVING, NOT_SERVING = 1, 2  # noqa: N806 - the protocol's names

    async def states() -> tuple[int, int, list[str]]:
        async with grpc.aio.insecure_channel(address) as channel:
            return (
                await probed(channel, ""),
                await probed(channel, SERVICE),
                await services(channel),
            )

    def seen() -> tuple[int, int] | None:
        try:
            return asyncio.run(states())[:2]
        except grpc.aio.AioRpcError:
            return None

    given = settings(tmp_path / "data")
    with serving(given) as system:
        at = system.grpc
        with executor(at, tmp_path / "log", f"--health={address}"):
            wait_until(lambda: seen() == (SERVING, SERVING), what="all is well")
            assert set(asyncio.run(states())[2]) == {
                "grpc.health.v1.Health",
                "grpc.reflection.v1alpha.ServerReflection",
            }
            system.do(system.controller._sessions.stop())
            wait_until(lambda: seen() == (SERVING, NOT_SERVING), what="the session is gone")
    assert seen() is None
    del certs


def test_a_probe_sees_a_controller_serve(tmp_path: Path) -> None:
    async def states(address: str) -> tuple[int, int, set[str]]:
        async with grpc.aio.insecure_channel(address) as channel:
            return (
                await probed(channel, ""),
                await probed(channel, SERVICE),
                set(await services(channel)),
            )

    with serving(settings(tmp_path / "data")) as system:
        assert asyncio.run(states(system.grpc)) == (
            *(1, 1),
            {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"},
        )
