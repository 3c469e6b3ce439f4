"""A session server on loopback, an executor that says what a test says, and a wire that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
from scriptops.controller.v1 import controller_pb2 as pb
from scriptops.controller.v1 import controller_pb2_grpc as pb_grpc

from reconciler.adapters.session_server import GrpcSessionServer
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Dispatch, ExecutorId, Pause, RunId, RunKey, RunResult, ScriptRef
from reconciler.ports.sessions import ExecutorInfo

T = TypeVar("T")

SCRIPT = ScriptRef(
    key=ObjectKey("default", "thermostat"),
    digest="sha256:" + "a" * 64,
    script_type="Js",
    file="thermostat/1.0.0.js",
)


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


async def until(holds: Callable[[], object], within: float = 15.0) -> None:
    """Wait for a condition; ends as soon as it holds."""
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class Heard:
    """A handler that remembers, per executor, what it was told and in what order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ExecutorId, object]] = []

    def connected(self, executor: ExecutorInfo) -> None:
        self.told.append(("connected", executor.id, executor))

    def credited(self, executor: ExecutorId, credit: int) -> None:
        self.told.append(("credited", executor, credit))

    def draining(self, executor: ExecutorId) -> None:
        self.told.append(("draining", executor, None))

    def finished(self, executor: ExecutorId, results: Sequence[RunResult]) -> None:
        self.told.append(("finished", executor, tuple(results)))

    def paused(self, executor: ExecutorId, pauses: Sequence[Pause]) -> None:
        self.told.append(("paused", executor, tuple(pauses)))

    def disconnected(self, executor: ExecutorId, reason: str) -> None:
        self.told.append(("disconnected", executor, reason))

    def of(self, executor: str) -> list[str]:
        return [what for what, who, _ in self.told if who == executor]


class Served:
    """A server that listens, and what it told its handler."""

    def __init__(self, server: GrpcSessionServer, heard: Heard, port: int) -> None:
        self.server = server
        self.heard = heard
        self.port = port

    @asynccontextmanager
    async def channel(self, port: int | None = None) -> AsyncIterator[grpc.aio.Channel]:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port or self.port}", options=options
        ) as channel:
            yield channel

    @asynccontextmanager
    async def executor(self, port: int | None = None) -> AsyncIterator[Executor]:
        async with self.channel(port) as channel:
            call = pb_grpc.ControllerServiceStub(channel).Run()
            try:
                yield Executor(call)
            finally:
                call.cancel()


@asynccontextmanager
async def served(
    artifact: Callable[[str], bytes | None] = lambda _: None, **parts: Any
) -> AsyncIterator[Served]:
    server = GrpcSessionServer("127.0.0.1:0", **{"drain_seconds": 0.2, **parts})
    heard = Heard()
    port = await server.start(heard, artifact)
    try:
        yield Served(server, heard, port)
    finally:
        await server.stop()


class Executor:
    """The other end of a session."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.id = ExecutorId("")

    async def say(self, **message: Any) -> None:
        await self.call.write(pb.ClientMessage(**message))

    async def connect(self, *, credit: int = 0, protocol: int = 1) -> ExecutorId:
        info = pb.ClientInfo(
            protocol=protocol,
            name="e",
            script_types=[pb.SCRIPT_TYPE_JS, 99],  # type: ignore[list-item]  # a later version's
            engines={"v8": "14.4"},
        )
        await self.say(connect=pb.Connect(client_info=info))
        answer = await self.read()
        self.id = ExecutorId(answer.connected.executor_id)
        if credit:
            await self.give(credit)
        return self.id

    async def give(self, credit: int) -> None:
        await self.say(**{"continue": pb.Continue(credit=credit)})

    async def answer(self, *results: pb.UpdateScriptStatus) -> None:
        await self.say(results=pb.UpdateScriptStatuses(results=results))

    async def exit(self) -> None:
        await self.say(exit=pb.ClientExit(reason="bye"))

    async def read(self) -> pb.ServerMessage:
        message: pb.ServerMessage = await self.call.read()
        if message is grpc.aio.EOF:
            raise EOFError
        return message

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """How the call ended."""
        with contextlib.suppress(grpc.aio.AioRpcError, EOFError):
            while True:
                await self.read()
        return await self.call.code(), await self.call.details()


def result(run_id: str, **parts: Any) -> pb.UpdateScriptStatus:
    return pb.UpdateScriptStatus(
        key=pb.RunKey(run_id=run_id, attempt=1, epoch=1),
        **{"outcome": pb.OUTCOME_SUCCEEDED, **parts},
    )


def dispatch(*run_ids: str, activation: bytes = b"{}") -> Dispatch:
    return Dispatch(SCRIPT, tuple((RunKey(RunId(it), 1, 1), activation) for it in run_ids))


class Wire:
    """A TCP proxy: what goes through it can be cut, or swallowed without a word."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._swallow = False
        # What has come through to the server, in pieces.
        self.passed_back = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._servers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self._server.sockets[0].getsockname()[1]
        finally:
            self.cut()
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def swallow(self) -> None:
        self._swallow = True

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, back]
        self._servers.add(back)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not self._swallow:
                    self.passed_back += sink in self._servers
                    sink.write(data)
                    await sink.drain()
            if not self._swallow:
                sink.close()
