"""The manifests of a repository as somebody else is to apply them: complete, and pinned."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from reconciler.adapters.worktree import WorkTree
from reconciler.core import publishing
from reconciler.core.admission import KINDS, Desired, Scope
from reconciler.core.objects import JsonObject, ObjectKey, mapping
from reconciler.core.problems import Problem
from reconciler.main import checking
from reconciler.main.checking import Checked

# Whatever refers to another comes after it: models, Devices, Scripts.
_ORDER = {kind: place for place, kind in enumerate(("DeviceModel", "Device", "Script"))}


@dataclass(frozen=True, slots=True)
class Rendered:
    """`documents` are empty where there is an error among the `problems`."""

    documents: Sequence[JsonObject] = field(repr=False)
    problems: Sequence[Problem]

    @property
    def is_good(self) -> bool:
        return not any(problem.severity == "error" for problem in self.problems)


def render(tree: WorkTree, scope: Scope, *, controller: str, repository: ObjectKey) -> Rendered:
    """All of the repository, or nothing.

    A Script without `register` gets that of `repository` at `controller` and the digest of its
    artifact; nothing else is added to any object.
    """
    checked = checking.read(tree, scope)
    problems = list(checked.problems)
    documents: list[JsonObject] = []
    wanted = checked.manifests.desired
    for desired in sorted(wanted.values(), key=_place):
        if desired.script is None or desired.script.manifest.register_url is not None:
            documents.append(desired.document)
            continue
        artifact = checking.artifact_path(checked, desired)
        if artifact is not None:
            pinned = _pinned(checked, desired, artifact, problems)
            documents.append(
                _published(pinned, desired, publishing.register(controller, repository))
            )
    rendered = Rendered(documents, problems)
    return rendered if rendered.is_good else Rendered((), problems)


def _place(desired: Desired) -> tuple[object, ...]:
    kind = desired.reference.kind
    return (_ORDER.get(kind, len(KINDS)), desired.reference)


def _pinned(
    checked: Checked, desired: Desired, artifact: PurePosixPath, problems: list[Problem]
) -> str:
    """The digest of the artifact, which has to be the one that the manifest asks for."""
    digest = f"sha256:{hashlib.sha256(checked.files[artifact]).hexdigest()}"
    asked = desired.script.manifest.digest if desired.script is not None else None
    if asked not in {None, digest}:
        message = f"{artifact} is {digest}; correct the digest, or take the line out"
        problems.append(desired.problem("/spec/manifest/digest", "DigestMismatch", message))
    return digest


def _published(digest: str, desired: Desired, register: str) -> JsonObject:
    spec = mapping(desired.document["spec"])
    manifest = {**mapping(spec["manifest"]), "register": register, "digest": digest}
    return {**desired.document, "spec": {**spec, "manifest": manifest}}
