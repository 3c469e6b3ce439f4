"""The public web-platform-tests, out of Debian's source package of Node.js, which carries them.

They are kept in the home cache and are no part of this repository. Pinned by digest: tests that
change by themselves would tell nothing about us.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

ARCHIVE = "nodejs_18.20.4+dfsg.orig.tar.xz"
SHA256 = "6ce58062c71eae37d9c5ac31eeaeff9c2d48561d21c2849179d056c9c1bd9ebc"
INSIDE = "test/fixtures/wpt/"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")


class WptMissing(Exception):
    """They are not here and cannot be fetched; the message says how to provide them."""


def folder() -> Path:
    """The folder of the tests, fetched on first use.

    Raises:
        WptMissing: they cannot be had.
    """
    if named := os.environ.get("SCRIPTOPS_WPT"):
        return Path(named)
    kept = Path.home() / ".cache" / "scriptops" / f"wpt-{SHA256[:12]}"
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as work:
            shutil.move(_unpack(_download(Path(work)), Path(work)), kept)
    return kept


def _download(work: Path) -> Path:
    """Debian's archive, by an apt that looks at nothing but its own lists in `work`."""
    try:
        sources = SOURCES.read_text("utf-8")
    except OSError as error:
        raise _missing(f"there is no {SOURCES}") from error
    lines = [
        "Types: deb-src" if line.startswith("Types:") else line for line in sources.splitlines()
    ]
    (work / "deb-src.sources").write_text("\n".join(lines) + "\n", "utf-8")
    (work / "lists" / "partial").mkdir(parents=True)
    apt = [
        "apt-get", "-qq", "-o", f"Dir::Etc::sourcelist={work}/deb-src.sources",
        "-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::State::lists={work}/lists",
        "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    for arguments in (["update"], ["source", "--download-only", "nodejs"]):
        done = subprocess.run(
            [*apt, *arguments], cwd=work, capture_output=True, text=True, check=False
        )
        if done.returncode != 0 and not (work / ARCHIVE).exists():
            raise _missing(f"apt-get {arguments[0]} failed: {done.stderr.strip()[-300:]}")
    archive = work / ARCHIVE
    if not archive.exists():
        raise _missing(f"Debian's source package nodejs has another archive than {ARCHIVE}")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise _missing(f"{ARCHIVE} is not the one that was pinned")
    return archive


def _unpack(archive: Path, work: Path) -> Path:
    tests = work / "wpt"
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, path = member.name.partition("/")
            if path.startswith(INSIDE) and member.isfile():
                member.name = path.removeprefix(INSIDE)
                tar.extract(member, tests, filter="data")
    return tests


def _missing(why: str) -> WptMissing:
    return WptMissing(
        f"no web-platform-tests: {why}; name a folder of them in SCRIPTOPS_WPT, or let apt fetch "
        "Debian's source package nodejs"
    )
