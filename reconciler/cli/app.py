"""All verbs together, and the one place where errors become words and exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from reconciler.cli import (
    asking,
    building,
    checking,
    commanding,
    diffing,
    options,
    replaying,
    returning,
    rollout,
    running,
    serving,
    starting,
    terminal,
    testing,
    validating,
)
from reconciler.cli.terminal import ExitCode
from reconciler.errors import ScriptOpsError

app = typer.Typer(
    name="scriptops",
    help="Deploys device rules from git, runs them when devices change, reports back to git.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb in (
    serving.demo,
    starting.init,
    validating.validate,
    diffing.diff,
    building.build,
    serving.up,
    asking.get,
    asking.trigger,
    commanding.reconcile,
    commanding.suspend,
    commanding.resume,
    commanding.approve,
    returning.history,
    returning.rollback,
    checking.plan,
    serving.controller,
):
    app.command()(verb)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    serving.executor
)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    serving.doctor
)
app.command()(running.run)
app.command("test")(testing.run_tests)
app.command()(replaying.replay)
app.add_typer(rollout.app, name="rollout")
app.command("recordings")(replaying.recordings_verb)
app.command()(starting.version)


def _version(value: bool) -> None:  # noqa: FBT001 - typer's signature of a callback
    if value:
        starting.show_version(options.TextOutput.TEXT)
        raise typer.Exit


@app.callback()
def _root(
    *,
    _show_version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show versions and exit."),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (of this process, unless given) and exit as `ExitCode` says."""
    try:
        app(arguments, prog_name="scriptops")
    except ScriptOpsError as error:
        terminal.line(f"error: {error}", stderr=True)
        sys.exit(ExitCode.ERROR)
    except Exception:  # noqa: BLE001 - a bug of ours must not look like a finding
        traceback.print_exc()
        sys.exit(ExitCode.ERROR)
    sys.exit(ExitCode.CLEAN)
