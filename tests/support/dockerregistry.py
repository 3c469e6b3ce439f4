"""Debian's docker-registry on a free port of loopback, ended by process id."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from tests.support.gitserver import free_port, wait_until

LOGIN = ("robot", "pässwörd")
# Of LOGIN, as `htpasswd -B` makes it.
_HTPASSWD = "robot:$2y$05$abcdefghijklmnopqrstuuZVEMa1pjhlynBQ1qXmSvGBJpN9h1w8G\n"


@dataclass(frozen=True)
class Registry:
    folder: Path
    port: int

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def register(self) -> str:
        return f"oci://{self.host}/rules"

    def put(
        self, repository: str, tag: str, layers: Sequence[Mapping[str, Any]], **more: Any
    ) -> str:
        """A manifest over `layers`, each a descriptor with `content`; its digest."""
        described: list[dict[str, Any]] = []
        for layer in (
            {"mediaType": "application/vnd.oci.empty.v1+json", "content": b"{}"},
            *layers,
        ):
            content = layer["content"]
            rest = {name: value for name, value in layer.items() if name != "content"}
            described.append({**rest, "digest": sha256(content), "size": len(content)})
            begin = self._ask("POST", f"/v2/{repository}/blobs/uploads/")
            where = begin.headers["Location"]
            self._ask("PUT", f"{where}&digest={sha256(content)}", content)
        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described[0],
            "layers": described[1:],
            **more,
        }
        return self._put(repository, tag, document)

    def _put(self, repository: str, tag: str, document: Mapping[str, Any]) -> str:
        raw = json.dumps(document).encode()
        self._ask("PUT", f"/v2/{repository}/manifests/{tag}", raw, kind=document["mediaType"])
        return sha256(raw)

    def sign(self, repository: str, manifest: str, payload: bytes, signature: str) -> None:
        """As cosign 2 does: beside the artifact, under a tag that is made of its digest."""
        layer = {
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "content": payload,
            "annotations": {"dev.cosignproject.cosign/signature": signature},
        }
        self.put(repository, f"{manifest.replace(':', '-')}.sig", [layer])

    def refer(self, repository: str, manifest: str, bundle: bytes) -> None:
        """As cosign 3 does where there is no referrers API: by an index in its place."""
        kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
        layer = {"mediaType": kind, "content": bundle}
        tag = manifest.replace(":", "-")
        made = self.put(repository, f"made-{tag}", [layer], artifactType=kind)
        raw = self._ask("GET", f"/v2/{repository}/manifests/made-{tag}").read()
        described = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": made,
            "size": len(raw),
            "artifactType": kind,
        }
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [described],
        }
        self._put(repository, tag, index)

    def copy(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        """The same manifest under another tag, or in a repository that has its bytes."""
        raw = self._ask("GET", f"/v2/{source[0]}/manifests/{source[1]}").read()
        kind = "application/vnd.oci.image.manifest.v1+json"
        self._ask("PUT", f"/v2/{target[0]}/manifests/{target[1]}", raw, kind=kind)

    def _ask(
        self, method: str, path: str, content: bytes | None = None, *, kind: str = ""
    ) -> http.client.HTTPResponse:
        url = path if path.startswith("http") else f"http://{self.host}{path}"
        accept = "application/vnd.oci.image.manifest.v1+json"
        basic = base64.b64encode(":".join(LOGIN).encode()).decode()
        headers = {
            "Content-Type": kind or "application/octet-stream",
            "Accept": accept,
            "Authorization": f"Basic {basic}",
        }
        request = urllib.request.Request(url, data=content, headers=headers, method=method)  # noqa: S310 - our own loopback server
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=10)  # noqa: S310 - as above
        return answer

    def blob(self, digest: str) -> Path:
        """Where it keeps bytes: to change them behind its back."""
        hexadecimal = digest.removeprefix("sha256:")
        blobs = self.folder / "storage/docker/registry/v2/blobs/sha256"
        return blobs / hexadecimal[:2] / hexadecimal / "data"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def docker_config(path: Path, host: str, login: tuple[str, str] = LOGIN) -> Path:
    """What `docker login` leaves."""
    packed = base64.b64encode(":".join(login).encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": packed}}}))
    return path


@contextlib.contextmanager
def docker_registry(
    folder: Path, *, login: bool = False, tokens: Tokens | None = None
) -> Iterator[Registry]:
    """A registry for everybody, for LOGIN, or for whoever `tokens` gives one."""
    folder.mkdir(parents=True)
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "of no use"},
    }
    if login:
        (folder / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "rules", "path": str(folder / "htpasswd")}}
    if tokens is not None:
        (folder / "root.pem").write_bytes(tokens.certificate)
        config["auth"] = {
            "token": {
                "realm": tokens.realm,
                "service": "registry",
                "issuer": "tests",
                "rootcertbundle": str(folder / "root.pem"),
            }
        }
    # JSON is YAML.
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")],
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: _listens(port), f"docker-registry listens on {port}")
        yield Registry(folder, port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Tokens:
    """A server that gives LOGIN tokens for what it asks for, and nobody else any."""

    realm: str = ""
    # What was asked for, and whether with LOGIN.
    asked: list[tuple[str, bool]] = field(default_factory=list)
    certificate: bytes = b""

    def __post_init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
        now = dt.datetime.now(dt.UTC)
        self._x509 = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, SHA256())
        )
        self.certificate = self._x509.public_bytes(Encoding.PEM)

    def token(self, scope: str) -> str:
        kind, name, actions = scope.split(":")
        now = int(time.time())
        claims = {
            "iss": "tests",
            "sub": LOGIN[0],
            "aud": "registry",
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": str(now),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        chain = [base64.b64encode(self._x509.public_bytes(Encoding.DER)).decode()]
        head = {"typ": "JWT", "alg": "RS256", "x5c": chain}
        signed = ".".join(_packed(json.dumps(part).encode()) for part in (head, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return f"{signed}.{_packed(signature)}"


def _packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@contextlib.contextmanager
def token_server() -> Iterator[Tokens]:
    tokens = Tokens()
    wanted = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            is_known = self.headers.get("Authorization") == wanted
            tokens.asked.append((asked["scope"][0], is_known))
            body = json.dumps({"token": tokens.token(asked["scope"][0])}).encode()
            self.send_response(200 if is_known else 401)
            self.send_header("Content-Length", str(len(body) if is_known else 0))
            self.end_headers()
            if is_known:
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tokens.realm = f"http://127.0.0.1:{server.server_port}/token"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Cosigner:
    """Signs as `cosign sign --key` does, without a transparency log."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def payload(self, reference: str, manifest: str, **critical: object) -> bytes:
        """What cosign 2 signs."""
        return json.dumps(
            {
                "critical": {
                    "identity": {"docker-reference": reference},
                    "image": {"docker-manifest-digest": manifest},
                    "type": "cosign container image signature",
                    **critical,
                },
                "optional": None,
            }
        ).encode()

    def signature(self, content: bytes) -> str:
        return base64.b64encode(self._key.sign(content, ec.ECDSA(SHA256()))).decode()

    def bundle(self, manifest: str, **statement: object) -> bytes:
        """What cosign 3 makes."""
        kind = "application/vnd.in-toto+json"
        subject = {"digest": {"sha256": manifest.removeprefix("sha256:")}, "annotations": {}}
        payload = json.dumps(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [subject],
                "predicateType": "https://sigstore.dev/cosign/sign/v1",
                "predicate": {},
                **statement,
            }
        ).encode()
        signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {"publicKey": {"hint": "of no use"}},
                "dsseEnvelope": {
                    "payload": base64.b64encode(payload).decode(),
                    "payloadType": kind,
                    "signatures": [{"sig": self.signature(signed)}],
                },
            }
        ).encode()
