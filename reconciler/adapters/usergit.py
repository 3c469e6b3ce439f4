"""The user's own git, with the user's own configuration, in the user's own folders.

For what a person could type just as well. Repositories that others write to are the business of
the adapter for git, which trusts no configuration.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from reconciler.errors import SourceInvalid

# A commit of a dozen files or a look at the index; longer is a hook or a prompt that hangs.
_TIMEOUT_SECONDS = 60
# Set by a hook or a parent git, these point at another repository than the folder that is meant.
_FOREIGN = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"})


def run(folder: Path, *arguments: str) -> str:
    """What git prints. Raises `SourceInvalid` with git's own words."""
    return _output(folder, *arguments).decode(errors="replace")


def _output(folder: Path, *arguments: str) -> bytes:
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
            stdin=subprocess.DEVNULL,
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


def files(folder: Path, commit: str, inside: PurePosixPath) -> dict[PurePosixPath, bytes]:
    """The manifests and scripts of a commit below `inside`, by their paths from there.

    Raises `SourceInvalid` for a commit that is not there, or too large to be meant.
    """
    if commit.startswith("-"):
        raise SourceInvalid(f"{commit!r} is no commit")
    names = [str(inside / name) for name in ("manifests", "scripts", "scriptops.yaml")]
    archive = _output(
        folder, "archive", "--format=tar", commit, "--", *_existing(folder, commit, names)
    )
    found: dict[PurePosixPath, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                found[PurePosixPath(member.name).relative_to(inside)] = content.read()
    return found


def _existing(folder: Path, commit: str, names: Sequence[str]) -> list[str]:
    """Those of `names` that a commit has: git archive takes no others."""
    listed = run(folder, "ls-tree", "-z", "--name-only", commit, "--", *names).split("\0")
    if not any(listed):
        raise SourceInvalid(f"{commit} has neither manifests nor scripts")
    return [name for name in listed if name]


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
