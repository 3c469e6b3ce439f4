"""What a worker gives up before it sees a script.

Today: core dumps, files, children of its own and outliving the supervisor. This is the place for
Landlock and seccomp; they are not here yet, and nothing pretends that they are: the greeting of a
worker lists what `enter` really did.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_OPEN_FILES: Final = 64
"""V8 and Python hold about ten; a guest needs none."""


def leave_no_orphan(parent: int) -> None:
    """Die with the process that started this one, even inside an endless loop."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before the request could take effect.
        os._exit(0)


def enter() -> tuple[str, ...]:
    """Apply every layer there is; the names of those that hold now."""
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(limit, (value, value))
    return ("rlimits",)
