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

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final, TypeAlias

import yaml

from reconciler.core.objects import Json, JsonObject
from reconciler.core.problems import Problem, escape, quoted

# A file of this size holds more than 1,000 ordinary manifests.
MAX_BYTES: Final = 1 << 20
# The deepest manifest known (a Device with push methods) needs 9.
MAX_DEPTH: Final = 64
# Of a whole file. 1,000 ordinary manifests have 50,000.
MAX_NODES: Final = 100_000
# Documents of one file whose content is unknown: after these the rest is not read, so that a file
# of nothing but marks costs milliseconds.
MAX_UNREADABLE: Final = 100
# Documents and list items of one file.
MAX_DOCUMENTS: Final = 10_000
# Faults named per document: more would only repeat the first.
MAX_FAULTS: Final = 20
# JSON numbers are doubles on the way to a script; beyond this they would silently change.
MAX_INTEGER: Final = 1 << 53

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAK: Final = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
_CONTENT: Final = re.compile(r"^(?:[ \t]*[^ \t\r\n#%]|[ \t]+%)", re.MULTILINE)
_CONSTANTS: Final[dict[str, bool | None]] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER_STARTS: Final = frozenset("-+.0123456789")
_INTEGER: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
# Enough for a sign, a prefix and every integer up to MAX_INTEGER in any of the bases.
_LONGEST_INTEGER: Final = 24

_ITEM: Final = re.compile(r"/items/[0-9]+(?=/|\Z)")

# Line of a node, and its children where it has any.
_Lines: TypeAlias = "tuple[int, dict[str, _Lines] | list[_Lines] | None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong at one place of a document whose other places could be read."""

    pointer: str
    line: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file, or one item of a `kind: List`.

    `index` counts the documents of the file, `pointer` leads to the item within its document. With
    `faults` the value is only what could be made out: good enough to tell which object it is meant
    to be, never to be deployed.
    """

    path: PurePosixPath
    index: int
    line: int
    value: JsonObject
    pointer: str
    faults: tuple[Fault, ...]
    lines: _Lines

    def line_of(self, pointer: str) -> int:
        """The line of a place below this document, or of the nearest place above that exists."""
        line, children = self.lines
        for token in pointer.split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            if isinstance(children, dict) and key in children:
                line, children = children[key]
            elif isinstance(children, list) and key.isdecimal() and int(key) < len(children):
                line, children = children[int(key)]
            else:
                break
        return line


@dataclass(frozen=True, slots=True)
class File:
    """All that could be read of a file. Each problem is a document whose content is unknown."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]


def read(path: PurePosixPath, content: bytes) -> File:
    """Every document of a file, in order. Raises nothing, whatever the bytes are."""
    reader = _Reader(path)
    try:
        for line, chunk in _chunks(_decode(content)):
            reader.read(line, chunk)
    except _Refused as refused:
        reader.unreadable(refused.line, "", refused.reason, str(refused))
    return File(tuple(reader.documents), tuple(reader.problems))


