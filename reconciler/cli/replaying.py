"""`replay` and `recordings`: runs of old, run again or kept as tests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import orjson
import typer
import yaml

from reconciler.adapters import worktree
from reconciler.cli import options, tables, terminal, testreports
from reconciler.cli.client import Client
from reconciler.cli.terminal import ExitCode
from reconciler.core import exporting, fixtures, recordings
from reconciler.core.objects import JsonObject, mapping, sequence, text
from reconciler.core.recordings import Recorded, completion_document
from reconciler.core.verdicts import as_recorded, diff, told
from reconciler.errors import ObjectNotFound, ScriptOpsError

if TYPE_CHECKING:
    from reconciler.main.trials import Tried

_HERE: Final = Path()
# All that the API hands out at once.
_MOST: Final = 1000
# What YAML, in any of its versions, reads as a string without quotes.
_PLAIN: Final = re.compile(r"[A-Za-z_][-A-Za-z0-9_./]*(?: [-A-Za-z0-9_./()]+)*")
_WORDS: Final = frozenset(
    {"true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"}
)


class DiffOutput(StrEnum):
    TABLE = "table"
    JSON = "json"


class Action(StrEnum):
    LIST = "list"
    EXPORT = "export"


def replay(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Id of a run, or a file with its recording (.json)."),
    ],
    *,
    script: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Run this script instead of the one that ran."),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(metavar="REV", help="Run what this commit deploys: script, environment."),
    ] = None,
    repository: Annotated[
        Path, typer.Option(metavar="PATH", help="Where --revision is looked up.")
    ] = _HERE,
    env: Annotated[
        list[str],
        typer.Option(
            "--env", "-e", metavar="NAME=VALUE", help="In place of what was recorded. Repeatable."
        ),
    ] = [],  # noqa: B006 - typer's spelling of "none given"
    output: Annotated[
        DiffOutput, typer.Option("--output", "-o", metavar="table|json", help="How to print it.")
    ] = DiffOutput.TABLE,
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Run a recorded run again, here, and show what is different: outcome, logs, writes, state.

    It sees the devices, event, clock, randomness and replies that it saw then. Nothing is written
    and nothing sent. Exits with 0 when nothing differs, with 1 when something does.
    """
    from reconciler.main import running  # noqa: PLC0415 - only verbs with an engine pay for it

    if script is not None and revision is not None:
        raise terminal.fail("--script and --revision exclude each other")
    client = Client(controller, token=token)
    recorded = _recorded(run, client)
    values = _pairs(env)
    if script is not None:
        instead = running.Replacement(content=_bytes(script), file=recorded.ref.file)
        label = str(script)
    elif revision is not None:
        root = worktree.root_of(repository)
        instead = running.at_revision(root, revision, recorded, recorded.ref.key.namespace)
        label = revision
    else:
        instead = running.Replacement(
            content=_artifact(run, recorded, client, repository), file=recorded.ref.file
        )
        label = "again"
    hidden = sorted(recorded.secrets - set(values))
    if hidden:
        terminal.line(
            f"note: {', '.join(hidden)} came from Secrets and is replayed as a stand-in; "
            "--env gives the value",
            stderr=True,
        )
    tried = asyncio.run(running.replay(recorded, instead, env=values))
    before = told(recorded.completion)
    lines = diff(
        before,
        as_recorded(before, told(tried.completion)),
        f"run {recorded.run_id} {recorded.revision}".rstrip(),
        label,
    )
    if output is DiffOutput.JSON:
        terminal.as_json(
            {
                "id": recorded.run_id,
                "same": not lines,
                "recorded": completion_document(recorded.completion),
                "replayed": completion_document(tried.completion),
                "diff": list(lines),
                "unanswered": list(tried.unanswered),
            }
        )
    else:
        terminal.styled((line, testreports.style_of(line)) for line in lines)
        _tell(tried, lines)
    if lines:
        raise typer.Exit(ExitCode.FINDINGS)


def _tell(tried: Tried, lines: Sequence[str]) -> None:
    for request in tried.unanswered:
        terminal.line(f"note: the recording has no answer to {request}", stderr=True)
    if not lines:
        it = tried.completion
        terminal.line(
            f"the same: {it.outcome.value}, {_counted(it.logs, 'line')} logged, "
            f"{_counted(it.writes, 'write')}",
            stderr=True,
        )


def _counted(found: Sequence[object], what: str) -> str:
    return f"{len(found)} {what}{'' if len(found) == 1 else 's'}"


