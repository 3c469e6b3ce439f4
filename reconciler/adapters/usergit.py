"""The user's own git, with the user's own configuration, in the user's own folders.

For what a person could type just as well. Repositories that others write to are the business of
the adapter for git, which trusts no configuration.
"""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from reconciler.errors import SourceInvalid

# A commit of a dozen files or a look at the index; longer is a hook or a prompt that hangs.
_TIMEOUT_SECONDS = 60
# Set by a hook or a parent git, these point at another repository than the folder that is meant.
_FOREIGN = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"})


def run(folder: Path, *arguments: str) -> str:
    """What git prints. Raises `SourceInvalid` with git's own words."""
    return output(folder, *arguments).decode(errors="replace")


def output(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    """The same as bytes; `given` is what git reads."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env={
                **{name: value for name, value in os.environ.items() if name not in _FOREIGN},
                "GIT_TERMINAL_PROMPT": "0",
                "LC_ALL": "C.UTF-8",
            },
            capture_output=True,
            check=False,
            input=given,
            timeout=_TIMEOUT_SECONDS,
        )
    except FileNotFoundError:
        raise SourceInvalid("there is no git on PATH; install the package git") from None
    except subprocess.TimeoutExpired:
        raise SourceInvalid(
            f"git {arguments[0]} did not end in {_TIMEOUT_SECONDS} s; try it by hand in {folder}"
        ) from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[:2000] or f"exit code {done.returncode}"
        raise SourceInvalid(f"git {arguments[0]} failed in {folder}: {said}")
    return done.stdout


def blobs(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The content of blobs by their ids. Raises `SourceInvalid` for one that is not there."""
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    answer = io.BytesIO(
        output(folder, "cat-file", "--batch", given="".join(f"{it}\n" for it in wanted).encode())
    )
    found: dict[str, bytes] = {}
    for name in wanted:
        head = answer.readline().split()
        if len(head) != 3 or head[1] != b"blob":
            raise SourceInvalid(f"git has no blob {name} in {folder}; is the clone complete?")
        found[name] = answer.read(int(head[2]))
        answer.read(1)
    return found


def has_identity(folder: Path) -> bool:
    """Whether a commit in `folder` would find a name and an address to sign with."""
    try:
        run(folder, "config", "--get", "user.name")
        run(folder, "config", "--get", "user.email")
    except SourceInvalid:
        return False
    return True


def uncommitted(folder: Path) -> tuple[str, ...]:
    """Paths whose edits are in no commit yet; none for a bare repository."""
    if run(folder, "rev-parse", "--is-bare-repository").strip() == "true":
        return ()
    lines = run(folder, "status", "--porcelain", "-z", "--no-renames").split("\0")
    return tuple(line[3:] for line in lines if line)
