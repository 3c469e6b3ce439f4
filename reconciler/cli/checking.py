"""`plan`: what a repository would change in a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer

from reconciler.adapters import worktree
from reconciler.cli import options, terminal
from reconciler.cli.options import AllowNamespaces, TextOutput
from reconciler.cli.terminal import ExitCode
from reconciler.cli.validating import text
from reconciler.core.admission import Scope
from reconciler.core.manifests import ManifestSet
from reconciler.core.objects import Json
from reconciler.core.plan import Apply, Create, Patch, Plan, Prune, Quarantine, Skip, Step
from reconciler.core.problems import Problem
from reconciler.settings import ClusterKind, Settings, data_folder, instance_name, repository_name

_HERE: Final = Path()


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
    cluster_name: options.ForCluster = "default",
    data: options.Data = None,
) -> None:
    """Show what a repository, as it lies in a folder, would change in a cluster. Changes nothing.

    With --cluster embedded it looks at what scriptops up keeps for the same folder. Exits with 1
    when something would change or is wrong in the repository.
    """
    from reconciler import main  # noqa: PLC0415 - only the verbs that need a cluster pay for one

    scope = Scope(
        namespace=namespace,
        namespaces=frozenset({namespace, *allow_namespace}),
        cluster=cluster_name,
    )
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
        terminal.line(text(problem), stderr=True)
    if output is TextOutput.JSON:
        terminal.as_json(plan_document(made))
    else:
        for line in plan_lines(made):
            terminal.line(line)
        terminal.line(str(made.change_set()), stderr=True)
    if checked.errors or any(not isinstance(s, Skip) or s.is_problem for s in made.steps):
        raise typer.Exit(ExitCode.FINDINGS)


@dataclass(frozen=True, slots=True)
class Checked:
    """A repository that has been read: its manifests, and what is wrong at or below a path."""

    root: Path
    manifests: ManifestSet
    errors: tuple[Problem, ...]


def check(path: Path, scope: Scope) -> Checked:
    """Read and check the repository that `path` is in, as far as its files alone say.

    Raises `SourceInvalid` where there is nothing to read.
    """
    from reconciler.main import checking  # noqa: PLC0415 - only the verbs that need it pay for it

    root = worktree.root_of(path)
    inside = PurePosixPath(path.resolve().relative_to(root))
    checked = checking.read(worktree.read(root), scope)
    errors = tuple(p for p in checked.errors if p.path.is_relative_to(inside))
    return Checked(root, checked.manifests, errors)


_SIGNS: Final = {"create": "+", "configure": "~", "quarantine": "-", "prune": "-", "skip": "!"}


def verb(step: Step) -> str:
    """What a step does, in one word."""
    match step:
        case Create() | Apply(is_new=True):
            return "create"
        case Apply() | Patch():
            return "configure"
        case Quarantine():
            return "quarantine"
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
