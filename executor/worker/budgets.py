"""What a worker, and what one request to it, may use of memory and processor, kept by the kernel.

RLIMIT_DATA counts what is mapped for writing: heaps, array buffers, WebAssembly memories, stacks.
V8 takes half a gigabyte of it at its start without using it, so limits are set from where it
stands afterwards. A script meets the limit as an error that V8 throws, or the process ends.

The supervisor keeps times more finely; RLIMIT_CPU is there for when it is too busy to look.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import resource
import time
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

ISOLATES_BYTES: Final = 768 * 1024 * 1024
"""Mapped and hardly touched: the stacks and reserves of 64 isolates, 12 MB each."""

CROSSING_BYTES: Final = 24 * 1024 * 1024
"""On top of what a run may have: V8's own growth by pages, code, and the strings that cross."""

_SPARE_SECONDS: Final = 2
"""The kernel counts whole seconds, and the supervisor is to be first."""


class Budgets:
    """Limits of this process. `allow` moves within what `cap` has fixed for ever."""

    def __init__(self) -> None:
        # Opened before files are out of reach; absent where there is no /proc.
        self.descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._hard = resource.RLIM_INFINITY

    def cap(self, memory_bytes: int) -> str:
        """Let the process have `memory_bytes` more than it has, and never more.

        Raises:
            OSError: the limit could not be set, or does not hold.
        """
        more = memory_bytes + ISOLATES_BYTES
        hard = self._data_bytes() + more
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        self._hard = hard
        try:
            mmap.mmap(-1, more + CROSSING_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON).close()
        except OSError as error:
            if error.errno == errno.ENOMEM:
                return f"{memory_bytes >> 20} MiB for all scripts of a worker"
            raise
        raise OSError(errno.EPERM, "more memory could be had than the limit says")

    def allow(self, heap_bytes: int, cpu_seconds: float) -> None:
        """Let what comes next have this much more than the process has used until now."""
        if self._hard == resource.RLIM_INFINITY:
            return
        soft = self._data_bytes() + heap_bytes + CROSSING_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (min(soft, self._hard), self._hard))
        seconds = math.ceil(time.process_time() + cpu_seconds) + _SPARE_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))

    def release(self) -> None:
        """Give back the memory to the worker itself, until the next `allow`."""
        if self._hard != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_DATA, (self._hard, self._hard))

    def _data_bytes(self) -> int:
        return int(os.pread(self.descriptor, 256, 0).split()[5]) * _PAGE_BYTES
