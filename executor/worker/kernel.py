"""The system calls that the layers need and Python does not have, through the C library."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39


def call(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | bytes) -> int:
    """Make one system call.

    Raises:
        OSError: the kernel refused it.
    """
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_LIBC.syscall(ctypes.c_long(number), *words))


def control(option: int, value: int = 0) -> int:
    """Set or ask one thing of this process, by prctl.

    Raises:
        OSError: the kernel refused it.
    """
    zeros = [ctypes.c_ulong(0)] * 3
    return _checked(_LIBC.prctl(option, ctypes.c_ulong(value), *zeros))


def unshare(flags: int) -> None:
    """Leave namespaces for new and empty ones.

    Raises:
        OSError: the kernel refused it.
    """
    _checked(_LIBC.unshare(flags))


def drop_capabilities() -> None:
    """Give up every capability of this thread, and of those it starts later.

    Raises:
        OSError: the kernel refused it.
    """
    header = struct.pack("Ii", 0x20080522, 0)
    _checked(_LIBC.capset(header, bytes(24)))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
