"""A repository looked at as a whole: what is wrong in it, and what its rules can do.

`read` needs nothing but the files. `tried` also asks an executor of this machine: whether each
script loads, in the words that production has for it, and what its source uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final

import orjson

from reconciler.adapters import analysis, packages
from reconciler.adapters.packages import Packed
from reconciler.adapters.worktree import WorkTree
from reconciler.api.repository import RepositoryFile
from reconciler.api.script import ScriptType
from reconciler.core import conditionchecks, cycles, devicechecks, layout, writers
from reconciler.core import uses as using
from reconciler.core.admission import Desired, Scope
from reconciler.core.crosscheck import crosscheck
from reconciler.core.manifests import Change, ManifestSet
from reconciler.core.objects import ObjectKey
from reconciler.core.places import Places
from reconciler.core.problems import Problem
from reconciler.core.runs import Outcome, ScriptRef
from reconciler.core.uses import Capability, Uses
from reconciler.errors import SourceInvalid
from reconciler.main.laptop import NOTHING, TOOLS, Job, Laptop

# `SyntaxError: ... (thermostat/1.0.0.js:3:5)`, as the engine tells it.
_PLACE: Final = re.compile(r" ?\((?P<file>[^()]*?):(?P<line>[0-9]+):(?P<column>[0-9]+)\)$")


# asyncio's runner prints what a task returned into a message that nobody reads: of this, for long.
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Checked:
    """A repository that has been read. `scripts` are the artifacts that can be tried, by path.

    `capabilities` and `uses` are empty until it was tried.
    """

    files: Mapping[PurePosixPath, bytes]
    manifests: ManifestSet
    problems: tuple[Problem, ...]
    scripts: Mapping[PurePosixPath, ScriptType]
    sources: Mapping[PurePosixPath, Mapping[str, str]]
    uses: Mapping[PurePosixPath, Uses] = field(default_factory=dict)
    capabilities: tuple[Capability, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity == "error")


def read(tree: WorkTree, scope: Scope) -> Checked:
    """What the files alone say, of what the cluster of `scope` gets.

    Raises `SourceInvalid` where the repository is for named clusters and this is none of them.
    """
    said = _rules(tree)
    if isinstance(said, RepositoryFile) and said.clusters:
        problem = layout.cluster_problem(said, scope.cluster)
        if problem:
            raise SourceInvalid(f"{problem}; name one with --cluster-name")
    else:
        scope = replace(scope, cluster="")
    return _read(tree, scope, said)


def read_for_all(tree: WorkTree, scope: Scope) -> Checked:
    """What is wrong for any cluster that the repository names; all else as the first one gets it.

    Costs as much as reading it for each of them.
    """
    said = _rules(tree)
    clusters = said.clusters if isinstance(said, RepositoryFile) else []
    if not clusters or scope.cluster:
        return read(tree, scope)
    first, *others = (_read(tree, replace(scope, cluster=it), said) for it in clusters)
    return replace(first, problems=_ordered([p for it in (first, *others) for p in it.problems]))


def _rules(tree: WorkTree) -> RepositoryFile | tuple[Problem, ...]:
    return layout.read_repository_file(tree.files.get(layout.REPOSITORY_FILE, b""))


def _read(tree: WorkTree, scope: Scope, said: RepositoryFile | tuple[Problem, ...]) -> Checked:
    found = [
        Problem(
            path=PurePosixPath(it.path), line=0, pointer="", reason=it.reason, message=it.message
        )
        for it in tree.refused
    ]
    repository = RepositoryFile()
    if isinstance(said, RepositoryFile):
        repository = said
    else:
        found.extend(said)
    files = tree.files
    if repository.ignore:
        files = {p: c for p, c in files.items() if not layout.is_ignored(p, repository)}
    cluster = scope.cluster
    changes: dict[PurePosixPath, Change] = {
        p: c for p, c in files.items() if layout.is_manifest(p, cluster)
    }
    changes |= {p.path: p for p in found if layout.hides_manifests(p.path, cluster)}
    found.extend(layout.unnamed_clusters(repository, files))
    manifests = ManifestSet(scope)
    manifests.update(changes)
    types = _types(manifests)
    present: set[PurePosixPath] = set()
    scripts: dict[PurePosixPath, ScriptType] = {}
    for path, content in files.items():
        parsed = layout.parse_script_path(path)
        if isinstance(parsed, Problem):
            found.append(parsed)
        elif parsed is not None:
            present.add(path)
            problem = layout.script_problem(path, len(content), content)
            if problem is None:
                default = ScriptType.WASM if parsed.ext == "wasm" else ScriptType.JS
                scripts[path] = types.get((parsed.name, parsed.version), default)
            else:
                found.append(problem)
    opened = packages.opened(
        [Packed(p, t, files[p]) for p, t in scripts.items() if layout.is_package(p)]
    )
    found.extend(opened.problems)
    for problem in opened.problems:
        del scripts[problem.path]
    found.extend((*manifests.problems, *crosscheck(manifests, present)))
    found.extend(_about_objects(manifests, files))
    return Checked(
        files=files,
        manifests=manifests,
        problems=_ordered(found),
        scripts=scripts,
        sources={
            path: opened.sources.get(path) or {"": files[path].decode(errors="replace")}
            for path, script_type in scripts.items()
            if script_type is ScriptType.JS
        },
    )


def _about_objects(
    manifests: ManifestSet, files: Mapping[PurePosixPath, bytes]
) -> Iterator[Problem]:
    places = Places(files)
    devices = devicechecks.read(manifests.desired)
    yield from devicechecks.problems(manifests.desired, devices, places)
    yield from conditionchecks.problems(manifests.desired, devices, places)
    yield from cycles.dependencies(_scripts(manifests), places)


def against(checked: Checked, base: Mapping[PurePosixPath, bytes], name: str) -> Checked:
    """With the versions that `base` has published and that have other bytes now."""
    found = [*checked.problems]
    versions = {(p.parts[1], p.name.partition(".")[0]) for p in base if len(p.parts) == 3}
    for path, content in checked.files.items():
        parsed = layout.parse_script_path(path)
        if not isinstance(parsed, layout.ScriptPath):
            continue
        before = base.get(path)
        rival = next((p for p in sorted(layout.rival_paths(path)) if p in base), None)
        if before == content or (before is None and rival is None):
            continue
        free = layout.next_version(parsed.version)
        while (parsed.name, free) in versions or _has(checked.files, parsed.name, free):
            free = layout.next_version(free)
        told = "has other bytes" if before is not None else f"is {rival}"
        message = (
            f"this version {told} in {name}, and a version is immutable: rename the file to "
            f"{layout.script_path(parsed.name, free, parsed.ext)} and set "
            f'spec.manifest.version: "{free}"'
        )
        found.append(
            Problem(path=path, line=0, pointer="", reason="VersionImmutable", message=message)
        )
    return replace(checked, problems=_ordered(found))


def _has(files: Mapping[PurePosixPath, bytes], name: str, version: str) -> bool:
    return any(layout.script_path(name, version, ext) in files for ext in layout.SCRIPT_EXTENSIONS)


async def tried(
    checked: Checked, laptop: Laptop, *, only: AbstractSet[PurePosixPath] | None = None
) -> Checked:
    """With what an executor says of the scripts: of all, or of `only` those."""
    wanted = {p: t for p, t in checked.scripts.items() if only is None or p in only}
    problems = list(checked.problems)
    broken: set[PurePosixPath] = set()
    jobs = [Job(_ref(laptop, checked, path, type_)) for path, type_ in wanted.items()]
    for path, result in zip(wanted, await laptop.run(jobs), strict=True):
        if result.outcome is not Outcome.SUCCEEDED:
            broken.add(path)
            problems.append(_unloadable(path, result.message))
    uses = await _uses(laptop, checked, wanted.keys() - broken)
    devices = devicechecks.read(checked.manifests.desired)
    scripts = _scripts(checked.manifests)
    capabilities: list[Capability] = []
    for key, desired in scripts.items():
        artifact = artifact_path(checked, desired)
        if desired.script is None or (artifact is not None and artifact not in wanted):
            continue
        known = using.ANYTHING if artifact is None else uses.get(artifact, using.ANYTHING)
        capabilities.append(using.capability(key, desired.script, known))
        problems.extend(using.problems(desired, known, devices))
    places = Places(checked.files)
    problems.extend(cycles.triggers(scripts, capabilities, places))
    problems.extend(writers.problems(scripts, capabilities, places))
    return replace(
        checked,
        problems=_ordered(problems),
        uses=uses,
        capabilities=tuple(sorted(capabilities, key=lambda it: it.script)),
    )


def _ref(laptop: Laptop, checked: Checked, path: PurePosixPath, type_: ScriptType) -> ScriptRef:
    return ScriptRef(
        key=ObjectKey("default", path.parts[1]),
        digest=laptop.publish(checked.files[path]),
        script_type=type_.value,
        file=str(PurePosixPath(*path.parts[1:])),
    )


def _unloadable(path: PurePosixPath, message: str) -> Problem:
    line, column = 0, 0
    place = _PLACE.search(message)
    if place is not None and str(path).endswith(place["file"]):
        line, column = int(place["line"]), int(place["column"])
        message = message[: place.start()]
    return Problem(
        path=path,
        line=line,
        column=column,
        pointer="",
        reason="ScriptInvalid",
        message=message or "it cannot be loaded",
    )


async def _uses(
    laptop: Laptop, checked: Checked, paths: AbstractSet[PurePosixPath]
) -> dict[PurePosixPath, Uses]:
    """What each JavaScript artifact uses; sources that are equal are looked at once."""
    texts: dict[str, PurePosixPath] = {}
    for path in sorted(paths & checked.sources.keys()):
        for inner, source in checked.sources[path].items():
            texts.setdefault(source, path / inner if inner else path)
    if not texts:
        return {}
    tool = ScriptRef(
        key=ObjectKey(TOOLS, "analysis"),
        digest=laptop.publish(analysis.program()),
        script_type=ScriptType.JS.value,
        file=analysis.FILE,
        limits=analysis.LIMITS,
    )
    batches = list(analysis.batches(list(texts)))
    jobs = [Job(tool, orjson.dumps({**NOTHING, "event": analysis.event(it)})) for it in batches]
    found: dict[str, Uses] = {}
    for batch, result in zip(batches, await laptop.run(jobs), strict=True):
        found |= zip(batch, analysis.uses(result, [texts[it] for it in batch]), strict=True)
    return {
        path: using.joined(
            using.moved(found[source], path / inner if inner else path)
            for inner, source in checked.sources[path].items()
        )
        for path in paths & checked.sources.keys()
    }


def artifact_path(checked: Checked, script: Desired) -> PurePosixPath | None:
    """The file that a Script runs; None where it is in a register, or absent, or ambiguous."""
    if script.script is None or script.script.manifest.register_url is not None:
        return None
    manifest = script.script.manifest
    paths = layout.script_paths(manifest.name, manifest.version, manifest.script_type)
    found = [path for path in paths if path in checked.files]
    return found[0] if len(found) == 1 else None


def _scripts(manifests: ManifestSet) -> dict[ObjectKey, Desired]:
    return {
        reference.key: desired
        for reference, desired in manifests.desired.items()
        if desired.script is not None
    }


def _types(manifests: ManifestSet) -> dict[tuple[str, str], ScriptType]:
    """What each version is to hold, as the Scripts say that run it."""
    return {
        (it.script.manifest.name, it.script.manifest.version): it.script.manifest.script_type
        for it in manifests.desired.values()
        if it.script is not None
    }


def _ordered(problems: list[Problem]) -> tuple[Problem, ...]:
    """Each once, by place: what one source does wrong for several Scripts is said of each."""
    found = dict.fromkeys(problems)
    return tuple(
        sorted(found, key=lambda p: (p.path, p.line, p.column, p.pointer, p.reason, p.message))
    )
