"""From an artifact to the one script that V8 runs: unpacked, and linked where it has modules.

V8 itself says whether a source is a plain script: `import` and `export` declarations are syntax
errors in one, so only what V8 refuses, and what has one of these words in it, goes to the linker.
A plain script therefore costs nothing here, unless it may drop promises, which are watched.

Linking is rollup's work. What came of it is kept by the digest of the artifact.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import orjson

from executor import ops, packages
from executor.engines.errors import ScriptRefused
from executor.engines.js import bundle, positions, watching

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Protocol

    from executor.packages import Package

    class Attempt(Protocol):
        """Raises ScriptRefused, or accepts a script; `watched` is what the watcher says of it."""

        def __call__(self, source: str, file: str, *, watched: str = "") -> None: ...


_LINK: Final = bundle.text("link.js")
# Also `import.defer(` and whatever follows.
_IMPORT_CALL: Final = re.compile(r"import\s*[(./]")
_MODULES: Final = (".js", ".mjs", ".json")

LINKED_CHARACTERS: Final = 32 * 1024 * 1024
"""What is kept of linked or watched code and its maps; a thousand rules of ordinary size."""


@dataclass(frozen=True, slots=True)
class Program:
    """A script that V8 can run under the name `file`, and what leads back to its sources."""

    source: str
    file: str
    map: str | None
    # Whether it may hold an `import()`, which V8 refuses without saying what was meant.
    imports: bool = False
    # What the watcher of dropped promises put into the source.
    watched: str = ""
    # Places that were asked about, as `Positions.retold` keeps them.
    places: dict[str, str] = field(default_factory=dict)


class Programs:
    """Makes programs of artifacts. Blocks; not for use by two threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, file_name: Callable[[str], str]) -> None:
        self._linker = bundle.Bundle(loop, _LINK)
        self._watcher = watching.Watcher(loop)
        self._file_name = file_name
        self._linked: OrderedDict[tuple[bytes, str], Program] = OrderedDict()
        self._characters = 0

    def load(self, content: bytes, file: str, attempt: Attempt) -> Program:
        """The program in `content`, after `attempt` has accepted it.

        Raises:
            ScriptRefused: it cannot be unpacked or linked, or what `attempt` raised.
        """
        key = (hashlib.sha256(content).digest(), file)
        if (linked := self._linked.get(key)) is not None:
            self._linked.move_to_end(key)
            attempt(linked.source, linked.file, watched=linked.watched)
            return linked
        try:
            package = packages.unpack(content, file, "js")
        except packages.PackageRefused as refused:
            raise ScriptRefused(f"{refused} ({self._file_name(file)})") from refused
        source = _text(package, package.entry)
        name = self._file_name(f"{file}/{package.entry}" if package.entry else file)
        try:
            source_map = _map_of(package, package.entry, source)
            imports = _IMPORT_CALL.search(source) is not None
            program = self._accepted(Program(source, name, source_map, imports), attempt)
        except ScriptRefused:
            linked = self._link(package, file) if _may_be_module(source) else None
            if linked is None:
                raise
            program = self._accepted(linked, attempt)
            self._keep(key, program)
        else:
            if program.watched:
                self._keep(key, program)
        return program

    def _accepted(self, program: Program, attempt: Attempt) -> Program:
        """`program`, watched if that is needed and V8 takes it so.

        Raises:
            ScriptRefused: V8 does not take it, as it was written.
        """
        source, watched = self._watcher.watched(program.source)
        if watched:
            try:
                attempt(source, program.file, watched=watched)
            except ScriptRefused:
                # Its own text says why, and where.
                pass
            else:
                return replace(program, source=source, watched=watched)
        attempt(program.source, program.file)
        return program

    def _link(self, package: Package, file: str) -> Program | None:
        """The linked modules, or None where the entry is no module after all.

        Raises:
            ScriptRefused: they cannot be linked; the message has file, line and column.
        """
        name = self._file_name(file)
        prefix, entry = f"{name}/", package.entry
        if not entry:
            prefix, slash, entry = name.rpartition("/")
            prefix += slash
        texts: dict[str, str] = {}
        maps: dict[str, dict[str, object]] = {}
        for path in package.files:
            # What is no module cannot be imported, and only its name has to be known.
            text = _text(package, path) if path.endswith(_MODULES) or not path else ""
            texts[path or entry] = text
            if (source_map := _map_of(package, path, text)) is not None:
                maps[path or entry] = orjson.loads(source_map)
        wanted = {
            "entry": entry,
            "files": list(texts.items()),
            "maps": list(maps.items()),
            "prefix": prefix,
        }
        answer = self._linker.ask("link", "linked", wanted=orjson.dumps(wanted).decode())
        linked = orjson.loads(answer)
        if not linked["isModule"]:
            return None
        if "refused" in linked:
            # Its parser keeps what a trap left behind, and would refuse the next ones too.
            self._linker.close()
            raise ScriptRefused(str(linked["refused"])[: ops.MESSAGE_CHARACTERS])
        return Program(linked["code"], name, linked["map"])

    def _keep(self, key: tuple[bytes, str], program: Program) -> None:
        self._linked[key] = program
        self._characters += _characters(program)
        while self._characters > LINKED_CHARACTERS:
            _, dropped = self._linked.popitem(last=False)
            self._characters -= _characters(dropped)


def _may_be_module(source: str) -> bool:
    # Neither word can be written with escapes where it declares something.
    return "import" in source or "export" in source


def _characters(program: Program) -> int:
    return len(program.source) + len(program.map or "") + len(program.watched)


def _map_of(package: Package, path: str, text: str) -> str | None:
    return positions.side_map(package.files, path) or positions.embedded_map(text)


def _text(package: Package, path: str) -> str:
    try:
        return package.files[path].decode("utf-8")
    except UnicodeDecodeError as error:
        of = f" of {path}" if path else ""
        raise ScriptRefused(f"not UTF-8 at byte {error.start}{of}") from error
