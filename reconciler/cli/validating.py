"""`validate`: everything that is wrong in a repository, before it is pushed."""

from __future__ import annotations

import asyncio
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Final

import typer

from reconciler.adapters import committree, worktree
from reconciler.api.report import ValidationReport
from reconciler.cli import options, reports, terminal
from reconciler.cli.options import AllowNamespaces
from reconciler.cli.reports import Format
from reconciler.cli.terminal import ExitCode
from reconciler.core import reporting
from reconciler.core.admission import Scope
from reconciler.core.problems import Problem

if TYPE_CHECKING:
    from reconciler.main.checking import Checked

_HERE: Final = Path()


def _wanted(values: list[str]) -> list[str]:
    for value in values:
        form, equals, file = value.partition("=")
        if form not in set(Format) or not equals or not file:
            raise typer.BadParameter(
                f"{value!r} is not FORMAT=FILE with one of {', '.join(Format)}"
            )
    return values


FormatOption = Annotated[
    Format,
    typer.Option(
        "--output",
        "-o",
        metavar="|".join(Format),
        help="How to print it; github are annotations, markdown is for a step summary.",
    ),
]
ReportFiles = Annotated[
    list[str],
    typer.Option(
        "--report",
        metavar="FORMAT=FILE",
        callback=_wanted,
        help="Write a report into a file besides. May be repeated.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Warnings are findings too: exit with 1.")]


def validate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="A repository, or folders or files in one."),
    ] = None,
    *,
    base: Annotated[
        str,
        typer.Option(
            metavar="REV",
            help="A commit or branch whose versions of scripts may not change their bytes.",
        ),
    ] = "",
    strict: Strict = False,
    no_engine: Annotated[
        bool,
        typer.Option("--no-engine", help="Do not load scripts: no syntax, no use of devices."),
    ] = False,
    output: FormatOption = Format.TEXT,
    report: ReportFiles = [],  # noqa: B006 - typer's spelling of "none given"
    namespace: options.Namespace = "default",
    allow_namespace: AllowNamespaces = [],  # noqa: B006 - as above
    cluster_name: options.ForCluster = "",
) -> None:
    """Check manifests and scripts as they lie in a folder; nothing is committed, no network used.

    Scripts are loaded by the engine that production has, and what they read and write is held
    against their manifests and the DeviceModels. Every problem is named with file, line, place and
    fix. What the repository does not hold but a cluster may, such as a Device, is a note.
    """
    scope = Scope(
        namespace=namespace,
        namespaces=frozenset({namespace, *allow_namespace}),
        cluster=cluster_name,
    )
    given = paths or [_HERE]
    root = worktree.root_of(given[0])
    if any(worktree.root_of(path) != root for path in given):
        raise terminal.fail("these lie in different repositories; name those of one")
    checked = asyncio.run(_checked(root, scope, base, with_engine=not no_engine))
    inside = tuple(PurePosixPath(path.resolve().relative_to(root)) for path in given)
    problems = [p for p in checked.problems if any(p.path.is_relative_to(it) for it in inside)]
    made = ValidationReport(
        scriptops=metadata.version("scriptops"),
        root=str(root),
        prefix=prefix_of(root),
        base=base,
        summary=reporting.summary(
            problems, files=len(checked.files), objects=len(checked.manifests.desired)
        ),
        findings=[reporting.finding(problem) for problem in problems],
        # Only programs are told; for ten thousand rules it takes a second to say.
        rules=[reporting.rule(it) for it in checked.capabilities if _is_wanted(report, output)],
    )
    show(made, output, report, [text(problem) for problem in problems])
    if made.summary.errors or (strict and made.summary.warnings):
        raise typer.Exit(ExitCode.FINDINGS)


def _is_wanted(wanted: list[str], output: Format) -> bool:
    return output is Format.JSON or any(it.startswith(f"{Format.JSON}=") for it in wanted)


async def _checked(root: Path, scope: Scope, base: str, *, with_engine: bool) -> Checked:
    from reconciler.main import checking  # noqa: PLC0415 - only verbs with an engine pay for it

    checked = checking.read_for_all(worktree.read(root), scope)
    if base:
        before = committree.read(root, committree.commit(root, base))
        checked = checking.against(checked, before.files, base)
    if with_engine and (
        checked.scripts or any(d.script for d in checked.manifests.desired.values())
    ):
        from reconciler.main.laptop import laptop  # noqa: PLC0415 - as above

        async with laptop() as engine:
            checked = await checking.tried(checked, engine)
    return checked


def prefix_of(root: Path) -> str:
    """Where `root` lies in the git repository around it; "" at its top, or without one."""
    for top in (root, *root.parents):
        if (top / ".git").exists():
            return "" if top == root else root.relative_to(top).as_posix()
    return ""


def show(made: reports.Report, output: Format, wanted: list[str], lines: list[str]) -> None:
    """The report to stdout, a summary to stderr, and reports into files."""
    if output is Format.TEXT:
        for line in lines:
            terminal.line(line)
    elif rendered := reports.render(made, output):
        typer.echo(rendered.removesuffix("\n"))
    files = [(Format(form), Path(file)) for form, _, file in (it.partition("=") for it in wanted)]
    reports.write(made, "".join(f"{terminal.clean(line)}\n" for line in lines), files)
    if output in {Format.TEXT, Format.GITHUB}:
        terminal.line(_counts(made), stderr=True)


def _counts(made: reports.Report) -> str:
    it = made.summary
    found = [reports.counted(it.errors, "problem")]
    found += [reports.counted(n, w) for n, w in ((it.warnings, "warning"), (it.notes, "note")) if n]
    objects = reports.counted(it.objects, "object")
    return f"{', '.join(found)} in {reports.counted(it.files, 'file')}; {objects} can be deployed"


def text(problem: Problem) -> str:
    """`manifests/x.yaml:7 /spec/manifest/version  ArtifactNotFound  message`."""
    at = f"{problem.path}:{problem.line}" if problem.line else str(problem.path)
    at += f":{problem.column}" if problem.column else ""
    place = f"{at} {problem.pointer}" if problem.pointer else at
    word = "" if problem.severity == "error" else f"{problem.severity}: "
    return f"{place}  {problem.reason}  {word}{problem.message}"
