"""`get` and `trigger`: questions and one wish to a running controller."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime
from typing import Annotated, Final

import orjson
import typer

from reconciler.api.meta import DNS_SUBDOMAIN
from reconciler.cli import options, tables, terminal
from reconciler.cli.client import Client
from reconciler.cli.options import TableOutput
from reconciler.cli.tables import Kind
from reconciler.cli.terminal import ExitCode
from reconciler.core.objects import JsonObject, ObjectKey, mapping, sequence, text
from reconciler.errors import Stalled

# A person's patience between a change and its line; answers come from memory on the other side.
_WATCH_SECONDS: Final = 1.0
# Short against the run itself, long against the load of asking.
_WAIT_SECONDS: Final = 0.05
# The most that the API hands out at once; runs are the one kind that grows by itself.
_RUNS: Final = 1000
_NAME: Final = re.compile(DNS_SUBDOMAIN)
_SINGULAR: Final = {
    Kind.SCRIPTS: "script",
    Kind.DEVICES: "device",
    Kind.RUNS: "run",
    Kind.REPOSITORIES: "repository",
    Kind.EXECUTORS: "executor",
}


def _kind(value: str) -> Kind:
    """Also in the singular, as kubectl takes it."""
    for kind in Kind:
        if value in {kind.value, _SINGULAR[kind]}:
            return kind
    raise typer.BadParameter(f"{value!r} is none of {', '.join(Kind)}")


def get(
    kind: Annotated[
        Kind,
        typer.Argument(
            metavar="scripts|devices|runs|repositories|executors",
            help="What to show.",
            parser=_kind,
            autocompletion=lambda: list(Kind),
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Only the one of this name (of a run: its id)."),
    ] = None,
    *,
    output: Annotated[
        TableOutput,
        typer.Option("--output", "-o", metavar="table|wide|json|yaml", help="How to print it."),
    ] = TableOutput.TABLE,
    namespace: options.Namespace = "default",
    all_namespaces: options.AllNamespaces = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on and print what changes, until Ctrl-C.")
    ] = False,
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Show what a controller holds."""
    client = Client(controller, token=token)
    query = {"limit": str(_RUNS)} if kind is Kind.RUNS else {}

    def fetch() -> tuple[JsonObject, ...]:
        items = client.items(kind, namespace=None if all_namespaces else namespace, query=query)
        return tuple(i for i in items if name is None or tables.identity(i)[1] == name)

    items = fetch()
    if name is not None and not items and not watch:
        where = "any namespace" if all_namespaces else f"namespace {namespace}"
        raise terminal.fail(f"there is no {name} among the {kind} of {where}")
    if not items and not watch and output in {TableOutput.TABLE, TableOutput.WIDE}:
        where = "" if all_namespaces else f" in namespace {namespace}"
        terminal.line(f"no {kind}{where}", stderr=True)
        return
    _show(kind, items, output, namespaced=all_namespaces, one=name is not None)
    seen = {tables.identity(item): item for item in items}
    pause = threading.Event()
    while watch:
        pause.wait(_WATCH_SECONDS)
        latest = fetch()
        # Runs come newest first; what is appended to a terminal reads the other way round.
        ordered = reversed(latest) if kind is Kind.RUNS else latest
        changed = tuple(i for i in ordered if seen.get(tables.identity(i)) != i)
        if changed:
            _show(kind, changed, output, namespaced=all_namespaces, header=False)
        seen = {tables.identity(item): item for item in latest}


def _show(
    kind: Kind,
    items: tuple[JsonObject, ...],
    output: TableOutput,
    *,
    namespaced: bool,
    one: bool = False,
    header: bool = True,
) -> None:
    document = items[0] if one and len(items) == 1 else {"items": items}
    match output:
        case TableOutput.JSON:
            terminal.as_json(document)
        case TableOutput.YAML:
            terminal.as_yaml(document)
        case TableOutput.TABLE | TableOutput.WIDE:
            titles, lines = tables.rows(
                kind,
                items,
                wide=output is TableOutput.WIDE,
                namespaced=namespaced,
                now=datetime.now(UTC),
            )
            terminal.table(titles, lines, header=header)


def _event(value: str) -> str:
    try:
        orjson.loads(value or "null")
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"not JSON: {error}") from None
    return value


def _script(value: str) -> str:
    # One part of a URL: what is not a name could be a path.
    if len(value) > 253 or not _NAME.fullmatch(value):
        raise typer.BadParameter(f"{value!r} is not the name of a Script")
    return value


ScriptName = Annotated[
    str, typer.Argument(metavar="SCRIPT", callback=_script, help="Name of the Script.")
]


def trigger(
    script: ScriptName,
    *,
    event: Annotated[
        str, typer.Option(metavar="JSON", callback=_event, help="Handed to the script's main().")
    ] = "",
    namespace: options.Namespace = "default",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the outcome; exit with 1 unless it is good.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Longest wait of --wait.")
    ] = 30.0,
    output: options.Output = options.TextOutput.TEXT,
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Run a Script once, now."""
    client = Client(controller, token=token)
    run_id = client.trigger(ObjectKey(namespace, script), event.encode())
    if not wait:
        if output is options.TextOutput.JSON:
            terminal.as_json({"id": run_id, "script": {"namespace": namespace, "name": script}})
        else:
            terminal.line(f"run {run_id} of {namespace}/{script} is queued")
        return
    run = _await_run(client, run_id, timeout)
    if output is options.TextOutput.JSON:
        terminal.as_json(run)
    else:
        _tell(run)
    if run.get("outcome") != "Succeeded":
        raise typer.Exit(ExitCode.FINDINGS)


def _await_run(client: Client, run_id: str, timeout: float) -> JsonObject:
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while (run := _finished(client, run_id)) is None:
        if time.monotonic() > deadline:
            raise terminal.fail(
                f"run {run_id} did not finish in {timeout:g} s; see scriptops get runs {run_id}"
            )
        pause.wait(_WAIT_SECONDS)
    return run


def _finished(client: Client, run_id: str) -> JsonObject | None:
    try:
        return client.run(run_id)
    except Stalled as refusal:
        # Who may trigger need not be one who may look, and has to know that it was triggered.
        raise terminal.fail(f"run {run_id} is queued, but {refusal}") from None


def _tell(run: JsonObject) -> None:
    titles, lines = tables.rows(
        Kind.RUNS, (run,), wide=False, namespaced=False, now=datetime.now(UTC)
    )
    terminal.table(titles, lines)
    if message := text(run.get("message")):
        terminal.line(f"message: {message}")
    for entry in map(mapping, sequence(run.get("logs"))):
        terminal.line(f"{text(entry.get('level'))}: {text(entry.get('text'))}")
