"""The bundle that is checked in is the one that its sources make; npm is not needed to see that."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path

import pytest

WEB = Path(str(resources.files("executor.engines.js"))) / "web"
FILES = ("web.js", "idna.js", "encodings.js", "aes.js")


def digest_of_sources() -> str:
    """As build.mjs has it."""
    sources = sorted(f"src/{file.name}" for file in (WEB / "src").iterdir())
    digest = hashlib.sha256()
    for name in ("build.mjs", "package-lock.json", "package.json", *sources):
        digest.update(f"{name}\0{(WEB / name).read_text('utf-8')}\0".encode())
    return digest.hexdigest()


@pytest.mark.parametrize("file", FILES)
def test_the_bundle_is_current(file: str) -> None:
    second = (WEB / file).read_text("utf-8").splitlines()[1]
    assert second == f"// sources sha256:{digest_of_sources()}", "make web"


def test_every_bundled_package_has_its_licence_beside_it() -> None:
    text = (WEB / "licenses.txt").read_text("utf-8")
    heads = re.findall(r"^(\S+) [\d.]+ \((.+)\)$", text, re.MULTILINE)
    assert dict(heads) == {
        "@exodus/bytes": "MIT",
        "@noble/ciphers": "MIT",
        "@noble/hashes": "MIT",
        "punycode": "MIT",
        "tr46": "MIT",
        "webidl-conversions": "BSD-2-Clause",
        "whatwg-mimetype": "MIT",
        "whatwg-url": "MIT",
    }


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved": "http' not in (WEB / "package-lock.json").read_text("utf-8")
