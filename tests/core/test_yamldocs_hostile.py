from __future__ import annotations

from pathlib import PurePosixPath

import orjson
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.core import yamldocs
from reconciler.core.yamlbuild import MAX_DEPTH, MAX_FAULTS, MAX_INTEGER, MAX_NODES
from reconciler.core.yamldocs import MAX_BYTES, read

PATH = PurePosixPath("manifests/a.yaml")


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        pytest.param(b"[" * 200_000, "TooDeep", "nested deeper than 64", id="nesting of 200,000"),
        pytest.param(b"- " * 400_000, "TooDeep", "nested deeper", id="nesting in blocks"),
        pytest.param(b"{a: " * 200_000, "TooDeep", "nested deeper", id="nesting of mappings"),
        pytest.param(b"? " * 300_000, "TooDeep", "nested deeper", id="nesting of keys"),
        pytest.param(
            b"[" + b"1," * MAX_NODES + b"]", "TooLarge", "values; split it", id="many values"
        ),
        pytest.param(b"a" * (MAX_BYTES + 1), "FileTooLarge", "split it", id="a large file"),
        pytest.param("a: 1".encode("utf-16"), "NotUtf8", "UTF-16", id="UTF-16"),
        pytest.param("a: 1".encode("utf-16-be"), "NotUtf8", "NUL", id="UTF-16 without its mark"),
        pytest.param(b"a: 1\nb: \0", "NotUtf8", "NUL", id="a NUL"),
        pytest.param(b"a: \xff", "NotUtf8", "not UTF-8", id="not UTF-8"),
        pytest.param(b"a: \x07", "InvalidYaml", "control characters", id="a control character"),
        pytest.param(b"a:\n\tb: 1", "InvalidYaml", "indent with spaces", id="indented by a tab"),
        pytest.param(b"just words", "NotAnObject", "apiVersion", id="a document that is no object"),
        pytest.param(b"- a", "NotAnObject", "apiVersion", id="a document that is a list"),
        pytest.param(b"*a", "Alias", "write the value out", id="a document that is an alias"),
        pytest.param(b"%YAML 3.0\n--- a\n", "NotAnObject", "", id="a version nobody has"),
        pytest.param(b'"\\ud800"', "InvalidYaml", "the character itself", id="half a character"),
    ],
)
def test_a_document_that_cannot_be_read_is_one_problem(
    content: bytes, reason: str, message: str
) -> None:
    file = read(PATH, content)
    assert (file.documents, [p.reason for p in file.problems][:1]) == ((), [reason])
    assert message in file.problems[0].message


ALIAS_BOMB = "a: &a [x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
)
MERGE_BOMB = "a0: &a0 {k: 1}\n" + "".join(
    f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}]}}\n" for i in range(16)
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", ("/a", 3, "DuplicateKey"), id="a key twice"),
        pytest.param("x: {a: 1, 'a': 3}\n", ("/x/a", 1, "DuplicateKey"), id="twice, once quoted"),
        pytest.param("1: a\ntrue: d\n", ("", 1, "InvalidKey"), id="a number for a key"),
        pytest.param("~: a\n", ("", 1, "InvalidKey"), id="null for a key"),
        pytest.param("?\n: a\n", ("", 1, "InvalidKey"), id="nothing for a key"),
        pytest.param("[a]: b\n", ("", 1, "InvalidKey"), id="a list for a key"),
        pytest.param("? {a: b}\n: c\n", ("", 1, "InvalidKey"), id="a mapping for a key"),
        pytest.param(ALIAS_BOMB, ("/a", 1, "Alias"), id="an alias bomb"),
        pytest.param("a: &a [*a]\n", ("/a", 1, "Alias"), id="a list within itself"),
        pytest.param(MERGE_BOMB, ("/a0", 1, "Alias"), id="merges that double"),
        pytest.param("a: {<<: {b: 1}}\n", ("/a", 1, "MergeKey"), id="a merge"),
        pytest.param("a: !!str 1\n", ("/a", 1, "Tag"), id="a tag"),
        pytest.param(
            "a: !!python/object/apply:os.system [ls]\n", ("/a", 1, "Tag"), id="a Python tag"
        ),
        pytest.param("a: ! 1\n", ("/a", 1, "Tag"), id="a tag without a name"),
        pytest.param("a: .nan\n", ("/a", 1, "InvalidNumber"), id="not a number"),
        pytest.param("a: -.inf\n", ("/a", 1, "InvalidNumber"), id="an infinity"),
        pytest.param("a: 1e999\n", ("/a", 1, "InvalidNumber"), id="a float beyond doubles"),
        pytest.param("a: 9007199254740993\n", ("/a", 1, "InvalidNumber"), id="beyond 2^53"),
        pytest.param(
            "a: 0x" + "f" * 1_000_000, ("/a", 1, "InvalidNumber"), id="a megabyte of hexadecimal"
        ),
        pytest.param("a: " + "9" * 1_000_000, ("/a", 1, "InvalidNumber"), id="a megabyte of nines"),
    ],
)
def test_a_fault_names_its_place_and_leaves_the_rest_legible(
    text: str, fault: tuple[str, int, str]
) -> None:
    (document,) = read(PATH, f"{text.rstrip()}\nname: x\n".encode()).documents
    first = document.faults[0]
    assert (first.pointer, first.line, first.reason) == fault
    assert document.value["name"] == "x"


