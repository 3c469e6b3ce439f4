"""Where things stand in what the author wrote, for what was made of it by a tool.

Looked at only when something has gone wrong, and once per place.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import orjson
from py_mini_racer import JSEvalException

from executor.engines.js import bundle

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

_TRACE: Final = bundle.text("trace.js")
_COMMENT: Final = "//# sourceMappingURL="
_DATA: Final = re.compile(r"data:[^,\n]*?(?P<base64>;base64)?,(?P<data>[^\s]*)")
# Of so few digits that a script which makes one up gets no further than this.
_AT: Final = r" \({file}:(\d{{1,9}}):(\d{{1,9}})\)\Z"
_ROOTS: Final = re.compile(r"\A(?:[a-z][a-z0-9+.-]*://[^/]*/)?(?:\.{0,2}/)*")
_UNSAFE: Final = re.compile(r"[\x00-\x1f()]")

PLACES: Final = 256
"""Places of one script that are remembered; one that fails at more is asked about again."""


def embedded_map(text: str) -> str | None:
    """The source map that the last line of `text` carries as a data: URL."""
    at = text.rfind(_COMMENT)
    if at < 0 or (at > 0 and text[at - 1] not in "\n\r\u2028\u2029"):
        return None
    match = _DATA.fullmatch(text[at + len(_COMMENT) :].strip())
    if match is None:
        return None
    data = unquote_to_bytes(match["data"])
    try:
        return readable_map(base64.b64decode(data) if match["base64"] else data)
    except binascii.Error:
        return None


def readable_map(content: bytes) -> str | None:
    """`content`, if it is a source map as far as that can be told without decoding it."""
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict) or fields.get("version") != 3:
        return None
    sources = fields.get("sources")
    if not isinstance(fields.get("mappings"), str) or not isinstance(sources, list):
        return None
    if not all(isinstance(source, str) for source in sources):
        return None
    # What is not asked for stays out: sources hold the author's text, sections other maps.
    kept = {
        "version": 3,
        "sources": sources,
        "names": [],
        "mappings": fields["mappings"],
    }
    if isinstance(fields.get("sourceRoot"), str):
        kept["sourceRoot"] = fields["sourceRoot"]
    return orjson.dumps(kept).decode()


class Positions:
    """Tells places of scripts by their source maps. Blocks; not for use by two threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tracer = bundle.Bundle(loop, _TRACE)

    def retold(self, message: str, file: str, source_map: str, seen: dict[str, str]) -> str:
        """`message` with the place at its end as the author knows it; unchanged where it has none.

        `seen` is what was found out before about the same script.
        """
        place = re.search(_AT.format(file=re.escape(file)), message)
        if place is None:
            return message
        if (told := seen.get(place[0])) is None:
            told = self._told(source_map, int(place[1]), int(place[2])) or place[0]
            if len(seen) < PLACES:
                seen[place[0]] = told
        return message[: place.start()] + told

    def _told(self, source_map: str, line: int, column: int) -> str | None:
        place = orjson.dumps({"line": line, "column": column}).decode()
        try:
            traced = self._tracer.ask("trace", "traced", map=source_map, place=place)
        except JSEvalException:
            # A map that cannot be decoded says nothing.
            return None
        if not traced:
            return None
        source, line, column = orjson.loads(traced)
        if not isinstance(source, str):
            # The map counts to before its first source, or past its last one.
            return None
        name = _UNSAFE.sub("_", _ROOTS.sub("", source))[:200]
        return f" ({name}:{line}:{column})"


def side_map(files: Mapping[str, bytes], path: str) -> str | None:
    """The source map that lies beside `path` in a package."""
    content = files.get(f"{path}.map")
    return None if content is None else readable_map(content)
