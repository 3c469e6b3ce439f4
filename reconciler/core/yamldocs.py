"""YAML as authors mean it: bytes in, JSON documents or problems out.

Scalars are read by the core schema of YAML 1.2: `on`, `no` and dates are strings, `014` is
fourteen, `1e3` a number. What JSON cannot hold, or what readers of YAML disagree about, is refused
and named: anchors, aliases, merge keys, tags, duplicate and non-string keys, NaN, infinities, and
integers that a double cannot hold. JSON files are read by the same rules.

Nothing here recurses and nothing is built before it has been counted: events are taken one by one
from the scanner, and the first that exceeds a limit ends its document. So neither depth nor size of
what a repository holds can stop the program. Each document fails alone, a syntax error included:
`---` at the start of a line ends a document whatever stands before it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final

import yaml

from reconciler.core import yamlshapes
from reconciler.core.objects import Json, JsonObject
from reconciler.core.problems import Problem
from reconciler.core.yamlbuild import (
    HALF_CHARACTER,
    MAX_NODES,
    Builder,
    Fault,
    Lines,
    Refused,
    Tree,
)

# A file of this size holds more than 1,000 ordinary manifests.
MAX_BYTES: Final = 1 << 20
# Documents of one file whose content is unknown: after these the rest is not read, so that a file
# of nothing but marks costs milliseconds.
MAX_UNREADABLE: Final = 100
# Documents and list items of one file.
MAX_DOCUMENTS: Final = 10_000
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAK: Final = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
_CONTENT: Final = re.compile(r"^(?:[ \t]*[^ \t\r\n#%]|[ \t]+%)", re.MULTILINE)
_ITEM: Final = re.compile(r"/items/[0-9]+(?=/|\Z)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file, or one item of a `kind: List`.

    `index` counts the documents of the file, `pointer` leads to the item within its document. With
    `faults` the value is only what could be made out: good enough to tell which object it is meant
    to be, never to be deployed. Those that look alike share `lines`, to which `offset` is added.
    """

    path: PurePosixPath
    index: int
    line: int
    value: JsonObject
    pointer: str
    faults: tuple[Fault, ...]
    lines: Lines
    offset: int = 0

    def line_of(self, pointer: str) -> int:
        """The line of a place below this document, or of the nearest place above that exists."""
        line, children = self.lines
        for token in pointer.split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~") if "~" in token else token
            if isinstance(children, dict) and key in children:
                line, children = children[key]
            elif isinstance(children, list) and key.isdecimal() and int(key) < len(children):
                line, children = children[int(key)]
            else:
                break
        return line + self.offset