def test_faults_of_one_document_are_bounded() -> None:
    (document,) = read(PATH, b"a: 1\n" * 10_000).documents
    assert len(document.faults) == MAX_FAULTS


def test_unreadable_documents_of_one_file_are_bounded() -> None:
    problems = read(PATH, b"---\n[\n" * 100_000).problems
    assert [p.reason for p in problems] == ["InvalidYaml"] * 100 + ["TooManyProblems"]


def test_documents_of_one_file_are_bounded() -> None:
    file = read(PATH, b"---\na: 1\n" * 10_001)
    assert (len(file.documents), [p.reason for p in file.problems]) == (
        10_000,
        ["TooManyDocuments"],
    )


def test_the_depth_that_is_allowed_is_read() -> None:
    text = b"a: " + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)
    assert (len(read(PATH, text).documents), read(PATH, text).problems) == (1, ())


PIECES = (
    *[
        "---",
        "...",
        "a",
        "b:",
        ":",
        "-",
        "?",
        ",",
        "[",
        "]",
        "{",
        "}",
        "&",
        "*",
        "!",
        ">",
        "'",
        "%",
        "@",
        "#",
        "<<",
        "~",
        "1",
        "0x",
        ".nan",
        "kind: List",
        "items:",
        "é",
        "𝄞",
    ],
    *(" ", "\n", "\n  ", "\n- ", ": ", '"', "\t", "\r", "\\u", "\x85", "\u2028", "\ufeff", "|"),
)
FRAGMENTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@given(st.binary(max_size=200) | FRAGMENTS.map(str.encode))
@example(b"%TAG ! !x\n---\n!x a")
@example(b"\xef\xbb\xbf\xef\xbb\xbfa: 1")
def test_no_bytes_are_a_crash_and_what_is_read_is_json(content: bytes) -> None:
    for document in read(PATH, content).documents:
        orjson.dumps(document.value)
        assert document.line >= 1


@given(FRAGMENTS)
@example("items: !")
@example("! <<: {a: 1}")
def test_the_scanner_in_python_reads_what_the_one_in_c_reads(text: str) -> None:
    """Where there is no C scanner the answer may differ in words, never in what is deployed."""
    content = text.encode()
    native = read(PATH, content)
    # Marks and breaks that only one of the two knows are not promised to be equal.
    if native.problems or any(c in text for c in "\x85\u2028\ufeff\t%"):
        return
    python = yamldocs.read(PATH, content, loader=yaml.SafeLoader)
    assert [d.value for d in python.documents] == [d.value for d in native.documents]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cn", "Cs", "Co"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc~/ <", max_size=4), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), JSON))
def test_json_is_read_as_it_was_written(value: dict[str, object]) -> None:
    file = read(PurePosixPath("a.json"), orjson.dumps(value))
    assert [(d.value, d.faults) for d in file.documents] == [(value, ())]
