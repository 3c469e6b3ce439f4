"""`ports.clusters.Clusters`: API servers of kubeconfigs that came from Secrets."""

from __future__ import annotations

import base64
import binascii
import ssl
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import getproxies

from kubernetes.aio.client import ApiClient, Configuration

from reconciler.adapters.kube.cluster import KubeCluster
from reconciler.adapters.kube.transport import Transport
from reconciler.core import kubeconfigs
from reconciler.core.objects import JsonObject, mapping, sequence, text
from reconciler.errors import Stalled


class RemoteClusters:
    """The client's own loader is not asked: it knows plugins, and leaves keys in files.

    For a moment, one is in a file in `folder`; without it, where the system has such files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    async def open(self, kubeconfig: str, *, name: str) -> KubeCluster:
        config = kubeconfigs.judged(kubeconfig, name=name)
        cluster, user = _part(config, "clusters", "cluster"), _part(config, "users", "user")
        configuration = Configuration()
        configuration.host = text(cluster.get("server")).rstrip("/")
        configuration.tls_server_name = text(cluster.get("tls-server-name")) or None
        configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
        try:
            if "certificate-authority-data" in cluster:
                configuration.ca_cert_data = _decoded(cluster["certificate-authority-data"])
            if "token" in user:
                configuration.api_key["BearerToken"] = f"Bearer {text(user.get('token')).strip()}"
            return KubeCluster(Transport(_client(configuration, user, self._folder)))
        except (binascii.Error, UnicodeDecodeError, ssl.SSLError, ValueError, TypeError):
            raise Stalled(
                f"{name}: its certificates or keys cannot be read", reason="KubeConfigInvalid"
            ) from None


def _client(configuration: Any, user: JsonObject, place: Path | None) -> Any:
    """OpenSSL reads the key from a file: there is one for that moment."""
    if "client-certificate-data" not in user or "token" in user:
        return ApiClient(configuration)
    with TemporaryDirectory(prefix="scriptops-", dir=place) as folder:
        for field in ("cert", "key"):
            kind = "certificate" if field == "cert" else field
            file = Path(folder, field)
            file.write_text(_decoded(user.get(f"client-{kind}-data")))
            setattr(configuration, f"{field}_file", str(file))
        return ApiClient(configuration)


def _decoded(value: object) -> str:
    return base64.b64decode(text(value), validate=True).decode("ascii")


def _part(config: JsonObject, field: str, kind: str) -> JsonObject:
    return mapping(mapping(sequence(config.get(field))[0]).get(kind))
