"""Executors with certificates: who they are, who is turned away, and what happens on renewal."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from cryptography import x509
from scriptops.controller.v1 import controller_pb2 as pb
from scriptops.controller.v1 import controller_pb2_grpc as pb_grpc

from reconciler.adapters.certificates import Authority
from reconciler.adapters.session_tls import TlsFiles, identity
from reconciler.core.runs import Dispatch, RunId, RunKey
from reconciler.errors import Stalled
from reconciler.ports.sessions import ExecutorInfo
from tests.contract.sessionharness import SCRIPT, Executor, Served, result, run, served, until

DAY = timedelta(days=1)


class World(NamedTuple):
    """A folder with an authority and the controller's certificate."""

    folder: Path
    authority: Authority
    files: TlsFiles

    def executor(
        self, name: str, *, since: datetime | None = None, lifetime: timedelta = DAY
    ) -> Path:
        return self.authority.executor(name, now=since or datetime.now(UTC), lifetime=lifetime)


def made(folder: Path) -> World:
    authority = Authority(folder)
    authority.init("test", now=datetime.now(UTC))
    cert = authority.controller(["localhost", "127.0.0.1"], now=datetime.now(UTC), lifetime=DAY)
    files = TlsFiles(cert, cert.with_suffix(".key"), folder / "ca.crt")
    return World(folder, authority, files)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return made(tmp_path / "certs")


def credentials(ca: Path, cert: Path | None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        ca.read_bytes(),
        None if cert is None else cert.with_suffix(".key").read_bytes(),
        None if cert is None else cert.read_bytes(),
    )


@asynccontextmanager
async def session(it: Served, ca: Path, cert: Path | None) -> AsyncIterator[Executor]:
    async with grpc.aio.secure_channel(f"127.0.0.1:{it.port}", credentials(ca, cert)) as channel:
        call = pb_grpc.ControllerServiceStub(channel).Run()
        try:
            yield Executor(call)
        finally:
            call.cancel()


def identities(it: Served) -> list[str]:
    told = (what for kind, _, what in it.heard.told if kind == "connected")
    return [info.identity for info in told if isinstance(info, ExecutorInfo)]


async def refusal(it: Served, ca: Path, cert: Path | None) -> grpc.StatusCode:
    async with session(it, ca, cert) as executor:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await executor.connect()
        return told.value.code()


def test_an_executor_is_who_its_certificate_says(world: World) -> None:
    async def check() -> None:
        cert = world.executor("attic")
        async with (
            served(tls=world.files) as it,
            session(it, world.files.client_ca, cert) as executor,
        ):
            await executor.connect()
            assert identities(it) == ["attic"]

    run(check())


def test_who_shows_no_certificate_or_anothers_is_not_spoken_to(
    world: World, tmp_path: Path
) -> None:
    async def check() -> None:
        ca = world.files.client_ca
        stranger = made(tmp_path / "stranger").executor("attic")
        ended = world.executor("ended", since=datetime.now(UTC) - 2 * DAY, lifetime=DAY)
        async with served(tls=world.files) as it:
            codes = {
                "none": await refusal(it, ca, None),
                "another authority": await refusal(it, ca, stranger),
                "ended": await refusal(it, ca, ended),
                "of a server": await refusal(it, ca, world.files.cert),
            }
            assert codes == dict.fromkeys(codes, grpc.StatusCode.UNAVAILABLE)
            async with it.executor() as executor:
                with pytest.raises(grpc.aio.AioRpcError):
                    await executor.connect()
            assert it.heard.told == []

    run(check())


def test_artifacts_are_for_who_shows_a_certificate(world: World) -> None:
    async def check() -> None:
        async def fetch(it: Served, cert: Path | None) -> bytes:
            target = f"127.0.0.1:{it.port}"
            ca = world.files.client_ca
            async with grpc.aio.secure_channel(target, credentials(ca, cert)) as channel:
                call = pb_grpc.ControllerServiceStub(channel).FetchArtifact(
                    pb.FetchArtifactRequest(digest="sha256:1")
                )
                return b"".join([part.chunk async for part in call])

        async with served(lambda _: b"script", tls=world.files) as it:
            assert await fetch(it, world.executor("attic")) == b"script"
            with pytest.raises(grpc.aio.AioRpcError):
                await fetch(it, None)

    run(check())


def test_an_executor_does_not_speak_to_who_is_no_controller(world: World, tmp_path: Path) -> None:
    async def check() -> None:
        cert = world.executor("attic")
        async with served(tls=made(tmp_path / "stranger").files) as it:
            assert await refusal(it, world.files.client_ca, cert) is grpc.StatusCode.UNAVAILABLE

    run(check())


def test_a_new_certificate_is_used_without_a_restart(world: World, tmp_path: Path) -> None:
    """As when an authority is replaced: files change, sessions stay, new ones are judged anew."""

    async def check() -> None:
        old_ca = tmp_path / "old-ca.crt"
        shutil.copy(world.files.client_ca, old_ca)
        old = world.executor("old")
        async with served(tls=world.files) as it, session(it, old_ca, old) as staying:
            await staying.connect()
            new = made(tmp_path / "new")
            for name in ("controller.key", "ca.crt", "controller.crt"):
                shutil.copy(new.folder / name, world.folder / name)
            cert = new.executor("new")
            async with session(it, world.files.client_ca, cert) as executor:
                await executor.connect()
                assert identities(it) == ["old", "new"]
                assert await refusal(it, old_ca, old) is grpc.StatusCode.UNAVAILABLE
                await staying.give(1)
                await until(lambda: "credited" in [what for what, *_ in it.heard.told])

    run(check())


