"""What every verb runs in, and the one place where errors become words and exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, NoReturn

import typer

from reconciler.cli import options, terminal
from reconciler.cli.terminal import ExitCode
from reconciler.errors import ScriptOpsError


def new() -> typer.Typer:
    """A command line without verbs."""
    app = typer.Typer(
        name="scriptops",
        help="Deploys device rules from git, runs them when devices change, reports back to git.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    return app


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (of this process, unless given) and exit as `ExitCode` says."""
    try:
        app(arguments, prog_name=_called())
    except ScriptOpsError as error:
        terminal.line(f"error: {error}", stderr=True)
        sys.exit(ExitCode.ERROR)
    except Exception:  # noqa: BLE001 - a bug of ours must not look like a finding
        traceback.print_exc()
        sys.exit(ExitCode.ERROR)
    sys.exit(ExitCode.CLEAN)


def _called() -> str:
    """As a user writes it, for usage lines."""
    name = PurePath(sys.argv[0]).stem
    return "kubectl scriptops" if name == "kubectl-scriptops" else "scriptops"


def _version(value: bool) -> None:  # noqa: FBT001 - typer's signature of a callback
    if value:
        from reconciler.cli import starting  # noqa: PLC0415 - no verb needs it

        starting.show_version(options.TextOutput.TEXT)
        raise typer.Exit


def _root(
    *,
    _show_version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show versions and exit."),
    ] = False,
) -> None:
    pass
