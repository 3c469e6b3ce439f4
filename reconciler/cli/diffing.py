"""`diff`: what a pull request does, told before it is merged."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import orjson
import typer

from reconciler.adapters import committree, worktree
from reconciler.adapters.worktree import WorkTree
from reconciler.api.report import DiffReport, DiffSummary
from reconciler.cli import options, reports, terminal
from reconciler.cli.client import Client
from reconciler.cli.options import AllowNamespaces
from reconciler.cli.reports import Format
from reconciler.cli.terminal import ExitCode
from reconciler.cli.validating import FormatOption, ReportFiles, prefix_of, show
from reconciler.core import recordings
from reconciler.core.admission import Scope
from reconciler.core.objects import JsonObject, mapping, sequence
from reconciler.core.reasons import pascal
from reconciler.core.recordings import Recorded

if TYPE_CHECKING:
    from reconciler.main.differing import Side

_HERE: Final = Path()
_RANGE: Final = re.compile(r"(?P<base>.+?)(?P<dots>\.{2,3})(?P<head>.+)")
# Where recordings of a repository lie that nobody names.
RECORDINGS: Final = "recordings"
# All that the API hands out at once.
_MOST: Final = 1000
WORK_TREE: Final = "the folder"


def diff(
    revisions: Annotated[
        str,
        typer.Argument(
            metavar="BASE[..HEAD]",
            help="Two commits; with ... from where they parted. Without HEAD: the folder as it is.",
        ),
    ],
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="A repository, or a folder in one.")
    ] = _HERE,
    *,
    recorded: Annotated[
        list[Path],
        typer.Option(
            "--recordings",
            metavar="FILE",
            help="Runs to try on both sides, as scriptops recordings export -o FILE.json writes "
            "them. May be repeated. Default: recordings/*.json of the repository.",
        ),
    ] = [],  # noqa: B006 - typer's spelling of "none given"
    controller: Annotated[
        str,
        typer.Option(metavar="URL", help="Try the runs that this controller has recorded, too."),
    ] = "",
    token: options.Token = "",
    output: FormatOption = Format.TEXT,
    report: ReportFiles = [],  # noqa: B006 - as above
    namespace: options.Namespace = "default",
    allow_namespace: AllowNamespaces = [],  # noqa: B006 - as above
    cluster_name: options.ForCluster = "",
) -> None:
    """Show what a change would do: objects, artifacts, runs, and which devices get other writers.

    Recorded runs of the Scripts that it changes are run by both versions, here, and what they write
    is compared. Nothing is written and nothing sent. Exits with 1 when something would change.
    """
    gc.disable()  # as in validate
    root = worktree.root_of(path)
    scope = Scope(
        namespace=namespace,
        namespaces=frozenset({namespace, *allow_namespace}),
        cluster=cluster_name,
    )
    (base, before), (head, after) = _sides(root, revisions)
    runs = [*_of_files(root, recorded), *_of_controller(controller, token, scope)]
    frame = DiffReport(
        scriptops=metadata.version("scriptops"),
        root=str(root),
        prefix=prefix_of(root),
        base=base,
        head=head,
        summary=DiffSummary(),
        findings=[],
        objects=[],
        artifacts=[],
        runs=[],
        writers=[],
    )
    made = asyncio.run(_report(frame, before, after, scope, runs))
    show(made, output, report, list(_lines(made)))
    if made.summary.errors or made.objects or made.artifacts:
        raise typer.Exit(ExitCode.FINDINGS)


async def _report(
    frame: DiffReport, before: WorkTree, after: WorkTree, scope: Scope, runs: list[Recorded]
) -> DiffReport:
    from reconciler.main import checking, differing  # noqa: PLC0415 - only verbs with an engine
    from reconciler.main.laptop import laptop  # noqa: PLC0415 - pay for it

    def side(name: str, tree: WorkTree) -> Side:
        return differing.Side(name, checking.read(tree, scope))

    old, new = side(frame.base, before), side(frame.head, after)
    new = differing.Side(new.name, checking.against(new.checked, before.files, frame.base))
    async with laptop() as engine:
        return await differing.report(old, new, runs, engine, frame)


def _sides(root: Path, revisions: str) -> tuple[tuple[str, WorkTree], tuple[str, WorkTree]]:
    """Both sides by name. Raises `SourceInvalid` for what is no commit."""
    named = _RANGE.fullmatch(revisions)
    if named is None:
        commit = committree.commit(root, revisions)
        return (revisions, committree.read(root, commit)), (WORK_TREE, worktree.read(root))
    base, head = named["base"], named["head"]
    first = committree.commit(root, base)
    if named["dots"] == "...":
        first = committree.common(root, base, head)
    second = committree.commit(root, head)
    return (base, committree.read(root, first)), (head, committree.read(root, second))


# Where recorded runs come from.


def _of_files(root: Path, named: list[Path]) -> Iterator[Recorded]:
    for file in named or sorted((root / RECORDINGS).glob("*.json")):
        try:
            document = mapping(orjson.loads(file.read_bytes()))
        except OSError as error:
            raise terminal.fail(f"{file} cannot be read: {error.strerror}") from None
        except orjson.JSONDecodeError as error:
            raise terminal.fail(f"{file} is not JSON: {error}") from None
        items = sequence(document.get("items")) if "items" in document else (document,)
        yield from (_read(mapping(item), str(file)) for item in items)


def _of_controller(controller: str, token: str, scope: Scope) -> Iterator[Recorded]:
    if not controller:
        return
    client = Client(controller, token=token)
    for namespace in sorted(scope.allowed):
        query: Mapping[str, str] = {"limit": str(_MOST)}
        for item in client.items("recordings", namespace=namespace, query=query):
            yield _read(item, controller)


def _read(document: JsonObject, source: str) -> Recorded:
    try:
        return recordings.read(document)
    except ValueError as error:
        raise terminal.fail(f"{source}: {error}") from None


# How it is shown.


_SIGNS: Final = {"create": "+", "configure": "~", "prune": "-"}
_ARTIFACT_SIGNS: Final = {"publish": "+", "change": "~", "remove": "-"}


def _lines(made: DiffReport) -> Iterator[str]:
    if not made.objects and not made.artifacts:
        yield f"{made.base}..{made.head} changes nothing that is deployed"
    for change in made.objects:
        it = change.object
        name = f"{_SIGNS[change.verb]} {it.kind} {it.namespace}/{it.name}"
        yield f"{name}  {change.path}:{change.line}"
        for field in change.fields:
            before, after = reports.shown(field.before), reports.shown(field.after)
            yield f"    {field.pointer}  {before} -> {after}"
    for artifact in made.artifacts:
        yield f"{_ARTIFACT_SIGNS[artifact.verb]} {artifact.path}"
    for run in made.runs:
        yield f"! Script {run.namespace}/{run.name} runs once when deployed: {_WHY[run.why]}"
    for writer in made.writers:
        place = f"{writer.namespace}/{writer.device}.{writer.property or '*'}"
        then, now = (", ".join(it) or "nobody" for it in (writer.before, writer.after))
        yield f"! {place} is written by {now} (before: {then})"
    alike: dict[tuple[str, ...], list[str]] = {}
    for replay in made.replays:
        if replay.skipped:
            yield f"? run {replay.id} of {replay.name} was not tried: {replay.skipped}"
        elif not replay.same:
            alike.setdefault((replay.name, *replay.diff), []).append(replay.id)
    for (name, *difference), (first, *others) in alike.items():
        too = f" and {reports.counted(len(others), 'other')} go" if others else " goes"
        yield f"! run {first} of {name}{too} otherwise"
        yield from (f"    {line}" for line in difference)
    for finding in made.findings:
        if finding.reason not in _TOLD:
            word = "" if finding.severity == "error" else f"{finding.severity}: "
            at = f"{finding.path}:{finding.line}" if finding.line else finding.path
            at = f"{at} {finding.pointer}".rstrip()
            yield f"{at}  {pascal(finding.reason)}  {word}{finding.message}"
    if tried := made.summary.replayed:
        runs = reports.counted(tried, "recorded run")
        yield f"{made.summary.differing} of {runs} would go otherwise"


_WHY: Final = {
    "created": "it is new",
    "spec": "its manifest changed",
    "artifact": "its script changed",
}
# Findings that stand above in another form.
_TOLD: Final = frozenset({"writer-gained", "writer-lost", "replay-differs"})
