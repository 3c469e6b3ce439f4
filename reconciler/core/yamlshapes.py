"""Documents that differ in words alone are scanned once.

The thousands of manifests of a fleet have a few shapes: the same keys in the same lines, with other
names behind them. A shape is a document without those words. It goes through the scanner with a
marker in the place of each, and where every marker comes out as one whole value, every other word
would have too: a word is of characters that mean nothing to YAML where it stands, and nothing
stands behind it in its line but a comment. So all documents of that shape are known without being
scanned, with the lines of all their places. The same is done once more for the keys, so that a new
shape whose lines are indented like those of an old one is not scanned either.

Whatever is not certain here has no shape and is left to the scanner: faults, errors, documents that
are no mapping, values in several lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import orjson
import yaml

from reconciler.core.yamlbuild import Builder, Lines, Refused, Tree, is_string, resolve

Loader: TypeAlias = Callable[[str], yaml.SafeLoader]

# Longer documents are few, and would make much of what is remembered. A Device with 20 properties
# has 4,000 characters and 250 values.
MAX_CHARACTERS: Final = 8192
MAX_VALUES: Final = 500
# At most 16 MiB, and of shapes 80 MiB; ordinary ones have 10 KiB each.
_MAX_LINES: Final = 2048
_MAX_SHAPES: Final = 1024

# Stands for what was taken out of a line; no file that holds one is read.
_HOLE: Final = "\0"
_KEY_HOLE: Final = "\0key"
_MARK: Final = "Marker-"
_KEY_MARK: Final = "Key-marker-"
_MARKED: Final = re.compile(rf'"{_MARK}([0-9]+)\."(?!:)')
_MARKED_KEY: Final = re.compile(rf'"{_KEY_MARK}([0-9]+)\.":')
# Control characters, and what some scanner takes for a line break, a byte order mark or an error.
_ODD: Final = "\x00-\x08\n-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff"
_VALUE: Final = re.compile(
    r'([^"]*?[:-] )(?:([A-Za-z0-9][-A-Za-z0-9_./]*)|'
    rf'"([^"\\\t{_ODD}]*)")((?: +#.*)?\r?)',
    re.DOTALL,
)
_COMMENT: Final = re.compile(rf"( *#)[^{_ODD}]*(\r?)")
# The scanner takes no key of more than 1,024 characters.
_KEY: Final = re.compile(r"( *(?:- +)*)([A-Za-z_][-A-Za-z0-9_./]{0,127})(:(?: .*)?\r?)", re.DOTALL)
# Behind it stands text in lines, in which nothing is a key.
_BLOCK: Final = re.compile(r"[|>][-+0-9]*\r?$")


@dataclass(frozen=True, slots=True)
class Template:
    """All documents of one shape. Lines count from 1, the first line of the document."""

    # With %s for each word, in the order of the lines.
    json: str
    lines: Lines
    nodes: int


class Known(NamedTuple):
    """What the scanner would make of a document, and how many values that is."""

    tree: Tree
    nodes: int


def tree(text: str, first_line: int, loader: Loader) -> Known | None:
    """A document without a scan; None where what it is is not certain, or it has faults.

    Values are new, lines are shared.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    shape, words = zip(*map(_taken, text.split("\n")), strict=True)
    template = _template(shape, loader)
    if template is None:
        return None
    value = orjson.loads(template.json % tuple(filter(None, words)))
    return Known(Tree(value, template.lines, [], first_line - 1), template.nodes)


@lru_cache(maxsize=_MAX_LINES)
def _taken(line: str) -> tuple[str, str]:
    """A line without its word, and the word as JSON; "" for a line that has none."""
    if line.lstrip(" ").startswith("#"):
        match = _COMMENT.fullmatch(line)
        return (line, "") if match is None else (f"{match[1]}{_HOLE}{match[2]}", "")
    match = _VALUE.fullmatch(line)
    if match is not None:
        before, plain, quoted, after = match.groups()
        if plain is None:
            return f'{before}"{_HOLE}"{after}', f'"{quoted}"'
        try:
            return f"{before}{_HOLE}{after}", orjson.dumps(resolve(plain)).decode()
        except ValueError:
            return line, ""
    return line, ""


@lru_cache(maxsize=_MAX_SHAPES)
def _template(shape: tuple[str, ...], loader: Loader) -> Template | None:
    keys: tuple[str, ...] = ()
    if not any(_BLOCK.search(line) for line in shape):
        shape, keys = zip(*map(_unkeyed, shape), strict=True)
    outline = _outline(shape, loader)
    return None if outline is None else _named(outline, keys)


@lru_cache(maxsize=_MAX_LINES)
def _unkeyed(line: str) -> tuple[str, str]:
    """A line without its key, and the key; "" for a line that has none."""
    match = _KEY.fullmatch(line)
    return (line, "") if match is None else (f"{match[1]}{_KEY_HOLE}{match[3]}", match[2])


def _named(outline: Template, keys: tuple[str, ...]) -> Template | None:
    if not all(is_string(key) for key in keys if key):
        return None
    lines = _lines(outline.lines, keys)
    if lines is None:
        return None
    return replace(outline, json=outline.json % tuple(filter(None, keys)), lines=lines)


def _lines(outline: Lines, keys: tuple[str, ...]) -> Lines | None:
    """With the keys of a document; None where one would stand twice."""
    line, children = outline
    if isinstance(children, list):
        items = [_lines(child, keys) for child in children]
        return None if None in items else (line, [it for it in items if it is not None])
    if children is None:
        return outline
    named: dict[str, Lines] = {}
    for marker, child in children.items():
        below = _lines(child, keys)
        if below is None:
            return None
        named[
            keys[int(marker[len(_KEY_MARK) : -1])] if marker.startswith(_KEY_MARK) else marker
        ] = below
    return (line, named) if len(named) == len(children) else None


@lru_cache(maxsize=_MAX_SHAPES)
def _outline(shape: tuple[str, ...], loader: Loader) -> Template | None:
    """What the scanner makes of a shape: JSON with %s for each key, and %%s for each word."""
    if any(_MARK in line or _KEY_MARK in line for line in shape):
        return None
    keys = [str(number) for number, line in enumerate(shape) if _KEY_HOLE in line]
    words = [
        str(number)
        for number, line in enumerate(shape)
        if _HOLE in line.replace(_KEY_HOLE, "") and not line.lstrip(" ").startswith("#")
    ]
    text = "\n".join(
        line.replace(_KEY_HOLE, f"{_KEY_MARK}{i}.").replace(_HOLE, f"{_MARK}{i}.")
        for i, line in enumerate(shape)
    )
    builder = Builder(1, MAX_VALUES)
    try:
        trees = list(builder.build(iter(loader(text).get_event, None)))
    except (yaml.YAMLError, Refused):
        return None
    if len(trees) != 1 or trees[0].faults or not isinstance(trees[0].value, dict):
        return None
    json = orjson.dumps(trees[0].value).decode()
    # Each is one whole key or value, in this order, and nowhere else: those of comments are gone.
    if _MARKED.findall(json) != words or json.count(_MARK) != len(words):
        return None
    if _MARKED_KEY.findall(json) != keys or json.count(_KEY_MARK) != len(keys):
        return None
    json = _MARKED.sub("%%s", json.replace("%", "%%%%"))
    return Template(
        json=_MARKED_KEY.sub('"%s":', json),
        lines=trees[0].lines,
        nodes=MAX_VALUES - builder.nodes_left,
    )