class _Refused(Exception):  # noqa: N818 - an answer on its way; it never leaves this module
    """Ends a document, or where it is raised between documents, the file."""

    def __init__(self, reason: str, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.line = line


def _decode(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        message = f"the file has {len(content)} bytes, more than {MAX_BYTES}; split it"
        raise _Refused("FileTooLarge", message)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _Refused("NotUtf8", "the file is UTF-16; save it as UTF-8")
    nul = content.find(b"\0")
    if nul >= 0:
        line = content.count(b"\n", 0, nul) + 1
        raise _Refused("NotUtf8", "the file holds a NUL byte; save it as UTF-8 text", line)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Refused("NotUtf8", "the file is not UTF-8; save it as UTF-8", line) from error


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """The parts between document marks, each with the line it begins at.

    A part that holds only directives and comments is left out: what directives could change is
    refused where it is used.
    """
    line = 1
    for start, end in pairwise([0, *(m.start() for m in _BREAK.finditer(text)), len(text)]):
        chunk = text[start:end]
        body = chunk[3:] if chunk.startswith(("---", "...")) else chunk
        if _CONTENT.search(body):
            yield line, "   " + body if chunk.startswith("...") else chunk
        line += chunk.count("\n")


class _Reader:
    """What has been read of one file so far."""

    def __init__(self, path: PurePosixPath) -> None:
        self.documents: list[Document] = []
        self.problems: list[Problem] = []
        self._path = path
        self._nodes = MAX_NODES
        self._index = 0

    def read(self, line: int, chunk: str) -> None:
        """Raises `_Refused` when nothing more of the file will be read."""
        builder = _Builder(line, self._nodes)
        try:
            for tree in _trees(builder, chunk, line):
                if tree.value is not None or tree.faults:
                    self._add(tree)
        except _Refused as refused:
            self.unreadable(refused.line, "", refused.reason, str(refused))
            self._index += 1
        self._nodes = builder.nodes_left
        if self._nodes < 0:
            raise _Refused("TooLarge", f"the file has more than {MAX_NODES} values; split it", line)
        if len(self.problems) >= MAX_UNREADABLE:
            message = f"{MAX_UNREADABLE} documents are unreadable; the rest of the file is not read"
            raise _Refused("TooManyProblems", message, line)
        if len(self.documents) > MAX_DOCUMENTS:
            del self.documents[MAX_DOCUMENTS:]
            message = f"the file has more than {MAX_DOCUMENTS} documents; split it"
            raise _Refused("TooManyDocuments", message, line)

    def unreadable(self, line: int, pointer: str, reason: str, message: str) -> None:
        self.problems.append(
            Problem(path=self._path, line=line, pointer=pointer, reason=reason, message=message)
        )

    def _add(self, tree: _Tree) -> None:
        if isinstance(tree.value, dict) and tree.value.get("kind") == "List":
            self._add_items(tree, tree.value)
        else:
            self._add_one(tree.value, "", tree.lines, tuple(tree.faults))
        self._index += 1

    def _add_items(self, tree: _Tree, value: JsonObject) -> None:
        """Every item as a document of its own; faults outside of them are the List's."""
        items = value.get("items")
        children = tree.lines[1]
        lines = children.get("items") if isinstance(children, dict) else None
        if not isinstance(items, list) or lines is None or not isinstance(lines[1], list):
            self.unreadable(tree.lines[0], "/items", "NotAnObject", "a List needs a list of items")
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
            self._add_one(item_value, pointer, item_lines, tuple(faults.get(pointer, ())))

    def _add_one(self, value: Json, pointer: str, lines: _Lines, faults: tuple[Fault, ...]) -> None:
        if isinstance(value, dict):
            self.documents.append(
                Document(
                    path=self._path,
                    index=self._index,
                    line=lines[0],
                    value=value,
                    pointer=pointer,
                    faults=faults,
                    lines=lines,
                )
            )
        elif faults:
            first = faults[0]
            self.unreadable(first.line, pointer + first.pointer, first.reason, first.message)
        else:
            message = "this is no object; write apiVersion, kind, metadata and spec"
            self.unreadable(lines[0], pointer, "NotAnObject", message)


@dataclass(slots=True)
class _Tree:
    value: Json
    lines: _Lines
    faults: list[Fault]


def _trees(builder: _Builder, chunk: str, first_line: int) -> Iterator[_Tree]:
    """The documents of a chunk: one, unless a break that is no newline precedes a mark."""
    try:
        yield from builder.build(yaml.parse(chunk, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = first_line + (mark.line if mark else 0)
        raise _Refused("InvalidYaml", _explained(error.problem, chunk), line) from error
    except yaml.reader.ReaderError as error:
        line = first_line + chunk.count("\n", 0, error.position)
        raise _Refused("InvalidYaml", f"{error.reason}; remove them", line) from error


def _explained(problem: str | None, chunk: str) -> str:
    if problem is not None and "cannot start any token" in problem and "\n\t" in chunk:
        return "a tab stands where YAML wants spaces; indent with spaces"
    if problem is not None and "Unicode character escape" in problem:
        return "an escape names half a character; write the character itself"
    return f"this is not YAML: {problem}"


@dataclass(slots=True)
class _Frame:
    """A collection being filled."""

    value: dict[str, Json] | list[Json]
    lines: dict[str, _Lines] | list[_Lines]
    line: int
    # Of a mapping: what the next value belongs to.
    key: str | None = None
    key_line: int = 0
    # The next value has a key that cannot be kept: read it, and forget it.
    drop: bool = False


class _Builder:
    """Builds values from events with a stack of its own, and counts before it builds."""

    def __init__(self, first_line: int, nodes: int) -> None:
        self.nodes_left = nodes
        self._first_line = first_line
        self._stack: list[_Frame] = []
        self._faults: list[Fault] = []

    def build(self, events: Iterator[yaml.Event]) -> Iterator[_Tree]:
        stack = self._stack
        for event in events:
            value: Json
            children: dict[str, _Lines] | list[_Lines] | None = None
            if isinstance(event, yaml.NodeEvent):
                line = self._first_line + (event.start_mark.line if event.start_mark else 0)
                self.nodes_left -= 1
                if self.nodes_left < 0:
                    raise _Refused("TooLarge", "the document has too many values; split it", line)
                if event.anchor is not None:
                    self._refuse_anchor(event, line)
                if isinstance(event, yaml.ScalarEvent):
                    if event.tag is not None:
                        self._refuse_tag(line)
                    if stack:
                        frame = stack[-1]
                        if type(frame.value) is dict and frame.key is None and not frame.drop:
                            self._open(frame, event, line)
                            continue
                    value = self._scalar(event, line)
                elif isinstance(event, yaml.CollectionStartEvent):
                    if event.tag is not None:
                        self._refuse_tag(line)
                    if len(stack) >= MAX_DEPTH:
                        message = f"values are nested deeper than {MAX_DEPTH}"
                        raise _Refused("TooDeep", message, line)
                    if isinstance(event, yaml.MappingStartEvent):
                        stack.append(_Frame({}, {}, line))
                    else:
                        stack.append(_Frame([], [], line))
                    continue
                else:
                    value = None  # an alias, refused above by its name
            elif isinstance(event, yaml.CollectionEndEvent):
                done = stack.pop()
                value, line, children = done.value, done.line, done.lines
            else:
                continue
            if stack:
                self._attach(stack[-1], value, line, children)
            else:
                yield _Tree(value, (line, children), self._faults)
                self._faults = []

    def _attach(
        self,
        frame: _Frame,
        value: Json,
        line: int,
        children: dict[str, _Lines] | list[_Lines] | None,
    ) -> None:
        if isinstance(frame.value, list):
            frame.value.append(value)
            if isinstance(frame.lines, list):
                frame.lines.append((line, children))
        elif frame.key is not None:
            frame.value[frame.key] = value
            if isinstance(frame.lines, dict):
                frame.lines[frame.key] = (frame.key_line, children)
            frame.key = None
        elif frame.drop:
            frame.drop = False
        else:
            self._fault(line, "InvalidKey", "a key must be one string, not a collection or alias")
            frame.drop = True

    def _open(self, frame: _Frame, event: yaml.ScalarEvent, line: int) -> None:
        """Take a scalar as the key of the value that follows."""
        key = event.value
        if event.implicit[0]:
            if key == "<<":
                self._fault(line, "MergeKey", "merge keys are not used; write the fields out")
                frame.drop = True
                return
            if not isinstance(_resolved_or_none(key), str):
                message = f"the key {quoted(key)} is not a string; put it in quotes"
                self._fault(line, "InvalidKey", message)
        if not isinstance(frame.lines, dict) or key in frame.lines:
            first = frame.lines[key][0] if isinstance(frame.lines, dict) else line
            message = f"the key {quoted(key)} stands twice, first in line {first}; remove one"
            self._fault(line, "DuplicateKey", message, key)
            frame.drop = True
            return
        frame.key, frame.key_line = key, line

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Json:
        if not event.implicit[0]:
            return event.value
        try:
            return _resolve(event.value)
        except ValueError as error:
            self._fault(line, "InvalidNumber", str(error))
            return None

    def _refuse_anchor(self, event: yaml.NodeEvent, line: int) -> None:
        if isinstance(event, yaml.AliasEvent):
            message = f"the alias *{event.anchor} is not used here; write the value out"
        else:
            message = f"the anchor &{event.anchor} is not used here; remove it"
        self._fault(line, "Alias", message)

    def _refuse_tag(self, line: int) -> None:
        self._fault(line, "Tag", "tags are not used here; remove it, and quote what is a string")

    def _fault(self, line: int, reason: str, message: str, key: str | None = None) -> None:
        if len(self._faults) < MAX_FAULTS:
            pointer = self._pointer() + ("" if key is None else f"/{escape(key)}")
            fault = Fault(pointer=pointer, line=line, reason=reason, message=message)
            self._faults.append(fault)

    def _pointer(self) -> str:
        tokens: list[str] = []
        for frame in self._stack:
            if isinstance(frame.value, list):
                tokens.append(str(len(frame.value)))
            elif frame.key is not None:
                tokens.append(escape(frame.key))
        return "".join(f"/{token}" for token in tokens)


def _resolved_or_none(text: str) -> Json:
    try:
        return _resolve(text)
    except ValueError:
        return None


def _resolve(text: str) -> Json:
    """What a plain scalar means in YAML 1.2. Raises ValueError for what JSON cannot hold."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _INTEGER.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        if len(text) <= _LONGEST_INTEGER:
            value = int(text[2:] if base != 10 else text, base)
            if abs(value) <= MAX_INTEGER:
                return value
        raise ValueError(f"{quoted(text, limit=24)} is larger than 2^53; quote it")
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number):
            return number
        raise ValueError(f"{quoted(text, limit=24)} is too large for a number; quote it")
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is no number that JSON holds; quote it")
    return text
