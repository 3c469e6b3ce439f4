"""Manifests for tests, as text."""

from __future__ import annotations

from pathlib import PurePosixPath

from reconciler.core.admission import Scope
from reconciler.core.manifests import Change, ManifestSet
from reconciler.core.objects import Reference

SCOPE = Scope(namespace="default")


def path(name: str) -> PurePosixPath:
    return PurePosixPath("manifests", name)


def script(name: str, *, namespace: str = "", version: str = "1", register: str = "") -> str:
    """A Script in three documents' worth of lines: name in line 3, version in line 5."""
    place = f", namespace: {namespace}" if namespace else ""
    where = f", register: {register}" if register else ""
    return (
        "apiVersion: hit.edu.cn/v1alpha1\n"
        "kind: Script\n"
        f"metadata: {{name: {name}{place}}}\n"
        "spec:\n"
        f'  manifest: {{scriptType: Js, name: rule, version: "{version}"{where}}}\n'
    )


def device(name: str, *, model: str = "switch") -> str:
    return (
        "apiVersion: devices.kubeedge.io/v1beta1\n"
        "kind: Device\n"
        f"metadata: {{name: {name}}}\n"
        f"spec: {{deviceModelRef: {{name: {model}}}, properties: [{{name: power}}]}}\n"
    )


def ref(name: str, kind: str = "Script", namespace: str = "default") -> Reference:
    return Reference(kind, namespace, name)


def loaded(scope: Scope = SCOPE, /, **files: str) -> ManifestSet:
    """A set that began with `files`; `a="..."` is manifests/a.yaml."""
    manifests = ManifestSet(scope)
    update(manifests, **files)
    return manifests


def update(manifests: ManifestSet, **files: str | None) -> frozenset[Reference]:
    changes: dict[PurePosixPath, Change] = {
        path(f"{name}.yaml"): None if text is None else text.encode()
        for name, text in files.items()
    }
    return manifests.update(changes).references
