from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import orjson
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.core.problems import escape
from reconciler.core.yamldocs import Document, File, read
from reconciler.core.yamlshapes import MAX_CHARACTERS

PATH = PurePosixPath("manifests/a.yaml")


def scans(*texts: str) -> int:
    """How many texts a scanner is given that has seen none before."""
    scanned: list[str] = []

    class Counting(yaml.SafeLoader):
        def __init__(self, stream: str) -> None:
            scanned.append(stream)
            super().__init__(stream)

    for text in texts:
        read(PATH, text.encode(), loader=Counting)
    return len(scanned)


def places(value: object, pointer: str = "") -> Iterator[str]:
    yield pointer
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from places(below, f"{pointer}/{escape(key)}")
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from places(below, f"{pointer}/{number}")


def told(document: Document) -> tuple[object, ...]:
    """All that anybody can learn of a document; as JSON 1 is not True, and keys have an order."""
    return (
        document.index,
        document.line,
        document.pointer,
        document.faults,
        orjson.dumps(document.value),
        {pointer: document.line_of(pointer) for pointer in places(document.value)},
    )


def same(content: bytes) -> File:
    """The file, once it is sure that it is what scanning every document says."""
    file, scanned = read(PATH, content), read(PATH, content, shapes=False)
    assert [told(document) for document in file.documents] == [
        told(document) for document in scanned.documents
    ]
    assert file.problems == scanned.problems
    return file


WORDS = st.sampled_from(
    [
        *("word", "on", "Null", "true", "1", "014", "0x1F", "1e3", "1.5", "1.0.0", "2024-01-01"),
        *("a-b", "x/y.z", "9007199254740993", "1e999", "0o9", "Marker-0.", "-", "%s", "%"),
        *('"text"', '""', '"a: b # c"', '"%s"', '"é 𝄞"', '"\\u00e9"', '"\ufeff"', "'x'", '"x'),
    ]
)
COMMENTS = st.sampled_from(["# why", "#", "# a: b", "# 溫度 %s", "# \u2028b: c", "# \x85", "#\tx"])
BREAKS = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "\n\n"])
HEADS = st.sampled_from(
    [
        *("a: ", "b: ", "c: ", "  a: ", "  b: ", "    d: ", "- ", "- a: ", "  - ", "- - ", "a:"),
        *("? ", ": ", "a: |", "a: |\n  ", "a: >-\n  b: ", "a: 'x: ", 'a: "x: ', "a: {b: ", "a: [ "),
        *("}", "]", ", b: ", "'", '"', "--- ", "---\n", "...\n", "&x ", "!t ", "*x", "<<: ", "1: "),
        *("%YAML 1.2\n", "\t", "  ", "", "kind: List\nitems:\n", "#", "# ", '"k": ', "k k: "),
    ]
)
LINES = st.tuples(
    HEADS, st.just("") | WORDS, st.just("") | st.tuples(st.just(" "), COMMENTS).map("".join), BREAKS
).map("".join)


@settings(deadline=None)
@given(st.lists(LINES, max_size=12).map("".join))
@example("a: |\n  text\n# word\nb: c\n")
@example("a: |\n  text\n  # word\nb: c\n")
@example("a: b\n  c: d\n")
@example("# a: b\u2028c: d\na: b\n")
@example("a: x # b: y\n")
@example("a: b # Marker-0.\n")
@example('a: b\n"Marker-0.": c\n')
@example("- a: b\n: c\n")
@example("a: {b: c\n  , d: e\n}\n")
@example('a: "b: "\n')
@example("kind: List\nitems:\n- a: b\n- c\n")
@example("--- word\n...\n--- a\n: b\n")
@example("a: |  # text\n  b: c\n")
@example("a: >-\n  b: c\nd: e\n")
@example("a: 'b\n  c: d'\n")
@example("a: Key-marker-0.\nb: c\n")
@example("{\n  a: b,\n  c: d\n}\n")
@example("? a: b\n: c\n")
@example("a:\n- b: c\n   d: e\n")
@example("true: a\n")
@example("_: \x01\n")
@example("\x01: a\n")
def test_what_a_shape_tells_is_what_the_scanner_says(text: str) -> None:
    same(text.encode())


