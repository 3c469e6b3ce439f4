"""No file, no TCP port, no abstract socket, no signal: Landlock with a ruleset without any rule.

Holds for the calling thread and the threads that it starts later, so it is entered before V8
starts its first.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from executor.worker import kernel

_CREATE: Final = 444
_RESTRICT: Final = 446
_VERSION: Final = 1

# Rights by the version of Landlock that brought them: 1 files, 2 refer, 3 truncate, 4 TCP,
# 5 ioctl, 6 scopes.
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_SINCE: Final = 4
_SCOPES_SINCE: Final = 6
_BIND_AND_CONNECT: Final = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11


def version() -> int:
    """The version of Landlock that this kernel has.

    Raises:
        OSError: it has none, or it is switched off.
    """
    return kernel.call(_CREATE, 0, 0, _VERSION)


def enter() -> str:
    """Give up all that this kernel's Landlock can take; what that is.

    Raises:
        OSError: Landlock is missing, or refused.
    """
    has = version()
    words = [(1 << _FILE_RIGHTS.get(has, _FILE_RIGHTS[5])) - 1]
    taken = ["files"]
    if has >= _TCP_SINCE:
        words.append(_BIND_AND_CONNECT)
        taken.append("TCP")
    if has >= _SCOPES_SINCE:
        words.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
        taken += ["abstract sockets", "signals"]
    attributes = struct.pack(f"{len(words)}Q", *words)
    rules = kernel.call(_CREATE, attributes, len(attributes), 0)
    try:
        kernel.call(_RESTRICT, rules, 0)
    finally:
        os.close(rules)
    return f"version {has}: {', '.join(taken)}"
