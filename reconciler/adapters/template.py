"""The repository a user starts from: where it lies, and a first commit of it.

It is package data of an installed program, and `repo-template/` beside the packages in a checkout.
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import Final

import reconciler
from reconciler.adapters import usergit
from reconciler.errors import SourceInvalid

BRANCH: Final = "main"


def folder() -> Path:
    """The template's folder. Raises `SourceInvalid` for an installation without it."""
    package = Path(str(resources.files(reconciler)))
    for candidate in (package / "data" / "repo-template", package.parent / "repo-template"):
        if candidate.is_dir():
            return candidate
    raise SourceInvalid("this installation has no repo-template; install scriptops again")


def create(target: Path, *, message: str = "Start with two rules") -> None:
    """Copy the template to `target` and commit it on `main`; the folder must be new or empty.

    A user whom git does not know gets a name for this repository alone, so that later commits
    work too. Raises `SourceInvalid`, and then has touched nothing that was there.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise SourceInvalid(f"{target} is not a folder; name a new or empty one")
    if target.is_dir() and any(target.iterdir()):
        raise SourceInvalid(f"{target} is not empty; name a new or empty folder")
    try:
        shutil.copytree(folder(), target, dirs_exist_ok=True)
    except OSError as error:
        raise SourceInvalid(f"{target} cannot be written: {error.strerror or error}") from error
    usergit.run(target, "init", "--quiet", f"--initial-branch={BRANCH}")
    ensure_identity(target)
    usergit.run(target, "add", "--all")
    usergit.run(target, "-c", "commit.gpgSign=false", "commit", "--quiet", f"--message={message}")


def ensure_identity(repository: Path) -> None:
    """Give a repository of a user whom git does not know a name of its own to commit with."""
    if not usergit.has_identity(repository):
        usergit.run(repository, "config", "user.name", "scriptops")
        usergit.run(repository, "config", "user.email", "scriptops@localhost")
