"""Whether this executor lives and serves, for probes: `grpc.health.v1` on a port of its own."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from scriptops.controller.v1 import controller_pb2 as wire

SESSION: Final[str] = wire.DESCRIPTOR.services_by_name["ControllerService"].full_name
"""The service whose health is the session's; the one without a name is the process's."""


class Health:
    """Tells who asks. It speaks without TLS, as probes do, and says nothing else.

    Used by one event loop only.
    """

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, address: str) -> int:
        """Listen, on all interfaces for `:port`; the port that was bound.

        Raises:
            OSError: it cannot.
        """
        if address.startswith(":"):
            address = f"0.0.0.0{address}"  # noqa: S104 - what a bare ":port" means everywhere
        self._server = server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        reflection.enable_server_reflection((health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        try:
            port: int = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen for probes on {address}") from error
        await self._servicer.set(health.OVERALL_HEALTH, HealthCheckResponse.SERVING)
        await self._servicer.set(SESSION, HealthCheckResponse.NOT_SERVING)
        await server.start()
        return port

    def session(self, *, is_open: bool) -> None:
        """Say from now on whether there is a session with the controller."""
        state = HealthCheckResponse.SERVING if is_open else HealthCheckResponse.NOT_SERVING
        task = asyncio.create_task(self._servicer.set(SESSION, state))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        if self._server is not None:
            await self._servicer.enter_graceful_shutdown()
            await self._server.stop(grace=None)
