"""What the page on delivery claims is proved by a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROOF = re.compile(r"^\| .* \| `(test_\w+)` \|$", re.MULTILINE)


def test_every_claim_names_a_test_that_exists() -> None:
    claimed = set(PROOF.findall((ROOT / "docs" / "delivery.md").read_text()))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(claimed) >= 8
    assert {name for name in claimed if f"def {name}(" not in sources} == set()
