"""One session: from Connect to the end of the stream.

Credit is given in full at the start and topped up when results have been sent, so what waits here
is bounded by it, however slowly the controller reads.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

from executor.session import codec
from executor.session.codec import PeerProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc.aio
    from scriptops.controller.v1 import controller_pb2 as wire

    from executor.model import RunResult, Work
    from executor.session.purse import Purse

log = logging.getLogger(__name__)

TOP_UP: Final = 10
"""Credit is returned in lots of this part of it: a message costs as much as twenty runs."""

LAST_WORD_SECONDS: Final = 2.0
"""For the other side to answer a goodbye, and then to hang up: a few round trips."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over in good order; come back after the delay, if at all."""

    reason: str
    reconnect_after_ms: int = 0


class Stream:
    """The session on one gRPC stream. Used by one event loop only."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall,
        *,
        connect: wire.ClientMessage,
        purse: Purse,
        handle: Callable[[Work], None],
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        self._call = call
        self._connect = connect
        self._handle = handle
        self._opened = opened
        self._results: list[RunResult] = []
        self._purse = purse
        # Credit in all: given and not used, owed, and not returned.
        self._window = 0
        self._owed = 0
        self._unreturned = 0
        self._draining = False
        self._exit_sent = False
        self._ending: Ended | None = None
        self._news = asyncio.Event()
        self.is_connected = False

    def deliver(self, results: Sequence[RunResult]) -> None:
        """Send `results` soon, together with whatever else there is by then."""
        self._results.extend(results)
        self._news.set()

    @property
    def is_idle(self) -> bool:
        """Whether all that was asked for is answered."""
        return self.is_connected and not self._owed

    def give_back(self) -> None:
        """End in order; whoever has this session begins another."""
        self.drain()

    def drain(self) -> None:
        """Ask for no more, take what was sent before that was heard, send what is owed, and end."""
        self._draining = True
        self._news.set()

    async def run(self) -> Ended:
        """Serve until one side ends the session.

        Raises:
            PeerProtocolError: the controller broke the protocol.
            grpc.aio.AioRpcError: the stream broke.
        """
        await self._call.write(self._connect)
        first = await self._read()
        if first is None or first.WhichOneof("message") != "connected":
            raise PeerProtocolError("the controller did not begin with Connected")
        self.is_connected = True
        self._opened()
        log.info("connected", extra={"executor": first.connected.executor_id})
        self._window = self._purse.begin(self)
        await self._call.write(codec.credit_to_wire(self._window))
        writer = asyncio.create_task(self._write_on())
        reader = asyncio.create_task(self._read_on())
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            # Both may have ended; what the controller said counts more than a failed write.
            return reader.result() if reader.done() else writer.result()
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            self._purse.end(self)

    async def _read_on(self) -> Ended:
        while (message := await self._read()) is not None:
            match message.WhichOneof("message"):
                case "runs":
                    self._accept(message.runs)
                case "exit":
                    # Nothing comes after it, also where it answers ours. It waits a moment for what
                    # we owe; when it has waited enough it hangs up.
                    self._ending = Ended(message.exit.reason, message.exit.reconnect_after_ms)
                    self._news.set()
                case "connected":
                    raise PeerProtocolError("the controller said Connected twice")
                case None:
                    # A kind of message from a later minor version: not for us.
                    log.debug("unknown message ignored")
                case unreachable:
                    assert_never(unreachable)
        return self._ending or Ended("the controller closed the stream")

    def _accept(self, message: wire.RunScripts) -> None:
        # All of it is judged before any of it is begun.
        batch = [codec.work_from_wire(script) for script in message.scripts]
        self._owed += sum(len(work.runs) or 1 for work in batch)
        if self._owed + self._unreturned > self._window:
            raise PeerProtocolError("the controller sent more than it had credit for")
        for work in batch:
            self._handle(work)

    async def _read(self) -> wire.ServerMessage | None:
        # At the end of the stream this is grpc's EOF, which is no message and is falsy.
        message = await self._call.read()
        return message if hasattr(message, "WhichOneof") else None

    async def _write_on(self) -> Ended:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._draining and not self._exit_sent:
                self._exit_sent = True
                await self._call.write(codec.exit_to_wire("the executor is shutting down"))
                asyncio.get_running_loop().call_later(LAST_WORD_SECONDS, self._drained)
            if self._results:
                await self._send_results()
            if self._ending is not None and not self._owed:
                await self._call.done_writing()
                # Whoever hangs up before the other side does, takes back what was sent last.
                await asyncio.sleep(LAST_WORD_SECONDS)
                return self._ending

    def _drained(self) -> None:
        """The controller should have said by now that it sends no more."""
        if self._ending is None:
            self._ending = Ended("drained")
            self._news.set()

    async def _send_results(self) -> None:
        results, self._results = self._results, []
        for message in codec.results_to_wire(results):
            await self._call.write(message)
        self._owed -= len(results)
        self._unreturned += len(results)
        if self._unreturned * TOP_UP >= self._window and not self._draining:
            credit, self._unreturned = self._unreturned, 0
            more = self._purse.more(self, credit)
            self._window += more
            await self._call.write(codec.credit_to_wire(credit + more))
