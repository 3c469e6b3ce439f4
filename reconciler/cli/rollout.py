"""`rollout`: where the rollout of a Script is, and the four things to do to it."""

from __future__ import annotations

import threading
import time
from typing import Annotated, Final

import typer

from reconciler.cli import options, terminal
from reconciler.cli.asking import ScriptName
from reconciler.cli.client import Client
from reconciler.cli.reports import counted
from reconciler.cli.terminal import ExitCode
from reconciler.core.objects import Json, JsonObject, ObjectKey, mapping, sequence, text
from reconciler.core.rollouts import Action, Phase

# A person's patience between a step and its line.
_LOOK_SECONDS: Final = 0.25

app = typer.Typer(
    help="See and steer the rollout of a Script.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def status(
    script: ScriptName,
    *,
    namespace: options.Namespace = "default",
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Until it is over; exit with 1 unless the new version runs."),
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Longest wait of --wait.")
    ] = 600.0,
    output: options.Output = options.TextOutput.TEXT,
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Show where a rollout is, how the new version does, and what can be returned to."""
    client, key = Client(controller, token=token), ObjectKey(namespace, script)
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    found = _found(client, key)
    while wait and not _is_over(found):
        if time.monotonic() > deadline:
            raise terminal.fail(f"the rollout of {key} is not over in {timeout:g} s")
        pause.wait(_LOOK_SECONDS)
        found = _found(client, key)
    rollout = mapping(mapping(found.get("status")).get("rollout"))
    if output is options.TextOutput.JSON:
        terminal.as_json(rollout)
    else:
        _tell(found, rollout)
    if wait and rollout.get("phase") == Phase.DEGRADED.value:
        raise typer.Exit(ExitCode.FINDINGS)


@app.command()
def promote(
    script: ScriptName,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="All that is left of it, not only this step.")
    ] = False,
    namespace: options.Namespace = "default",
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """End the step it is in. A version that was given up is tried again."""
    action = Action.PROMOTE_FULL if full else Action.PROMOTE
    _ask(Client(controller, token=token), ObjectKey(namespace, script), action, "promoted")


@app.command()
def abort(
    script: ScriptName,
    *,
    namespace: options.Namespace = "default",
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Give the new version up; the one before has all runs again."""
    _ask(Client(controller, token=token), ObjectKey(namespace, script), Action.ABORT, "aborted")


@app.command()
def undo(
    script: ScriptName,
    *,
    to_revision: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="A kept one. Default: the one before."),
    ] = None,
    namespace: options.Namespace = "default",
    controller: options.Controller = options.CONTROLLER,
    token: options.Token = "",
) -> None:
    """Return to a kept version until the manifest changes, or it is promoted."""
    _ask(
        Client(controller, token=token),
        ObjectKey(namespace, script),
        Action.UNDO,
        "undone",
        to_revision,
    )


def _ask(
    client: Client, key: ObjectKey, action: Action, done: str, revision: int | None = None
) -> None:
    client.roll_out(key, action.value, revision)
    terminal.line(f"rollout of {key} is {done}")


def _found(client: Client, key: ObjectKey) -> JsonObject:
    items = client.items("scripts", namespace=key.namespace)
    for item in items:
        if mapping(item.get("metadata")).get("name") == key.name:
            if not mapping(item.get("status")).get("rollout"):
                raise terminal.fail(
                    f"Script {key} has no rollout; set spec.rollout or spec.revisionHistoryLimit"
                )
            return item
    raise terminal.fail(f"there is no Script {key}")


def _is_over(item: JsonObject) -> bool:
    """Also only when the spec as it stands now was looked at."""
    state = mapping(item.get("status"))
    generation = mapping(item.get("metadata")).get("generation")
    phase = mapping(state.get("rollout")).get("phase")
    is_seen = state.get("observedGeneration") == generation
    return is_seen and phase in {Phase.HEALTHY.value, Phase.DEGRADED.value}


def _tell(item: JsonObject, rollout: JsonObject) -> None:
    conditions = map(mapping, sequence(mapping(item.get("status")).get("conditions")))
    progressing = next((c for c in conditions if c.get("type") == "Progressing"), {})
    terminal.line(f"{text(rollout.get('phase'))}: {text(progressing.get('message'))}")
    if _number(rollout.get("runs")):
        counts = [f"{counted(_number(rollout.get('runs')), 'run')} of the new version"]
        for name, word in (("failed", "failed"), ("crashed", "crashed"), ("differing", "differed")):
            if count := _number(rollout.get(name)):
                counts.append(f"{count} {word}")
        terminal.line(", ".join(counts))
    for difference in map(mapping, sequence(rollout.get("differences"))):
        terminal.line(f"run {text(difference.get('run'))} differed")
        for sign, name in (("-", "stable"), ("+", "shadow")):
            for entry in sequence(difference.get(name)):
                terminal.line(f"  {sign} {text(entry)}")
    lines = [
        (
            str(_number(kept.get("revision"))),
            text(kept.get("version")),
            _manifest(kept),
            text(kept.get("deployedAt")),
        )
        for kept in map(mapping, sequence(rollout.get("versions")))
    ]
    terminal.table(("REVISION", "VERSION", "ARTIFACT", "DEPLOYED"), lines)


def _manifest(kept: JsonObject) -> str:
    manifest = mapping(mapping(kept.get("spec")).get("manifest"))
    return f"{text(manifest.get('name'))} {text(manifest.get('version'))}"


def _number(value: Json) -> int:
    return value if isinstance(value, int) else 0
