"""`python -m executor.worker <supervisor pid>`: started by the supervisor, socket as stdin."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import time
from typing import TYPE_CHECKING

from executor import engines
from executor.engines.errors import BatchRefused, ScriptRefused
from executor.model import ScriptType
from executor.worker import frames, sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping


class Worker:
    """Answers requests with one engine, until the supervisor closes the socket."""

    def __init__(self, engine: engines.Engine) -> None:
        self._engine = engine

    def answer(self, frame: bytes) -> bytes:
        head, body = frames.decode(frame)
        started = time.monotonic_ns()
        try:
            completions = self._do(head, body)
        except (ScriptRefused, BatchRefused) as refusal:
            return frames.encode({"ok": False, "message": str(refusal)})
        microseconds = (time.monotonic_ns() - started) // 1_000
        return frames.encode({"ok": True, "us": microseconds}, completions)

    def _do(self, head: Mapping[str, object], body: bytes) -> bytes:
        script, file = str(head.get("script")), str(head.get("file"))
        match head.get("do"):
            case "run":
                return self._engine.run(script, _text(body, BatchRefused)).encode()
            case "open":
                drop = head.get("drop")
                if isinstance(drop, str):
                    self._engine.close(drop)
                self._engine.open(script, _text(body, ScriptRefused), file)
            case "check":
                self._engine.check(_text(body, ScriptRefused), file)
            case unknown:
                raise frames.FrameInvalid(f"no such request: {unknown}")
        return b""


def _text(body: bytes, refusal: type[Exception]) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal(f"not UTF-8 at byte {error.start}") from error


def _receive(channel: socket.socket, count: int) -> bytes | None:
    received = bytearray()
    while len(received) < count:
        part = channel.recv(min(count - len(received), 1 << 20))
        if not part:
            return None
        received += part
    return bytes(received)


async def serve(channel: socket.socket) -> None:
    """Greet, then answer. Blocks its event loop throughout: the engine asks for a running one."""
    engine = engines.start(ScriptType.JS, asyncio.get_running_loop())
    worker = Worker(engine)
    layers = sandbox.enter()
    # Everything made so far lives as long as the process; collections need not look at it.
    gc.freeze()
    channel.sendall(frames.encode({"v8": engine.version, "sandbox": layers}))
    while (head := _receive(channel, frames.LENGTH.size)) is not None:
        frame = _receive(channel, frames.LENGTH.unpack(head)[0])
        if frame is None:
            return
        channel.sendall(worker.answer(frame))


if __name__ == "__main__":
    sandbox.leave_no_orphan(int(sys.argv[1]))
    asyncio.run(serve(socket.socket(fileno=0)))
