"""The filter, interpreted here for both kinds of machine; what the kernel makes of it is tested
where a whole worker is."""

from __future__ import annotations

import platform
import re
import struct
from pathlib import Path

import pytest

from executor.worker import seccomp
from executor.worker.seccomp import (
    ALLOW,
    ALLOWED,
    KILL,
    MACHINES,
    PRETEND_ABSENT,
    REFUSE,
    Instruction,
    Machine,
)

PID = 4_711

# The numbers of (x86_64, aarch64), from the kernel's headers.
REFUSED = {
    "openat": (257, 56),
    "openat2": (437, 437),
    "socket": (41, 198),
    "connect": (42, 203),
    "sendmsg": (46, 211),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "ioctl": (16, 29),
    "setuid": (105, 146),
    "a call of a later kernel": (900, 900),
}

machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())


def decide(machine: Machine, number: int, *arguments: int, audit: int | None = None) -> int:
    """Interpret the filter as the kernel does, for the few instructions that it has."""
    words = [a % (1 << 64) for a in arguments] + [0] * (6 - len(arguments))
    architecture = machine.audit if audit is None else audit
    data = struct.pack("<iIQ6Q", number, architecture, 0, *words)
    lines: list[Instruction] = seccomp.program(machine, PID)
    accumulator = at = 0
    while True:
        code, true, false, value = lines[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                at += true if accumulator == value else false
            case 0x35:
                at += true if accumulator >= value else false
            case 0x06:
                return value
            case _:
                pytest.fail(f"instruction {code:#x}")


def call(machine: Machine, name: str) -> int:
    for known, numbers, _ in seccomp.CONDITIONAL:
        if known == name:
            return numbers[machine.column]
    return seccomp.ABSENT_CALLS[name][machine.column]


@machines
def test_calls_of_the_list_are_allowed_and_no_others(machine: Machine) -> None:
    listed = {numbers[machine.column] for numbers in ALLOWED.values()}
    plain = {number for number in range(600) if decide(machine, number, *[-1] * 6) == ALLOW}
    assert plain == listed - {-1}


@machines
@pytest.mark.parametrize("name", REFUSED)
def test_refused_is(machine: Machine, name: str) -> None:
    assert decide(machine, REFUSED[name][machine.column]) == REFUSE


@machines
@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        pytest.param("mmap", (0, 4096, 3, 0x22), ALLOW, id="private memory"),
        pytest.param("mmap", (0, 4096, 3, 0x21), REFUSE, id="shared memory"),
        pytest.param("mmap", (0, 4096, 3, 0x23), REFUSE, id="shared memory by its newer name"),
        pytest.param("mmap", (0, 4096, 3, 0x20022), ALLOW, id="the stack of a thread"),
        pytest.param("mmap", (0, 4096, 3, 0x122), REFUSE, id="memory that grows down, uncounted"),
        pytest.param("sendto", (0, 0, 1, 0, 0), ALLOW, id="sending on a connected socket"),
        pytest.param("sendto", (0, 0, 1, 0, 16), REFUSE, id="sending to an address"),
        pytest.param("sendto", (0, 0, 1, 0, 1 << 32), REFUSE, id="sending to an address up high"),
        pytest.param("clone", (0x3D0F00,), ALLOW, id="a thread"),
        pytest.param("clone", (0x01200011,), REFUSE, id="a process, as fork makes it"),
        pytest.param("clone", (0x3D0F00 | 0x10000000,), REFUSE, id="a thread in a new namespace"),
        pytest.param("prctl", (15,), ALLOW, id="naming a thread"),
        pytest.param("prctl", (0x53564D41,), ALLOW, id="naming a mapping"),
        pytest.param("prctl", (22,), REFUSE, id="another filter"),
        pytest.param("prctl", (1,), REFUSE, id="outliving the supervisor"),
        pytest.param("prlimit64", (0, 2), ALLOW, id="its own memory limit"),
        pytest.param("prlimit64", (0, 0), ALLOW, id="its own processor limit"),
        pytest.param("prlimit64", (0, 7), REFUSE, id="its own descriptor limit"),
        pytest.param("prlimit64", (1, 2), REFUSE, id="the limit of another process"),
        pytest.param("clone3", (), PRETEND_ABSENT, id="clone3, whose flags cannot be seen"),
        pytest.param("memfd_create", (), PRETEND_ABSENT, id="a file in memory"),
    ],
)
def test_by_their_arguments(
    machine: Machine, name: str, arguments: tuple[int, ...], answer: int
) -> None:
    assert decide(machine, call(machine, name), *arguments) == answer


@machines
def test_a_signal_may_go_to_the_process_itself_only(machine: Machine) -> None:
    tgkill = (234, 131)[machine.column]
    assert (decide(machine, tgkill, PID), decide(machine, tgkill, PID + 1)) == (ALLOW, REFUSE)


@machines
def test_calls_by_the_numbers_of_another_architecture_end_the_process(machine: Machine) -> None:
    other = next(m for m in MACHINES.values() if m is not machine)
    assert (decide(machine, 0, audit=other.audit), decide(machine, 0x40000000)) == (KILL, KILL)


def test_the_numbers_are_those_of_the_kernels_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if platform.machine() != "x86_64" or not header.exists():
        pytest.skip("no headers of the kernel here")
    found = dict(re.findall(r"#define __NR_(\w+) (\d+)", header.read_text("utf-8")))
    ours = {
        **{name: numbers[0] for name, numbers in ALLOWED.items()},
        **{name: numbers[0] for name, numbers, _ in seccomp.CONDITIONAL},
        **{name: numbers[0] for name, numbers in seccomp.ABSENT_CALLS.items()},
    }
    assert ours == {name: int(found[name]) for name in ours}
