"""`test`: rules tried on the laptop, in the engine that production has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from watchfiles import DefaultFilter, awatch

from reconciler.adapters import worktree
from reconciler.cli import options, terminal, testreports
from reconciler.cli.options import AllowNamespaces
from reconciler.cli.terminal import ExitCode
from reconciler.core import coverage as lines
from reconciler.core.admission import Scope
from reconciler.core.testreport import Report
from reconciler.errors import SourceInvalid

if TYPE_CHECKING:
    from reconciler.main.laptop import Laptop

_HERE: Final = Path()


class ReportOutput(StrEnum):
    TEXT = "text"
    JUNIT = "junit"
    JSON = "json"
    GITHUB = "github"


def run_tests(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="[PATH]", help="A repository, or a folder, test file or script in one."
        ),
    ] = _HERE,
    *,
    keyword: Annotated[
        str, typer.Option("--keyword", "-k", metavar="WORD", help="Only cases whose name has it.")
    ] = "",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Run again at every change, until Ctrl-C.")
    ] = False,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Say which lines of scripts no case reaches.")
    ] = False,
    lcov: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write coverage as lcov; - is stdout.")
    ] = None,
    output: Annotated[
        ReportOutput,
        typer.Option("--output", "-o", metavar="text|junit|json|github", help="How to print it."),
    ] = ReportOutput.TEXT,
    namespace: options.Namespace = "default",
    allow_namespace: AllowNamespaces = [],  # noqa: B006 - typer's spelling of "none given"
) -> None:
    """Run the tests of scripts: `scripts/<name>/<version>.test.yaml` or `.test.js`.

    Each case runs in the engine that production has, with a clock and randomness that stand still,
    and without any network. Exits with 1 when one fails or cannot be read.
    """
    scope = Scope(namespace=namespace, namespaces=frozenset({namespace, *allow_namespace}))
    worktree.root_of(path)
    wants_coverage = coverage or lcov is not None

    def tell(report: Report) -> None:
        _show(report, output)
        if lcov is not None:
            _write(lcov, lines.lcov(report.coverage))

    async def once(laptop: Laptop) -> Report:
        from reconciler.main import testing  # noqa: PLC0415 - as above

        gathered = await testing.gather(laptop, path, scope, keyword=keyword)
        report = await testing.run(laptop, gathered, with_coverage=wants_coverage)
        tell(report)
        return report

    # Not the result of the task: asyncio.run would take 0.2 s to put a thousand cases into words.
    reports: list[Report] = []

    async def all_of_it() -> None:
        from reconciler.main.laptop import laptop  # noqa: PLC0415 - only verbs with an engine pay for it

        async with laptop() as running:
            reports.append(await once(running))
            if watch:
                await _watch(worktree.root_of(path), lambda: once(running))

    try:
        asyncio.run(all_of_it())
    except KeyboardInterrupt:
        return
    (report,) = reports
    if not report.cases and not report.problems:
        which = f" with {keyword!r} in its name" if keyword else ""
        raise terminal.fail(
            f"there is no test{which} at or below {path}; tests lie beside their script, as "
            "scripts/<name>/<version>.test.yaml or .test.js"
        )
    if not report.is_good:
        raise typer.Exit(ExitCode.FINDINGS)


async def _watch(root: Path, again: Callable[[], Awaitable[Report]]) -> None:
    """Does not end by itself. A repository that cannot be read now may be so after a change."""
    async for changes in awatch(root, watch_filter=DefaultFilter()):
        changed = sorted({file.removeprefix(f"{root}/") for _, file in changes})
        terminal.line("", stderr=True)
        terminal.line(f"changed: {', '.join(changed)}", stderr=True)
        try:
            await again()
        except SourceInvalid as error:
            terminal.line(f"error: {error}", stderr=True)


def _show(report: Report, output: ReportOutput) -> None:
    match output:
        case ReportOutput.JSON:
            terminal.as_json(testreports.document(report))
        case ReportOutput.JUNIT:
            typer.echo(testreports.junit(report))
        case ReportOutput.GITHUB:
            for line in testreports.github(report):
                typer.echo(line)
            terminal.line(testreports.summary(report), stderr=True)
        case ReportOutput.TEXT:
            terminal.styled(testreports.text(report))
            terminal.line(testreports.summary(report), stderr=True)


def _write(file: Path, content: str) -> None:
    if str(file) == "-":
        typer.echo(content, nl=False)
        return
    try:
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise terminal.fail(f"{file} cannot be written: {error.strerror}") from None
