"""What a worker gives up before it sees a script, layer by layer, each proved where it is entered.

Three steps, because of what the layers do to each other: `begin` while the process has one thread
and no engine, `confine` when engines are loaded and before they start threads, `seal` when they are
ready. A layer that cannot be had is reported, never fatal here: the supervisor refuses the worker.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from executor.worker import kernel, landlock, seccomp
from executor.worker.budgets import Budgets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_OPEN_FILES: Final = 64
"""V8 and Python hold about ten; a guest needs none."""

_THREADS: Final = 512
"""64 isolates with a thread each, and some; counted in a user namespace of its own only."""

NOBODY: Final = 65_534


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One thing that stands between a script and the machine."""

    name: str
    required: bool
    holds: str
    fix: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A layer that does not hold here."""

    layer: Layer
    reason: str

    def __str__(self) -> str:
        return (
            f"the sandbox layer {self.layer.name} is missing ({self.reason}); "
            f"it needs: {self.layer.fix}"
        )


LAYERS: Final = (
    Layer(
        name="limits",
        required=True,
        holds="no core dump, no file written, few descriptors",
        fix="let the executor lower its own resource limits",
    ),
    Layer(
        name="namespaces",
        required=False,
        holds="a network, IPC and host name of its own, all empty",
        fix="permit unprivileged user namespaces (sysctl user.max_user_namespaces, or "
        "kernel.apparmor_restrict_unprivileged_userns=0); in a container the runtime's seccomp "
        "profile must permit unshare",
    ),
    Layer(
        name="privileges",
        required=True,
        holds="no capabilities, none to be gained, not root",
        fix="run the executor as a user that is not root, or as a root that may change its user "
        "(capabilities SETUID and SETGID)",
    ),
    Layer(
        name="landlock",
        required=True,
        holds="no file opened, no TCP port bound or connected, no signal sent",
        fix="Linux 5.13 or newer with landlock among the security modules (boot parameter "
        "lsm=landlock,...); in a container the runtime's seccomp profile must permit landlock_*",
    ),
    Layer(
        name="engines",
        required=True,
        holds="the engines run with the flags that they were given",
        fix="install the versions of mini-racer and wasmtime that scriptops asks for",
    ),
    Layer(
        name="memory",
        required=True,
        holds="memory limited by the kernel, for the worker and for each run",
        fix="let the executor lower its own resource limits (RLIMIT_DATA)",
    ),
    Layer(
        name="seccomp",
        required=True,
        holds="no system call but those of computing: no file, socket, process, ptrace",
        fix="a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64",
    ),
)
"""In the order in which they are entered."""


def missing(report: Mapping[str, object]) -> tuple[Missing, ...]:
    """The required layers that a worker with this report does without."""
    return tuple(
        Missing(layer, reason)
        for layer in LAYERS
        for holds, reason in [told(report, layer)]
        if layer.required and not holds
    )


def told(report: Mapping[str, object], layer: Layer) -> tuple[bool, str]:
    """Whether `layer` holds, and how or why not, as a worker reports it."""
    match report.get(layer.name):
        case [bool(holds), str(detail)]:
            return holds, detail
        case _:
            return False, "the worker did not say"


def summary(report: Mapping[str, object]) -> str:
    """In a few words, for a log and a status."""
    off = [layer.name for layer in LAYERS if not told(report, layer)[0]]
    return f"without {', '.join(off)}" if off else "all layers"


def leave_no_orphan(parent: int) -> None:
    """Die with the process that started this one, even inside an endless loop."""
    kernel.control(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before the request could take effect.
        os._exit(0)


class Sandbox:
    """The layers of this process: `report` maps each one's name to whether it holds, and why."""

    def __init__(self) -> None:
        self.report: dict[str, tuple[bool, str]] = {}
        self.budgets = Budgets()

    def begin(self) -> None:
        """Close what was inherited, set limits, leave the namespaces of the machine."""
        os.closerange(3, self.budgets.descriptor)
        os.closerange(self.budgets.descriptor + 1, 4_096)
        self.enter("limits", _limit)
        self.enter("namespaces", _unshare)

    def confine(self) -> None:
        """Drop privileges and files. Only threads that start later are held to it too."""
        self.enter("privileges", _drop_privileges)
        self.enter("landlock", _deny_files)

    def seal(self, memory_bytes: int) -> None:
        """Fix the memory and the system calls of all threads, for ever."""
        self.enter("memory", lambda: self.budgets.cap(memory_bytes))
        self.enter("seccomp", _filter_calls)

    def enter(self, name: str, layer: Callable[[], str]) -> None:
        """Try a layer, which says what it took or raises why it could not."""
        try:
            self.report[name] = (True, layer())
        except (OSError, ValueError, AttributeError, NotImplementedError) as error:
            self.report[name] = (False, _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        name = errno.errorcode.get(error.errno or 0)
        return f"{error.strerror} ({name})" if name else error.strerror
    if isinstance(error, AttributeError):
        return "this system has no such call"
    return str(error)


def _limit() -> str:
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(limit, (value, value))
    return f"core dumps 0, written bytes 0, descriptors {_OPEN_FILES}"


def _unshare() -> str:
    flags = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    if os.geteuid() == 0:
        # A user namespace would keep root from becoming somebody else.
        kernel.unshare(flags)
        return "network, IPC, host name"
    kernel.unshare(flags | kernel.CLONE_NEWUSER | kernel.CLONE_NEWCGROUP)
    _limit_threads()
    return "user, network, IPC, host name, cgroup"


def _limit_threads() -> None:
    """In a user namespace of its own: elsewhere every process of the user would count."""
    resource.setrlimit(resource.RLIMIT_NPROC, (_THREADS, _THREADS))


def _drop_privileges() -> str:
    # First: the layers behind this one ask for it, whatever becomes of the rest.
    kernel.control(kernel.PR_SET_NO_NEW_PRIVS, 1)
    was_root = os.geteuid() == 0
    if was_root:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError as error:
            raise OSError(error.errno, "it is root and may not become another user") from error
        with suppress(OSError):
            kernel.unshare(kernel.CLONE_NEWUSER)
            _limit_threads()
        # Another user: the kernel has forgotten whom to die with.
        kernel.control(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.drop_capabilities()
    if kernel.control(kernel.PR_GET_NO_NEW_PRIVS) != 1:
        raise OSError(errno.EPERM, "no_new_privs did not hold")
    _must_fail("become root", lambda: os.setresuid(0, 0, 0), errno.EPERM, errno.EINVAL)
    return f"{'user nobody' if was_root else 'the user it had'}, no capabilities, no_new_privs"


def _deny_files() -> str:
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise OSError(errno.EBUSY, "a thread that it could not hold has been started already")
    taken = landlock.enter()
    _must_fail("open a file", lambda: os.close(os.open("/", os.O_RDONLY)), errno.EACCES)
    if "TCP" in taken:
        _must_fail("bind a port", _bind, errno.EACCES)
    return taken


def _bind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))


def _filter_calls() -> str:
    seccomp.enter()
    _must_fail("open a file", lambda: os.close(os.open("/", os.O_RDONLY)), errno.EPERM)
    _must_fail("open a socket", _bind, errno.EPERM)
    _must_fail("start a program", _execute, errno.EPERM)
    return f"{seccomp.COUNT} calls allowed, for every thread"


def _execute() -> None:
    os.execv("/", ["/"])  # noqa: S606 - a folder: it could not start even where it may


def _must_fail(what: str, attempt: Callable[[], None], *with_errors: int) -> None:
    """Raise unless the kernel refuses `attempt` for one of the reasons that the layer gives."""
    try:
        attempt()
    except OSError as error:
        if error.errno in with_errors:
            return
        raise OSError(error.errno, f"it was refused to {what}, but by something else") from error
    raise OSError(errno.EPERM, f"it was still possible to {what}")
