"""The system calls that a worker may make once it holds a script: a list, everything else refused.

A refused call returns EPERM instead of ending the process: V8 tries files that it can do without.
The list is what V8, wasmtime and Python were seen to use after their start, threads included; there
is no file, socket, process or signal to another process among it. The filter holds for every thread
of the process, also for those that V8 has started before.

Assembled here, because the one binding on PyPI needs libseccomp on the machine and has not been
released since 2021; the program is a plain list of comparisons.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from typing import Final

from executor.worker import kernel


@dataclass(frozen=True, slots=True)
class Machine:
    """What one processor architecture calls things; `column` is its place in the tables below."""

    audit: int
    seccomp: int
    column: int


MACHINES: Final = {
    "x86_64": Machine(audit=0xC000003E, seccomp=317, column=0),
    "aarch64": Machine(audit=0xC00000B7, seccomp=277, column=1),
}

_ABSENT: Final = -1

# The busy ones first: the program is read from the top.
ALLOWED: Final = {
    "futex": (202, 98),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "read": (0, 63),
    "write": (1, 64),
    "recvfrom": (45, 207),
    "pread64": (17, 67),
    "munmap": (11, 215),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "epoll_wait": (232, _ABSENT),
    "epoll_pwait": (281, 22),
    "epoll_ctl": (233, 21),
    "poll": (7, _ABSENT),
    "ppoll": (271, 73),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "mremap": (25, 216),
    "brk": (12, 214),
    "membarrier": (324, 283),
    "mincore": (27, 232),
    "pkey_alloc": (330, 289),
    "pkey_mprotect": (329, 288),
    "pkey_free": (331, 290),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "times": (100, 153),
    "getrandom": (318, 278),
    "getcpu": (309, 168),
    "uname": (63, 160),
    "sysinfo": (99, 179),
}
"""Allowed whatever their arguments. Numbers are those of (x86_64, aarch64)."""


@dataclass(frozen=True, slots=True)
class Only:
    """A call that is allowed while argument `index`, its low half masked, equals `value`.

    The high half must be 0 where `whole` says so: the argument is then a pointer or a full word.
    """

    index: int
    value: int
    mask: int = 0xFFFFFFFF
    whole: bool = False


_THREAD: Final = 0x00000100 | 0x00010000
"""CLONE_VM | CLONE_THREAD."""
_NAMESPACES: Final = 0x7E020000
"""Every CLONE_NEW* flag that clone takes."""
_MAP_KIND: Final = 0x0F | 0x0100
"""How it is shared, and MAP_GROWSDOWN."""
_MAP_PRIVATE: Final = 0x02
_OWN_PROCESS: Final = "own process"
_RLIMIT_CPU: Final = 0
_RLIMIT_DATA: Final = 2

CONDITIONAL: Final[tuple[tuple[str, tuple[int, int], tuple[Only, ...]], ...]] = (
    # Shared memory would escape RLIMIT_DATA, and so would what grows down, as stacks of old did.
    ("mmap", (9, 222), (Only(3, _MAP_PRIVATE, mask=_MAP_KIND),)),
    ("sendto", (44, 206), (Only(4, 0, whole=True),)),
    ("clone", (56, 220), (Only(0, _THREAD, mask=_THREAD | _NAMESPACES),)),
    ("prctl", (157, 167), (Only(0, 15),)),  # PR_SET_NAME
    ("prctl", (157, 167), (Only(0, 0x53564D41),)),  # PR_SET_VMA: a name for a mapping
    ("prlimit64", (302, 261), (Only(0, 0), Only(1, _RLIMIT_DATA))),
    ("prlimit64", (302, 261), (Only(0, 0), Only(1, _RLIMIT_CPU))),
)

COUNT: Final = len({*ALLOWED, *(name for name, _, _ in CONDITIONAL), "tgkill"})

ABSENT_CALLS: Final = {"clone3": (435, 435), "memfd_create": (319, 279)}
"""Answered ENOSYS, so that the C library and wasmtime go the older way: the flags of clone3 lie in
memory where a filter cannot see them."""

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
REFUSE: Final = _ERRNO | errno.EPERM
PRETEND_ABSENT: Final = _ERRNO | errno.ENOSYS

_X32: Final = 0x40000000
"""x86_64 programs may call by numbers of a second table, from here on."""

_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1

Instruction = tuple[int, int, int, int]


def program(machine: Machine, pid: int) -> list[Instruction]:
    """The filter for a process: (code, jump if true, jump if false, value) each."""
    lines: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, KILL),
    ]
    for numbers in ALLOWED.values():
        if (number := numbers[machine.column]) != _ABSENT:
            lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, ALLOW)]
    for numbers in ABSENT_CALLS.values():
        lines += [(_EQUAL, 0, 1, numbers[machine.column]), (_RETURN, 0, 0, PRETEND_ABSENT)]
    # abort(3) of the C library raises its signal this way.
    to_itself = ("tgkill", (234, 131), (Only(0, pid),))
    for _, numbers, rules in (*CONDITIONAL, to_itself):
        steps = [line for rule in rules for line in _test(rule)] + [(_RETURN, 0, 0, ALLOW)]
        lines += [(_EQUAL, 0, len(steps), numbers[machine.column]), *_resolved(steps)]
        # Whoever was not let through goes on with the next entry, which may be for the same call.
        lines.append((_LOAD, 0, 0, 0))
    lines.append((_RETURN, 0, 0, REFUSE))
    return lines


_MISS: Final = 255


def _test(rule: Only) -> list[Instruction]:
    low = 16 + 8 * rule.index
    lines: list[Instruction] = [(_LOAD, 0, 0, low)]
    if rule.mask != 0xFFFFFFFF:
        lines.append((_AND, 0, 0, rule.mask))
    lines.append((_EQUAL, 0, _MISS, rule.value))
    if rule.whole:
        lines += [(_LOAD, 0, 0, low + 4), (_EQUAL, 0, _MISS, 0)]
    return lines


def _resolved(steps: list[Instruction]) -> list[Instruction]:
    """Jumps for a miss, made to land just behind the steps."""
    return [
        (code, true, len(steps) - 1 - at if false == _MISS else false, value)
        for at, (code, true, false, value) in enumerate(steps)
    ]


def enter() -> None:
    """Hold every thread of this process to the list, for ever.

    Raises:
        OSError: the kernel refused the filter.
        NotImplementedError: the machine is of another kind than we have numbers for.
    """
    name = os.uname().machine
    machine = MACHINES.get(name)
    if machine is None:
        raise NotImplementedError(f"no table of system calls for {name}")
    lines = program(machine, os.getpid())
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    header = struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(code))
    if thread := kernel.call(machine.seccomp, _SET_MODE_FILTER, _TSYNC, header):
        raise OSError(errno.EBUSY, f"thread {thread} cannot be held to the filter")
