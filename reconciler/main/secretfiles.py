"""Secrets where there is no Kubernetes: read from folders as Kubernetes mounts them."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from reconciler.api.meta import DNS_SUBDOMAIN
from reconciler.core.objects import FIELD_MANAGER, LABEL_ENV, SECRETS, JsonObject
from reconciler.errors import Stalled
from reconciler.ports.cluster import Cluster

# What Kubernetes takes for a whole Secret.
MOST_BYTES = 1024 * 1024
# In a folder whose values scripts may be given: on Kubernetes that is said with a label.
FOR_SCRIPTS = ".for-scripts"


def documents(folder: Path, namespace: str) -> Sequence[JsonObject]:
    """One Secret for each folder in `folder`, with one key for each file in that.

    Scripts may be given those in whose folder there is a file called `.for-scripts`. Other hidden
    ones are passed over: a mounted Secret has some. Raises `Stalled` for what cannot be read or is
    no name.
    """
    try:
        return [
            {
                "apiVersion": SECRETS.api_version,
                "kind": SECRETS.kind,
                "metadata": {
                    "name": _name(found),
                    "namespace": namespace,
                    **({"labels": {LABEL_ENV: "true"}} if (found / FOR_SCRIPTS).exists() else {}),
                },
                "data": {file.name: _content(file) for file in _visible(found) if file.is_file()},
            }
            for found in _visible(folder)
            if found.is_dir()
        ]
    except OSError as error:
        raise Stalled(
            f"the Secrets in {folder} cannot be read ({error.strerror})", reason="SecretsInvalid"
        ) from error


async def keep(cluster: Cluster, folder: Path, namespace: str) -> None:
    """Put the Secrets of `folder` into `cluster`. Not promised: that those which left it go."""
    for document in documents(folder, namespace):
        await cluster.apply(SECRETS, document, field_manager=FIELD_MANAGER, force=True)


def _visible(folder: Path) -> Sequence[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _name(folder: Path) -> str:
    if not re.fullmatch(DNS_SUBDOMAIN, folder.name):
        raise Stalled(
            f"{folder} cannot be the name of a Secret; use lower case letters, digits, - and .",
            reason="SecretsInvalid",
        )
    return folder.name


def _content(file: Path) -> str:
    if file.stat().st_size > MOST_BYTES:
        raise Stalled(f"{file} is too large for a Secret", reason="SecretsInvalid")
    return base64.b64encode(file.read_bytes()).decode()
