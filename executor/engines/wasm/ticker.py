"""The thread that lets deadlines pass while a guest runs."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

TICK_SECONDS: Final = 0.005
"""How late a deadline may be noticed. The supervisor kills 50 ms after it; 200 wake-ups a second
cost nothing that can be measured beside a running guest."""


def ticks(milliseconds: int) -> int:
    """The deadline that lets a run have at least `milliseconds`."""
    return int(milliseconds / 1_000 / TICK_SECONDS) + 2


class Ticker:
    """Calls `tick` every `TICK_SECONDS` from a thread of its own inside a `with` of this object.

    The thread ends with the process. It sleeps without waking while nobody is inside.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._busy = threading.Event()
        self._idle = threading.Event()
        self._idle.set()

    def start(self) -> None:
        """Start the thread; once."""
        threading.Thread(target=self._run, name="wasm-ticker", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._busy.wait()
            began, done = time.monotonic(), 0
            while not self._idle.wait(TICK_SECONDS):
                # By the clock: on a busy machine a wait takes longer than it was meant to.
                due = int((time.monotonic() - began) / TICK_SECONDS)
                for _ in range(due - done):
                    self._tick()
                done = due

    def __enter__(self) -> None:
        self._idle.clear()
        self._busy.set()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._busy.clear()
        self._idle.set()
