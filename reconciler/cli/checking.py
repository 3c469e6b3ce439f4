"""`validate` and `plan`: what is wrong in a repository, and what it would change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer

from reconciler.adapters import packages, worktree
from reconciler.api.repository import RepositoryFile
from reconciler.api.script import ScriptType
from reconciler.cli import options, terminal
from reconciler.cli.options import TextOutput
from reconciler.cli.terminal import ExitCode
from reconciler.core import layout
from reconciler.core.admission import Scope
from reconciler.core.crosscheck import crosscheck
from reconciler.core.manifests import Change, ManifestSet
from reconciler.core.objects import Json
from reconciler.core.plan import Apply, Create, Patch, Plan, Prune, Skip, Step
from reconciler.core.problems import Problem
from reconciler.settings import ClusterKind, Settings, data_folder, instance_name, repository_name

_HERE: Final = Path()

AllowNamespaces = Annotated[
    list[str],
    typer.Option(
        "--allow-namespace",
        metavar="NAME",
        help="Another namespace that manifests may name. May be repeated.",
    ),
]


@dataclass(frozen=True, slots=True)
class Checked:
    """A repository that has been read: its manifests, and every finding by path and line."""

    root: Path
    manifests: ManifestSet
    problems: tuple[Problem, ...]
    files: int

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity == "error")


def validate(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="A repository, or a folder or file in one.")
    ] = _HERE,
    *,
    output: options.Output = TextOutput.TEXT,
    namespace: options.Namespace = "default",
    allow_namespace: AllowNamespaces = [],  # noqa: B006 - typer's spelling of "none given"
) -> None:
    """Check manifests and scripts as they lie in a folder; nothing is committed, no network used.

    Every problem is named with file, line, place and fix. What the repository does not hold but a
    cluster may, such as a Device, is a note and no finding.
    """
    scope = Scope(namespace=namespace, namespaces=frozenset({namespace, *allow_namespace}))
    checked = check(path, scope)
    if output is TextOutput.JSON:
        terminal.as_json(
            {
                "root": str(checked.root),
                "files": checked.files,
                "objects": len(checked.manifests.desired),
                "problems": [_document(problem) for problem in checked.problems],
            }
        )
    else:
        _tell(checked)
    if checked.errors:
        raise typer.Exit(ExitCode.FINDINGS)


def plan(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="A repository, or a folder in one.")
    ] = _HERE,
    *,
    repository: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its ScriptRepository. Default: the folder's name."),
    ] = None,
    output: options.Output = TextOutput.TEXT,
    cluster: options.Cluster = ClusterKind.KUBERNETES,
    kubeconfig: options.Kubeconfig = None,
    context: options.KubeContext = None,
    namespace: options.Namespace = "default",
    allow_namespace: AllowNamespaces = [],  # noqa: B006 - typer's spelling of "none given"
    data: options.Data = None,
) -> None:
    """Show what a repository, as it lies in a folder, would change in a cluster. Changes nothing.

    With --cluster embedded it looks at what scriptops up keeps for the same folder. Exits with 1
    when something would change or is wrong in the repository.
    """
    from reconciler import main  # noqa: PLC0415 - only the verbs that need a cluster pay for one

    scope = Scope(namespace=namespace, namespaces=frozenset({namespace, *allow_namespace}))
    checked = check(path, scope)
    settings = Settings(
        data=data or data_folder(instance_name(str(checked.root)), os.environ),
        cluster=cluster,
        kubeconfig=kubeconfig,
        context=context,
        namespace=namespace,
    )
    name = repository or repository_name(str(checked.root))
    made = asyncio.run(main.plan(settings, name, checked.manifests))
    for problem in checked.errors:
        terminal.line(_text(problem), stderr=True)
    if output is TextOutput.JSON:
        terminal.as_json(plan_document(made))
    else:
        for line in plan_lines(made):
            terminal.line(line)
        terminal.line(str(made.change_set()), stderr=True)
    if checked.errors or any(not isinstance(step, Skip) for step in made.steps):
        raise typer.Exit(ExitCode.FINDINGS)


def check(path: Path, scope: Scope) -> Checked:
    """Read and check the repository that `path` is in; of its problems those at or below `path`.

    Raises `SourceInvalid` where there is nothing to read.
    """
    root = worktree.root_of(path)
    tree = worktree.read(root)
    found = [
        Problem(
            path=PurePosixPath(refusal.path),
            line=0,
            pointer="",
            reason=refusal.reason,
            message=refusal.message,
        )
        for refusal in tree.refused
    ]
    repository = RepositoryFile()
    if layout.REPOSITORY_FILE in tree.files:
        read = layout.read_repository_file(tree.files[layout.REPOSITORY_FILE])
        if isinstance(read, RepositoryFile):
            repository = read
        else:
            found.extend(read)
    files = {p: c for p, c in tree.files.items() if not layout.is_ignored(p, repository)}
    changes: dict[PurePosixPath, Change] = {p: c for p, c in files.items() if layout.is_manifest(p)}
    changes |= {p.path: p for p in found if p.path.parts[:1] == (layout.MANIFESTS,)}
    manifests = ManifestSet(scope)
    manifests.update(changes)
    scripts: set[PurePosixPath] = set()
    packed: list[tuple[PurePosixPath, ScriptType]] = []
    for script, content in files.items():
        parsed = layout.parse_script_path(script)
        if isinstance(parsed, Problem):
            found.append(parsed)
        elif parsed is not None:
            scripts.add(script)
            problem = layout.script_problem(script, len(content), content)
            found.extend([problem] if problem is not None else [])
            if problem is None and layout.is_package(script):
                packed.append((script, _type_of(manifests, parsed)))
    found.extend(packages.judge(root, packed))
    found.extend((*manifests.problems, *crosscheck(manifests, scripts)))
    inside = PurePosixPath(path.resolve().relative_to(root))
    problems = {p for p in found if p.path.is_relative_to(inside)}
    ordered = sorted(problems, key=lambda p: (p.path, p.line, p.pointer, p.message))
    return Checked(root, manifests, tuple(ordered), len(files))


def _type_of(manifests: ManifestSet, script: layout.ScriptPath) -> ScriptType:
    """What a package is to hold, as the Script says that runs it; JavaScript where none does."""
    for desired in manifests.desired.values():
        wanted = desired.script.manifest if desired.script is not None else None
        if wanted is not None and (wanted.name, wanted.version) == (script.name, script.version):
            return wanted.script_type
    return ScriptType.JS


def _tell(checked: Checked) -> None:
    for problem in checked.problems:
        terminal.line(_text(problem))
    errors, notes = len(checked.errors), len(checked.problems) - len(checked.errors)
    counted = [_count(errors, "problem"), *([_count(notes, "note")] if notes else [])]
    objects = _count(len(checked.manifests.desired), "object")
    terminal.line(
        f"{', '.join(counted)} in {_count(checked.files, 'file')}; {objects} can be deployed",
        stderr=True,
    )


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def _text(problem: Problem) -> str:
    """`manifests/x.yaml:7 /spec/manifest/version  ArtifactNotFound  message`."""
    at = f"{problem.path}:{problem.line}" if problem.line else str(problem.path)
    place = f"{at} {problem.pointer}" if problem.pointer else at
    word = "note: " if problem.severity == "note" else ""
    return f"{place}  {problem.reason}  {word}{problem.message}"


def _document(problem: Problem) -> Json:
    return {
        "path": str(problem.path),
        "line": problem.line,
        "pointer": problem.pointer,
        "reason": problem.reason,
        "message": problem.message,
        "severity": problem.severity,
    }


_SIGNS: Final = {"create": "+", "configure": "~", "prune": "-", "skip": "!"}


def verb(step: Step) -> str:
    """What a step does, in one word."""
    match step:
        case Create() | Apply(is_new=True):
            return "create"
        case Apply() | Patch():
            return "configure"
        case Prune():
            return "prune"
        case Skip():
            return "skip"


def plan_lines(made: Plan) -> Sequence[str]:
    """One line per step, with the places that a patch would touch below it."""
    lines: list[str] = []
    for step in made.steps:
        why = f"  {step.reason}  {step.message}" if isinstance(step, Skip) else ""
        lines.append(f"{_SIGNS[verb(step)]} {step.reference}{why}")
        if isinstance(step, Patch):
            ops = (op for op in step.ops if op.get("op") != "test")
            lines.extend(f"    {op.get('op')} {op.get('path')}" for op in ops)
    return lines


def plan_document(made: Plan) -> Json:
    return {
        "steps": [_step_document(step) for step in made.steps],
        "counts": made.change_set().counts().model_dump(),
    }


def _step_document(step: Step) -> Json:
    document: dict[str, Json] = {"verb": verb(step), **step.reference._asdict()}
    if isinstance(step, Skip):
        document |= {"reason": step.reason.value, "message": step.message}
    return document
