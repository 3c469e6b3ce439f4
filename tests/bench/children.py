"""Programs that are measured: each pinned to one core, told what to do by lines, timed by its CPU.

Rates come from processor time, which other users of the machine do not stretch as they stretch the
time of a clock: a program that keeps one core busy does `count / cpu` things a second when it has
the core to itself. It counts all threads and all descendants. What a program waits for without
computing is not in it, so latencies are taken from the clock, over several rounds in turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def start(arguments: Sequence[str], core: int | None, **options: Any) -> subprocess.Popen[str]:
    """A child on one core, or on all; its threads and children inherit it."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, own if core is None else {core})
    try:
        return subprocess.Popen(arguments, text=True, **options)
    finally:
        os.sched_setaffinity(0, own)


def family(pid: int) -> Iterator[int]:
    """`pid` and all its descendants that live."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (thread / "children").read_text("ascii").split()
        except FileNotFoundError:  # it has ended since it was listed
            continue
        for child in children:
            yield from family(int(child))


def cpu_seconds(pid: int) -> float:
    """Processor time until now of `pid`, of its living descendants and of those it has reaped."""
    # The kernel's number for the clock of another process; there is no name for it.
    living = sum(time.clock_gettime(~member << 3 | 2) for member in family(pid))
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return living + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


class Child:
    """A program that answers each line of JSON on its stdin by one on its stdout."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.cpu = 0.0
        self.seconds = 0.0

    def ask(self, **what: Any) -> Any:
        """Its answer; `cpu` and `seconds` are then the processor's time and the clock's it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        began, before = time.perf_counter(), cpu_seconds(self._process.pid)
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        self.seconds = time.perf_counter() - began
        self.cpu = cpu_seconds(self._process.pid) - before
        return answer


@contextmanager
def running(arguments: Sequence[str], core: int | None) -> Iterator[Child]:
    """The program `arguments`, which ends when its stdin does."""
    process = start(arguments, core, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Child(process)
    finally:
        with process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
