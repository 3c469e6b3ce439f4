"""One worker process and the socket to it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from executor import ops
from executor.model import Outcome
from executor.supervisor.opened import Opened
from executor.worker import frames, sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_LAST_WORDS_BYTES: Final = 8_192
"""V8 names the reason of its death in its first lines, then prints a stack trace."""

_SPAWN_SECONDS: Final = 20.0
"""A spawn takes 0.1 s on an idle machine; this is for one that is drowning."""

_LAST_BREATH_SECONDS: Final = 1.0
"""Between closing its socket and being gone; V8 prints a stack trace in this time."""

_OUT_OF_MEMORY: Final = re.compile(
    rb"out of memory|invalid (?:size|array length|table size)|bad_alloc|MemoryError"
)

MESSAGE_CHARACTERS: Final = 2 * ops.MESSAGE_CHARACTERS
"""Of a worker's sentence: the longest message of a script, and where in its sources that was."""

OUT_OF_HEAP: Final = "it used more memory than a script may have"
OUT_OF_CPU: Final = "it used more processor time than a script may have"
"""What a worker died of; whoever knows the script can say how much that is."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's answer; not to be trusted beyond its being a frame."""

    ok: bool
    message: str
    duration_us: int
    body: bytes


class WorkerDied(Exception):
    """The process ended, or was ended, before it answered."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Unconfined(WorkerDied):
    """A worker was ended because it does without layers of the sandbox that it must have."""

    def __init__(self, missing: tuple[sandbox.Missing, ...]) -> None:
        super().__init__(Outcome.UNAVAILABLE, "; ".join(str(layer) for layer in missing))
        self.missing = missing


class Process(asyncio.Protocol):
    """A worker that is ready for requests, answered in the order in which they are asked.

    Ends with `kill`, or by itself; either way every request without an answer gets `WorkerDied`,
    once the process is reaped. Used by one event loop only.
    """

    def __init__(self) -> None:
        self._received = bytearray()
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._greeting = asyncio.get_running_loop().create_future()
        self._sentence: Outcome | None = None
        self._words = ""
        self._last_words = b""
        self._death: WorkerDied | None = None
        # Kept by those who ask for scripts to be opened.
        self.opened = Opened()

    _child: asyncio.subprocess.Process
    _transport: asyncio.Transport
    _reaper: asyncio.Task[None]
    greeting: dict[str, object]

    @classmethod
    async def spawn(cls, memory_bytes: int, *, wasm_fuel: int = 0) -> Process:
        """Start a worker and wait for its greeting.

        Raises:
            WorkerDied: it ended, or said nothing in time.
            OSError: no process or no socket could be made.
        """
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            process = cls()
            process._child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-s", "-P", "-m", "executor.worker"),
                *(str(os.getpid()), str(memory_bytes), str(wasm_fuel)),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={"PYTHONPATH": str(_PACKAGE_ROOT), "TZ": "UTC", "LANG": "C.UTF-8"},
                cwd="/",
                # A Ctrl-C at the terminal is for the supervisor, which then drains.
                start_new_session=True,
            )
            process._reaper = asyncio.create_task(process._reap())
            await loop.create_unix_connection(lambda: process, sock=ours.dup())
        try:
            async with asyncio.timeout(_SPAWN_SECONDS):
                process.greeting = await process._greeting
        except TimeoutError:
            process.kill(Outcome.UNAVAILABLE)
            await process.ended()
            raise WorkerDied(Outcome.UNAVAILABLE, "a worker did not start in time") from None
        return process

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._death is None and self._sentence is None

    def ask(self, frame: bytes) -> asyncio.Future[Reply]:
        """Send a request; its future ends with the reply or with `WorkerDied`."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self._death is not None:
            future.set_exception(self._death)
            return future
        # A request that nobody came to read the end of is no mistake: its worker died first.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append(future)
        self._transport.write(frame)
        return future

    @property
    def report(self) -> Mapping[str, object]:
        """The layers of its sandbox, as `sandbox.told` reads them."""
        report = self.greeting.get("sandbox")
        return report if isinstance(report, dict) else {}

    def cpu_seconds(self) -> float:
        """Processor time of all its threads until now; 0 when it is gone."""
        try:
            # The kernel's number for the clock of another process; there is no name for it.
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return 0.0

    def kill(self, sentence: Outcome, words: str = "") -> None:
        """End the process now; `sentence` is what its unanswered requests will be told."""
        if self._sentence is None and self._death is None:
            self._sentence, self._words = sentence, words
            self._child.kill()

    async def ended(self) -> None:
        """Wait until the process is reaped."""
        await asyncio.shield(self._reaper)

    def resident_bytes(self) -> int:
        """Memory it has to itself now; 0 when it is gone. Code of libraries is everyone's."""
        try:
            statm = Path(f"/proc/{self.pid}/statm").read_text("ascii")
        except OSError:
            return 0
        resident, shared = statm.split()[1:3]
        return (int(resident) - int(shared)) * _PAGE_BYTES

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's is a Transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        # It is ending, and how it ended says why. One that is not is of no use without its socket.
        asyncio.get_running_loop().call_later(_LAST_BREATH_SECONDS, self.kill, Outcome.CRASHED)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        size = frames.LENGTH.size
        while len(received) >= size:
            (length,) = frames.LENGTH.unpack_from(received)
            if length > frames.MAX_FRAME_BYTES:
                self.kill(Outcome.CRASHED)
                return
            if len(received) < size + length:
                return
            frame = bytes(received[size : size + length])
            del received[: size + length]
            self._take(frame)

    def _take(self, frame: bytes) -> None:
        try:
            head, body = frames.decode(frame)
        except frames.FrameInvalid:
            self.kill(Outcome.CRASHED)
            return
        if not self._greeting.done():
            self._greeting.set_result(head)
            return
        if not self._waiting or not self.is_alive:
            self.kill(Outcome.CRASHED)
            return
        duration, message = head.get("us"), head.get("message")
        future = self._waiting.popleft()
        if not future.done():
            future.set_result(
                Reply(
                    ok=head.get("ok") is True,
                    message=message[:MESSAGE_CHARACTERS] if isinstance(message, str) else "",
                    duration_us=duration if isinstance(duration, int) and duration > 0 else 0,
                    body=body,
                )
            )

    # its end

    async def _reap(self) -> None:
        child = self._child
        while part := await child.stderr.read(4_096):  # type: ignore[union-attr]  # PIPE above
            if len(self._last_words) < _LAST_WORDS_BYTES:
                self._last_words += part
        code = await child.wait()
        self._death = death = self._judge(code)
        if hasattr(self, "_transport"):
            self._transport.abort()
        if not self._greeting.done():
            self._greeting.set_exception(death)
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(death)

    def _judge(self, code: int) -> WorkerDied:
        # V8 says what it dies of, unless its allocator got no memory: that one just traps.
        trapped = code == -signal.SIGTRAP and not self._last_words
        if trapped or _OUT_OF_MEMORY.search(self._last_words):
            return WorkerDied(Outcome.OUT_OF_MEMORY, OUT_OF_HEAP)
        match self._sentence:
            case Outcome.TIMED_OUT:
                return WorkerDied(Outcome.TIMED_OUT, self._words or "it did not finish in time")
            case Outcome.OUT_OF_MEMORY:
                return WorkerDied(
                    Outcome.OUT_OF_MEMORY, "it used more memory than a worker may have"
                )
            case None if code == -signal.SIGXCPU:
                return WorkerDied(Outcome.TIMED_OUT, OUT_OF_CPU)
            case None if code == -signal.SIGKILL:
                return WorkerDied(
                    Outcome.OUT_OF_MEMORY, "the worker was killed, most likely for its memory"
                )
            case _:
                name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                return WorkerDied(Outcome.CRASHED, f"the worker process ended under it ({name})")
