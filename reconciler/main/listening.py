"""The two ports of a controller: one for people and tools, one for executors."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from reconciler import web
from reconciler.adapters import kube
from reconciler.adapters.git import LIBGIT2_VERSION
from reconciler.adapters.session_server import GrpcSessionServer
from reconciler.adapters.session_tls import TlsFiles
from reconciler.adapters.tokens import TokenFile
from reconciler.controllers.access import KeptAccess
from reconciler.errors import Stalled
from reconciler.ports.access import Access
from reconciler.ports.clock import Clock
from reconciler.ports.cluster import Cluster
from reconciler.ports.registry import Registry
from reconciler.ports.sessions import SessionHandler
from reconciler.settings import Address, Settings

# Those in this process that read what others send; what executors run on they tell themselves.
LIBRARIES: Final = {
    "libgit2": LIBGIT2_VERSION,
    "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where it listens, ports as they were bound."""

    web: Address
    grpc: Address


def sessions(settings: Settings) -> GrpcSessionServer:
    tls = settings.tls
    return GrpcSessionServer(
        str(settings.grpc),
        tls=None if tls is None else TlsFiles(tls.cert, tls.key, tls.client_ca),
        insecure=settings.insecure_listen,
    )


def access(settings: Settings, cluster: Cluster, clock: Clock) -> KeptAccess:
    """Of those that the API server knows, or that have a token of this controller."""
    asked: Access
    if isinstance(cluster, kube.KubeCluster):
        asked = cluster.access(audience=settings.audience)
    else:
        asked = TokenFile(settings.data, clock=clock)
    return KeptAccess(asked, clock=clock)


async def listen(
    stack: AsyncExitStack,
    settings: Settings,
    app: web.Asgi,
    executors: GrpcSessionServer,
    handler: SessionHandler,
    registry: Registry,
) -> Addresses:
    """Until `stack` ends for the web; ending `executors` is the caller's.

    Raises `Stalled` for an address that cannot be had.
    """
    files = settings.web_tls
    tls = None if files is None else web.Tls(files.cert, files.key)
    port, stop = await web.serve(app, *settings.web, tls=tls)
    stack.push_async_callback(stop)
    try:
        grpc_port = await executors.start(handler, registry.read)
    except OSError as error:
        raise Stalled(
            f"cannot listen on {settings.grpc}; choose another --grpc address",
            reason="AddressUnavailable",
        ) from error
    return Addresses(Address(settings.web.host, port), Address(settings.grpc.host, grpc_port))
