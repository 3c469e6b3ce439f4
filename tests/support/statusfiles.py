"""What the status ref of a repository says, read as anybody with git would read it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from reconciler.core.objects import ObjectKey
from reconciler.core.statusfiles import status_path
from tests.support.gitserver import Repository

# Stands before each blob.
_HEAD = re.compile(r"^[0-9a-f]{40} blob \d+$", re.MULTILINE)
REF = "scriptops-status/default"


def status_files(git: Repository, ref: str = REF) -> dict[ObjectKey, Any]:
    """Status by Script. Fails where the repository is damaged or a file is not what it should be."""
    git.git("fsck", "--strict", "--no-dangling")
    tip = git.tip(ref)
    if tip is None:
        return {}
    found: dict[ObjectKey, Any] = {}
    names = git.git("ls-tree", "-r", "--name-only", tip).splitlines()
    asked = "".join(f"{tip}:{name}\n" for name in names).encode()
    contents = _HEAD.split(git.git("cat-file", "--batch", stdin=asked))[1:]
    assert len(contents) == len(names)
    for name, content in zip(names, contents, strict=True):
        document = yaml.safe_load(content)
        metadata = document["metadata"]
        key = ObjectKey(metadata["namespace"], metadata["name"])
        assert name == str(status_path(key))
        found[key] = document["status"]
    return found
