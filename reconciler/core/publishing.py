"""Where a controller's own registry stands, as a `register` that manifests name."""

from __future__ import annotations

import re
from typing import Final

from reconciler.api.meta import DNS_LABEL, DNS_SUBDOMAIN
from reconciler.api.script import ManifestRef
from reconciler.core.objects import ObjectKey
from reconciler.core.repositories import RepositoryRecord

_NAMESPACE: Final = re.compile(DNS_LABEL)
_NAME: Final = re.compile(DNS_SUBDOMAIN)


def register(controller: str, repository: ObjectKey) -> str:
    """What `spec.manifest.register` says of artifacts that this repository publishes."""
    return f"{controller.rstrip('/')}/registry/{repository.namespace}/{repository.name}"


def publisher(register: str) -> ObjectKey | None:
    """The repository whose registry this is, if it is one of ours: by path, whoever the host is.

    So it says nothing about the bytes; that takes a digest.
    """
    path = register.partition("://")[2].partition("/")[2]
    match path.rstrip("/").split("/"):
        case [*_, "registry", namespace, name] if _are_names(namespace, name):
            return ObjectKey(namespace, name)
        case _:
            return None


def _are_names(namespace: str, name: str) -> bool:
    return bool(_NAMESPACE.fullmatch(namespace) and _NAME.fullmatch(name))


def named_by(manifest: ManifestRef) -> ObjectKey | None:
    """The repository of ours that a manifest names, where it does not matter whose host it is: the
    manifest says by digest which bytes it means.
    """
    if manifest.register_url is None or manifest.digest is None:
        return None
    return publisher(manifest.register_url)


def served(repository: RepositoryRecord) -> frozenset[str]:
    """The namespaces that it publishes for: where it may write, too."""
    granted = repository.spec.namespaces if repository.spec is not None else ()
    return frozenset(granted or (repository.key.namespace,))


def serves(repository: RepositoryRecord, namespace: str) -> bool:
    """Whether it publishes for Scripts of that namespace."""
    return namespace in served(repository)