NAMES = st.sampled_from(["spec", "name", "x/y", "low", "on", "null", '"low"', "k k", "é"])
TREES: st.SearchStrategy[object] = st.recursive(
    WORDS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(NAMES, inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


def written(tree: object, indent: str = "") -> str:
    """As a person writes it: one line for each value, indented."""
    if isinstance(tree, dict):
        return "".join(f"\n{indent}{key}:{written(it, indent + '  ')}" for key, it in tree.items())
    if isinstance(tree, list):
        return "".join(f"\n{indent}-{written(it, indent + '  ')}" for it in tree)
    return f" {tree}"


@settings(deadline=None)
@given(st.lists(st.dictionaries(NAMES, TREES, min_size=1), min_size=1, max_size=4))
def test_documents_of_a_file_have_their_own_lines(trees: list[object]) -> None:
    same("\n---".join(written(tree) for tree in trees).encode())


RULE = """\
# Why {0} is here.
kind: Script
metadata:
  name: {0}  # its name
spec:
  env:
    low: "{1}"
  list:
  - {0}
  - plain: {2}
"""


@settings(deadline=None)
@given(st.data())
def test_a_rule_with_slips_of_the_editor_is_what_the_scanner_says(data: st.DataObject) -> None:
    lines = RULE.format("slip", "19", "true").splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at, to = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        slip = data.draw(st.sampled_from(["gone", "twice", "moved", "in", "out", "cut", "joined"]))
        line = lines.pop(at)
        made = {
            "gone": [],
            "twice": [line, line],
            "in": ["  " + line],
            "out": [line[1:]],
            "cut": [line[: len(line) // 2], line[len(line) // 2 :]],
            "joined": [line + data.draw(st.sampled_from([" ", ",", ":", "|", " #", "\t", "'"]))],
        }.get(slip)
        if made is None:
            at, made = to, [line]
        lines[at:at] = made or [""]
    same("\n".join(lines).encode())


def test_documents_that_differ_in_words_are_scanned_once() -> None:
    texts = [RULE.format(f"rule-{n}", f"{n} °C", n) for n in range(5)]
    assert scans(*texts) == 1
    assert [same(text.encode()).documents[0].value["spec"] for text in texts] == [
        {"env": {"low": f"{n} °C"}, "list": [f"rule-{n}", {"plain": n}]} for n in range(5)
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("a:\n  x: 1\n", "a:\n  y-z/0.1: 1\n", id="by a key"),
        pytest.param("a:\n- x: 1\n  y: 2\n", "b:\n- long-key: 1\n  x: 2\n", id="in a list"),
        pytest.param("a: {b: c}\n", "d: {b: c}\n", id="before what is no word"),
        pytest.param("a: 50 %s\nb: x\n", "c: 50 %s\nd: x\n", id="beside what looks like a hole"),
    ],
)
def test_documents_that_differ_in_keys_are_scanned_once(one: str, other: str) -> None:
    assert scans(one, other) == 1
    assert same(other.encode()).problems == same(one.encode()).problems == ()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: 1\na: 2\n", id="one that stands twice"),
        pytest.param("l:\n- a: 1\n  a: 2\n", id="twice in a list"),
        pytest.param('"a": 1\na: 2\n', id="once in quotes"),
        pytest.param("null: 1\nb: 2\n", id="one that is null"),
        pytest.param("a:\n  True: 1\n", id="one that is a truth value"),
    ],
)
def test_keys_that_are_wrong_are_found_in_a_known_outline(text: str) -> None:
    same(b"x: 1\ny: 2\n")
    same(b"l:\n- x: 1\n  y: 2\n")
    same(b"x:\n  y: 1\n")
    (document,) = same(text.encode()).documents
    assert [fault.reason for fault in document.faults] in (["DuplicateKey"], ["InvalidKey"])


def test_values_are_never_shared() -> None:
    text = RULE.format("twice", 1, 2).encode()
    first, second = (read(PATH, text).documents[0].value["spec"] for _ in range(2))
    assert isinstance(first, dict)
    first["env"] = None
    assert second == {"env": {"low": "1"}, "list": ["twice", {"plain": 2}]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("depth:\n  x: 1\n", "depth:\n    x: 1\n", id="the depth"),
        pytest.param("quoted: x\n", 'quoted: "x"\n', id="quotes"),
        pytest.param("tail: x\n", "tail: x  # y\n", id="a comment behind a value"),
        pytest.param("line: x\n", "\nline: x\n", id="an empty line"),
        pytest.param("spaces: x y\n", "spaces: x z\n", id="what is more than one word"),
        pytest.param("block: |\n  x\n", "block: |\n  y\n", id="a text in lines"),
    ],
)
def test_another_shape_is_scanned(one: str, other: str) -> None:
    assert scans(one) < scans(one, other)
    assert same(one.encode()).problems == same(other.encode()).problems == ()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("twice: 1\ntwice: 2\n", id="a key that stands twice"),
        pytest.param("large: 9007199254740993\n", id="a number beyond doubles"),
        pytest.param("a: &x 1\n", id="an anchor"),
        pytest.param("a: [\n", id="a syntax error"),
        pytest.param("a: x\x07\n", id="a control character"),
        pytest.param("- word\n", id="no object"),
        pytest.param("word\n", id="a word alone"),
    ],
)
def test_what_has_faults_is_left_to_the_scanner(text: str) -> None:
    assert scans(text) >= 1
    file = same(text.encode())
    assert file.problems or file.documents[0].faults


def test_long_documents_are_not_remembered() -> None:
    text = "".join(f"key-{n}: word\n" for n in range(MAX_CHARACTERS // 10))
    assert scans(text, text) == 2


def test_values_of_known_shapes_count_as_others_do() -> None:
    text = "---\na:\n" + "- word\n" * 1_000
    file = same((text * 101).encode())
    assert [problem.reason for problem in file.problems] == ["TooLarge", "TooLarge"]
