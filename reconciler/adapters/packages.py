"""Packages judged as an executor will judge them: by its own code, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import orjson

from reconciler.api.script import ScriptType
from reconciler.core.problems import Problem

# Unpacking what a repository may hold takes well under a second for each.
DEADLINE_SECONDS: Final = 120.0


def judge(root: Path, packages: Sequence[tuple[PurePosixPath, ScriptType]]) -> tuple[Problem, ...]:
    """What is wrong with packages below `root`, each with the type of script it is to hold."""
    if not packages:
        return ()
    wanted = [[str(root / path), script_type.ext] for path, script_type in packages]
    answer = subprocess.run(
        [sys.executable, "-I", "-m", "executor.packages"],
        input=orjson.dumps(wanted),
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    return tuple(
        Problem(path=path, line=0, pointer="", reason="PackageInvalid", message=message)
        for (path, _), message in zip(packages, orjson.loads(answer.stdout), strict=True)
        if message
    )
