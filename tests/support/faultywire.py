"""A TCP proxy that does to a link what networks do to links."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")
DELAY = 0.2
# 25 bytes, twenty times a second: slower than any answer is awaited.
DRIP = 25
DRIP_SECONDS = 0.05


class Fault(Enum):
    """What happens to connections from now on, those that are open and those that come."""

    NONE = "all passes"
    # As a path that is broken and heals: what was sent meanwhile arrives then.
    STALL = "nothing passes until it heals"
    # As a peer that went without a word, behind a firewall that forgets.
    SWALLOW = "nothing arrives, ever"
    HALF_OPEN = "nothing comes back, ever"
    RESET = "connections are reset, and new ones too"
    DELAY = "every piece arrives late"
    DRIP = "a few bytes at a time"


class FaultyWire:
    """Stands in front of a port of this machine. All methods may be called from any thread.

    Connections that have been in a fault which loses bytes are reset when it is over: what they
    have lost does not come back.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._fault = Fault.NONE
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire")

    def start(self) -> None:
        self._thread.start()
        self._do(self._open())

    def set(self, fault: Fault) -> None:
        self._do(self._set(fault))

    @property
    def connections(self) -> int:
        """Those that are open; each has two ends."""
        return len(self._writers) // 2

    def close(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._abort()
        # Two turns, until what was aborted is closed.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _set(self, fault: Fault) -> None:
        if fault is Fault.RESET or self._fault in {Fault.SWALLOW, Fault.HALF_OPEN}:
            self._abort()
        self._fault = fault
        self._changed.set()
        self._changed = asyncio.Event()

    def _abort(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._keep(asyncio.current_task())
        try:
            if self._fault is Fault.RESET:
                raise ConnectionResetError
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(back)
        for source, sink, is_answer in ((reader, back, False), (there, writer, True)):
            self._keep(asyncio.create_task(self._pass_on(source, sink, is_answer=is_answer)))

    def _keep(self, task: asyncio.Task[None] | None) -> None:
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                while self._fault is Fault.STALL:
                    await self._changed.wait()
                if self._fault is Fault.SWALLOW or (is_answer and self._fault is Fault.HALF_OPEN):
                    continue
                if self._fault is Fault.DELAY:
                    await asyncio.sleep(DELAY)
                while self._fault is Fault.DRIP and data:
                    sink.write(data[:DRIP])
                    await sink.drain()
                    data = data[DRIP:]
                    await asyncio.sleep(DRIP_SECONDS)
                sink.write(data)
                await sink.drain()
        self._writers.discard(sink)
        sink.close()


@contextlib.contextmanager
def faulty(target: int) -> Iterator[FaultyWire]:
    wire = FaultyWire(target)
    wire.start()
    try:
        yield wire
    finally:
        wire.close()
