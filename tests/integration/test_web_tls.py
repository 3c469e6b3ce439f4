"""The HTTP door over TLS: who it says it is, also after its certificate was renewed."""

from __future__ import annotations

import http.client
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.adapters.certificates import Authority
from reconciler.errors import Stalled
from reconciler.web import Tls
from tests.integration.command_line import CommandLine
from tests.integration.web_server import PATIENCE, Door, listening
from tests.support.kube import wait_until

DAY = timedelta(days=1)


def made(folder: Path) -> Path:
    """A folder with an authority and a certificate of `localhost`."""
    authority = Authority(folder)
    authority.init("test", now=datetime.now(UTC))
    authority.controller(["localhost"], now=datetime.now(UTC), lifetime=DAY)
    return folder


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    return made(tmp_path / "certs")


def tls(certs: Path) -> Tls:
    return Tls(certs / "controller.crt", certs / "controller.key")


def ask(door: Door, authority: Path, path: str = "/healthz") -> tuple[int, bytes]:
    trust = ssl.create_default_context(cafile=str(authority / "ca.crt"))
    connection = http.client.HTTPSConnection(
        "localhost", door.port, timeout=PATIENCE, context=trust
    )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_it_is_who_its_certificate_says(certs: Path, tmp_path: Path) -> None:
    with listening(tls=tls(certs)) as door:
        assert ask(door, certs) == (200, b'{"alive":true}')
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(door, made(tmp_path / "stranger"))
        with door.dial() as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"alive" not in plain.recv(1000)
        assert ask(door, certs)[0] == 200


def test_a_new_certificate_is_used_without_a_restart(certs: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other")

    def is_other() -> bool:
        try:
            return ask(door, other)[0] == 200
        except ssl.SSLError:
            return False

    with listening(tls=tls(certs)) as door:
        for name in ("controller.key", "controller.crt"):
            shutil.copy(other / name, certs / name)
        wait_until(is_other, what="the new certificate is shown")


@pytest.mark.parametrize("name", ["controller.crt", "controller.key"])
@pytest.mark.parametrize("content", [None, b"", b"torn"])
def test_files_that_do_not_fit_together_change_nothing(
    certs: Path, tmp_path: Path, name: str, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    files = tls(certs)
    shutil.copy(certs / "ca.crt", tmp_path / "ca.crt")
    with listening(tls=files) as door:
        if content is None:
            (certs / name).unlink()
        else:
            (certs / name).write_bytes(content)
        wait_until(lambda: "certificate not renewed" in caplog.text, what="it is said")
        assert ask(door, tmp_path)[0] == 200
    assert caplog.text.count("certificate not renewed") == 1


def test_a_controller_does_not_begin_without_a_good_certificate(certs: Path) -> None:
    (certs / "controller.key").write_bytes((certs / "ca.key").read_bytes())
    with pytest.raises(Stalled, match="cannot be used for TLS"):
        tls(certs)


def test_the_command_line_speaks_tls_and_trusts_whom_it_is_told(
    certs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command_line = CommandLine(capsys)
    with listening(tls=tls(certs)) as door:
        at = f"--controller=https://localhost:{door.port}"
        refused = command_line("get", "executors", at)
        assert (refused.code, "certificate verify failed" in refused.err) == (2, True)
        monkeypatch.setenv("SSL_CERT_FILE", str(certs / "ca.crt"))
        assert command_line("get", "executors", at).code == 0