def recordings_verb(
    action: Annotated[
        Action, typer.Argument(metavar="list|export", help="Show them, or make tests of them.")
    ],
    script: Annotated[
        str | None, typer.Argument(metavar="[SCRIPT]", help="Only those of this Script.")
    ] = None,
    *,
    run: Annotated[
        list[str],
        typer.Option(metavar="ID", help="Only this run. May be repeated."),
    ] = [],  # noqa: B006 - typer's spelling of "none given"
    file: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write: tests as YAML, or recordings where it ends in .json.",
        ),
    ] = None,
    namespace: options.Namespace = "default",
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Show the runs that a controller has recorded, or export them as tests for a repository.

    Values of secrets are replaced by stand-ins before anything leaves the controller. An export
    holds the runs of one version, the newest, each kind of run once; put it beside the script as
    scripts/<name>/<version>.test.yaml.
    """
    client = Client(controller, token=token)
    query = {"limit": str(_MOST), **({} if script is None else {"script": script})}
    found = client.items("recordings", namespace=namespace, query=query)
    wanted = tuple(it for it in found if not run or text(it.get("id")) in run)
    if not wanted:
        raise terminal.fail(f"no run{_of(script)} is recorded in namespace {namespace}")
    if action is Action.LIST:
        _list(wanted)
    elif file is not None and file.suffix == ".json":
        _write(file, orjson.dumps({"items": wanted}, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _export(wanted, file)


def _of(script: str | None) -> str:
    return "" if script is None else f" of {script}"


def _list(found: Sequence[JsonObject]) -> None:
    now = datetime.now(UTC)
    terminal.table(
        ("RUN", "SCRIPT", "CAUSE", "OUTCOME", "DIGEST", "AGE"),
        [
            (
                text(it.get("id")),
                text(mapping(it.get("script")).get("name")),
                text(it.get("cause")),
                text(it.get("outcome")),
                text(it.get("digest")).removeprefix("sha256:")[:10],
                tables.age(it.get("finishedAt"), now),
            )
            for it in found
        ],
    )


def _export(found: Sequence[JsonObject], file: Path | None) -> None:
    newest = found[0]
    version = (newest.get("script"), newest.get("digest"))
    same = [it for it in found if (it.get("script"), it.get("digest")) == version]
    recorded = [_read(it) for it in reversed(same)]
    document = exporting.test_document(recorded)
    if not sequence(document["cases"]):
        raise terminal.fail("no recorded run says anything of its script")
    where = text(newest.get("file")).rpartition(".")[0]
    head = (
        f"# Recorded runs of scripts/{text(newest.get('file'))}: scriptops recordings export.\n"
        f"# Put it at scripts/{where}.test.yaml; scriptops test runs it.\n"
    )
    body = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    if file is None:
        typer.echo(head + body, nl=False)
    else:
        _write(file, head + body)
    if len(same) < len(found):
        terminal.line(
            f"{len(found) - len(same)} runs of other versions or Scripts are left out", stderr=True
        )


class _Dumper(yaml.SafeDumper):
    """Strings that any YAML could take for something else stand in quotes."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - its signature
        return True


def _represented(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


_Dumper.add_representer(str, _represented)


# Where recordings and artifacts come from.


def _recorded(run: str, client: Client) -> Recorded:
    path = Path(run)
    if run.endswith(fixtures.SUFFIXES):
        raise terminal.fail(f"{run} holds tests; scriptops test {run} runs them")
    if path.suffix != ".json":
        return _read(client.recording(run))
    try:
        document = mapping(orjson.loads(_bytes(path)))
    except orjson.JSONDecodeError as error:
        raise terminal.fail(f"{run} is not JSON: {error}") from None
    items = sequence(document.get("items")) if "items" in document else (document,)
    if len(items) != 1:
        raise terminal.fail(
            f"{run} holds {len(items)} recordings; export one: "
            "scriptops recordings export --run ID -o FILE.json"
        )
    return _read(mapping(items[0]))


def _read(document: JsonObject) -> Recorded:
    try:
        return recordings.read(document)
    except ValueError as error:
        raise terminal.fail(str(error)) from None


def _artifact(run: str, recorded: Recorded, client: Client, repository: Path) -> bytes:
    """The bytes that ran: from the controller, else from the working tree, if they are the same."""
    from reconciler.main.laptop import digest_of  # noqa: PLC0415 - as above

    try:
        return client.recorded_artifact(recorded.run_id)
    except ScriptOpsError as error:
        if not run.endswith(".json") and not isinstance(error, ObjectNotFound):
            raise
        why = error
    try:
        content = (worktree.root_of(repository) / "scripts" / recorded.ref.file).read_bytes()
    except (OSError, ScriptOpsError):
        content = b""
    if digest_of(content) != recorded.ref.digest:
        raise terminal.fail(
            f"the script that ran is not at hand ({why}); give one with --script or --revision"
        )
    return content


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise terminal.fail(f"{path} cannot be read: {error.strerror}") from None


def _write(file: Path, content: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise terminal.fail(f"{file} cannot be written: {error.strerror}") from None


def _pairs(given: Sequence[str]) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise terminal.fail(f"{pair!r} is not NAME=VALUE")
        pairs[name] = value
    return pairs
