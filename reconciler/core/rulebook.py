"""The rules of a repository as files: which Scripts it declares and which artifacts they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from reconciler.api.repository import RepositoryFile
from reconciler.api.script import ScriptSpec, ScriptType
from reconciler.core import layout
from reconciler.core.admission import Desired, Scope
from reconciler.core.layout import ScriptPath
from reconciler.core.manifests import Change, ManifestSet
from reconciler.core.models import Property, properties_of
from reconciler.core.objects import ObjectKey, mapping, text


@dataclass(frozen=True, slots=True)
class Rulebook:
    """What could be read; manifests with problems are left out, as a revision's would be."""

    files: Mapping[PurePosixPath, bytes]
    objects: tuple[Desired, ...]

    @property
    def scripts(self) -> dict[ObjectKey, ScriptSpec]:
        return {it.reference.key: it.script for it in self.objects if it.script is not None}

    @property
    def artifacts(self) -> tuple[ScriptPath, ...]:
        """Every version of every script."""
        found = (layout.parse_script_path(it) for it in self.files)
        return tuple(it for it in found if isinstance(it, ScriptPath))

    def artifact(
        self, name: str, version: str, script_type: ScriptType | None
    ) -> ScriptPath | None:
        """The artifact of a version: of the type that a manifest names, else JavaScript first."""
        found = [it for it in self.artifacts if (it.name, it.version) == (name, version)]
        if script_type is not None:
            found.sort(key=lambda path: path.ext != script_type.ext)
        else:
            found.sort(key=lambda path: path.ext != ScriptType.JS.ext)
        return found[0] if found else None

    def properties(self, device: ObjectKey) -> Mapping[str, Property]:
        """What the DeviceModel of a Device says that it has, by name."""
        model = ""
        for it in self._of("Device"):
            if it.reference.key == device:
                reference = mapping(mapping(it.document.get("spec")).get("deviceModelRef"))
                model = text(reference.get("name"))
        for it in self._of("DeviceModel"):
            if it.reference.key == ObjectKey(device.namespace, model):
                return properties_of(it.document)
        return {}

    def _of(self, kind: str) -> Iterator[Desired]:
        return (it for it in self.objects if it.reference.kind == kind)


def read(files: Mapping[PurePosixPath, bytes], scope: Scope) -> Rulebook:
    """Raises nothing: what is wrong in a repository is for `validate` to say."""
    repository = RepositoryFile()
    if layout.REPOSITORY_FILE in files:
        said = layout.read_repository_file(files[layout.REPOSITORY_FILE])
        repository = said if isinstance(said, RepositoryFile) else repository
    kept = {path: it for path, it in files.items() if not layout.is_ignored(path, repository)}
    manifests = ManifestSet(scope)
    changes: dict[PurePosixPath, Change] = {p: c for p, c in kept.items() if layout.is_manifest(p)}
    manifests.update(changes)
    return Rulebook(kept, tuple(manifests.desired.values()))