def test_a_session_does_not_outlive_its_certificate(world: World) -> None:
    """It is told to come back, is given no more, and may answer what it has."""

    async def check() -> None:
        short = world.executor("short", lifetime=timedelta(seconds=3))
        async with (
            served(tls=world.files) as it,
            session(it, world.files.client_ca, short) as executor,
        ):
            who = await executor.connect(credit=1)
            assert (await executor.read()).exit.reason == "your certificate has ended"
            assert not it.server.send(who, [Dispatch(SCRIPT, (), RunKey(RunId("r"), 1, 1))])
            await executor.answer(result("r"))
            await until(lambda: it.heard.of(who)[-1] == "finished")
            assert it.heard.of(who) == ["connected", "credited", "draining", "finished"]

    run(check())


@pytest.mark.parametrize("name", ["controller.crt", "controller.key", "ca.crt"])
def test_files_that_do_not_fit_together_change_nothing(
    world: World, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        ca = tmp_path / "ca.crt"
        shutil.copy(world.files.client_ca, ca)
        cert = world.executor("attic")
        async with served(tls=world.files) as it:
            for content in (b"", b"torn", None):
                if content is None:
                    (world.folder / name).unlink()
                else:
                    (world.folder / name).write_bytes(content)
                async with session(it, ca, cert) as executor:
                    await executor.connect()
        assert "certificate not renewed" in caplog.text

    run(check())


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda f: f.key.unlink(), id="no key"),
        pytest.param(lambda f: f.cert.write_bytes(b"x"), id="no certificate"),
        pytest.param(
            lambda f: f.key.write_bytes((f.key.parent / "ca.key").read_bytes()), id="another's key"
        ),
    ],
)
def test_a_controller_does_not_begin_without_a_good_certificate(
    world: World, spoil: object
) -> None:
    async def check() -> None:
        assert callable(spoil)
        spoil(world.files)
        with pytest.raises(Stalled, match="cannot be used for TLS") as told:
            async with served(tls=world.files):
                pass
        assert told.value.reason == "CertificateInvalid"

    run(check())


@pytest.mark.parametrize(
    ("context", "who"),
    [
        pytest.param(
            {"x509_uri": [b"spiffe://a/b"], "x509_dns": [b"d"], "x509_common_name": [b"c"]},
            "spiffe://a/b",
            id="a URI before all",
        ),
        pytest.param({"x509_dns": [b"d", b"e"], "x509_common_name": [b"c"]}, "d", id="a DNS name"),
        pytest.param({"x509_common_name": [b"c"]}, "c", id="a common name"),
        pytest.param({"x509_common_name": [b"\xff" * 999]}, "\ufffd" * 256, id="not too much"),
        pytest.param({}, "", id="nothing"),
    ],
)
def test_the_most_precise_name_counts(context: dict[str, list[bytes]], who: str) -> None:
    assert identity(context) == who


# The authority.


def test_what_is_made_is_for_its_purpose_and_keys_are_for_their_owner(world: World) -> None:
    cert = x509.load_pem_x509_certificate(world.executor("attic").read_bytes())
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [it._name for it in usage] == ["clientAuth"]
    modes = {it.name: oct(it.stat().st_mode & 0o777) for it in world.folder.iterdir()}
    assert modes == {
        **dict.fromkeys(["ca.key", "controller.key", "attic.key"], "0o600"),
        **dict.fromkeys(["ca.crt", "controller.crt", "attic.crt"], "0o644"),
    }


def test_an_authority_is_made_once_and_signs_for_ever(world: World) -> None:
    before = (world.folder / "ca.key").read_bytes()
    with pytest.raises(Stalled, match="is there already"):
        world.authority.init("again", now=datetime.now(UTC))
    assert (world.folder / "ca.key").read_bytes() == before


@pytest.mark.parametrize("name", ["", "ca", "./ca", "../ca", "controller", "x" * 65, "a\nb", "ä"])
def test_names_that_cannot_be_are_refused(world: World, name: str) -> None:
    """The authority, which nothing may replace, lies beside what is made."""

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in world.folder.parent.rglob("*.crt")}

    before = files()
    with pytest.raises(Stalled) as told:
        world.executor(name)
    assert told.value.reason == "NameInvalid"
    assert files() == before


def test_without_an_authority_nothing_is_signed(tmp_path: Path) -> None:
    with pytest.raises(Stalled, match="scriptops certs init"):
        Authority(tmp_path).executor("attic", now=datetime.now(UTC), lifetime=DAY)
    assert list(tmp_path.iterdir()) == []


def test_asyncio_is_not_held_up_by_who_only_connects(world: World) -> None:
    """A handshake that never comes leaves room for others."""

    async def check() -> None:
        async with served(tls=world.files) as it:
            idle = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(50)]
            async with session(it, world.files.client_ca, world.executor("attic")) as executor:
                await executor.connect()
            for _, writer in idle:
                writer.close()
                await writer.wait_closed()

    run(check())
