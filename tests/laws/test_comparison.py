"""What the comparison claims of us is proved by a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "comparison.md").read_text()
# The last cell is ours.
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| |"))
]
PROOF = re.compile(r"\[yes\]\(\.\./tests/(\w+/\w+\.py)#(test_\w+)\)")


def test_each_row_has_an_answer_for_each_of_the_three() -> None:
    assert len(ROWS) > 50
    assert [row for row in ROWS if len(row) != 4 or not all(row)] == []


def test_ours_is_a_yes_with_its_test_or_a_no() -> None:
    unproved = [row[0] for row in ROWS if not re.match(r"no\b", row[3]) and not PROOF.match(row[3])]
    assert unproved == []


def test_every_test_that_is_linked_exists() -> None:
    missing = [
        f"{file}::{name}"
        for file, name in PROOF.findall(PAGE)
        if not (ROOT / "tests" / file).is_file()
        or f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert missing == []
