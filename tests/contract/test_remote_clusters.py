"""Clusters of kubeconfigs from Secrets, asked over real TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.adapters.kube import RemoteClusters
from reconciler.core.objects import SCRIPTS, ObjectKey
from reconciler.errors import ClusterUnavailable, Stalled

KEY = ObjectKey("team", "a")


def made(folder: Path, name: str) -> tuple[str, str]:
    """A certificate that is its own authority, and its key; as PEM."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return (folder / f"{name}.crt").read_text(), (folder / f"{name}.key").read_text()


def data(pem: str) -> str:
    return base64.b64encode(pem.encode()).decode()


@dataclass
class Server:
    url: str
    authority: str
    client: tuple[str, str]
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def kubeconfig(self, user: dict[str, Any], **cluster: Any) -> str:
        document = {
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [
                {
                    "name": "it",
                    "cluster": {
                        "server": self.url,
                        "certificate-authority-data": data(self.authority),
                        **cluster,
                    },
                }
            ],
            "users": [{"name": "it", "user": user}],
        }
        return yaml.safe_dump(document)

    @property
    def certificate(self) -> dict[str, str]:
        cert, key = self.client
        return {"client-certificate-data": data(cert), "client-key-data": data(key)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Answers whoever shows the right certificate or brings a token, with what it was asked."""
    folder = tmp_path_factory.mktemp("tls")
    authority, _ = made(folder, "server")
    client = made(folder, "client")
    found = Server("", authority, client)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = bool(self.connection.getpeercert())  # type: ignore[attr-defined]
            token = self.headers.get("Authorization")
            found.asked.append(("certificate" if shown else "", token))
            body = json.dumps({"kind": "Script", "metadata": {"name": "a"}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's name
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.load_verify_locations(folder / "client.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # who does not trust us hangs up
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    found.url = f"https://127.0.0.1:{http.server_address[1]}"
    yield found
    http.shutdown()
    http.server_close()


def get(kubeconfig: str, folder: Path | None = None) -> Any:
    async def ask() -> Any:
        cluster = await RemoteClusters(folder).open(kubeconfig, name="the kubeconfig")
        try:
            return await cluster.get(SCRIPTS, KEY)
        finally:
            await cluster.close()

    return asyncio.run(ask())


def test_a_token_is_brought_over_tls_that_is_checked(server: Server) -> None:
    assert get(server.kubeconfig({"token": "abc\n"}))["metadata"] == {"name": "a"}
    assert server.asked[-1] == ("", "Bearer abc")


def test_a_client_certificate_is_shown_and_its_key_left_in_no_file(
    server: Server, tmp_path: Path
) -> None:
    assert get(server.kubeconfig(server.certificate), tmp_path)["metadata"] == {"name": "a"}
    assert server.asked[-1] == ("certificate", None)
    assert list(tmp_path.iterdir()) == []


def test_who_is_not_the_server_that_was_meant_is_not_told_the_token(
    server: Server, tmp_path: Path
) -> None:
    other, _ = made(tmp_path, "other")
    before = len(server.asked)
    with pytest.raises(ClusterUnavailable):
        get(server.kubeconfig({"token": "abc"}, **{"certificate-authority-data": data(other)}))
    with pytest.raises(ClusterUnavailable):
        get(server.kubeconfig({"token": "abc"}, **{"tls-server-name": "elsewhere.example"}))
    assert len(server.asked) == before


@pytest.mark.parametrize(
    ("user", "cluster"),
    [
        pytest.param(
            {"client-certificate-data": "eA==", "client-key-data": "eA=="}, {}, id="no certificate"
        ),
        pytest.param(
            {"client-certificate-data": "%", "client-key-data": "eA=="}, {}, id="no Base64"
        ),
        pytest.param({"token": "a"}, {"certificate-authority-data": "eA=="}, id="no authority"),
        pytest.param({"token": "a"}, {"certificate-authority-data": 5}, id="a number"),
    ],
)
def test_certificates_that_are_none_are_said(
    server: Server, user: dict[str, Any], cluster: dict[str, Any]
) -> None:
    with pytest.raises(Stalled) as caught:
        get(server.kubeconfig(user, **cluster))
    assert caught.value.reason == "KubeConfigInvalid"


def test_a_program_is_never_run(server: Server, tmp_path: Path) -> None:
    program = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "touch"}}
    program["exec"] |= {"args": [str(tmp_path / "ran")]}  # type: ignore[dict-item]
    with pytest.raises(Stalled) as caught:
        get(server.kubeconfig(program))
    assert caught.value.reason == "KubeConfigRefused"
    assert list(tmp_path.iterdir()) == []
