"""Servers that are slow, silent, strange or strict."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.errors import ScriptOpsError, SourceInvalid, SourceUnavailable
from reconciler.ports.git import Remote
from tests.contract.githarness import SOON, STATUS, fetch, mirrors, push
from tests.support.gitserver import (
    Repository,
    Sshd,
    bad_server,
    git_daemon,
    git_http,
    make_certificate,
    wait_until,
)

LOGIN = ("robot", "s3cret/pass+word")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "srv" / "rules", "--bare")
    repository.commit({"a": b"1"})
    return repository


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    make_certificate(tmp_path / "tls")
    return tmp_path / "tls"


def read_and_write(data: Path, remote: Remote, repository: Repository) -> None:
    assert fetch(data, remote).id == repository.tip()
    repository.commit({"a": b"2"})
    assert fetch(data, remote).id == repository.tip()
    push(data, remote, "ns/aa/x.yaml", b"1")
    push(data, remote, "ns/aa/x.yaml", b"2")
    assert repository.files(STATUS) == {"ns/aa/x.yaml": b"2"}


def failure(data: Path, remote: Remote, *, timeout: timedelta = SOON) -> ScriptOpsError:
    with pytest.raises(ScriptOpsError) as caught:
        fetch(data, remote, timeout=timeout)
    return caught.value


def test_https_with_an_authority_and_a_password_of_the_secret(
    tmp_path: Path, repository: Repository, certificate: Path
) -> None:
    authority = (certificate / "server.crt").read_text()
    with git_http(repository.path.parent, tls=certificate, login=LOGIN) as url:
        secrets = {"username": LOGIN[0], "password": LOGIN[1], "ca.crt": authority}
        read_and_write(tmp_path / "data", Remote(f"{url}/rules", secrets), repository)
    assert not list((tmp_path / "data").glob("*.secrets-*"))


def test_http_on_loopback_with_a_password_in_the_url(
    tmp_path: Path, repository: Repository
) -> None:
    with git_http(repository.path.parent, login=("robot", "secret")) as url:
        remote = Remote(f"{url.replace('://', '://robot:secret@')}/rules")
        read_and_write(tmp_path / "data", remote, repository)


def test_a_certificate_of_an_unknown_authority_is_invalid(
    tmp_path: Path, repository: Repository, certificate: Path
) -> None:
    with git_http(repository.path.parent, tls=certificate) as url:
        error = failure(tmp_path / "data", Remote(f"{url}/rules"))
    assert isinstance(error, SourceInvalid)
    assert "ca.crt" in str(error)


@pytest.mark.parametrize(
    "secrets",
    [
        pytest.param(None, id="no password"),
        pytest.param({"username": "robot", "password": "wr0ng-pass"}, id="a wrong password"),
    ],
)
def test_a_refused_login_ends_at_once_and_is_invalid(
    tmp_path: Path, repository: Repository, secrets: dict[str, str] | None
) -> None:
    with git_http(repository.path.parent, login=LOGIN) as url:
        error = failure(tmp_path / "data", Remote(f"{url}/rules", secrets))
    assert isinstance(error, SourceInvalid)
    assert "in the Secret" in str(error) or "in a Secret" in str(error)
    assert "wr0ng-pass" not in str(error)


def test_a_redirect_is_not_followed(tmp_path: Path, repository: Repository) -> None:
    with git_http(repository.path.parent) as url:
        error = failure(tmp_path / "data", Remote(f"{url}/moved/rules"))
    assert isinstance(error, SourceInvalid)
    assert "final URL" in str(error)


def test_a_repository_that_is_not_there_is_invalid(tmp_path: Path, repository: Repository) -> None:
    root = repository.path.parent
    with git_http(root) as http, git_daemon(root) as daemon:
        for url in (f"{http}/none", str(root / "none")):
            assert isinstance(failure(tmp_path / "data", Remote(url)), SourceInvalid), url
        assert isinstance(failure(tmp_path / "data", Remote(f"{daemon}/none")), ScriptOpsError)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "ssh")
    with server.running():
        yield server


def test_ssh_with_the_key_and_host_key_of_the_secret(
    tmp_path: Path, repository: Repository, sshd: Sshd
) -> None:
    remote = Remote(sshd.url(repository.path), sshd.secrets())
    read_and_write(tmp_path / "data with space", remote, repository)


@pytest.mark.parametrize(
    ("identity", "host", "word"),
    [
        pytest.param("stranger", "host", "identity", id="a key that the server does not know"),
        pytest.param("identity", "stranger", "known_hosts", id="a server with another key"),
        pytest.param("identity.pub", "host", "identity", id="no private key at all"),
    ],
)
def test_ssh_with_a_wrong_key_ends_at_once_and_is_invalid(
    tmp_path: Path, repository: Repository, sshd: Sshd, identity: str, host: str, word: str
) -> None:
    secrets = sshd.secrets(identity=identity, host=host)
    error = failure(tmp_path / "data", Remote(sshd.url(repository.path), secrets))
    assert isinstance(error, SourceInvalid)
    assert word in str(error)


@pytest.mark.parametrize("missing", ["identity", "known_hosts"])
def test_ssh_without_keys_is_not_tried(tmp_path: Path, missing: str) -> None:
    secrets = {"identity": "x", "known_hosts": "x"}
    del secrets[missing]
    with mirrors(tmp_path) as git, pytest.raises(SourceInvalid, match=missing):
        git.source(Remote("git@example.test:rules", secrets))


@pytest.mark.parametrize(
    "drip",
    [
        pytest.param(None, id="silent"),
        pytest.param(b"0032want ", id="a byte at a time"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", id="a byte of http"),
    ],
)
@pytest.mark.parametrize("protocol", ["git", "http", "ssh"])
def test_a_server_that_does_not_answer_is_given_up_in_time(
    tmp_path: Path, drip: bytes | None, protocol: str
) -> None:
    secrets = {"identity": "x", "known_hosts": "x"} if protocol == "ssh" else None
    with bad_server(drip=drip) as port:
        start = time.monotonic()
        remote = Remote(f"{protocol}://127.0.0.1:{port}/rules", secrets)
        error = failure(tmp_path / "data", remote, timeout=timedelta(seconds=0.5))
        assert time.monotonic() - start < 5
        assert isinstance(error, SourceUnavailable)
        wait_until(lambda: not children_speaking_to(port), "no child is left")


# An encoded path: the git program is asked at once.
FOR_THE_PROGRAM = "our%20rules"


def children_speaking_to(port: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            if f":{port}/" in words or f"-p {port} " in words:
                found.append(words)
    return found


def test_other_repositories_go_on_while_one_server_is_silent(
    tmp_path: Path, repository: Repository
) -> None:
    async def fetch_both(port: int) -> bool:
        with mirrors(tmp_path / "data") as git:
            silent = git.source(Remote(f"git://127.0.0.1:{port}/rules"))
            stuck = asyncio.create_task(silent.fetch("main", timeout=SOON))
            await git.source(Remote(str(repository.path))).fetch("main", timeout=SOON)
            was_stuck = not stuck.done()
            stuck.cancel()
            await asyncio.gather(stuck, return_exceptions=True)
            return was_stuck

    with bad_server() as port:
        assert asyncio.run(fetch_both(port))


def test_a_repository_over_the_limit_is_refused_and_leaves_nothing(
    tmp_path: Path, repository: Repository
) -> None:
    repository.commit({"noise": os.urandom(3 * 1024 * 1024)})
    with pytest.raises(SourceInvalid, match="larger than the limit") as caught:
        fetch(tmp_path / "data", repository, size_limit=1024 * 1024)
    assert caught.value.reason == "SourceTooLarge"
    assert sum(path.stat().st_size for path in (tmp_path / "data").rglob("*")) < 2 * 1024 * 1024
    repository.commit({"noise": None})
    assert fetch(tmp_path / "data", repository, size_limit=1024 * 1024).id == repository.tip()


def test_no_secret_is_seen_in_a_list_of_processes(tmp_path: Path) -> None:
    async def look(port: int) -> str:
        with mirrors(tmp_path / "data") as git:
            url = f"http://u:hidden-pass@127.0.0.1:{port}/{FOR_THE_PROGRAM}"
            remote = Remote(url, {"username": "u"})
            task = asyncio.create_task(
                git.source(remote).fetch("main", timeout=timedelta(seconds=1))
            )
            await asyncio.to_thread(wait_until, lambda: children_speaking_to(port), "a child runs")
            seen = children_speaking_to(port)
            with pytest.raises(SourceUnavailable) as caught:
                await task
            return f"{seen} {caught.value} {remote!r}"

    with bad_server() as port:
        assert "hidden-pass" not in asyncio.run(look(port))


def test_a_cancelled_fetch_leaves_no_child(tmp_path: Path) -> None:
    async def cancel(port: int) -> None:
        with mirrors(tmp_path / "data") as git:
            source = git.source(Remote(f"git://127.0.0.1:{port}/{FOR_THE_PROGRAM}"))
            task = asyncio.create_task(source.fetch("main", timeout=SOON))
            await asyncio.to_thread(wait_until, lambda: children_speaking_to(port), "a child runs")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not children_speaking_to(port)

    with bad_server() as port:
        asyncio.run(cancel(port))
