"""Packages judged as an executor will judge them: by its own code, in a process of its own."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple

import orjson

from reconciler.api.script import ScriptType
from reconciler.core.problems import Problem

# Unpacking what a repository may hold takes well under a second for each.
DEADLINE_SECONDS: Final = 120.0


class Packed(NamedTuple):
    """An artifact that has to be unpacked, and the type of script it is to hold."""

    path: PurePosixPath
    script_type: ScriptType
    content: bytes


class Opened(NamedTuple):
    """`sources` are the JavaScript of each good package, by path in it; of a .gz the path is ""."""

    problems: tuple[Problem, ...]
    sources: Mapping[PurePosixPath, Mapping[str, str]]


def opened(packages: Sequence[Packed]) -> Opened:
    """What is wrong with packages, and what is in the others."""
    if not packages:
        return Opened((), {})
    wanted = [
        [it.path.name, it.script_type.ext, base64.b64encode(it.content).decode()] for it in packages
    ]
    answer = subprocess.run(
        [sys.executable, "-I", "-m", "executor.packages"],
        input=orjson.dumps(wanted),
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    told = list(zip(packages, orjson.loads(answer.stdout), strict=True))
    return Opened(
        tuple(
            Problem(path=it.path, line=0, pointer="", reason="PackageInvalid", message=message)
            for it, (message, _) in told
            if message
        ),
        {it.path: sources for it, (message, sources) in told if not message},
    )
