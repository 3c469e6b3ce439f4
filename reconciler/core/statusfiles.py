"""Where the status of an object lies on the status ref."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from reconciler.core.objects import ObjectKey


def status_path(key: ObjectKey) -> PurePosixPath:
    """`<namespace>/<two hex of the name's hash>/<name>.yaml`.

    Two hex digits spread a namespace over 256 folders, so that one commit at 10,000 scripts
    rewrites trees of 256 and of about 40 entries instead of one of 10,000.
    """
    spread = hashlib.sha256(key.name.encode()).hexdigest()[:2]
    return PurePosixPath(key.namespace, spread, f"{key.name}.yaml")


def key_of(path: PurePosixPath) -> ObjectKey | None:
    """Whose status lies at `path`; None for what is no status file of ours."""
    if len(path.parts) != 3 or path.suffix != ".yaml":
        return None
    key = ObjectKey(path.parts[0], path.stem)
    return key if status_path(key) == path else None
