"""What one object of a repository says of another, or of an artifact.

Told only what changed, like the `ManifestSet` it belongs to: objects that nothing changed around
are not looked at again. Mutable for the same reason; one owner, no threads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple, TypeAlias

from reconciler.api.script import ManifestRef, ScriptType
from reconciler.core import layout
from reconciler.core.admission import Desired
from reconciler.core.manifests import Changed, ManifestSet
from reconciler.core.objects import Reference, mapping, text
from reconciler.core.problems import Problem, escape, suggestion


def crosscheck(
    manifests: ManifestSet, script_files: AbstractSet[PurePosixPath]
) -> tuple[Problem, ...]:
    """All findings at once: for a check that runs once."""
    check = CrossCheck(manifests)
    check.update(Changed(frozenset(manifests.desired)), dict.fromkeys(script_files, True))
    return check.problems


def artifact(reference: ManifestRef) -> Artifact:
    """What a Script without `register` runs."""
    return Artifact(reference.name, reference.version, reference.script_type)


class Artifact(NamedTuple):
    """A version that a Script asks for. It may lie in one of several files, see `places`."""

    name: str
    version: str
    script_type: ScriptType

    @property
    def places(self) -> tuple[PurePosixPath, ...]:
        return layout.script_paths(*self)


# What an object may ask for beside itself.
Want: TypeAlias = Artifact | Reference


class CrossCheck:
    """Which Scripts lack their artifact, and which names lead to no object of the repository.

    An artifact that is absent is an error, unless the Script names a register; so is one that is
    there twice, with two extensions. A Device or
    DeviceModel that is absent is a note, and only where the repository has any of that kind:
    others keep theirs in the cluster.
    """

    def __init__(self, manifests: ManifestSet) -> None:
        self._manifests = manifests
        self._files: set[PurePosixPath] = set()
        self._versions: defaultdict[str, set[layout.ScriptPath]] = defaultdict(set)
        # Who asks for a file, or names an object; and what an object asks for.
        self._users: defaultdict[Want, set[Reference]] = defaultdict(set)
        self._wants: dict[Reference, frozenset[Want]] = {}
        self._lacking: dict[Reference, frozenset[Want]] = {}
        self._without_artifact: set[Reference] = set()
        self._kinds: defaultdict[str, set[Reference]] = defaultdict(set)

    def update(self, changed: Changed, scripts: Mapping[PurePosixPath, bool]) -> None:
        """Take in changed objects, and script files that came (True) or went (False)."""
        for path, present in scripts.items():
            self._file(path, present=present)
        again = set(changed.references)
        came_or_went: list[Want] = [*_in_files(scripts), *changed.references]
        for want in came_or_went:
            if users := self._users.get(want):
                again |= users
        for reference in changed.references:
            self._object(reference)
        has = cache(self._has)
        for reference in again:
            lacking = frozenset([w for w in self._wants.get(reference, ()) if not has(w)])
            if lacking:
                self._lacking[reference] = lacking
            else:
                self._lacking.pop(reference, None)
            if any(isinstance(want, Artifact) for want in lacking):
                self._without_artifact.add(reference)
            else:
                self._without_artifact.discard(reference)

    @property
    def without_artifact(self) -> frozenset[Reference]:
        """Scripts that cannot be deployed, because their artifact is not in the repository, or is
        there twice.
        """
        return frozenset(self._without_artifact)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every finding, by path and line. Costs by the Scripts that lack anything at all, which
        is all of them where devices are kept elsewhere.
        """
        # Only those that lack an artifact have any where all devices are kept elsewhere.
        is_elsewhere = not any(self._kinds.get(kind) for kind in ("Device", "DeviceModel"))
        return self._sorted(self._without_artifact if is_elsewhere else self._lacking)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The findings that are no notes; costs by their number."""
        found = self._sorted(self._without_artifact)
        return tuple(problem for problem in found if problem.severity == "error")

    def _sorted(self, references: Iterable[Reference]) -> tuple[Problem, ...]:
        found = [p for reference in references for p in self._findings(reference)]
        return tuple(sorted(found, key=lambda p: (p.path, p.line, p.pointer, p.message)))

    def _file(self, path: PurePosixPath, *, present: bool) -> None:
        parsed = layout.parse_script_path(path)
        if not isinstance(parsed, layout.ScriptPath):
            return
        if present:
            self._files.add(path)
            self._versions[parsed.name].add(parsed)
            return
        self._files.discard(path)
        self._versions[parsed.name].discard(parsed)
        if not self._versions[parsed.name]:
            del self._versions[parsed.name]

    def _object(self, reference: Reference) -> None:
        for want in self._wants.pop(reference, ()):
            self._users[want].discard(reference)
            if not self._users[want]:
                del self._users[want]
        desired = self._manifests.desired.get(reference)
        if desired is None:
            self._kinds[reference.kind].discard(reference)
            return
        self._kinds[reference.kind].add(reference)
        wants = frozenset([want for want, _ in _wants(desired)])
        if wants:
            self._wants[reference] = wants
        for want in wants:
            self._users[want].add(reference)

    def _has(self, want: Want) -> bool:
        if isinstance(want, Artifact):
            # By names: paths are dear to make, and this is asked of every Script.
            present = self._versions.get(want.name, ())
            of = (
                layout.ScriptPath(want.name, want.version, e) for e in want.script_type.extensions
            )
            return sum(it in present for it in of) == 1
        return self._manifests.knows(want)

    def _files_of(self, want: Artifact) -> list[PurePosixPath]:
        return [path for path in want.places if path in self._files]

    def _findings(self, reference: Reference) -> Iterator[Problem]:
        lacking = self._lacking[reference]
        if not any(isinstance(it, Artifact) or self._kinds.get(it.kind) for it in lacking):
            return  # as most, where devices are kept elsewhere
        desired = self._manifests.desired[reference]
        for want, keys in _wants(desired):
            if want not in lacking:
                continue
            pointer = "".join(f"/{escape(key)}" for key in keys)
            if isinstance(want, Artifact):
                yield self._artifact_finding(desired, want, pointer)
            elif self._kinds[want.kind]:
                names = (r.name for r in self._kinds[want.kind] if r.namespace == want.namespace)
                message = f"{want} is not in the repository{suggestion(want.name, names)}"
                finding = desired.problem(pointer, f"{want.kind}NotInRepository", message)
                yield replace(finding, severity="note")

    def _artifact_finding(self, desired: Desired, want: Artifact, pointer: str) -> Problem:
        if files := self._files_of(want):
            message = (
                f"{' and '.join(map(str, files))} are one version; nobody can tell which is meant, "
                "so keep one"
            )
            return desired.problem(pointer, "VersionTwice", message)
        message = f"{want.places[0]} is not in the repository{self._nearest(desired)}"
        return desired.problem(pointer, "ArtifactNotFound", message)

    def _nearest(self, desired: Desired) -> str:
        """What to write instead, as far as that can be guessed."""
        if desired.script is None:
            return ""
        wanted = desired.script.manifest
        same = sorted(self._versions.get(wanted.name, ()))
        if not same:
            near = suggestion(wanted.name, sorted(self._versions))
            return near or "; add it, or name a register"
        of_type = [s.version for s in same if s.ext in wanted.script_type.extensions]
        if not of_type:
            return f"; there is {wanted.name}/{same[-1].version}.{same[-1].ext}, check scriptType"
        near = suggestion(wanted.version, of_type)
        return near or f"; there is version {', '.join(of_type[-3:])}"


def _in_files(paths: Iterable[PurePosixPath]) -> Iterator[Artifact]:
    """What the files may be."""
    for path in paths:
        parsed = layout.parse_script_path(path)
        if isinstance(parsed, layout.ScriptPath):
            for script_type in ScriptType:
                if parsed.ext in script_type.extensions:
                    yield Artifact(parsed.name, parsed.version, script_type)


def _wants(desired: Desired) -> Iterable[tuple[Want, tuple[str, ...]]]:
    """What an object asks for beside itself, and the keys that lead to where it says so."""
    namespace = desired.reference.namespace
    if desired.reference.kind == "Device":
        spec = mapping(desired.document.get("spec"))
        if model := text(mapping(spec.get("deviceModelRef")).get("name")):
            yield Reference("DeviceModel", namespace, model), ("spec", "deviceModelRef", "name")
    script = desired.script
    if script is None:
        return
    if script.manifest.register_url is None:
        yield artifact(script.manifest), ("spec", "manifest", "version")
    for name, selector in (
        ("readSelector", script.read_selector),
        ("writeSelector", script.write_selector),
    ):
        for alias, device in selector.match_names.items():
            yield Reference("Device", namespace, device), ("spec", name, "matchNames", alias)
