"""git's own protocol, version 2, as far as it takes to follow one branch of a server.

One conversation says where a ref points to and hands out what is new since the commit that the
mirror has. For the same the git program needs two connections and four processes, over https
twelve. It remains for all else, and for saying what is wrong: whatever is unusual ends a
conversation early.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from enum import Enum, auto
from typing import Final, Protocol

# What a push of some files comes to is kilobytes. Larger ones are for the git program, which writes
# to disk as it reads.
_LONGEST_PACK: Final = 8 * 1024 * 1024
# Capabilities and the refs of one prefix.
_LONGEST_SECTION: Final = 1024 * 1024
_OID: Final = re.compile(r"[0-9a-f]{40}")
_LENGTH: Final = re.compile(rb"[0-9a-f]{4}")
_PACK, _ERROR = b"\1", b"\3"


class Unspoken(Exception):
    """The other side speaks in a way that this module does not understand."""


class _Mark(Enum):
    FLUSH = auto()
    DELIMITER = auto()


_MARKS: Final = {0: _Mark.FLUSH, 1: _Mark.DELIMITER}


class Reader(Protocol):
    """Of an answer; raises `EOFError` where it ends too early."""

    async def readexactly(self, n: int, /) -> bytes: ...


# Sends a request, whole, and gives what its answer is read from.
Request = Callable[[bytes], Awaitable[Reader]]


class Conversation:
    """With a server that waits for a command. Not promised: that it ever answers."""

    def __init__(self, greeting: Reader, request: Request) -> None:
        self._reader = greeting
        self._request = request

    async def greet(self) -> None:
        """Hear what the server can do. Raises `Unspoken` if that is not enough."""
        first = await self._packet()
        if isinstance(first, bytes) and first.startswith(b"# service="):
            # Some say so over HTTP.
            await self._packet()
            first = await self._packet()
        if first != b"version 2":
            raise Unspoken("another version")
        told = {
            name: set(value.split())
            async for line in self._lines()
            for name, _, value in [line.decode("latin-1").partition("=")]
        }
        if "ls-refs" not in told or "shallow" not in told.get("fetch", ()):
            raise Unspoken("no ls-refs, or no shallow fetches")
        if told.get("object-format", {"sha1"}) != {"sha1"}:
            raise Unspoken("other names of objects")

    async def ask(self, ref: str) -> tuple[str | None, bool]:
        """The commit `ref` points to, and whether the repository holds anything."""
        await self._say("ls-refs", (), (f"ref-prefix {name}" for name in (ref, "HEAD")))
        found = {
            name: oid
            async for line in self._lines()
            for oid, _, name in [line.decode("utf-8", "replace").partition(" ")]
        }
        tip = found.get(ref)
        if tip is not None and not _OID.fullmatch(tip):
            raise Unspoken("no name of a commit")
        return tip, bool(found)

    async def fetch(self, tip: str, *, have: str) -> bytes:
        """A pack of what `tip` has and the commit `have`, both without history, has not.

        Raises `ConnectionAbortedError` if it is refused, or has many megabytes.
        """
        wanted = (f"shallow {have}", "deepen 1", f"want {tip}", f"have {have}", "done")
        await self._say("fetch", ("thin-pack", "no-progress", "ofs-delta"), wanted)
        while (section := await self._packet()) != b"packfile":
            if not isinstance(section, bytes) or section.startswith(b"ERR "):
                raise ConnectionAbortedError("no pack")
            # What became shallow is `tip`, and nothing else was asked.
            async for _ in self._lines():
                pass
        pack = bytearray()
        while isinstance(packet := await self._packet(is_text=False), bytes):
            if packet[:1] == _ERROR or len(pack) > _LONGEST_PACK:
                raise ConnectionAbortedError("no whole pack, or a long one")
            if packet[:1] == _PACK:
                pack += packet[1:]
        return bytes(pack)

    async def _say(self, command: str, options: Iterable[str], arguments: Iterable[str]) -> None:
        said = [
            *(framed(f"command={command}\n"), framed("object-format=sha1\n"), b"0001"),
            *(framed(f"{argument}\n") for argument in (*options, *arguments)),
            b"0000",
        ]
        self._reader = await self._request(b"".join(said))

    async def _lines(self) -> AsyncIterator[bytes]:
        """Of one section, that is to the next mark."""
        read = 0
        while isinstance(packet := await self._packet(), bytes):
            read += len(packet) + 4
            if read > _LONGEST_SECTION:
                raise Unspoken("too long")
            yield packet

    async def _packet(self, *, is_text: bool = True) -> bytes | _Mark:
        head = await self._reader.readexactly(4)
        if not _LENGTH.fullmatch(head):
            raise Unspoken("no length")
        length = int(head, 16)
        if length in _MARKS:
            return _MARKS[length]
        if length < len(head):
            raise Unspoken("no length")
        packet = await self._reader.readexactly(length - len(head))
        return packet.removesuffix(b"\n") if is_text else packet


def framed(text: str) -> bytes:
    data = text.encode()
    return b"%04x%s" % (len(data) + 4, data)
