"""`build`: rules in TypeScript or in several files become the scripts that are deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Final

import typer

from reconciler.adapters import worktree
from reconciler.cli import checking, options, terminal
from reconciler.cli.options import AllowNamespaces, TextOutput
from reconciler.cli.terminal import ExitCode
from reconciler.core import layout, sources
from reconciler.core.admission import Scope
from reconciler.core.manifests import ManifestSet
from reconciler.core.models import Property, properties_of
from reconciler.core.objects import Json, ObjectKey
from reconciler.core.typings import device_types
from reconciler.errors import SourceInvalid

if TYPE_CHECKING:
    from reconciler.adapters.bundling import Bundler, Fault

_HERE: Final = Path()


@dataclass(slots=True)
class Building:
    """What came of building: files by path that are wanted so, and what is wrong."""

    root: Path
    wanted: dict[PurePosixPath, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    # Which source a script was built from.
    built: dict[PurePosixPath, PurePosixPath] = field(default_factory=dict)

    def stale(self) -> tuple[PurePosixPath, ...]:
        """The files that are not as they are wanted."""
        return tuple(
            path
            for path, text in self.wanted.items()
            if _content(self.root / path) != text.encode()
        )


def build(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="A repository, or a rule in its src/.")
    ] = _HERE,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 where something would be.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and build again whenever a source changes.")
    ] = False,
    output: options.Output = TextOutput.TEXT,
    namespace: options.Namespace = "default",
    allow_namespace: AllowNamespaces = [],  # noqa: B006 - typer's spelling of "none given"
) -> None:
    """Build src/NAME/main.ts and what it imports, from npm too, into scripts/NAME/VERSION.js.

    Types are checked against the devices of the repository: a misspelt name or property is an
    error, with file, line and column. Needs the extra: pip install 'scriptops[build]'.
    """
    scope = Scope(namespace=namespace, namespaces=frozenset({namespace, *allow_namespace}))
    root = root_of(path)
    building = _build(path, root, scope, check=check, output=output)
    if not watch:
        if building.faults or (check and building.stale()):
            raise typer.Exit(ExitCode.FINDINGS)
        return
    from watchfiles import watch as changes  # noqa: PLC0415 - only who watches pays for it

    terminal.line("watching src/ and manifests/ for changes", stderr=True)
    folders = [root / name for name in (sources.SOURCES, layout.MANIFESTS)]
    for _ in changes(*(folder for folder in folders if folder.is_dir()), raise_interrupt=False):
        try:
            _build(path, root, scope, check=check, output=output)
        except SourceInvalid as error:
            # It may be half written; the next change may mend it.
            terminal.line(f"error: {error}", stderr=True)


def root_of(path: Path) -> Path:
    """The repository that `path` is in. Raises `SourceInvalid` where it has no sources."""
    root = worktree.root_of(path)
    if not (root / sources.SOURCES).is_dir() and not _typed(root):
        raise SourceInvalid(
            f"{root} has no sources; write a rule to {sources.SOURCES}/<name>/main.ts"
        )
    return root


def _build(path: Path, root: Path, scope: Scope, *, check: bool, output: TextOutput) -> Building:
    from reconciler.adapters.bundling import Bundler  # noqa: PLC0415 - looks for Deno

    building = Building(root)
    _build_rules(building, Bundler(root), checking.check(root, scope).manifests, path.resolve())
    stale = building.stale()
    if not check:
        for wanted in stale:
            # What is wrong in one rule does not keep the others from being written.
            (root / wanted).parent.mkdir(parents=True, exist_ok=True)
            (root / wanted).write_bytes(building.wanted[wanted].encode())
    if output is TextOutput.JSON:
        terminal.as_json(_document(building, stale))
    else:
        _tell(building, stale, check=check)
    return building


def _build_rules(building: Building, bundler: Bundler, manifests: ManifestSet, only: Path) -> None:
    from reconciler.adapters import bundling  # noqa: PLC0415 - as above

    objects = tuple(manifests.desired.values())
    properties = _properties(manifests)
    api = bundling.api_types()
    if (building.root / sources.SOURCES).is_dir():
        building.wanted[sources.API_TYPES] = api
    for file in _typed(building.root):
        deployed = sources.deployments(file.parent.name, objects)
        building.wanted[file] = device_types(deployed, properties)
        building.wanted[PurePosixPath(layout.SCRIPTS, sources.API_TYPES.name)] = api
    for name, entry in _rules(building.root, only):
        folder = entry.parent
        deployed = sources.deployments(name, objects)
        devices = device_types(deployed, properties)
        building.wanted[folder / sources.DEVICE_TYPES] = devices
        try:
            version = sources.version_of(
                name, _content(building.root / folder / "package.json"), deployed
            )
        except sources.Unversioned as error:
            fault = bundling.Fault(str(entry), 0, 0, "VersionUnknown", str(error))
            building.faults.append(fault)
            continue
        source = building.root / entry
        # First: what cannot be found at all is told more clearly by the bundler.
        bundled = bundler.bundle(source)
        faults = bundled if isinstance(bundled, tuple) else ()
        if not faults:
            types = {sources.API_TYPES.name: api, sources.DEVICE_TYPES: devices}
            faults = bundler.check(source, types)
        building.faults.extend(faults)
        if isinstance(bundled, str) and not faults:
            script = layout.script_path(name, version, "js")
            there = _content(building.root / script)
            if there is not None and not there.startswith(bundling.BUILT.encode()):
                message = (
                    f"{script} was written by hand; raise the version in {folder}/package.json, "
                )
                message += "or delete that file to take its place"
                building.faults.append(bundling.Fault(str(entry), 0, 0, "NotBuiltHere", message))
                continue
            building.wanted[script] = bundled
            building.built[script] = entry


def _typed(root: Path) -> list[PurePosixPath]:
    """Where a script that is written as it runs asks for types, by having had them once."""
    found = (root / layout.SCRIPTS).glob(f"*/{sources.DEVICE_TYPES}")
    return [PurePosixPath(file.relative_to(root).as_posix()) for file in sorted(found)]


def _rules(root: Path, only: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """The name and the entry of each rule at, above or below `only`."""
    found = bool(_typed(root))
    folders = root / sources.SOURCES
    for folder in sorted(folders.iterdir()) if folders.is_dir() else ():
        entries = [folder / name for name in sources.ENTRIES if (folder / name).is_file()]
        if not entries:
            continue
        if folder.is_relative_to(only) or only.is_relative_to(folder):
            found = True
            yield folder.name, PurePosixPath(entries[0].relative_to(root).as_posix())
    if not found:
        raise SourceInvalid(
            f"there is no rule to build in {only}; write one to {sources.SOURCES}/<name>/main.ts"
        )


def _properties(manifests: ManifestSet) -> Mapping[ObjectKey, Mapping[str, Property]]:
    """The properties of the Devices whose model the repository holds."""
    objects = manifests.desired.values()
    by_model = {
        ObjectKey(desired.reference.namespace, desired.reference.name): properties_of(
            desired.document
        )
        for desired in objects
        if desired.reference.kind == "DeviceModel"
    }
    devices = sources.models(objects)
    return {device: by_model[model] for device, model in devices.items() if model in by_model}


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _tell(building: Building, stale: tuple[PurePosixPath, ...], *, check: bool) -> None:
    for fault in sorted(building.faults):
        terminal.line(_text(fault))
    for path in stale:
        source = f" from {building.built[path]}" if path in building.built else ""
        told = "is not current: scriptops build" if check else f"written{source}"
        terminal.line(f"{path}  {told}", stderr=not check)
    if not stale and not building.faults:
        terminal.line(f"{len(building.built)} built, everything is current", stderr=True)


def _text(fault: Fault) -> str:
    """`src/thermostat/main.ts:3:9  TS2345  message`."""
    at = f"{fault.path}:{fault.line}:{fault.column}" if fault.line else fault.path
    return f"{at}  {fault.reason}  {fault.message}"


def _document(building: Building, stale: tuple[PurePosixPath, ...]) -> Json:
    return {
        "root": str(building.root),
        "built": [
            {"source": str(source), "script": str(script)}
            for script, source in building.built.items()
        ],
        "stale": [str(path) for path in stale],
        "problems": [
            {
                "path": fault.path,
                "line": fault.line,
                "column": fault.column,
                "reason": fault.reason,
                "message": fault.message,
            }
            for fault in sorted(building.faults)
        ],
    }
