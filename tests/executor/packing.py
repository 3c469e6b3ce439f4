"""Packages for tests: good zips, and zips that a kind person would not make."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

from executor.engines.js.engine import JavaScript
from tests.executor.running import activation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Member = tuple[str | zipfile.ZipInfo, bytes]


def zipped(files: Mapping[str, str | bytes] | Iterable[Member], *, stored: bool = False) -> bytes:
    members = files.items() if hasattr(files, "items") else files
    method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for path, content in members:
            info = path if isinstance(path, zipfile.ZipInfo) else zipfile.ZipInfo(path)
            info.compress_type = info.compress_type or method
            archive.writestr(info, content)
    return buffer.getvalue()


def engine() -> JavaScript:
    made = JavaScript(asyncio.get_running_loop())
    made.warm()
    return made


def run(made: JavaScript, *activations: bytes, script: str = "rule") -> list[list[Any]]:
    """Outcome, message, logs and writes of each run of an open script."""
    given = activations or (activation(),)
    of = [(script, len(given))]
    head = {"writes": 16, "output": 1_000, "fetches": 4, "state": 1_000, "count": len(given)}
    joined = b",".join(given).decode()
    batch = f'{json.dumps(head | {"of": of})[:-1]},"activations":[{joined}]}}'
    return [completion[:4] for completion in json.loads(made.run(of, batch.encode()))]