@dataclass(frozen=True, slots=True)
class File:
    """All that could be read of a file. Each problem is a document whose content is unknown."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]


def read(
    path: PurePosixPath,
    content: bytes,
    *,
    loader: type[yaml.SafeLoader] = _LOADER,
    shapes: bool = True,
) -> File:
    """Every document of a file, in order. Raises nothing, whatever the bytes are.

    Only the scanner of `loader` is used, by default the one in C where there is one. Without
    `shapes` it scans every document, though it has scanned its like before; the result is the same.
    """
    reader = _Reader(path, loader, shapes=shapes)
    try:
        for line, chunk in _chunks(_decode(content)):
            reader.read(line, chunk)
    except Refused as refused:
        reader.unreadable(refused.line, "", refused.reason, str(refused))
    return File(tuple(reader.documents), tuple(reader.problems))


def _decode(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        message = f"the file has {len(content)} bytes, more than {MAX_BYTES}; split it"
        raise Refused("FileTooLarge", message)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Refused("NotUtf8", "the file is UTF-16; save it as UTF-8")
    nul = content.find(b"\0")
    if nul >= 0:
        line = content.count(b"\n", 0, nul) + 1
        raise Refused("NotUtf8", "the file holds a NUL byte; save it as UTF-8 text", line)
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Refused("NotUtf8", "the file is not UTF-8; save it as UTF-8", line) from error


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """The parts between document marks, each with the line it begins at.

    A part that holds only directives and comments is left out: what directives could change is
    refused where it is used.
    """
    line = 1
    # Most have one document; to look for characters is cheaper than for lines that begin so.
    has_marks = "---" in text or "..." in text
    marks = [mark.start() for mark in _BREAK.finditer(text)] if has_marks else []
    for start, end in pairwise([0, *marks, len(text)]):
        chunk = text[start:end]
        body = chunk[3:] if chunk.startswith(("---", "...")) else chunk
        if _CONTENT.search(body):
            yield line, "   " + body if chunk.startswith("...") else chunk
        line += chunk.count("\n")


class _Reader:
    """What has been read of one file so far."""

    def __init__(self, path: PurePosixPath, loader: type[yaml.SafeLoader], *, shapes: bool) -> None:
        self.documents: list[Document] = []
        self.problems: list[Problem] = []
        self._path = path
        self._loader = loader
        self._shapes = shapes
        self._nodes = MAX_NODES
        self._index = 0

    def read(self, line: int, chunk: str) -> None:
        """Raises `Refused` when nothing more of the file will be read."""
        known = yamlshapes.tree(chunk, line, self._loader) if self._shapes else None
        if known is not None and known.nodes <= self._nodes:
            self._add(known.tree)
            self._nodes -= known.nodes
        else:
            self._scan(line, chunk)
        if self._nodes < 0:
            raise Refused("TooLarge", f"the file has more than {MAX_NODES} values; split it", line)
        if len(self.problems) >= MAX_UNREADABLE:
            message = f"{MAX_UNREADABLE} documents are unreadable; the rest of the file is not read"
            raise Refused("TooManyProblems", message, line)
        if len(self.documents) > MAX_DOCUMENTS:
            del self.documents[MAX_DOCUMENTS:]
            message = f"the file has more than {MAX_DOCUMENTS} documents; split it"
            raise Refused("TooManyDocuments", message, line)

    def _scan(self, line: int, chunk: str) -> None:
        builder = Builder(line, self._nodes)
        try:
            for tree in _trees(builder, self._loader, chunk, line):
                if tree.value is not None or tree.faults:
                    self._add(tree)
        except Refused as refused:
            self.unreadable(refused.line, "", refused.reason, str(refused))
            self._index += 1
        self._nodes = builder.nodes_left

    def unreadable(self, line: int, pointer: str, reason: str, message: str) -> None:
        self.problems.append(
            Problem(path=self._path, line=line, pointer=pointer, reason=reason, message=message)
        )

    def _add(self, tree: Tree) -> None:
        if isinstance(tree.value, dict) and tree.value.get("kind") == "List":
            self._add_items(tree, tree.value)
        else:
            self._add_one(tree.value, "", tree.lines, tuple(tree.faults), tree.offset)
        self._index += 1

    def _add_items(self, tree: Tree, value: JsonObject) -> None:
        """Every item as a document of its own; faults outside of them are the List's."""
        items = value.get("items")
        children = tree.lines[1]
        lines = children.get("items") if isinstance(children, dict) else None
        if not isinstance(items, list) or lines is None or not isinstance(lines[1], list):
            line = tree.lines[0] + tree.offset
            self.unreadable(line, "/items", "NotAnObject", "a List needs a list of items")
            return
        faults: dict[str, list[Fault]] = {}
        for fault in tree.faults:
            item = _ITEM.match(fault.pointer)
            if item is None:
                self.unreadable(fault.line, fault.pointer, fault.reason, fault.message)
            else:
                own = replace(fault, pointer=fault.pointer[item.end() :])
                faults.setdefault(item.group(), []).append(own)
        for number, (item_value, item_lines) in enumerate(zip(items, lines[1], strict=True)):
            pointer = f"/items/{number}"
            own_faults = tuple(faults.get(pointer, ()))
            self._add_one(item_value, pointer, item_lines, own_faults, tree.offset)

    def _add_one(
        self, value: Json, pointer: str, lines: Lines, faults: tuple[Fault, ...], offset: int
    ) -> None:
        if isinstance(value, dict):
            self.documents.append(
                Document(
                    path=self._path,
                    index=self._index,
                    line=lines[0] + offset,
                    value=value,
                    pointer=pointer,
                    faults=faults,
                    lines=lines,
                    offset=offset,
                )
            )
        elif faults:
            first = faults[0]
            self.unreadable(first.line, pointer + first.pointer, first.reason, first.message)
        else:
            message = "this is no object; write apiVersion, kind, metadata and spec"
            self.unreadable(lines[0] + offset, pointer, "NotAnObject", message)


def _trees(
    builder: Builder, loader: type[yaml.SafeLoader], chunk: str, first_line: int
) -> Iterator[Tree]:
    """The documents of a chunk: one, unless a break that is no newline precedes a mark."""
    try:
        # What `yaml.parse` does, without a step of its own for each event.
        yield from builder.build(iter(loader(chunk).get_event, None))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = first_line + (mark.line if mark else 0)
        raise Refused("InvalidYaml", _explained(error.problem, chunk), line) from error
    except yaml.reader.ReaderError as error:
        line = first_line + chunk.count("\n", 0, error.position)
        raise Refused("InvalidYaml", f"{error.reason}; remove them", line) from error


def _explained(problem: str | None, chunk: str) -> str:
    if problem is not None and "cannot start any token" in problem and "\n\t" in chunk:
        return "a tab stands where YAML wants spaces; indent with spaces"
    if problem is not None and "Unicode character escape" in problem:
        return HALF_CHARACTER
    return f"this is not YAML: {problem}"
