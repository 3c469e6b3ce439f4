"""Which scripts a worker holds open: as many as fit, the least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from executor.model import Isolation

if TYPE_CHECKING:
    from executor.model import ScriptRef

OPEN_BYTES: Final = 128 * 1024 * 1024
"""For the code of all open scripts of a worker, as estimated here."""

SCRIPT_BYTES: Final = 16 * 1024
"""Of a script in the isolate of all, beside what its source makes of itself: closures and names."""

ISOLATE_BYTES: Final = 2 * 1024 * 1024
"""Of a script with an isolate of its own: 64 of them at most, for which the sandbox has threads."""

SOURCE_FACTOR: Final = 8
"""The text twice, its bytecode, and what the optimiser makes of the hot part."""


class Opened:
    """The names of open scripts, and what each one takes."""

    def __init__(self) -> None:
        self._bytes: OrderedDict[str, int] = OrderedDict()
        self._total = 0

    def use(self, name: str) -> bool:
        """Whether `name` is open; it is then the most recently used."""
        if name not in self._bytes:
            return False
        self._bytes.move_to_end(name)
        return True

    def add(self, name: str, script: ScriptRef, source: bytes) -> list[str]:
        """Note that `name` is opened; those that have to be closed before."""
        own = ISOLATE_BYTES if script.isolation is Isolation.STRICT else SCRIPT_BYTES
        own += SOURCE_FACTOR * len(source)
        dropped = []
        while self._bytes and self._total + own > OPEN_BYTES:
            other = next(iter(self._bytes))
            self.forget(other)
            dropped.append(other)
        self._bytes[name] = own
        self._total += own
        return dropped

    def forget(self, name: str) -> None:
        self._total -= self._bytes.pop(name, 0)
