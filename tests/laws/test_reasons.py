"""Reasons are a promise to programs: each has a meaning, and a place in the docs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from reconciler.core.reasons import MEANINGS, kebab, pascal

ROOT = Path(__file__).parents[2]
# What a look at a repository goes through.
MODULES = [
    *(
        ROOT / f"reconciler/core/{name}.py"
        for name in (
            *("admission", "crosscheck", "cycles", "devicechecks", "devicemanifests", "findings"),
            *("gitpaths", "layout", "manifests", "uses", "yamlbuild", "yamldocs"),
        )
    ),
    *(ROOT / f"reconciler/adapters/{name}.py" for name in ("committree", "packages", "worktree")),
    *(ROOT / f"reconciler/main/{name}.py" for name in ("checking", "differing")),
]
MAKERS = {
    *("Problem", "Fault", "Refused", "Refusal", "_finding", "_Finding", "_fault", "at"),
    *("problem", "unreadable"),
}
REASON = re.compile(r"[A-Z][a-z]+([A-Z][a-z0-9]*)*")
KINDS = {"Script", "Device", "DeviceModel", "ScriptRepository"}


def reasons(path: Path) -> set[str]:
    """Words that stand where a finding is made, or that a generator of findings yields."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in MAKERS:
                given = [*node.args, *(it.value for it in node.keywords if it.arg == "reason")]
        elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            given = node.value.elts
        for it in given:
            if isinstance(it, ast.Constant) and isinstance(it.value, str):
                found |= {it.value} if REASON.fullmatch(it.value) else set()
    return found - KINDS


def test_every_reason_has_a_meaning():
    used = set().union(*map(reasons, MODULES))
    assert len(used) > 40
    assert used - set(MEANINGS) == set()


def test_a_reason_reads_the_same_both_ways():
    assert [pascal(kebab(reason)) for reason in MEANINGS] == list(MEANINGS)


def test_the_page_names_every_reason_with_its_meaning():
    page = (ROOT / "docs/pull-requests.md").read_text().partition("## Reasons")[2]
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", page, re.MULTILINE))
    assert rows == {kebab(reason): meaning for reason, meaning in MEANINGS.items()}
