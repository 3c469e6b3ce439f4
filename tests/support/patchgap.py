"""Is what meets the code and bytes of others behind its newest release, and for how long?

    python -m tests.support.patchgap

Warns for each engine or library of which a newer release has been out for longer than `MOST`; the
image is then to be built again. It only ever warns: what is not known without a network is said so.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, Final

from packaging.version import InvalidVersion, Version

# A browser brings a fix of V8 to its users in two weeks; whoever reads the fix has it earlier.
MOST: Final = timedelta(days=30)
PACKAGES: Final[Mapping[str, str]] = {
    "mini-racer": "V8",
    "wasmtime": "wasmtime",
    "pygit2": "libgit2",
    "cryptography": "its OpenSSL",
    "grpcio": "gRPC",
    "h11": "HTTP",
    "PyYAML": "YAML",
}
PATIENCE: Final = 10


def newer(installed: str, index: Mapping[str, Any]) -> tuple[str, datetime] | None:
    """The first release after the one at hand, and when it came out."""
    found = sorted(
        (released, datetime.fromisoformat(files[0]["upload_time_iso_8601"]))
        for name, files in index["releases"].items()
        if (released := _release(name)) is not None
        and released > Version(installed)
        and files
        and not all(file.get("yanked") for file in files)
    )
    return (str(found[0][0]), found[0][1]) if found else None


def _release(name: str) -> Version | None:
    try:
        parsed = Version(name)
    except InvalidVersion:
        return None
    return None if parsed.is_prerelease else parsed


def warnings(
    installed: Mapping[str, str], indexes: Mapping[str, Mapping[str, Any]], *, now: datetime
) -> Iterator[str]:
    for package, at_hand in installed.items():
        release = newer(at_hand, indexes[package])
        if release is not None and now - release[1] > MOST:
            days = (now - release[1]).days
            yield (
                f"{package} {at_hand} ({PACKAGES[package]}) is behind: {release[0]} has been out "
                f"for {days} days"
            )


def main() -> None:
    indexes = {}
    for package in PACKAGES:
        try:
            with urllib.request.urlopen(
                f"https://pypi.org/pypi/{package}/json", timeout=PATIENCE
            ) as answer:
                indexes[package] = json.load(answer)
        except (urllib.error.URLError, OSError, ValueError) as error:
            sys.stderr.write(f"patch gap of {package} is not known: {error}\n")
    installed = {package: version(package) for package in indexes}
    for line in warnings(installed, indexes, now=datetime.now(UTC)):
        sys.stdout.write(f"warning: {line}\n")


if __name__ == "__main__":
    main()
