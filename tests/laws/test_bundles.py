"""What is bundled from npm is what its digests say, with its licences beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "executor/engines/js/linker": {"link.js", "trace.js", "watch.js", "LICENSES.txt"},
    "reconciler/adapters/bundling": {"bundle.js", "LICENSES.txt"},
    "reconciler/adapters/analysis": {"uses.js", "LICENSES.txt"},
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_bundle_is_the_one_whose_digest_is_recorded(folder: str) -> None:
    here = ROOT / folder
    lines = (here / "SHA256SUMS").read_text().splitlines()
    recorded = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {name: hashlib.sha256((here / name).read_bytes()).hexdigest() for name in recorded}
    assert (found, set(recorded)) == (recorded, FOLDERS[folder])


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_bundle_is_made_of_exact_versions(folder: str) -> None:
    package = json.loads((ROOT / folder / "package.json").read_text())
    lock = json.loads((ROOT / folder / "package-lock.json").read_text())["packages"]
    wanted = package["dependencies"] | package["devDependencies"]
    assert {name: lock[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    licences = (ROOT / folder / "LICENSES.txt").read_text()
    missing = [n for n, v in package["dependencies"].items() if f"{n} {v} (" not in licences]
    # Only inlined packages are named; a plugin that brings nothing of its own would not be.
    assert missing == []
