from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from reconciler.core.yamldocs import File, read

PATH = PurePosixPath("manifests/a.yaml")


def values(text: str | bytes) -> list[Any]:
    file = parsed(text)
    assert file.problems == ()
    assert [d.faults for d in file.documents] == [()] * len(file.documents)
    return [document.value for document in file.documents]


def parsed(text: str | bytes) -> File:
    return read(PATH, text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        pytest.param("on", "on", id="on is a word"),
        pytest.param("off", "off", id="off is a word"),
        pytest.param("yes", "yes", id="yes is a word"),
        pytest.param("NO", "NO", id="NO is a country"),
        pytest.param("y", "y", id="y is a letter"),
        pytest.param("12:30:45", "12:30:45", id="a time of day is no sexagesimal"),
        pytest.param("014", 14, id="a leading zero is decimal"),
        pytest.param("0o14", 12, id="octal is said"),
        pytest.param("0x1F", 31, id="hexadecimal"),
        pytest.param("0b1", "0b1", id="binary is no number"),
        pytest.param("1_000", "1_000", id="underscores are no number"),
        pytest.param("0.1_beta1", "0.1_beta1", id="a version"),
        pytest.param("1e3", 1000.0, id="an exponent"),
        pytest.param("-.5", -0.5, id="no digit before the point"),
        pytest.param("2024-01-01", "2024-01-01", id="a date is a string"),
        pytest.param("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z", id="a timestamp is a string"),
        pytest.param("9007199254740992", 2**53, id="the largest integer"),
        pytest.param("'9007199254740993'", "9007199254740993", id="a larger one in quotes"),
        pytest.param('"true"', "true", id="a quoted word"),
        pytest.param("True", True, id="a truth"),
        pytest.param("~", None, id="a tilde"),
        pytest.param("", None, id="nothing"),
        pytest.param("''", "", id="an empty string"),
        pytest.param("'<<'", "<<", id="a quoted merge sign"),
        pytest.param("1.2.3", "1.2.3", id="three numbers"),
        pytest.param("=", "=", id="an equals sign"),
    ],
)
def test_scalars_are_read_as_yaml_1_2_has_them(scalar: str, value: object) -> None:
    (document,) = values(f"a: {scalar}\n")
    assert (document["a"], type(document["a"])) == (value, type(value))


def test_documents_are_counted_and_empty_ones_passed_over() -> None:
    file = parsed("# nothing\n---\na: 1\n---\n---\n# nothing\n...\n---\nb: 2\n")
    assert [(d.index, d.line, d.value) for d in file.documents] == [
        (0, 3, {"a": 1}),
        (1, 9, {"b": 2}),
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ufeffa: 1\nb: [2]\n".encode(), id="a byte order mark"),
        pytest.param(b"a: 1\r\nb: [2]\r\n", id="CRLF"),
        pytest.param(b"a: 1\rb: [2]\r", id="CR alone"),
        pytest.param(b"a:\t1\nb:\t[\t2\t]\t\n", id="tabs between words"),
        pytest.param(b'{\n\t"a": 1,\n\t"b": [\n\t\t2\n\t]\n}\n', id="JSON indented with tabs"),
        pytest.param(b"%YAML 1.2\n---\na: 1\nb: [2]\n...\n", id="a directive"),
        pytest.param(b"--- {a: 1, b: [2]}", id="content behind the mark"),
    ],
)
def test_ways_to_write_one_document(text: bytes) -> None:
    assert values(text) == [{"a": 1, "b": [2]}]


def test_a_syntax_error_stops_only_its_own_document() -> None:
    file = parsed("a: 1\n---\nb: [1\n---\nc: 'x\n---\nd: 4\n")
    assert [d.value for d in file.documents] == [{"a": 1}, {"d": 4}]
    assert [(p.line, p.reason) for p in file.problems] == [(4, "InvalidYaml"), (6, "InvalidYaml")]


def test_items_of_a_list_are_documents_that_fail_alone() -> None:
    file = parsed(
        "apiVersion: v1\nkind: List\nitems:\n- {a: 1}\n- {b: 1, b: 2}\n- no object\n- {c: 1}\n"
    )
    assert [(d.pointer, d.line, d.value) for d in file.documents] == [
        ("/items/0", 4, {"a": 1}),
        ("/items/1", 5, {"b": 1}),
        ("/items/3", 7, {"c": 1}),
    ]
    assert [[f.pointer for f in d.faults] for d in file.documents] == [[], ["/b"], []]
    assert [(p.pointer, p.line, p.reason) for p in file.problems] == [
        ("/items/2", 6, "NotAnObject")
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("kind: List\n", id="absent"),
        pytest.param("kind: List\nitems: {}\n", id="a mapping"),
        pytest.param("kind: List\nitems: [1]\nitems: []\n", id="twice"),
    ],
)
def test_a_list_whose_items_cannot_be_told_is_a_problem(text: str) -> None:
    assert len(parsed(text).problems) >= 1


def test_a_place_is_found_by_its_pointer() -> None:
    (document,) = parsed("# first\na:\n  b/c:\n  - x\n  - y: 1\n    z~: 2\n").documents
    pointers = ("", "/a", "/a/b~1c", "/a/b~1c/1", "/a/b~1c/1/z~0", "/a/gone/x", "/a/b~1c/9")
    assert [document.line_of(p) for p in pointers] == [2, 2, 3, 5, 6, 2, 3]
