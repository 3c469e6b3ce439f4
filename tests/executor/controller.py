"""A small controller on loopback for the tests of the session: scripted, speaking real gRPC."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from scriptops.controller.v1 import controller_pb2 as wire
from scriptops.controller.v1 import controller_pb2_grpc

from executor.model import RunKey, RunResult, Work
from executor.session import codec
from tests.executor.running import digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Session:
    """The server's end of one stream."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.hello: wire.ClientInfo | None = None
        self.results: dict[RunKey, RunResult] = {}
        self.credit: list[int] = []
        self.exits: list[str] = []
        self.messages = 0
        self.is_over = asyncio.Event()
        self.is_closed_by_client = False

    async def greet(self) -> None:
        message = await self._context.read()
        self.hello = message.connect.client_info
        await self.send(wire.ServerMessage(connected=wire.Connected(executor_id="e-1")))

    async def send(self, message: wire.ServerMessage) -> None:
        await self._context.write(message)

    async def ask(self, *works: Work) -> None:
        scripts = [codec.work_to_wire(work) for work in works]
        await self.send(wire.ServerMessage(runs=wire.RunScripts(scripts=scripts)))

    async def read_on(self) -> None:
        while (message := await self._context.read()) is not grpc.aio.EOF:
            self.messages += 1
            match message.WhichOneof("message"):
                case "results":
                    for result in codec.results_from_wire(message):
                        assert result.key not in self.results, "answered twice"
                        self.results[result.key] = result
                case "continue":
                    self.credit.append(getattr(message, "continue").credit)
                case "exit":
                    self.exits.append(message.exit.reason)
                    await self.send(wire.ServerMessage(exit=wire.ServerExit(reason="drained")))
        self.is_closed_by_client = True
        self.is_over.set()


class Controller(controller_pb2_grpc.ControllerServiceServicer):
    """Keeps every session; `on_connect` decides how one goes on after the greeting."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.artifacts: dict[str, bytes] = {}
        self.fetches: list[str] = []
        self.fetch_fault: grpc.StatusCode | None = None
        self.on_connect: Callable[[Session], Any] = Session.greet
        self.port = 0

    def publish(self, *sources: bytes) -> None:
        self.artifacts |= {digest_of(source): source for source in sources}

    async def Run(self, request_iterator: Any, context: Any) -> None:  # noqa: N802 - gRPC's name
        session = Session(context)
        self.sessions.append(session)
        try:
            await self.on_connect(session)
            reading = asyncio.create_task(session.read_on())
            await session.is_over.wait()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        finally:
            session.is_over.set()

    async def FetchArtifact(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - gRPC's name
        self.fetches.append(request.digest)
        if self.fetch_fault is not None:
            await context.abort(self.fetch_fault, "as the test wants it")
        if request.digest not in self.artifacts:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
        artifact = self.artifacts[request.digest]
        for start in range(0, len(artifact), 1 << 20):
            yield wire.FetchArtifactResponse(chunk=artifact[start : start + (1 << 20)])


@asynccontextmanager
async def serving(
    controller: Controller, port: int = 0, *, host: str = "127.0.0.1"
) -> AsyncIterator[Controller]:
    options = [("grpc.max_receive_message_length", codec.MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    controller_pb2_grpc.add_ControllerServiceServicer_to_server(controller, server)
    controller.port = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    try:
        yield controller
    finally:
        await server.stop(0)
