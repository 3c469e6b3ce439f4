"""`python -m executor.worker <supervisor pid> <bytes of memory> <fuel>`, its socket as stdin."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import time
from typing import TYPE_CHECKING, cast

from executor import engines
from executor.engines.errors import BatchRefused, EngineUnfit, ScriptRefused
from executor.model import ScriptType
from executor.worker import frames, sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from executor.worker.budgets import Budgets


class Worker:
    """Answers requests with an engine per script type, until the supervisor closes the socket."""

    def __init__(self, by_type: Mapping[int, engines.Engine], budgets: Budgets) -> None:
        self._engines = by_type
        self._budgets = budgets

    def answer(self, frame: bytes) -> bytes:
        head, body = frames.decode(frame)
        started = time.monotonic_ns()
        self._allow(head)
        try:
            completions = self._do(head, body)
        except (ScriptRefused, BatchRefused) as refusal:
            return frames.encode({"ok": False, "message": str(refusal)})
        finally:
            self._budgets.release()
        microseconds = (time.monotonic_ns() - started) // 1_000
        return frames.encode({"ok": True, "us": microseconds}, completions)

    def _allow(self, head: Mapping[str, object]) -> None:
        """Have the kernel hold what follows to the memory and processor time of a run."""
        heap, milliseconds = head.get("heap"), head.get("cpu")
        if isinstance(heap, int) and isinstance(milliseconds, int):
            self._budgets.allow(heap, milliseconds / 1_000)

    def _do(self, head: Mapping[str, object], body: bytes) -> bytes:
        script, file = str(head.get("script")), str(head.get("file"))
        number = head.get("type")
        engine = self._engines.get(number) if isinstance(number, int) else None
        if engine is None:
            raise frames.FrameInvalid(f"no such script type: {number}")
        match head.get("do"):
            case "run":
                return engine.run(cast("list[tuple[str, int]]", head.get("of")), body)
            case "open":
                for dropped in cast("list[str]", head.get("drop")):
                    for other in self._engines.values():
                        other.close(dropped)
                engine.open(script, body, file, alone=head.get("alone") is True)
            case "check":
                engine.check(body, file)
            case unknown:
                raise frames.FrameInvalid(f"no such request: {unknown}")
        return b""


def _receive(channel: socket.socket, count: int) -> bytes | None:
    received = bytearray()
    while len(received) < count:
        part = channel.recv(min(count - len(received), 1 << 20))
        if not part:
            return None
        received += part
    return bytes(received)


def _versions(started: Mapping[int, engines.Engine]) -> dict[str, str]:
    return {engines.NAMES[ScriptType(number)]: engine.version for number, engine in started.items()}


def _warmed(started: Mapping[int, engines.Engine]) -> str:
    try:
        for engine in started.values():
            engine.warm()
    except EngineUnfit as error:
        raise OSError(None, str(error)) from error
    return ", ".join(f"{name} {version}" for name, version in _versions(started).items())


async def serve(channel: socket.socket, box: sandbox.Sandbox, memory_bytes: int, fuel: int) -> None:
    """Greet, then answer. Blocks its event loop throughout: an engine may ask for a running one."""
    loop = asyncio.get_running_loop()
    started: dict[int, engines.Engine] = {
        number: engines.start(number, loop, fuel=fuel) for number in engines.ENGINES
    }
    box.confine()
    box.enter("engines", lambda: _warmed(started))
    worker = Worker(started, box.budgets)
    # Everything made so far lives as long as the process; collections need not look at it.
    gc.freeze()
    box.seal(memory_bytes)
    channel.sendall(frames.encode({"engines": _versions(started), "sandbox": box.report}))
    while (head := _receive(channel, frames.LENGTH.size)) is not None:
        frame = _receive(channel, frames.LENGTH.unpack(head)[0])
        if frame is None:
            return
        channel.sendall(worker.answer(frame))


if __name__ == "__main__":
    sandbox.leave_no_orphan(int(sys.argv[1]))
    box = sandbox.Sandbox()
    box.begin()
    asyncio.run(serve(socket.socket(fileno=0), box, int(sys.argv[2]), int(sys.argv[3])))
