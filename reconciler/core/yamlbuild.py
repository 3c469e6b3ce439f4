"""Values from the events of a YAML scanner, without recursion and counted before they are built."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import yaml

from reconciler.core.objects import Json
from reconciler.core.problems import escape, quoted

# No Device of KubeEdge's own samples needs more than 8.
MAX_DEPTH: Final = 64
# Of a whole file. 1,000 ordinary manifests have 50,000.
MAX_NODES: Final = 100_000
# Faults named per document: more would only repeat the first.
MAX_FAULTS: Final = 20
# JSON numbers are doubles on the way to a script; beyond this they would silently change.
MAX_INTEGER: Final = 1 << 53


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
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
HALF_CHARACTER: Final = "an escape names half a character; write the character itself"
# Enough for a sign, a prefix and every integer up to MAX_INTEGER in any of the bases.
_LONGEST_INTEGER: Final = 24


# Line of a node, and its children where it has any.
Lines: TypeAlias = "tuple[int, dict[str, Lines] | list[Lines] | None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong at one place of a document whose other places could be read."""

    pointer: str
    line: int
    reason: str
    message: str


class Refused(Exception):
    """Ends a document, or where it is raised between documents, the file."""

    def __init__(self, reason: str, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.line = line


@dataclass(slots=True)
class Tree:
    """What one document came to. `offset` is to be added to all `lines`."""

    value: Json
    lines: Lines
    faults: list[Fault]
    offset: int = 0


@dataclass(slots=True)
class _Frame:
    """A collection being filled."""

    value: dict[str, Json] | list[Json]
    lines: dict[str, Lines] | list[Lines]
    line: int
    # Of a mapping: what the next value belongs to.
    key: str | None = None
    key_line: int = 0
    # The next value has a key that cannot be kept: read it, and forget it.
    drop: bool = False


class Builder:
    """Builds values from events with a stack of its own, and counts before it builds."""

    def __init__(self, first_line: int, nodes: int) -> None:
        self.nodes_left = nodes
        self._first_line = first_line
        self._stack: list[_Frame] = []
        self._faults: list[Fault] = []

    def build(self, events: Iterator[yaml.Event]) -> Iterator[Tree]:
        # The hottest loop of reading a repository: most events are scalars, so they come first.
        stack, first_line = self._stack, self._first_line
        for event in events:
            value: Json
            children: dict[str, Lines] | list[Lines] | None = None
            if isinstance(event, yaml.ScalarEvent):
                # `_count` written out: a call costs as much as what it does.
                line = first_line + (event.start_mark.line if event.start_mark else 0)
                self.nodes_left -= 1
                if self.nodes_left < 0 or event.anchor is not None:
                    self.nodes_left += 1
                    line = self._count(event)
                if not event.value.isascii() and _SURROGATE.search(event.value):
                    raise Refused("InvalidYaml", HALF_CHARACTER, line)
                if event.tag is not None:
                    self._refuse_tag(line)
                if stack:
                    frame = stack[-1]
                    if type(frame.value) is dict and frame.key is None and not frame.drop:
                        self._open(frame, event, line)
                        continue
                value = self._scalar(event, line)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                done = stack.pop()
                value, line, children = done.value, done.line, done.lines
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                line = self._count(event)
                if event.tag is not None:
                    self._refuse_tag(line)
                if len(stack) >= MAX_DEPTH:
                    message = (
                        f"values are nested deeper than {MAX_DEPTH}; write them flatter, no object "
                        "needs so much"
                    )
                    raise Refused("TooDeep", message, line)
                if isinstance(event, yaml.MappingStartEvent):
                    stack.append(_Frame({}, {}, line))
                else:
                    stack.append(_Frame([], [], line))
                continue
            elif isinstance(event, yaml.AliasEvent):
                line, value = self._count(event), None  # refused there by its name
            else:
                continue
            if stack:
                self._attach(stack[-1], value, line, children)
            else:
                yield Tree(value, (line, children), self._faults)
                self._faults = []

    def _count(self, event: yaml.NodeEvent) -> int:
        """The line of a node, which is one more of those that a file may have."""
        line = self._first_line + (event.start_mark.line if event.start_mark else 0)
        self.nodes_left -= 1
        if self.nodes_left < 0:
            raise Refused("TooLarge", "the document has too many values; split it", line)
        if event.anchor is not None:
            self._refuse_anchor(event, line)
        return line

    def _attach(
        self,
        frame: _Frame,
        value: Json,
        line: int,
        children: dict[str, Lines] | list[Lines] | None,
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
        # Of a tag alone (`!`) the scanners in C and in Python say different things.
        if event.tag is None and event.implicit[0]:
            if key == "<<":
                self._fault(line, "MergeKey", "merge keys are not used; write the fields out")
                frame.drop = True
                return
            if not is_string(key):
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
        if event.tag is not None or not event.implicit[0]:
            return event.value
        try:
            return resolve(event.value)
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


# Keys are few and come again in every document.
@lru_cache(maxsize=4096)
def is_string(text: str) -> bool:
    try:
        return isinstance(resolve(text), str)
    except ValueError:
        return False


def resolve(text: str) -> Json:
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
