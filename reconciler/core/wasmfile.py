"""Whether a file looks like WebAssembly that can be a script, without compiling anything.

Only what is certain from the outside is said here: the header, the sections following one another
to the end, and an export to call. Whether the code is valid, and whether it imports only what
scripts are given, is the executor's to say, which compiles it in a process made for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CORE: Final = b"\0asm\x01\0\0\0"
COMPONENT: Final = b"\0asm\x0d\0\x01\0"
ENTRIES: Final = frozenset({b"main", b"_start"})

_EXPORTS: Final = 7
_FUNCTION: Final = 0
_COMPILED: Final = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"MZ")
# A number of 32 bits takes at most so many bytes of 7 bits each.
_NUMBER_BYTES: Final = 5


def problem(content: bytes) -> str | None:
    """Why `content` cannot be a script, with what to do about it; None when it may be one."""
    if content.startswith(_COMPILED):
        return "it is compiled for a machine already; commit the .wasm it came from"
    if content.startswith(COMPONENT):
        return None
    if not content.startswith(CORE):
        return "it is not WebAssembly; commit what a compiler made for the target wasm32"
    try:
        entries = {name for name, kind in _exports(content) if kind == _FUNCTION}
    except IndexError:
        return "it ends too early or its sections do not fit; build it anew"
    if not entries & ENTRIES:
        return "it exports no function main; export one that takes nothing"
    return None


def _exports(content: bytes) -> Iterator[tuple[bytes, int]]:
    at = len(CORE)
    while at < len(content):
        section, (size, start) = content[at], _number(content, at + 1)
        at = start + size
        if at > len(content):
            raise IndexError
        if section == _EXPORTS:
            yield from _names(content[start:at])


def _names(section: bytes) -> Iterator[tuple[bytes, int]]:
    count, at = _number(section, 0)
    for _ in range(count):
        length, start = _number(section, at)
        kind = section[start + length]
        yield section[start : start + length], kind
        _, at = _number(section, start + length + 1)


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number as the format writes it (LEB128), and where it ends."""
    value = 0
    for place in range(_NUMBER_BYTES):
        byte = content[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError
