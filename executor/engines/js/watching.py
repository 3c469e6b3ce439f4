"""Where a script drops or keeps a promise: the text that V8 runs has a call of the host there.

A parser finds the places, in an isolate that no guest's code runs in; the calls are in promises.js.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson
from py_mini_racer import JSEvalException

from executor.engines.js import bundle

if TYPE_CHECKING:
    import asyncio

_WATCH: Final = bundle.text("watch.js")
# The words without one of which no promise comes about, or only one that somebody settles by hand.
_MAY_FLOAT: Final = re.compile(
    r"async|Async|await|Promise|\.then\b|import|fetch|commitDevice|subtle"
    r"|Blob|File|Request|Response|globalThis|self|\\u"
)

WATCHED_CHARACTERS: Final = 512 * 1024
"""Longer scripts run unwatched: few are, and to parse this much takes up to 0.4 s and 60 MB."""

KEPT_CHARACTERS: Final = 64 * 1024
"""What parsing more than this has taken of the heap is given back, for 15 ms at the next start."""


class Watcher:
    """Blocks; not for use by two threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watcher = bundle.Bundle(loop, _WATCH)

    def watched(self, source: str) -> tuple[str, str]:
        """What to run in place of `source`, and what the host has to know of it.

        The second is empty, and the first unchanged, where there is nothing to watch: no promise
        can be dropped, it is too long, or the parser does not know what V8 may know.
        """
        if len(source) > WATCHED_CHARACTERS or _MAY_FLOAT.search(source) is None:
            return source, ""
        try:
            answer = self._watcher.ask("watch", "watched", source=source)
        except JSEvalException:
            answer = ""
        if len(source) > KEPT_CHARACTERS:
            self.close()
        if not answer:
            return source, ""
        found = orjson.loads(answer)
        return found["code"], found["watch"]

    def close(self) -> None:
        """Give back what the parser holds; it starts again when it is needed."""
        self._watcher.close()
