"""Each answer to a threat is proved by a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs" / "security.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| threat", "| **"))
]
PROOF = re.compile(r"\[test\]\(\.\./tests/(\w+/\w+\.py)#(test_\w+)\) \|$")


def test_each_answer_has_its_test() -> None:
    assert len(ROWS) > 30
    assert [row for row in ROWS if not PROOF.search(row)] == []


def test_every_test_that_is_linked_exists() -> None:
    named = [proof.groups() for row in ROWS if (proof := PROOF.search(row))]
    assert [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ] == []
